using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Durability;

/// <summary>How far a sync is, and what it could not sync. One thread syncs; others may read meanwhile.</summary>
internal sealed class SyncProgress
{
    private readonly List<SyncFailure> failures = []; // also its own lock
    private long total;
    private long done;
    private long failed;

    /// <summary>The number of files and directories to sync; 0 while they are being counted.</summary>
    public long Total => Volatile.Read(ref total);

    /// <summary>The number of them that were synced, with or without success.</summary>
    public long Done => Volatile.Read(ref done);

    /// <summary>The number of them that could not be synced.</summary>
    public long Failed => Volatile.Read(ref failed);

    /// <summary>The first failures, up to <see cref="UpperSync.MaxFailures"/>.</summary>
    public IReadOnlyList<SyncFailure> Failures
    {
        get
        {
            using (ObjectLock.Enter(failures, OverlayLocks.UpperSync)) { return [.. failures]; }
        }
    }

    /// <summary>The first error that means that data was lost. Valid once the sync is over.</summary>
    public Errno Loss { get; private set; }

    /// <summary>Adds objects that are to be synced.</summary>
    public void AddToTotal(long count) => Interlocked.Add(ref total, count);

    /// <summary>Counts an object that was synced, with or without success.</summary>
    public void AddDone() => Interlocked.Increment(ref done);

    /// <summary>Notes an error of a system call that means that data was lost.</summary>
    /// <returns>The result of the call, as it is.</returns>
    public Errno Note(Errno result)
    {
        if (!Loss.IsError && WritebackErrors.IsLoss(result)) { Loss = result; }
        return result;
    }

    /// <summary>Adds a failure to sync the object at a path.</summary>
    /// <param name="path">The path from upper; empty for upper itself.</param>
    /// <param name="error">The error.</param>
    public void Fail(string path, Errno error) => Fail(path, [], default, error);

    /// <summary>Adds a failure to sync an object that a walk came to.</summary>
    /// <param name="root">The path of the root of the walk, from upper; empty for upper itself.</param>
    /// <param name="directories">The names of the directories below the root of the walk.</param>
    /// <param name="name">The name in the last directory; empty for that directory itself.</param>
    /// <param name="error">The error.</param>
    public void Fail(string root, IEnumerable<byte[]> directories, ReadOnlySpan<byte> name, Errno error)
    {
        Interlocked.Increment(ref failed);
        using (ObjectLock.Enter(failures, OverlayLocks.UpperSync))
        {
            if (failures.Count >= UpperSync.MaxFailures) { return; }
            var path = new List<string>(directories.Select(directory => PathText.Decode(directory)));
            if (root.Length > 0) { path.Insert(0, root); }
            if (name.Length > 0) { path.Add(PathText.Decode(name)); }
            failures.Add(new SyncFailure(string.Join('/', path), error));
        }
    }
}
