using Veneer.Fuse.Locking;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>
/// The threads that take requests from one place. A fixed number of them is ready, however many are busy with long work.
/// </summary>
internal sealed class WorkerPool : IDisposable
{
    /// <summary>The most threads of a pool. When all of them are busy, requests wait.</summary>
    public const int MaxThreads = 1024;

    /// <summary>The most threads that are ready at once after many have stalled.</summary>
    private const int MaxBurst = 64;

    private readonly OrderedLock gate = new(FuseLocks.Workers);
    private readonly SemaphoreSlim parked = new(0);
    private int wantedForMany; // protected by gate
    private readonly bool parks;
    private readonly Func<ulong, Exchange?> open;
    private readonly Func<Exchange, bool> serve;
    private readonly List<Thread> threads = []; // never shrinks
    private readonly List<Worker> workers = []; // one for each thread
    private readonly AnsweredRequests answered = new();
    private int wanted;
    private int burst; // the least number of ready threads until the next look
    private int ready;
    private int sleeping;
    private bool stopping;

    /// <param name="wanted">How many threads are ready, unless there is only one caller.</param>
    /// <param name="parks">
    /// Whether surplus threads sleep. On the device, each waiting thread is another CPU that the kernel may wake. On a
    /// ring, waiting threads cost nothing, since the kernel takes the entry that it saw last; a sleeping thread would keep
    /// its entry.
    /// </param>
    /// <param name="open">
    /// Opens a new thread's exchange with the kernel, or returns null on failure. Its argument is the inode of the request
    /// that the thread was started for, or 0.
    /// </param>
    /// <param name="serve">Serves until the connection ends. False when the thread could not begin to serve.</param>
    public WorkerPool(int wanted, bool parks, Func<ulong, Exchange?> open, Func<Exchange, bool> serve)
    {
        this.wanted = wantedForMany = wanted;
        this.parks = parks;
        this.open = open;
        this.serve = serve;
    }

    /// <summary>The pool that the calling thread belongs to, or null.</summary>
    public static WorkerPool? Current => Worker.Current?.Pool;

    /// <summary>The thread that made the last request that any thread of the pool has taken.</summary>
    /// <remarks>All threads of the pool write it without a lock: it need be right only most of the time.</remarks>
    public uint LastCaller { get; set; }

    /// <summary>The number of threads.</summary>
    public int Count { get { using (gate.Enter()) { return threads.Count; } } }

    /// <summary>The number of threads that are serving a request.</summary>
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
        LockOrder.AssertHeld(FuseLocks.Workers);
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
        using (gate.Enter()) // the thread stays in the list, so that MaxThreads bounds failed attempts as well
        {
            ready--;
            WakeLocked(); // a thread that slept because of this one
        }
    }

    /// <summary>The calling thread will be busy for long. Another thread takes its place.</summary>
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

    /// <summary>Has other threads take the requests of threads that have served the same request since the last call.</summary>
    /// <returns>Whether any request has begun or ended since the last call.</returns>
    public bool ReplaceStalled()
    {
        bool isBusy = false;
        int replaced = 0;
        using (gate.Enter())
        {
            for (int i = 0; i < workers.Count; i++) // the list grows meanwhile
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
            // Many threads wait for the same thing, and other requests wait behind them. So twice as many are ready each
            // time.
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
                if (AnswerLocked(worker, request, error) == Errno.EOPNOTSUPP) { left.Add(worker.NodeId); }
            }
        }
    }

    /// <summary>Answers a killed caller whose thread does not come back, for instance from a lower layer that hangs.</summary>
    /// <returns>Whether to look again: the kernel reports only the first signal, and that one was not deadly.</returns>
    /// <remarks>Caller holds <see cref="gate"/>.</remarks>
    private bool MayBeKilledLocked(Worker worker, ulong request)
    {
        LockOrder.AssertHeld(FuseLocks.Workers);
        if (!worker.OnlyReads || worker.Caller == 0 || worker.Answered == request || !worker.Interruption.IsRaised) { return false; }
        if (!CallerStatus.WasKilled(worker.Caller)) { return true; }
        _ = AnswerLocked(worker, request, Errno.EINTR); // best effort: on a ring, the caller waits
        return false;
    }

    /// <summary>Answers a request in its thread's place.</summary>
    /// <remarks>
    /// Caller holds <see cref="gate"/>. The kernel takes one answer alone. If it takes this one, the thread has not yet answered: what
    /// the worker says of its request is true, and the thread will find <see cref="Worker.Answered"/> when it is done.
    /// </remarks>
    private Errno AnswerLocked(Worker worker, ulong request, Errno error)
    {
        LockOrder.AssertHeld(FuseLocks.Workers);
        worker.Answered = request;
        answered.Add(request, worker.NodeId, worker.Opcode);
        Errno sent = worker.Exchange?.AnswerFor(request, error) ?? Errno.EOPNOTSUPP;
        // Nothing was deferred meanwhile: that needs the gate.
        if (sent.IsError) { answered.Remove(request); }
        return sent;
    }

    /// <inheritdoc cref="AnsweredRequests.TryDefer"/>
    public bool TryDefer(in Ending ending)
    {
        if (!answered.Any) { return false; }
        using (gate.Enter()) { return answered.TryDefer(ending); }
    }

    /// <summary>The calling thread is done with a request that was answered in its place.</summary>
    /// <inheritdoc cref="AnsweredRequests.Remove" path="/returns"/>
    public List<Ending> EndAnswered(ulong request)
    {
        using (gate.Enter()) { return answered.Remove(request); }
    }

    /// <remarks>
    /// Caller holds <see cref="gate"/>. A thread may be replaced although it has just finished. It counts itself as ready
    /// again after its next request.
    /// </remarks>
    private void ReplaceLocked(Worker worker)
    {
        LockOrder.AssertHeld(FuseLocks.Workers);
        if (worker.IsReplaced) { return; }
        worker.IsReplaced = true;
        ready--;
        // best effort: otherwise requests wait for an existing thread
        if (!stopping && ready < wanted) { _ = AddReadyLocked(worker.NodeId); }
    }

    /// <summary>Wakes a sleeping thread, or starts a new one.</summary>
    /// <param name="cause">The inode of the request that the thread is for, or 0.</param>
    /// <returns>False at <see cref="MaxThreads"/>, or when the system gives no more threads.</returns>
    /// <remarks>Caller holds <see cref="gate"/>.</remarks>
    private bool AddReadyLocked(ulong cause)
    {
        LockOrder.AssertHeld(FuseLocks.Workers);
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

    /// <summary>
    /// Sets whether all requests come from one caller, which waits for each answer. One ready thread is enough then, and
    /// faster.
    /// </summary>
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

    /// <summary>Raises the number of threads that are ready.</summary>
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
        LockOrder.AssertHeld(FuseLocks.Workers);
        while (ready < wanted && sleeping > 0)
        {
            sleeping--;
            ready++;
            parked.Release();
        }
    }

    /// <summary>Called between two requests: sleeps while more threads are ready than wanted.</summary>
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

    /// <summary>The connection has ended: wakes all sleeping threads for good.</summary>
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
        // A thread may have started another one before it left.
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
