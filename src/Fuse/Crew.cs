using Veneer.Fuse.Locking;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>Threads that take their requests from one place: a fixed number is ready, however many are busy with long work.</summary>
internal sealed class Crew : IDisposable
{
    /// <summary>So many threads at most. When all of them take long, requests wait for one of them.</summary>
    public const int MaxThreads = 1024;

    /// <summary>So many threads at most are made ready at once, when many have stalled.</summary>
    private const int MaxBurst = 64;

    private readonly OrderedLock gate = new(FuseLocks.Workers);
    private readonly SemaphoreSlim parked = new(0);
    private int wantedForMany; // with the gate held
    private readonly bool parks;
    private readonly Func<ulong, Exchange?> open;
    private readonly Func<Exchange, bool> serve;
    private readonly List<Thread> threads = []; // only grows
    private readonly List<Worker> workers = []; // theirs
    private int wanted;
    private int burst; // so many are ready until the next look, at least
    private int ready;
    private int sleeping;
    private bool stopping;

    /// <param name="wanted">So many threads are ready, unless there is only one caller.</param>
    /// <param name="parks">
    /// Whether surplus threads sleep. Each that waits on the device is another CPU that the kernel may wake; on a ring
    /// they cost nothing, since the kernel takes the entry that it saw last, and one that sleeps would keep its entry.
    /// </param>
    /// <param name="open">
    /// What a new thread talks to the kernel with; null: it cannot. It is told which inode the request is about that the
    /// thread was started for, or 0.
    /// </param>
    /// <param name="serve">What a thread does until the connection ends; false: it could not begin to.</param>
    public Crew(int wanted, bool parks, Func<ulong, Exchange?> open, Func<Exchange, bool> serve)
    {
        this.wanted = wantedForMany = wanted;
        this.parks = parks;
        this.open = open;
        this.serve = serve;
    }

    /// <summary>The crew of the calling thread.</summary>
    public static Crew? Current => Worker.Current?.Crew;

    /// <summary>Who made the last request that any of the threads has taken.</summary>
    /// <remarks>Written by all of them without a lock: it only has to be right most of the time.</remarks>
    public uint LastCaller { get; set; }

    /// <summary>How many threads exist.</summary>
    public int Count { get { using (gate.Enter()) { return threads.Count; } } }

    /// <summary>How many threads serve a request at the moment.</summary>
    public int Busy { get { using (gate.Enter()) { return workers.Count(worker => worker.Interruption.Unique != 0); } } }

    public void Start()
    {
        using (gate.Enter())
        {
            for (int i = 0; i < wanted; i++) { AddLocked(new Worker(this), 0); }
        }
    }

    /// <remarks>Caller holds <see cref="gate"/>.</remarks>
    private void AddLocked(Worker worker, ulong cause)
    {
        var thread = new Thread(() => Run(worker, cause), maxStackSize: 512 * 1024) { IsBackground = true, Name = "fuse" };
        thread.Start();
        threads.Add(thread);
        workers.Add(worker);
        ready++;
    }

    private void Run(Worker worker, ulong cause)
    {
        worker.Enter();
        using Exchange? exchange = open(cause);
        using (gate.Enter()) { worker.Exchange = exchange; }
        bool hasServed = exchange is not null && serve(exchange);
        using (gate.Enter()) { worker.Exchange = null; }
        if (hasServed) { return; }
        using (gate.Enter()) // it stays in the list: the bound is also one for trying in vain
        {
            ready--;
            WakeLocked(); // whoever went to sleep for its sake
        }
    }

    /// <summary>The calling thread takes long from here on.</summary>
    public void BeginBlocking()
    {
        using (gate.Enter()) { ReplaceLocked(Worker.Current!); }
    }

    /// <summary>The calling thread takes requests again, or will soon.</summary>
    public void EndBlocking()
    {
        using (gate.Enter())
        {
            if (Worker.Current!.IsReplaced) { ready++; }
            Worker.Current.IsReplaced = false;
        }
    }

    /// <summary>Has others take the requests of threads that have served the same one since the last call.</summary>
    /// <returns>Whether any request has begun or ended since.</returns>
    public bool ReplaceStalled()
    {
        bool isBusy = false;
        int replaced = 0;
        using (gate.Enter())
        {
            for (int i = 0; i < workers.Count; i++) // replacing adds to them
            {
                Worker worker = workers[i];
                ulong request = worker.Interruption.Unique;
                int begun = worker.Begun;
                if (request != worker.Seen || begun != worker.SeenBegun) { isBusy = true; }
                else if (request != 0)
                {
                    if (!worker.IsReplaced) { replaced++; }
                    ReplaceLocked(worker);
                    isBusy |= MayBeKilledLocked(worker, request);
                }
                worker.Seen = request;
                worker.SeenBegun = begun;
            }
            // Many wait for the same, and those who wait for something else are behind them: twice as many are ready each time.
            burst = parks ? Math.Min(2 * replaced, MaxBurst) : 0;
            while (!stopping && ready < burst && AddReadyLocked(0)) { }
        }
        return isBusy;
    }

