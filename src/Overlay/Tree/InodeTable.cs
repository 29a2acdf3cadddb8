using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>Here, and nowhere else, inodes are born, found and lent to the kernel. A nodeid is never used twice.</summary>
/// <remarks>
/// One lock protects the table and its parts: <see cref="InodeReferences"/> counts what keeps inodes alive and removes dead inodes,
/// <see cref="AliasTable"/> knows the names of files with several names, and <see cref="Tree.Orphans"/> takes the descriptors of
/// the dead. The lock is a leaf, except for the lock of the directory cache. While the mount lives, only two system calls are made
/// under it: close(2) of a dead directory's descriptor, and a line of log when the kernel returns references that it does not have.
/// </remarks>
internal sealed class InodeTable
{
    /// <summary>The root's nodeid (FUSE_ROOT_ID).</summary>
    public const ulong RootId = 1;

    /// <summary>The memory of an inode with its name and its place in the table, in bytes, about.</summary>
    public const int BytesOfInode = 180;

    private readonly OrderedLock gate = new(OverlayLocks.InodeTable);
    private readonly InodeBuckets buckets = new();
    private readonly InodePool pool = new();
    private readonly ClaimedNumbers claims = new();
    private readonly InodeReferences references;
    private readonly Dictionary<RealKey, Inode> expected = []; // by the key of the copy in upper
    private ulong lastNodeId;

    /// <summary>Makes an empty table.</summary>
    /// <param name="directories">The descriptors of real directories.</param>
    /// <param name="log">Reports errors of the kernel.</param>
    /// <param name="keepsAllNames">See <see cref="AliasTable"/>.</param>
    public InodeTable(DirectoryCache directories, Action<string> log, bool keepsAllNames = false)
    {
        Orphans = new Orphans(gate);
        references = new InodeReferences(buckets, pool, claims, Orphans, directories, log);
        Aliases = new AliasTable(gate, references, keepsAllNames);
    }

    /// <summary>The files with several names.</summary>
    public AliasTable Aliases { get; }

    /// <summary>The objects without a name.</summary>
    public Orphans Orphans { get; }

    /// <summary>How many inodes there are.</summary>
    public int Count { get { using (gate.Enter()) { return buckets.Count; } } }

    /// <summary>How many buckets each of the two hash tables has.</summary>
    public int Buckets { get { using (gate.Enter()) { return buckets.Length; } } }

    /// <summary>How many inodes have become garbage, or do so before the collector is called: see <see cref="DropRecycled"/>.</summary>
    public long Dropped { get { using (gate.Enter()) { return pool.Dropped + pool.Count; } } }

    /// <summary>How many dead inodes wait to be recycled.</summary>
    public int Recycled { get { using (gate.Enter()) { return pool.Count; } } }

    /// <summary>Makes the inode of an object that is not a directory. It may be a recycled one. Only its name is set.</summary>
    /// <param name="name">With its NUL.</param>
    /// <remarks>
    /// An inode dies when the kernel returns the last reference. The kernel holds one for every open file, and for every request that
    /// names the inode until the request is answered. Code that comes to an inode in another way borrows a reference. So an
    /// inode is never recycled while somebody uses it.
    /// </remarks>
    public Inode Make(ReadOnlySpan<byte> name)
    {
        Inode? inode;
        using (gate.Enter()) { inode = pool.Take(); }
        inode ??= new Inode();
        inode.Begin(name);
        return inode;
    }

    /// <summary>Leaves the recycled inodes to the collector, which is about to be called.</summary>
    public void DropRecycled()
    {
        using (gate.Enter()) { pool.Drop(); }
    }

    /// <summary>The nodeids of all inodes except the root, and the old nodeids that open files use.</summary>
    public List<ulong> NodeIds()
    {
        using (gate.Enter())
        {
            var all = new List<ulong>(buckets.Count + references.OldNodeIds.Count);
            foreach (Inode inode in buckets)
            {
                if (inode.NodeId != RootId) { all.Add(inode.NodeId); }
            }
            all.AddRange(references.OldNodeIds);
            return all;
        }
    }

