using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Layers;

/// <summary>Keeps the descriptors of recently used directories, so that a name costs one system call at any depth.</summary>
/// <remarks>
/// The cache is bounded, since a process may open only so many files. Its lock is a leaf, and close(2) is the only system call
/// that is made under it.
/// </remarks>
internal sealed class DirectoryCache(int capacity)
{
    /// <summary>The longest path that a system call takes, with its NUL (PATH_MAX).</summary>
    private const int MaxPath = 4096;

    [ThreadStatic]
    private static List<RealDirectory>? unopened;

    private readonly OrderedLock gate = new(OverlayLocks.DirectoryCache);
    private RealDirectory? newest;
    private RealDirectory? oldest;
    private int count;
    private int kept;
    private long hits;
    private long opened;
    private long evictions;

    /// <summary>The number of descriptors that the cache may hold.</summary>
    public int Capacity => capacity;

    /// <summary>The number of descriptors beyond <see cref="Capacity"/>, of directories without a name.</summary>
    public int KeptOpen => Volatile.Read(ref kept);

    /// <summary>
    /// The descriptors that are cached now, and how many times one was found, was opened, and was closed for want of room.
    /// </summary>
    public (int Open, long Hits, long Opened, long Evicted) Counts
    {
        get
        {
            using (gate.Enter()) { return (count, hits, opened, evictions); }
        }
    }

    /// <summary>Borrows the descriptor of a directory, which stays open until the result is disposed of.</summary>
    /// <returns><see cref="Errno.ESTALE"/> when the layer no longer has the directory in its place.</returns>
    public Errno Borrow(RealDirectory directory, out BorrowedDirectory borrowed)
    {
        if (TryBorrow(directory, out borrowed)) { return Errno.None; }
        // Start at the closest ancestor that is open, and use as few paths as possible. The directories in between are not
        // cached: a tree may be deeper than the cache is large.
        List<RealDirectory> closed = unopened ??= [];
        closed.Clear();
        RealDirectory? above = directory;
        do
        {
            closed.Add(above);
            above = above.Parent;
            if (above is null) { return Errno.ESTALE; } // a root: the layer was released
        }
        while (!TryBorrow(above, out borrowed));

        Span<byte> path = stackalloc byte[MaxPath];
        for (int next = closed.Count - 1; next >= 0;)
        {
            int length = 0;
            for (; next >= 0 && length + closed[next].Name.Length <= path.Length; next--)
            {
                closed[next].Name.CopyTo(path[length..]);
                length += closed[next].Name.Length;
                path[length - 1] = (byte)'/';
            }
            path[length - 1] = 0;
            BorrowedDirectory start = borrowed;
            Errno error = Libc.OpenAt(start.Descriptor, path[..length], OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0,
                ResolveFlags.Confined, out int descriptor);
            borrowed = error.IsError ? default : Enter(closed[next + 1], descriptor);
            start.Dispose();
            if (error.IsError) { return error is Errno.ENOENT or Errno.ENOTDIR or Errno.ELOOP ? Errno.ESTALE : error; }
        }
        closed.Clear();
        return Errno.None;
    }

    private bool TryBorrow(RealDirectory directory, out BorrowedDirectory borrowed)
    {
        using (gate.Enter())
        {
            if (directory.Descriptor < 0)
            {
                borrowed = default;
                return false;
            }
            hits++;
            directory.Borrowers++;
            TouchLocked(directory);
            borrowed = new BorrowedDirectory(this, directory, directory.Descriptor);
            return true;
        }
    }

    private BorrowedDirectory Enter(RealDirectory directory, int descriptor)
    {
        int surplus = -1, evicted = -1;
        try
        {
            using (gate.Enter())
            {
                if (directory.Descriptor >= 0)
                {
                    surplus = descriptor; // another thread has opened the directory meanwhile
                    TouchLocked(directory);
                }
                else
                {
                    opened++;
                    directory.Descriptor = descriptor;
                    LinkLocked(directory);
                }
                directory.Borrowers++;
                if (count > capacity) { evicted = EvictLocked(); }
                return new BorrowedDirectory(this, directory, directory.Descriptor);
            }
        }
        finally
        {
            if (surplus >= 0) { Libc.Close(surplus); }
            if (evicted >= 0) { Libc.Close(evicted); }
        }
    }

    internal void Return(RealDirectory directory)
    {
        using (gate.Enter()) { directory.Borrowers--; }
    }

