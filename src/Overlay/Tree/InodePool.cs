namespace Veneer.Overlay.Tree;

/// <summary>Dead inodes that are recycled for other objects, so that requests leave no garbage (ADR 9). Protected by <see cref="InodeTable"/>.</summary>
internal sealed class InodePool
{
    /// <summary>So many dead inodes are kept: with their names and all that belongs to them, 4 to 6 MiB.</summary>
    private const int Most = 16 * 1024;

    private Inode? first; // and on by NextByNodeId

    /// <summary>How many dead inodes wait for an object.</summary>
    public int Count { get; private set; }

    /// <summary>How many inodes have been left to the collector.</summary>
    public long Dropped { get; private set; }

    /// <summary>A dead inode, cleared; or null.</summary>
    public Inode? Take()
    {
        Inode? inode = first;
        if (inode is null) { return null; }
        first = inode.NextByNodeId;
        inode.NextByNodeId = null;
        Count--;
        return inode;
    }

    /// <summary>An inode is dead: it serves another object, if there may be one and nobody can know it; else it is garbage.</summary>
    public void Put(Inode inode)
    {
        if (Count >= Most || !inode.IsRecyclable)
        {
            Dropped++;
            return;
        }
        inode.Clear();
        inode.NextByNodeId = first;
        first = inode;
        Count++;
    }

    /// <summary>Leaves all to the collector, which is about to be called.</summary>
    public void Drop()
    {
        Dropped += Count;
        first = null;
        Count = 0;
    }
}