    /// <summary>Enters the root, which is never forgotten.</summary>
    public void AddRoot(DirectoryInode root)
    {
        using (gate.Enter())
        {
            root.Lookups = 1;
            AddLocked(root);
        }
    }

    /// <summary>Finds the inode of a nodeid.</summary>
    /// <returns><see cref="Errno.ESTALE"/> when the kernel has forgotten the nodeid, or never got it.</returns>
    public Errno Find(ulong nodeId, out Inode inode) => Find(nodeId, out inode, out _);

    /// <inheritdoc cref="Find(ulong, out Inode)"/>
    /// <remarks>It is superseded when the inode had the nodeid before and has another one now.</remarks>
    public Errno Find(ulong nodeId, out Inode inode, out bool isSuperseded)
    {
        using (gate.Enter())
        {
            isSuperseded = false;
            if (buckets.Find(nodeId) is { } known)
            {
                inode = known;
                return Errno.None;
            }
            if (references.FindSupersededLocked(nodeId) is { } superseded)
            {
                inode = superseded;
                isSuperseded = true;
                return Errno.None;
            }
        }
        inode = null!;
        return Errno.ESTALE;
    }

    /// <summary>Finds the directory of a nodeid.</summary>
    /// <returns><see cref="Errno.ENOTDIR"/> when the inode is not a directory; see also <see cref="Find(ulong, out Inode)"/>.</returns>
    public Errno FindDirectory(ulong nodeId, out DirectoryInode directory)
    {
        Errno error = Find(nodeId, out Inode inode);
        directory = (inode as DirectoryInode)!;
        return error.IsError ? error : directory is null ? Errno.ENOTDIR : Errno.None;
    }

    /// <summary>Finds the inode of a real object, and lends the caller a reference.</summary>
    public BorrowedInode Borrow(RealKey key)
    {
        using (gate.Enter())
        {
            return FindByKeyLocked(key) is { } inode ? new BorrowedInode(this, inode, InodeReferences.LendLocked(inode)) : default;
        }
    }

    /// <summary>Finds what users see as st_ino of a real object.</summary>
    /// <returns>False when the object has no inode.</returns>
    public bool TryGetIno(RealKey key, out ulong ino)
    {
        using (gate.Enter())
        {
            Inode? inode = FindByKeyLocked(key);
            ino = inode?.Ino ?? 0;
            return inode is not null;
        }
    }

