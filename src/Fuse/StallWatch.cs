namespace Veneer.Fuse;

/// <summary>Notices requests that take long though nobody has said so, and has another thread take the next ones; and when there are none.</summary>
/// <remarks>
/// A slow disk, a server that does not answer, a directory with a million entries, the last close of a large file: a
/// crew is small, and whoever comes next would wait as well. Looks every few milliseconds while there are requests, and
/// sleeps when there are none.
/// </remarks>
/// <param name="crews">Whose threads are looked at.</param>
/// <param name="interval">The time from look to look: a request that is seen twice has taken that long.</param>
/// <param name="rest">Called before it sleeps, and now and then while it cannot; told whether it is quiet.</param>
internal sealed class StallWatch(List<Crew> crews, TimeSpan interval, Action<bool> rest) : IDisposable
{
    /// <summary>After so many looks that saw nothing new, it sleeps.</summary>
    private const int Patience = 10;

    /// <summary>After so many looks it calls for a rest, although requests still come.</summary>
    private const int Endurance = 400;

    private readonly AutoResetEvent wake = new(false);
    private int sleeps = 1;
    private volatile bool stopping;
    private Thread? thread;

    public void Start()
    {
        thread = new Thread(Run, maxStackSize: 256 * 1024) { IsBackground = true, Name = "fuse-watch" };
        thread.Start();
    }

    /// <summary>A request has begun: costs nothing but while it sleeps.</summary>
    public void Wake()
    {
        if (Volatile.Read(ref sleeps) != 0 && Interlocked.Exchange(ref sleeps, 0) != 0) { wake.Set(); }
    }

    /// <summary>It leaves soon.</summary>
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
            for (int quiet = 0; quiet < Patience && !stopping; quiet++)
            {
                wake.WaitOne(interval); // nobody wakes it but to stop it
                if (Look()) { quiet = 0; }
                if (++looks % Endurance == 0) { rest(false); }
            }
            if (stopping) { return; }
            rest(true);
            Interlocked.Exchange(ref sleeps, 1);
            if (Look()) { Wake(); } // it began while we were going to sleep
        }
    }

    /// <returns>Whether anything has begun or ended since the last look.</returns>
    private bool Look()
    {
        bool isBusy = false;
        foreach (Crew crew in crews) { isBusy |= crew.ReplaceStalled(); }
        return isBusy;
    }

    public void Dispose()
    {
        Stop();
        thread?.Join();
        wake.Dispose();
    }
}
