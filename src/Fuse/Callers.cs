namespace Veneer.Fuse;

/// <summary>Judges whether requests come from one thread, which waits for each answer, or from several.</summary>
/// <param name="pool">The threads that take the requests; each of them sees only some requests.</param>
internal sealed class Callers(WorkerPool pool)
{
    /// <summary>The number of requests from one judgement to the next.</summary>
    private const int Period = 32;

    private int seen;
    private int changes;

    /// <summary>Whether the caller has hardly changed during the last requests. False at first.</summary>
    public bool AreOne { get; private set; }

    /// <summary>Counts a request of a thread. Thread 0, for which nobody waits, does not count.</summary>
    public void CountRequest(uint thread)
    {
        if (thread == 0) { return; }
        if (pool.LastCaller != thread)
        {
            pool.LastCaller = thread;
            changes++;
        }
        if (++seen < Period) { return; }

        AreOne = changes <= Period / 4;
        seen = changes = 0;
        pool.ExpectOneCaller(AreOne);
    }
}