    /// <inheritdoc cref="Workers.AnswerAll"/>
    public void AnswerAll(Errno error, HashSet<ulong> left)
    {
        using (gate.Enter())
        {
            foreach (Worker worker in workers)
            {
                ulong request = worker.Interruption.Unique;
                if (request == 0 || ReferenceEquals(worker, Worker.Current) || worker.Interruption.ExpectsClosing) { continue; }
                worker.Answered = request;
                if (worker.Exchange?.AnswerFor(request, error) != true) { left.Add(worker.NodeId); }
            }
        }
    }

    /// <summary>Lets a caller go that was killed while a thread does not come back, as from a lower layer that does not answer.</summary>
    /// <returns>Whether that is to be looked at again: the kernel tells of the first signal only, and that was not the deadly one.</returns>
    /// <remarks>Caller holds <see cref="gate"/>.</remarks>
    private static bool MayBeKilledLocked(Worker worker, ulong request)
    {
        if (!worker.OnlyReads || worker.Caller == 0 || worker.Answered == request || !worker.Interruption.IsRaised) { return false; }
        if (!CallerStatus.WasKilled(worker.Caller)) { return true; }
        worker.Answered = request;
        _ = worker.Exchange?.AnswerFor(request, Errno.EINTR); // best effort: over a ring he waits
        return false;
    }

    /// <remarks>
    /// Caller holds <see cref="gate"/>. Whoever replaces another thread may come too late, so that one is replaced that
    /// has nothing to do: it counts itself again after its next request.
    /// </remarks>
    private void ReplaceLocked(Worker worker)
    {
        if (worker.IsReplaced) { return; }
        worker.IsReplaced = true;
        ready--;
        if (!stopping && ready < wanted) { _ = AddReadyLocked(worker.NodeId); } // best effort: requests wait for one of those that there are
    }

    /// <summary>Wakes a thread, or starts one.</summary>
    /// <param name="cause">The inode of the request that it is for, or 0.</param>
    /// <returns>False when there are as many as there may be, or the system gives no more.</returns>
    /// <remarks>Caller holds <see cref="gate"/>.</remarks>
    private bool AddReadyLocked(ulong cause)
    {
        if (sleeping > 0)
        {
            sleeping--;
            ready++;
            parked.Release();
            return true;
        }
        if (threads.Count >= MaxThreads) { return false; }
        try
        {
            AddLocked(new Worker(this, isExtra: true), cause);
            return true;
        }
        catch (OutOfMemoryException)
        {
            return false;
        }
    }

    /// <summary>Whether all requests come from one caller, which waits for each: then one of us is enough, and faster.</summary>
    public void ExpectOneCaller(bool isOne)
    {
        int now = isOne ? 1 : Volatile.Read(ref wantedForMany);
        if (Volatile.Read(ref wanted) == now) { return; }
        using (gate.Enter())
        {
            wanted = now;
            WakeLocked();
        }
    }

    /// <summary>More threads are to be ready than was said at first.</summary>
    public void Widen(int count)
    {
        using (gate.Enter())
        {
            wanted = wantedForMany = Math.Max(count, wantedForMany);
            while (!stopping && ready < wanted) { AddLocked(new Worker(this), 0); }
        }
    }

    /// <remarks>Caller holds <see cref="gate"/>.</remarks>
    private void WakeLocked()
    {
        while (ready < wanted && sleeping > 0)
        {
            sleeping--;
            ready++;
            parked.Release();
        }
    }

    /// <summary>Between two requests: sleeps while there are more threads ready than wanted.</summary>
    public void Yield()
    {
        if (!parks || Volatile.Read(ref ready) <= Volatile.Read(ref wanted)) { return; }
        using (gate.Enter())
        {
            if (stopping || ready <= Math.Max(wanted, burst)) { return; }
            ready--;
            sleeping++;
        }
        parked.Wait();
    }

    /// <summary>The connection has ended: no thread sleeps any more.</summary>
    public void Stop()
    {
        using (gate.Enter())
        {
            if (stopping) { return; }
            stopping = true;
            parked.Release(sleeping + 1);
            sleeping = 0;
        }
    }

    public void Join()
    {
        // One thread may have started another before it left.
        for (int i = 0; ; i++)
        {
            Thread thread;
            using (gate.Enter())
            {
                if (i == threads.Count) { return; }
                thread = threads[i];
            }
            thread.Join();
        }
    }

    public void Dispose() => parked.Dispose();
}
