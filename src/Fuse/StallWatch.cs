namespace Veneer.Fuse;

/// <summary>
/// Notices requests that take unexpectedly long, and has other threads take the requests after them. Also notices when
/// there are no requests.
/// </summary>
/// <remarks>
/// A request may take long for a slow disk, a server that does not answer, a directory with a million entries, or the last
/// close of a large file. A pool is small, so the next requests would wait as well. The watch looks every few milliseconds
/// while there are requests, and sleeps while there are none.
/// </remarks>
/// <param name="pools">The pools whose threads to look at.</param>
/// <param name="interval">The time between looks. A request that is seen twice has taken that long.</param>
/// <param name="rest">
/// Called before the watch sleeps, and now and then while it cannot. The argument tells whether no requests come.
/// </param>
internal sealed class StallWatch(List<WorkerPool> pools, TimeSpan interval, Action<bool> rest) : IDisposable
{
    /// <summary>The number of looks without news after which the watch sleeps.</summary>
    private const int LooksUntilSleep = 10;

    /// <summary>The number of looks after which to tidy up, although requests still come.</summary>
    private const int LooksUntilRest = 400;

    private readonly AutoResetEvent wake = new(false);
    private int sleeps = 1;
    private volatile bool stopping;
    private Thread? thread;

    public void Start()
    {
        thread = new Thread(Run, maxStackSize: 256 * 1024) { IsBackground = true, Name = "fuse-watch" };
        thread.Start();
    }

    /// <summary>Wakes the watch, since a request has begun. Costs almost nothing while the watch is awake.</summary>
    public void Wake()
    {
        if (Volatile.Read(ref sleeps) != 0 && Interlocked.Exchange(ref sleeps, 0) != 0) { wake.Set(); }
    }

    /// <summary>Has the watch's thread end soon.</summary>
    public void Stop()
    {
        if (stopping) { return; }
        stopping = true;
        wake.Set();
    }

    private void Run()
    {
        while (true)
        {
            wake.WaitOne();
            int looks = 0;
            for (int quiet = 0; quiet < LooksUntilSleep && !stopping; quiet++)
            {
                wake.WaitOne(interval); // only Stop() wakes it here
                if (Look()) { quiet = 0; }
                if (++looks % LooksUntilRest == 0) { rest(false); }
            }
            if (stopping) { return; }
            rest(true);
            Interlocked.Exchange(ref sleeps, 1);
            if (Look()) { Wake(); } // a request began while the watch was going to sleep
        }
    }

    /// <returns>Whether any request has begun or ended since the last look.</returns>
    private bool Look()
    {
        bool isBusy = false;
        foreach (WorkerPool pool in pools) { isBusy |= pool.ReplaceStalled(); }
        return isBusy;
    }

    public void Dispose()
    {
        Stop();
        thread?.Join();
        wake.Dispose();
    }
}
