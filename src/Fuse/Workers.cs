using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>The threads that serve, in pools: one pool for each place that requests come from.</summary>
/// <remarks>
/// A handler that is about to block for long (a big copy-up, an fsync) calls <see cref="BeginBlocking"/>, and another
/// thread of its pool takes its place. A handler that blocks unexpectedly is noticed a little later.
/// </remarks>
public sealed class Workers : IDisposable
{
    private readonly List<WorkerPool> pools = []; // complete before the first thread starts
    private readonly StallWatch watch;
    private bool stopped;
    private bool disposed;

    internal Workers(TimeSpan stallInterval, Action<bool> rest) => watch = new StallWatch(pools, stallInterval, rest);

    /// <summary>The number of threads.</summary>
    public int Count => pools.Sum(pool => pool.Count);

    /// <summary>The number of requests being served.</summary>
    public int Busy => pools.Sum(pool => pool.Busy);

    internal void Add(WorkerPool pool) => pools.Add(pool);

    /// <summary>Adds threads to the first pool, that of the device, since all requests come by it after all.</summary>
    internal void AddDeviceThreads(int count) => pools[0].Widen(count);

    internal void Start()
    {
        pools.ForEach(pool => pool.Start());
        watch.Start();
    }

    /// <summary>Has the new request watched, in case that it takes long.</summary>
    internal void Watch() => watch.Wake();

    /// <summary>The calling thread will be busy for long. Another thread takes its requests.</summary>
    public void BeginBlocking() => WorkerPool.Current?.BeginBlocking();

    /// <summary>Ends what <see cref="BeginBlocking"/> began.</summary>
    public void EndBlocking() => WorkerPool.Current?.EndBlocking();

    /// <summary>
    /// Answers the requests that other threads serve and do not come back from. The threads' own answers then find nobody.
    /// </summary>
    /// <returns>The inodes of requests that came over a ring and so had to be left unanswered: the kernel waits for them.</returns>
    public HashSet<ulong> AnswerAll(Errno error)
    {
        var left = new HashSet<ulong>();
        pools.ForEach(pool => pool.AnswerAll(error, left));
        return left;
    }

    /// <inheritdoc cref="AnsweredRequests.TryDefer"/>
    internal bool TryDefer(in Ending ending)
    {
        foreach (WorkerPool pool in pools)
        {
            if (pool.TryDefer(ending)) { return true; }
        }
        return false;
    }

    /// <summary>The connection has ended: wakes all sleeping threads for good.</summary>
    internal void Stop()
    {
        if (!Interlocked.Exchange(ref stopped, true))
        {
            pools.ForEach(pool => pool.Stop());
            watch.Stop();
        }
    }

    internal void Join() => pools.ForEach(pool => pool.Join());

    /// <inheritdoc/>
    public void Dispose()
    {
        if (disposed) { return; }
        disposed = true;
        pools.ForEach(pool => pool.Dispose());
        watch.Dispose();
    }
}
