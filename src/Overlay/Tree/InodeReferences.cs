using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>Counts what keeps inodes alive, and removes an inode when nothing does. Protected by <see cref="InodeTable"/>.</summary>
/// <remarks>
/// An inode lives while the kernel holds a reference under its nodeid or an old one, while the inode is a directory in which other
/// inodes have names, and while <see cref="AliasTable"/> retains it. The root never dies.
/// </remarks>
/// <param name="buckets">The inodes that are alive.</param>
/// <param name="pool">Dead inodes that are recycled.</param>
/// <param name="claims">The numbers that inodes show.</param>
/// <param name="orphans">Takes what leads to a dead object without a name.</param>
/// <param name="directories">The descriptors of real directories.</param>
/// <param name="log">Reports errors of the kernel.</param>
internal sealed class InodeReferences(
    InodeBuckets buckets, InodePool pool, ClaimedNumbers claims, Orphans orphans, DirectoryCache directories, Action<string> log)
{
    private readonly Dictionary<ulong, Superseded> superseded = []; // by old nodeid

    /// <summary>The references that the kernel holds under an old nodeid of an inode, which open files use.</summary>
    private sealed class Superseded(Inode inode, ulong lookups)
    {
        public readonly Inode Inode = inode;
        public ulong Lookups = lookups;
    }

    /// <summary>The nodeids that inodes had before and that open files use.</summary>
    public IReadOnlyCollection<ulong> OldNodeIds => superseded.Keys;

    /// <summary>Finds the inode that had a nodeid before.</summary>
    /// <returns>Null when there is none.</returns>
    public Inode? FindSupersededLocked(ulong nodeId)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        return superseded.TryGetValue(nodeId, out Superseded? old) ? old.Inode : null;
    }

    /// <summary>Gives an inode another nodeid. The references so far stay counted under the old one.</summary>
    public void SupersedeLocked(Inode inode, ulong nodeId)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        superseded.Add(inode.NodeId, new Superseded(inode, inode.Lookups));
        inode.OldNodeIds++;
        buckets.ChangeNodeId(inode, nodeId);
        inode.Lookups = 0;
    }

    /// <summary>Lends one reference.</summary>
    /// <returns>The nodeid under which the reference is counted.</returns>
    public static ulong LendLocked(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        inode.Lookups++;
        return inode.NodeId;
    }

    /// <summary>Takes references back. If the kernel returns more than it has, that is logged, and the count becomes zero.</summary>
    public void ReturnLocked(ulong nodeId, ulong lookups)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        if (nodeId == InodeTable.RootId) { return; }
        if (buckets.Find(nodeId) is { } inode)
        {
            if (lookups > inode.Lookups)
            {
                log($"veneer: the kernel returned {lookups} references to node {nodeId}, which had {inode.Lookups}");
            }
            inode.Lookups -= Math.Min(lookups, inode.Lookups);
            DropIfUnusedLocked(inode);
            return;
        }
        if (superseded.TryGetValue(nodeId, out Superseded? old))
        {
            old.Lookups -= Math.Min(lookups, old.Lookups);
            if (old.Lookups > 0) { return; }
            superseded.Remove(nodeId);
            old.Inode.OldNodeIds--;
            DropIfUnusedLocked(old.Inode);
            return;
        }
        log($"veneer: the kernel returned {lookups} references to node {nodeId}, which is not known");
    }

    /// <summary>An inode has a name in the directory from now on.</summary>
    public static void AddNameLocked(DirectoryInode directory)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        directory.Children++;
    }

    /// <summary>An inode has one name less in the directory.</summary>
    public void RemoveNameLocked(DirectoryInode directory)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        directory.Children--;
        DropIfUnusedLocked(directory);
    }

    /// <summary>Removes an inode if nothing keeps it alive, and then each directory that only the inode's names kept alive.</summary>
    public void DropIfUnusedLocked(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        while (true)
        {
            if (inode.Lookups > 0 || inode is DirectoryInode { Children: > 0 }) { return; }
            if (inode.NodeId == InodeTable.RootId || IsRetainedLocked(inode)) { return; }
            buckets.Remove(inode);
            claims.Release(inode);
            orphans.LeaveLocked(inode);
            DropDirectories(inode);
            foreach (Alias alias in inode.Aliases)
            {
                if (!alias.IsRemoved) { RemoveNameLocked(alias.Parent); }
            }
            DirectoryInode? parent = inode.Parent;
            pool.Put(inode);
            if (parent is null) { return; }
            parent.Children--;
            inode = parent;
        }
    }

    private static bool IsRetainedLocked(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        return inode.OldNodeIds > 0 || inode.Links is { RetainedUnder: not null };
    }

    private void DropDirectories(Inode inode)
    {
        if (inode is not DirectoryInode directory) { return; }
        if (directory.Upper is { } upper) { directories.Drop(upper); }
        foreach (RealDirectory lower in directory.Lowers) { directories.Drop(lower); }
    }

    /// <summary>Closes the descriptors of all inodes and forgets the old nodeids. The mount is over.</summary>
    public void CloseLocked()
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        foreach (Inode inode in buckets)
        {
            if (inode.Orphan >= 0) { Libc.Close(inode.Orphan); }
            DropDirectories(inode);
        }
        superseded.Clear();
    }
}
