namespace Veneer.Fuse;

/// <summary>The threads that serve: a fixed number is ready for requests, however many are busy with long work.</summary>
/// <remarks>
/// Few threads are fastest, since each that waits on the device is another CPU that the kernel may wake. A handler that
/// is about to block for long (a big copy-up, an fsync) says so with <see cref="BeginBlocking"/>, and another thread
/// takes its place; when it is back, the surplus thread goes to sleep.
/// </remarks>
public sealed class Workers : IDisposable
{
    private const int MaxThreads = 256;

    private readonly Lock gate = new();
    private readonly SemaphoreSlim parked = new(0);
    private readonly int wanted;
    private readonly Action body;
    private readonly List<Thread> threads = []; // only grows
    private int ready;
    private int sleeping;
    private bool stopping;

    internal Workers(int wanted, Action body)
    {
        this.wanted = wanted;
        this.body = body;
    }

    /// <summary>How many threads exist.</summary>
    public int Count { get { lock (gate) { return threads.Count; } } }

    internal void Start()
    {
        lock (gate)
        {
            for (int i = 0; i < wanted; i++) { AddLocked(); }
        }
    }

    /// <remarks>Caller holds <see cref="gate"/>.</remarks>
    private void AddLocked()
    {
        var thread = new Thread(() => body(), maxStackSize: 512 * 1024) { IsBackground = true, Name = "fuse" };
        thread.Start();
        threads.Add(thread);
        ready++;
    }

    /// <summary>This thread may not read requests for a while.</summary>
    public void BeginBlocking()
    {
        lock (gate)
        {
            ready--;
            if (stopping || ready >= wanted) { return; }
            if (sleeping > 0)
            {
                sleeping--;
                ready++;
                parked.Release();
            }
            else if (threads.Count < MaxThreads)
            {
                try
                {
                    AddLocked();
                }
                catch (OutOfMemoryException)
                {
                    // The system gives us no more threads: requests wait for one of those that we have.
                }
            }
        }
    }

    /// <summary>The end of what <see cref="BeginBlocking"/> began.</summary>
    public void EndBlocking()
    {
        lock (gate) { ready++; }
    }

    /// <summary>Between two requests: sleeps while there are more threads ready than wanted.</summary>
    internal void Yield()
    {
        if (Volatile.Read(ref ready) <= wanted) { return; }
        lock (gate)
        {
            if (stopping || ready <= wanted) { return; }
            ready--;
            sleeping++;
        }
        parked.Wait();
    }

    /// <summary>The connection has ended: no thread sleeps any more.</summary>
    internal void Stop()
    {
        lock (gate)
        {
            if (stopping) { return; }
            stopping = true;
            parked.Release(sleeping + 1);
            sleeping = 0;
        }
    }

    internal void Join()
    {
        // One thread may have started another before it left.
        for (int i = 0; ; i++)
        {
            Thread thread;
            lock (gate)
            {
                if (i == threads.Count) { return; }
                thread = threads[i];
            }
            thread.Join();
        }
    }

    /// <inheritdoc/>
    public void Dispose() => parked.Dispose();
}
