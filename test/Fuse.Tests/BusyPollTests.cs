namespace Veneer.Fuse.Tests;

/// <summary>When the threads of the rings stay awake.</summary>
public sealed class BusyPollTests
{
    private const int Term = 64 * 32; // requests for which a judgement holds

    private readonly BusyPoll busyPoll = new();

    private void Requests(int count, Func<int, (uint Thread, int Cpu)> from)
    {
        for (int i = 0; i < count; i++)
        {
            (uint thread, int cpu) = from(i);
            busyPoll.CountRequest(thread, cpu);
        }
    }

    private void Moved(int count) => Requests(count, i => (7, i % 2));

    private void Staying(int count) => Requests(count, _ => (7, 0));

    [Fact]
    public void One_caller_that_is_moved_about_keeps_them_awake()
    {
        Assert.False(busyPoll.TryEnter());
        Moved(32);
        Assert.True(busyPoll.TryEnter());
    }

    [Fact]
    public void One_that_stays_does_not()
    {
        Staying(10_000);
        Assert.False(busyPoll.IsOn);
    }

    [Fact]
    public void Several_callers_on_their_own_processors_do_not()
    {
        Requests(10_000, i => (7U + (uint)(i % 2), i % 2));
        Assert.False(busyPoll.IsOn);
    }

    [Fact]
    public void It_ends_when_others_call_too()
    {
        Moved(32);
        Requests(32, i => (7U + (uint)(i % 2), i % 2));
        Assert.False(busyPoll.IsOn);
    }

    [Fact]
    public void Where_it_does_not_help_it_is_left_for_a_while()
    {
        Moved(32);
        Moved(32);
        Assert.False(busyPoll.IsOn);
        Moved(Term - 64);
        Assert.False(busyPoll.IsOn);
        Moved(64);
        Assert.True(busyPoll.IsOn);
    }

    [Fact]
    public void Where_it_helps_it_is_tried_now_and_then_whether_it_is_still_wanted()
    {
        Moved(32);
        Staying(Term - 32);
        Assert.True(busyPoll.IsOn);
        Staying(32);
        Assert.False(busyPoll.IsOn);
        Staying(Term);
        Assert.False(busyPoll.IsOn);
        Moved(32);
        Assert.True(busyPoll.IsOn);
    }

    [Fact]
    public void Requests_that_nobody_waits_for_move_nobody()
    {
        Requests(1000, i => (i % 2 == 0 ? 7U : 0, i % 2));
        Assert.False(busyPoll.IsOn);
    }

    [Fact]
    public void Only_so_many_stay_awake()
    {
        Moved(32);
        for (int i = 0; i < 2; i++) { Assert.True(busyPoll.TryEnter()); }
        Assert.False(busyPoll.TryEnter());
        busyPoll.Leave();
        Assert.True(busyPoll.TryEnter());
    }

    [Fact]
    public void It_is_over_a_moment_after_the_last_request()
    {
        Moved(32);
        long begin = System.Diagnostics.Stopwatch.GetTimestamp();
        while (!busyPoll.IsOver()) { }
        Assert.True(System.Diagnostics.Stopwatch.GetElapsedTime(begin) < TimeSpan.FromSeconds(5));
        Assert.True(busyPoll.IsOn);
    }
}
