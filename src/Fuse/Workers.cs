namespace Veneer.Fuse;

/// <summary>The threads that serve, in crews, one for each place that requests come from.</summary>
/// <remarks>
/// A handler that is about to block for long (a big copy-up, an fsync) says so with <see cref="BeginBlocking"/>, and
/// another thread of its crew takes its place.
/// </remarks>
public sealed class Workers : IDisposable
{
    private readonly List<Crew> crews = []; // complete before the first thread starts
    private bool stopped;

    /// <summary>How many threads exist.</summary>
    public int Count => crews.Sum(crew => crew.Count);

    internal void Add(Crew crew) => crews.Add(crew);

    internal void Start() => crews.ForEach(crew => crew.Start());

    /// <summary>This thread may not take requests for a while.</summary>
    public void BeginBlocking() => Crew.Current?.BeginBlocking();

    /// <summary>The end of what <see cref="BeginBlocking"/> began.</summary>
    public void EndBlocking() => Crew.Current?.EndBlocking();

    /// <summary>The connection has ended: no thread sleeps any more.</summary>
    internal void Stop()
    {
        if (!Interlocked.Exchange(ref stopped, true)) { crews.ForEach(crew => crew.Stop()); }
    }

    internal void Join() => crews.ForEach(crew => crew.Join());

    /// <inheritdoc/>
    public void Dispose() => crews.ForEach(crew => crew.Dispose());
}
