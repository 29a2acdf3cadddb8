namespace Veneer.Fuse.Tests;

/// <summary>How many readers there are for how many callers.</summary>
public sealed class CallersTests : IDisposable
{
    private readonly Crew crew = new(2, parks: true, static _ => null, static _ => { });

    public void Dispose() => crew.Dispose();

    private bool After(int requests, params uint[] callersInTurn)
    {
        var callers = new Callers(crew);
        for (int i = 0; i < requests; i++) { callers.Saw(callersInTurn[i % callersInTurn.Length]); }
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
        var mine = new Callers(crew);
        var others = new Callers(crew);
        for (int i = 0; i < 32; i++)
        {
            mine.Saw(1);
            others.Saw(2);
        }
        Assert.False(mine.AreOne);
        Assert.False(others.AreOne);
    }
}