    private Inode? FindByKeyLocked(RealKey key)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        return buckets.Find(key) ?? Aliases.FindLocked(key) ?? expected.GetValueOrDefault(key);
    }

    /// <summary>Lends the kernel one reference to the inode of a real object that was looked up.</summary>
    /// <returns>
    /// False when the object has no inode, or when a name in <paramref name="parent"/> has changed since <paramref name="version"/>, so
    /// that the key may be out of date.
    /// </returns>
    public bool TryLend(RealKey key, DirectoryInode parent, int version, out Inode inode, out ulong nodeId)
    {
        using (gate.Enter())
        {
            inode = FindByKeyLocked(key)!;
            nodeId = 0;
            if (inode is null || parent.Version != version) { return false; }
            nodeId = InodeReferences.LendLocked(inode);
            return true;
        }
    }

    /// <summary>Enters an object's new inode, unless the object has one, and lends the kernel one reference to its inode.</summary>
    /// <param name="candidate">The new inode. If it does not enter, it is recycled, and the caller must not use it any more.</param>
    /// <param name="ino">Which st_ino the new inode should have.</param>
    /// <param name="version">The directory's version before the object was looked up.</param>
    /// <param name="inode">The inode of the object, or null.</param>
    /// <param name="nodeId">The nodeid under which the reference is counted.</param>
    /// <returns>False when a name in the directory has changed since <paramref name="version"/>: look it up again.</returns>
    public bool TryAddAndLend(Inode candidate, in InoChoice ino, int version, out Inode inode, out ulong nodeId)
    {
        using (gate.Enter())
        {
            inode = candidate;
            nodeId = 0;
            if (candidate.Parent is { } parent && parent.Version != version)
            {
                inode = null!;
                pool.Put(candidate);
                return false;
            }
            if (FindByKeyLocked(candidate.Key) is { } known)
            {
                inode = known;
                pool.Put(candidate);
            }
            else
            {
                claims.Assign(candidate, ino, IsShownByOriginLocked(ino));
                AddLocked(candidate);
            }
            nodeId = InodeReferences.LendLocked(inode);
            return true;
        }
    }

    private bool IsShownByOriginLocked(in InoChoice ino)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        return ino.Origin is { } origin && FindByKeyLocked(origin)?.Ino == ino.Ino;
    }

    /// <summary>The st_ino that an object would get if its inode were entered now.</summary>
    public ulong Free(in InoChoice ino)
    {
        using (gate.Enter()) { return claims.Choose(ino, IsShownByOriginLocked(ino)); }
    }

    /// <summary>Enters the inode of an object that was just created, and lends the kernel one reference.</summary>
    /// <remarks>Nobody else can have found the object. Caller holds the names lock of the directory, if the object has a name.</remarks>
    public void AddAndLendLocked(Inode inode)
    {
        inode.Parent?.AssertNamesLocked();
        using (gate.Enter())
        {
            // The filesystem may have given the real inode the number of a removed one, which the kernel has not forgotten yet.
            if (FindByKeyLocked(inode.Key) is { } old) { buckets.RemoveKey(old); }
            AddLocked(inode);
            _ = InodeReferences.LendLocked(inode); // the nodeid, which the inode has as well
        }
    }

    /// <summary>Lends one more reference to an inode that cannot die meanwhile.</summary>
    /// <returns>The nodeid under which the reference is counted. The kernel is told this one: the inode may soon have another.</returns>
    public ulong Lend(Inode inode)
    {
        using (gate.Enter()) { return InodeReferences.LendLocked(inode); }
    }

    private void AddLocked(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        inode.NodeId = ++lastNodeId;
        buckets.Add(inode);
        if (inode.Parent is { } parent) { InodeReferences.AddNameLocked(parent); }
    }

    /// <summary>
    /// The object's copy is about to get its name in upper: from now on the copy's key leads to the inode as well, since a lookup may
    /// find the copy before <see cref="ChangeKey"/>. <see cref="ExpectNoMore"/> follows, even if the copy does not get its name.
    /// </summary>
    public void Expect(Inode inode, RealKey key)
    {
        using (gate.Enter()) { expected[key] = inode; }
    }

    /// <summary>Ends what <see cref="Expect"/> began.</summary>
    public void ExpectNoMore(RealKey key)
    {
        using (gate.Enter()) { expected.Remove(key); }
    }

    /// <summary>The object has been copied up: from now on the copy's key leads to the inode.</summary>
    /// <param name="inode">The inode.</param>
    /// <param name="key">The copy's key.</param>
    /// <param name="keepLower">Whether the old key leads to the inode as well, since the lower object has other names.</param>
    public void ChangeKey(Inode inode, RealKey key, bool keepLower)
    {
        using (gate.Enter())
        {
            if (keepLower) { Aliases.RetainLocked(inode, inode.Key); }
            buckets.RemoveKey(inode);
            inode.Key = key;
            buckets.AddKey(inode);
            claims.Keep(inode);
            if (inode.Parent is { } parent) { parent.Version++; }
        }
    }

    /// <summary>The key no longer leads to the inode: the real inode is gone or going, and another object may get its number.</summary>
    public void Unhash(Inode inode)
    {
        using (gate.Enter()) { buckets.RemoveKey(inode); }
    }

    /// <summary>A name in a directory has changed: what a lookup found before is not entered any more.</summary>
    public void NoteChange(DirectoryInode directory)
    {
        using (gate.Enter()) { directory.Version++; }
    }

    /// <summary>The directory's version, which tells after a lookup whether a name has changed meanwhile.</summary>
    public int VersionOf(DirectoryInode directory)
    {
        using (gate.Enter()) { return directory.Version; }
    }

    /// <summary>From now on the inode has another name. Caller holds the rename lock exclusively.</summary>
    /// <param name="inode">The inode.</param>
    /// <param name="parent">The directory of the name.</param>
    /// <param name="name">With its NUL. The array must not change afterwards.</param>
    public void MoveLocked(Inode inode, DirectoryInode parent, byte[] name)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: true);
        using (gate.Enter())
        {
            InodeReferences.AddNameLocked(parent);
            DirectoryInode? old = inode.Parent;
            inode.Parent = parent;
            inode.SetNameLocked(name);
            if (inode.IsDirectory && inode.IsKnownByName)
            {
                bool isKeyed = inode.IsKeyed;
                if (isKeyed) { buckets.RemoveKey(inode); }
                inode.Key = InodeNumbers.KeyOfName(parent.NodeId, name);
                if (isKeyed) { buckets.AddKey(inode); }
            }
            if (old is not null) { references.RemoveNameLocked(old); }
        }
    }

    /// <summary>How the open files of an inode reach their data.</summary>
    /// <returns>False when the inode has another nodeid than <paramref name="nodeId"/> by now, and cannot be opened by that.</returns>
    public bool TryGetBacking(Inode inode, ulong nodeId, out BackingFile backing)
    {
        using (gate.Enter())
        {
            backing = inode.Backing ??= new BackingFile();
            return inode.NodeId == nodeId;
        }
    }

    /// <summary>Gives an inode a new nodeid, whose open files reach their data in a way of their own.</summary>
    /// <remarks>
    /// Files that are open keep the old nodeid and the old way, since the kernel has bound the pages of that nodeid to the lower file.
    /// </remarks>
    /// <returns>False when the way is no longer <paramref name="backing"/>: another thread has done it.</returns>
    public bool TrySupersede(Inode inode, BackingFile backing)
    {
        using (gate.Enter())
        {
            if (!ReferenceEquals(inode.Backing, backing)) { return false; }
            inode.Backing = new BackingFile();
            references.SupersedeLocked(inode, ++lastNodeId);
            return true;
        }
    }

    /// <summary>Finds nodeids of regular files to which the kernel holds references.</summary>
    /// <param name="nodeIds">Receives the nodeids.</param>
    /// <returns>How many were found. Since other threads wait, only a part of the table is searched: there may be more.</returns>
    public int FindKnownFiles(Span<ulong> nodeIds)
    {
        const int mostBuckets = 1 << 14;
        int found = 0;
        using (gate.Enter())
        {
            foreach (Inode inode in buckets.First(mostBuckets))
            {
                if (found == nodeIds.Length) { break; }
                if (inode.IsRegular && inode.Lookups > 0) { nodeIds[found++] = inode.NodeId; }
            }
        }
        return found;
    }

    /// <summary>Takes references back. It never fails: see <see cref="InodeReferences.ReturnLocked"/>.</summary>
    public void Forget(ulong nodeId, ulong lookups)
    {
        using (gate.Enter()) { references.ReturnLocked(nodeId, lookups); }
    }

    /// <summary>Empties the table and closes every descriptor. The mount is over.</summary>
    public void Clear()
    {
        using (gate.Enter())
        {
            references.CloseLocked();
            Orphans.CloseLocked();
            buckets.Clear();
            Aliases.ClearLocked();
            claims.Clear();
        }
    }
}
