using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Layers;

/// <summary>Keeps the descriptors of the directories used last, so that a name costs one system call at any depth.</summary>
/// <remarks>Bounded, since a process may have only so many files open. Its lock is a leaf: no system call under it but close(2).</remarks>
internal sealed class DirectoryCache(int capacity)
{
    /// <summary>Longest path that a system call takes, with its NUL (PATH_MAX).</summary>
    private const int MaxPath = 4096;

    [ThreadStatic]
    private static List<RealDirectory>? way;

    private readonly OrderedLock gate = new(OverlayLocks.DirectoryCache);
    private RealDirectory? newest;
    private RealDirectory? oldest;
    private int count;
    private int kept;
    private long hits;
    private long opened;
    private long evictions;

    /// <summary>How many descriptors it may hold.</summary>
    public int Capacity => capacity;

    /// <summary>How many descriptors it holds beyond that, of directories without a name.</summary>
    public int KeptOpen => Volatile.Read(ref kept);

    /// <summary>How many descriptors it holds, how often one was there already, was opened, and was closed for want of room.</summary>
    public (int Open, long Hits, long Opened, long Evicted) Counts { get { using (gate.Enter()) { return (count, hits, opened, evictions); } } }

    /// <summary>The descriptor of a directory, kept open until the result is disposed of.</summary>
    /// <returns><see cref="Errno.ESTALE"/> when the layer no longer has the directory where it was.</returns>
    public Errno Borrow(RealDirectory directory, out BorrowedDirectory borrowed)
    {
        if (TryBorrow(directory, out borrowed)) { return Errno.None; }
        // From the closest ancestor that is open, by as few paths as there can be, and without keeping the directories in
        // between: a tree may be deeper than the cache is large.
        List<RealDirectory> closed = way ??= [];
        closed.Clear();
        RealDirectory? above = directory;
        do
        {
            closed.Add(above);
            above = above.Parent;
            if (above is null) { return Errno.ESTALE; } // a root: the layer was let go of
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
            Errno error = Libc.OpenAt(start.Descriptor, path[..length], OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int descriptor);
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
                    surplus = descriptor; // another thread was faster
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

    internal void GiveBack(RealDirectory directory)
    {
        using (gate.Enter()) { directory.Borrowers--; }
    }

    /// <summary>Keeps a directory's descriptor for good: it is about to lose its name.</summary>
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

    /// <summary>The end of <see cref="KeepOpen"/>: the directory has its name still.</summary>
    public void KeepOpenNoMore(RealDirectory directory)
    {
        using (gate.Enter())
        {
            if (directory.Descriptor < 0 || directory.Parent is null || IsLinkedLocked(directory)) { return; }
            kept--;
            LinkLocked(directory);
        }
    }

    /// <summary>Nobody knows the directory any more: closes its descriptor.</summary>
    public void Drop(RealDirectory directory)
    {
        int descriptor;
        using (gate.Enter())
        {
            if (directory.Parent is null || directory.Descriptor < 0) { return; }
            if (directory.Borrowers > 0)
            {
                // Still in use below another name: from now on it goes when it is the oldest.
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

    /// <summary>Closes what is open, but for roots and for directories that are kept. Nobody may use the cache any more.</summary>
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

    /// <summary>Takes the descriptor of the directory that was unused for longest, or -1 when all are in use.</summary>
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

/// <summary>A directory's descriptor in use.</summary>
internal readonly ref struct BorrowedDirectory(DirectoryCache cache, RealDirectory directory, int descriptor)
{
    private readonly DirectoryCache? cache = cache;
    private readonly RealDirectory directory = directory;

    /// <summary>An O_PATH descriptor.</summary>
    public int Descriptor { get; } = descriptor;

    /// <summary>The layer that holds the directory.</summary>
    public Layer? Layer => directory?.Layer;

    /// <summary>Lets it be closed.</summary>
    public void Dispose() => cache?.GiveBack(directory);
}
