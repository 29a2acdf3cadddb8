using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>The threads that serve, in crews, one for each place that requests come from.</summary>
/// <remarks>
/// A handler that is about to block for long (a big copy-up, an fsync) says so with <see cref="BeginBlocking"/>, and
/// another thread of its crew takes its place. Where a handler blocks unexpectedly, that is noticed a little later.
/// </remarks>
public sealed class Workers : IDisposable
{
    private readonly List<Crew> crews = []; // complete before the first thread starts
    private readonly StallWatch watch;
    private bool stopped;
    private bool disposed;

    internal Workers(TimeSpan stallInterval, Action<bool> rest) => watch = new StallWatch(crews, stallInterval, rest);

    /// <summary>How many threads exist.</summary>
    public int Count => crews.Sum(crew => crew.Count);

    /// <summary>How many requests are being served at the moment.</summary>
    public int Busy => crews.Sum(crew => crew.Busy);

    internal void Add(Crew crew) => crews.Add(crew);

    /// <summary>All requests come by the device after all: its crew is the first.</summary>
    internal void WidenFirst(int count) => crews[0].Widen(count);

    internal void Start()
    {
        crews.ForEach(crew => crew.Start());
        watch.Start();
    }

    /// <summary>A request begins: if it takes long, that will be noticed.</summary>
    internal void Watch() => watch.Wake();

    /// <summary>This thread may not take requests for a while.</summary>
    public void BeginBlocking() => Crew.Current?.BeginBlocking();

    /// <summary>The end of what <see cref="BeginBlocking"/> began.</summary>
    public void EndBlocking() => Crew.Current?.EndBlocking();

    /// <summary>Answers the requests that other threads still serve, which do not come back. What they answer later finds nobody.</summary>
    /// <returns>The inodes of those that had to be left unanswered, since they came over a ring: the kernel waits for them.</returns>
    public HashSet<ulong> AnswerAll(Errno error)
    {
        var left = new HashSet<ulong>();
        crews.ForEach(crew => crew.AnswerAll(error, left));
        return left;
    }

    /// <summary>The connection has ended: no thread sleeps any more.</summary>
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
