using Veneer.Fuse.Locking;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>
/// The inodes by nodeid and by key, in two hash tables whose chains run through the inodes. Protected by <see cref="InodeTable"/>.
/// </summary>
internal sealed class InodeBuckets
{
    /// <summary>The number of buckets of an empty hash table.</summary>
    private const int Fewest = 1024;

    private Inode?[] byNodeId = new Inode?[Fewest];
    private Inode?[] byKey = new Inode?[Fewest];

    /// <summary>How many inodes there are.</summary>
    public int Count { get; private set; }

    /// <summary>How many buckets each hash table has.</summary>
    public int Length => byNodeId.Length;

    private ref Inode? BucketOf(ulong nodeId) => ref byNodeId[nodeId & (ulong)(byNodeId.Length - 1)];

    private ref Inode? BucketOf(RealKey key) => ref byKey[key.Hash & (uint)(byKey.Length - 1)];

    /// <summary>Finds the inode of a nodeid.</summary>
    /// <returns>Null when there is none.</returns>
    public Inode? Find(ulong nodeId)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        Inode? inode = BucketOf(nodeId);
        while (inode is not null && inode.NodeId != nodeId) { inode = inode.NextByNodeId; }
        return inode;
    }

    /// <summary>Finds the inode of a real object.</summary>
    /// <returns>Null when there is none.</returns>
    public Inode? Find(RealKey key)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        Inode? inode = BucketOf(key);
        while (inode is not null && inode.Key != key) { inode = inode.NextByKey; }
        return inode;
    }

    /// <summary>Enters an inode, whose nodeid and key are set.</summary>
    public void Add(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        if (Count >= byNodeId.Length) { Resize(byNodeId.Length * 2); }
        AddNodeId(inode);
        AddKey(inode);
        Count++;
    }

    /// <summary>Removes an inode, even if it is not found by its key any more.</summary>
    public void Remove(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        RemoveNodeId(inode);
        RemoveKey(inode);
        Count--;
        if (Count < byNodeId.Length / 4 && byNodeId.Length > Fewest) { Resize(byNodeId.Length / 2); }
    }

    /// <summary>Gives an inode another nodeid.</summary>
    public void ChangeNodeId(Inode inode, ulong nodeId)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        RemoveNodeId(inode);
        inode.NodeId = nodeId;
        AddNodeId(inode);
    }

    private void AddNodeId(Inode inode)
    {
        ref Inode? bucket = ref BucketOf(inode.NodeId);
        inode.NextByNodeId = bucket;
        bucket = inode;
    }

    private void RemoveNodeId(Inode inode)
    {
        ref Inode? link = ref BucketOf(inode.NodeId);
        while (link is not null && !ReferenceEquals(link, inode)) { link = ref link.NextByNodeId; }
        if (link is not null) { link = inode.NextByNodeId; }
        inode.NextByNodeId = null;
    }

    /// <summary>From now on the inode is found by its key.</summary>
    public void AddKey(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        ref Inode? bucket = ref BucketOf(inode.Key);
        inode.NextByKey = bucket;
        inode.IsKeyed = true;
        bucket = inode;
    }

    /// <summary>From now on the inode is not found by its key.</summary>
    public void RemoveKey(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        ref Inode? link = ref BucketOf(inode.Key);
        while (link is not null && !ReferenceEquals(link, inode)) { link = ref link.NextByKey; }
        if (link is not null) { link = inode.NextByKey; }
        inode.NextByKey = null;
        inode.IsKeyed = false;
    }

    private void Resize(int buckets)
    {
        Inode?[] old = byNodeId;
        byNodeId = new Inode?[buckets];
        byKey = new Inode?[buckets];
        foreach (Inode? first in old)
        {
            for (Inode? inode = first; inode is not null;)
            {
                Inode? next = inode.NextByNodeId;
                AddNodeId(inode);
                if (inode.IsKeyed) { AddKey(inode); }
                inode = next;
            }
        }
    }

    /// <summary>Removes all inodes.</summary>
    public void Clear()
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        byNodeId = new Inode?[Fewest];
        byKey = new Inode?[Fewest];
        Count = 0;
    }

    /// <summary>Enumerates all inodes. No inode may be entered or removed meanwhile.</summary>
    public Enumerator GetEnumerator()
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        return new(byNodeId);
    }

    /// <summary>Enumerates the inodes in the first buckets.</summary>
    /// <param name="most">The most buckets.</param>
    public Enumerator First(int most)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        return new(byNodeId.AsSpan(0, Math.Min(most, byNodeId.Length)));
    }

    /// <summary>Follows the chains of a range of buckets.</summary>
    public ref struct Enumerator(ReadOnlySpan<Inode?> buckets)
    {
        private readonly ReadOnlySpan<Inode?> buckets = buckets;
        private int next;

        /// <summary>The inode at which the enumeration is.</summary>
        public Inode Current { get; private set; } = null!;

        /// <summary>Returns itself, so that foreach accepts the result of <see cref="First"/>.</summary>
        public readonly Enumerator GetEnumerator() => this;

        /// <summary>Goes to the next inode.</summary>
        /// <returns>False when there is none.</returns>
        public bool MoveNext()
        {
            Inode? inode = Current?.NextByNodeId;
            while (inode is null && next < buckets.Length) { inode = buckets[next++]; }
            Current = inode!;
            return inode is not null;
        }
    }
}
