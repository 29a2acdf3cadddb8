using Veneer.Fuse.Locking;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>
/// Dead inodes that are recycled for other objects, so that requests leave no garbage (ADR 9). Protected by <see cref="InodeTable"/>.
/// </summary>
internal sealed class InodePool
{
    /// <summary>The most dead inodes that are kept. With their names and all that belongs to them, they take 4 to 6 MiB.</summary>
    private const int Most = 16 * 1024;

    private Inode? first; // the others follow by NextByNodeId

    /// <summary>How many dead inodes wait to be recycled.</summary>
    public int Count { get; private set; }

    /// <summary>How many inodes have been left to the collector.</summary>
    public long Dropped { get; private set; }

    /// <summary>Takes a dead inode, which is as new.</summary>
    /// <returns>Null when there is none.</returns>
    public Inode? Take()
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        Inode? inode = first;
        if (inode is null) { return null; }
        first = inode.NextByNodeId;
        inode.NextByNodeId = null;
        Count--;
        return inode;
    }

    /// <summary>Accepts a dead inode. It becomes garbage if the pool is full or the inode is not recyclable.</summary>
    public void Put(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        if (Count >= Most || !inode.IsRecyclable)
        {
            Dropped++;
            return;
        }
        inode.ClearLocked();
        inode.NextByNodeId = first;
        first = inode;
        Count++;
    }

    /// <summary>Leaves all dead inodes to the collector, which is about to be called.</summary>
    public void Drop()
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        Dropped += Count;
        first = null;
        Count = 0;
    }
}
