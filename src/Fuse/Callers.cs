namespace Veneer.Fuse;

/// <summary>Whether requests come from one thread at a time, which waits for each answer, or from several.</summary>
/// <param name="crew">The threads that take the requests: each sees only some of them.</param>
internal sealed class Callers(Crew crew)
{
    /// <summary>Requests after which to judge anew.</summary>
    private const int Period = 32;

    private int seen;
    private int changes;

    /// <summary>Whether the caller has hardly changed among the last requests. At first it has.</summary>
    public bool AreOne { get; private set; }

    /// <summary>A request has come from this thread; 0 is one that nobody waits for, and does not count.</summary>
    public void Saw(uint thread)
    {
        if (thread == 0) { return; }
        if (crew.LastCaller != thread)
        {
            crew.LastCaller = thread;
            changes++;
        }
        if (++seen < Period) { return; }

        AreOne = changes <= Period / 4;
        seen = changes = 0;
        crew.ExpectOneCaller(AreOne);
    }
}