    /// <summary>Takes a directory's descriptor out of the cache and keeps it open: the directory is about to lose its name.</summary>
    public Errno KeepOpen(RealDirectory directory)
    {
        Errno error = Borrow(directory, out BorrowedDirectory borrowed);
        if (error.IsError) { return error; }
        using (gate.Enter())
        {
            if (IsLinkedLocked(directory)) { kept++; }
            UnlinkLocked(directory);
        }
        borrowed.Dispose();
        return Errno.None;
    }

    /// <summary>Undoes <see cref="KeepOpen"/>: the directory has kept its name.</summary>
    public void UndoKeepOpen(RealDirectory directory)
    {
        using (gate.Enter())
        {
            if (directory.Descriptor < 0 || directory.Parent is null || IsLinkedLocked(directory)) { return; }
            kept--;
            LinkLocked(directory);
        }
    }

    /// <summary>Closes the descriptor of a directory that no inode uses any more.</summary>
    public void Drop(RealDirectory directory)
    {
        int descriptor;
        using (gate.Enter())
        {
            if (directory.Parent is null || directory.Descriptor < 0) { return; }
            if (directory.Borrowers > 0)
            {
                // Still borrowed through another name: from now on the cache may evict it.
                if (!IsLinkedLocked(directory))
                {
                    kept--;
                    LinkLocked(directory);
                }
                return;
            }
            descriptor = directory.Descriptor;
            directory.Descriptor = -1;
            if (!IsLinkedLocked(directory)) { kept--; }
            UnlinkLocked(directory);
        }
        Libc.Close(descriptor);
    }

    /// <summary>Closes all descriptors except those of roots and of kept directories. Nobody may use the cache any more.</summary>
    public void CloseAll()
    {
        using (gate.Enter())
        {
            for (int descriptor = EvictLocked(); descriptor >= 0; descriptor = EvictLocked()) { Libc.Close(descriptor); }
        }
    }

    private bool IsLinkedLocked(RealDirectory directory)
    {
        LockOrder.AssertHeld(OverlayLocks.DirectoryCache);
        return directory.Newer is not null || directory.Older is not null || ReferenceEquals(newest, directory);
    }

    private void TouchLocked(RealDirectory directory)
    {
        LockOrder.AssertHeld(OverlayLocks.DirectoryCache);
        // A root and a kept directory are not in the list.
        if (ReferenceEquals(newest, directory) || !IsLinkedLocked(directory)) { return; }
        UnlinkLocked(directory);
        LinkLocked(directory);
    }

    private void LinkLocked(RealDirectory directory)
    {
        LockOrder.AssertHeld(OverlayLocks.DirectoryCache);
        directory.Newer = null;
        directory.Older = newest;
        if (newest is not null) { newest.Newer = directory; }
        newest = directory;
        oldest ??= directory;
        count++;
    }

    private void UnlinkLocked(RealDirectory directory)
    {
        LockOrder.AssertHeld(OverlayLocks.DirectoryCache);
        if (!IsLinkedLocked(directory)) { return; }
        if (directory.Newer is not null) { directory.Newer.Older = directory.Older; } else { newest = directory.Older; }
        if (directory.Older is not null) { directory.Older.Newer = directory.Newer; } else { oldest = directory.Newer; }
        directory.Newer = directory.Older = null;
        count--;
    }

    /// <summary>Takes the descriptor of the least recently used directory; -1 when all are borrowed. The caller closes it.</summary>
    private int EvictLocked()
    {
        LockOrder.AssertHeld(OverlayLocks.DirectoryCache);
        for (RealDirectory? candidate = oldest; candidate is not null; candidate = candidate.Newer)
        {
            if (candidate.Borrowers > 0) { continue; }
            int descriptor = candidate.Descriptor;
            candidate.Descriptor = -1;
            evictions++;
            UnlinkLocked(candidate);
            return descriptor;
        }
        return -1;
    }
}

/// <summary>A borrowed descriptor of a directory.</summary>
internal readonly ref struct BorrowedDirectory(DirectoryCache cache, RealDirectory directory, int descriptor)
{
    private readonly DirectoryCache? cache = cache;
    private readonly RealDirectory directory = directory;

    /// <summary>An O_PATH descriptor.</summary>
    public int Descriptor { get; } = descriptor;

    /// <summary>The layer that holds the directory.</summary>
    public Layer? Layer => directory?.Layer;

    /// <summary>Gives the descriptor back.</summary>
    public void Dispose() => cache?.Return(directory);
}
