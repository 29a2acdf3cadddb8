using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>The threads that serve, in crews: one crew for each place that requests come from.</summary>
/// <remarks>
/// A handler that is about to block for long (a big copy-up, an fsync) calls <see cref="BeginBlocking"/>, and another
/// thread of its crew takes its place. A handler that blocks unexpectedly is noticed a little later.
/// </remarks>
public sealed class Workers : IDisposable
{
    private readonly List<Crew> crews = []; // complete before the first thread starts
    private readonly StallWatch watch;
    private bool stopped;
    private bool disposed;

    internal Workers(TimeSpan stallInterval, Action<bool> rest) => watch = new StallWatch(crews, stallInterval, rest);

    /// <summary>The number of threads.</summary>
    public int Count => crews.Sum(crew => crew.Count);

    /// <summary>The number of requests being served.</summary>
    public int Busy => crews.Sum(crew => crew.Busy);

    internal void Add(Crew crew) => crews.Add(crew);

    /// <summary>Adds threads to the first crew, that of the device, since all requests come by it after all.</summary>
    internal void WidenFirst(int count) => crews[0].Widen(count);

    internal void Start()
    {
        crews.ForEach(crew => crew.Start());
        watch.Start();
    }

    /// <summary>Has the new request watched, in case that it takes long.</summary>
    internal void Watch() => watch.Wake();

    /// <summary>The calling thread will be busy for long. Another thread takes its requests.</summary>
    public void BeginBlocking() => Crew.Current?.BeginBlocking();

    /// <summary>Ends what <see cref="BeginBlocking"/> began.</summary>
    public void EndBlocking() => Crew.Current?.EndBlocking();

    /// <summary>
    /// Answers the requests that other threads serve and do not come back from. The threads' own answers then find nobody.
    /// </summary>
    /// <returns>The inodes of requests that came over a ring and so had to be left unanswered: the kernel waits for them.</returns>
    public HashSet<ulong> AnswerAll(Errno error)
    {
        var left = new HashSet<ulong>();
        crews.ForEach(crew => crew.AnswerAll(error, left));
        return left;
    }

    /// <summary>The connection has ended: wakes all sleeping threads for good.</summary>
    internal void Stop()
    {
        if (!Interlocked.Exchange(ref stopped, true))
        {
            crews.ForEach(crew => crew.Stop());
            watch.Stop();
        }
    }

    internal void Join() => crews.ForEach(crew => crew.Join());

    /// <inheritdoc/>
    public void Dispose()
    {
        if (disposed) { return; }
        disposed = true;
        crews.ForEach(crew => crew.Dispose());
        watch.Dispose();
    }
}
