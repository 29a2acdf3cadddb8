using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>How many readers there are for how many callers.</summary>
public sealed class CallersTests : IDisposable
{
    private readonly WorkerPool pool = new(2, parks: true, static _ => null, static _ => true);

    public void Dispose() => pool.Dispose();

    private bool After(int requests, params uint[] callersInTurn)
    {
        var callers = new Callers(pool);
        for (int i = 0; i < requests; i++) { callers.CountRequest(callersInTurn[i % callersInTurn.Length]); }
        return callers.AreOne;
    }

    [Fact]
    public void One_caller_is_known_after_some_requests()
    {
        Assert.False(After(31, 7));
        Assert.True(After(32, 7));
    }

    [Fact]
    public void Callers_in_turn_are_several() => Assert.False(After(320, 7, 8));

    [Fact]
    public void Callers_that_follow_each_other_are_one() => Assert.True(After(64, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2));

    [Fact]
    public void Requests_that_nobody_waits_for_do_not_count()
    {
        Assert.False(After(62, 0, 7));
        Assert.True(After(64, 0, 7));
    }

    [Fact]
    public void What_another_thread_takes_counts()
    {
        var mine = new Callers(pool);
        var others = new Callers(pool);
        for (int i = 0; i < 32; i++)
        {
            mine.CountRequest(1);
            others.CountRequest(2);
        }
        Assert.False(mine.AreOne);
        Assert.False(others.AreOne);
    }

    [Fact]
    public void Every_thread_that_slept_beside_one_caller_wakes_for_several()
    {
        const int threads = 4;
        using var ready = new SemaphoreSlim(0);
        using var awake = new SemaphoreSlim(0);
        using var device = new Device(new Fd(-1)); // nothing is read from it
        using var four = new WorkerPool(threads, parks: true,
            _ => new DeviceExchange(device, ownsDevice: false, Environment.SystemPageSize), _ =>
        {
            WorkerPool.Current!.ExpectOneCaller(true);
            ready.Release();
            WorkerPool.Current.Yield();
            awake.Release();
            return true;
        });
        four.Start();
        for (int i = 0; i < threads; i++) { Assert.True(ready.Wait(10_000)); }
        Assert.True(awake.Wait(10_000)); // one is wanted
        Assert.False(awake.Wait(50));

        four.ExpectOneCaller(false);

        for (int i = 1; i < threads; i++) { Assert.True(awake.Wait(10_000), $"Only {i} woke up"); }
        four.Join();
    }
}
