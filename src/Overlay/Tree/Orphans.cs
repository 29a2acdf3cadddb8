using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>
/// The objects without a name that a descriptor leads to, and what dead inodes of objects without a name leave behind.
/// </summary>
/// <remarks>
/// The lock of <see cref="InodeTable"/> protects what the dead leave. Closing the last descriptor of a large file frees all its
/// blocks, which takes long. So the caller closes descriptors and discards names in work, and holds no lock.
/// </remarks>
/// <param name="gate">The lock of <see cref="InodeTable"/>.</param>
internal sealed class Orphans(OrderedLock gate)
{
    private readonly List<int> descriptors = [];
    private readonly List<byte[]> workNames = [];
    private int count;

    /// <summary>How many descriptors of objects without a name are open, those of dead inodes included.</summary>
    public int Count => Volatile.Read(ref count);

    /// <summary>
    /// From now on a descriptor leads to the object, which has no name or is about to lose it. Caller holds the locks of
    /// <see cref="Inode.Place"/>.
    /// </summary>
    public void AddLocked(Inode inode, int descriptor)
    {
        inode.AssertPlaceLocked();
        Interlocked.Increment(ref count);
        inode.BecomeOrphanedLocked(descriptor);
    }

    /// <summary>From now on the object is reached by its name again. Caller holds the rename lock exclusively.</summary>
    /// <inheritdoc cref="Inode.BecomeNamedLocked"/>
    public void RemoveLocked(Inode inode, out int descriptor, out byte[]? workName)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: true);
        inode.BecomeNamedLocked(out descriptor, out workName);
        if (descriptor >= 0) { Interlocked.Decrement(ref count); }
    }

    /// <summary>The inode is dead: keeps its descriptor and its name in work until somebody takes them.</summary>
    public void LeaveLocked(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        if (inode.Orphan >= 0) { descriptors.Add(inode.Orphan); }
        if (inode.WorkName is { } workName) { workNames.Add(workName); }
    }

    /// <summary>Takes the name in work of an object whose inode is dead. The caller discards the name, under no lock.</summary>
    /// <returns>False when there is none.</returns>
    public bool TryTakeWorkName(out byte[] name)
    {
        name = [];
        if (workNames.Count == 0) { return false; } // in a race, the next call finds it
        using (gate.Enter())
        {
            if (workNames.Count == 0) { return false; }
            name = workNames[^1];
            workNames.RemoveAt(workNames.Count - 1);
            return true;
        }
    }

    /// <summary>Takes the descriptor of an object whose inode is dead. The caller closes the descriptor, under no lock.</summary>
    /// <returns>False when there is none.</returns>
    public bool TryTakeDescriptor(out int descriptor)
    {
        descriptor = -1;
        if (descriptors.Count == 0) { return false; } // in a race, the next call finds it
        using (gate.Enter())
        {
            if (descriptors.Count == 0) { return false; }
            descriptor = descriptors[^1];
            descriptors.RemoveAt(descriptors.Count - 1);
            Interlocked.Decrement(ref count);
            return true;
        }
    }

    /// <summary>Closes the descriptors of dead inodes. The mount is over.</summary>
    public void CloseLocked()
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        foreach (int descriptor in descriptors) { Libc.Close(descriptor); }
        descriptors.Clear();
        count = 0;
    }
}
