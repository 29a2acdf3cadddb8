namespace Veneer.Overlay.Tree;

/// <summary>
/// An inode with one reference, counted like the kernel's. The inode stands for the same object until <see cref="Dispose"/>.
/// </summary>
internal readonly struct BorrowedInode(InodeTable table, Inode inode, ulong nodeId) : IDisposable
{
    /// <summary>The inode, or null when none was found.</summary>
    public Inode? Inode => inode;

    /// <summary>Returns the reference.</summary>
    public void Dispose()
    {
        if (inode is not null) { table.Forget(nodeId, 1); }
    }
}
