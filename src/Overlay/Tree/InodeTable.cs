using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>The only place where inodes are born and die. A nodeid is never used twice.</summary>
/// <remarks>
/// Its lock is a leaf: no system call but the close(2) of a dead directory's descriptor, and a line to the log when the
/// kernel returns what it never had; no other lock but the directory cache's.
/// </remarks>
internal sealed class InodeTable
{
    /// <summary>The root's nodeid (FUSE_ROOT_ID).</summary>
    public const ulong RootId = 1;

    /// <summary>What an inode takes in memory, with its name and its place in the table, more or less.</summary>
    public const int BytesOfInode = 180;

    /// <summary>So many names are remembered of a file with several in upper.</summary>
    private const int EnoughAliases = 8;

    private readonly OrderedLock gate = new(OverlayLocks.InodeTable);
    private readonly DirectoryCache directories;
    private readonly Action<string> log;
    private readonly Dictionary<ulong, Superseded> superseded = [];
    private readonly Dictionary<RealKey, Inode> hardLinks = [];
    private readonly Dictionary<RealKey, Inode> expected = [];
    private readonly Dictionary<ulong, Inode> claimed = []; // by st_ino: those that show another number than that of their real object
    private readonly List<int> orphans = [];
    private readonly List<byte[]> leftovers = [];
    private int orphanCount;
    private readonly InodeBuckets buckets = new();
    private readonly InodePool pool = new();
    private ulong lastNodeId;

    /// <summary>An old nodeid of an inode, which files that are still open use.</summary>
    private sealed class Superseded(Inode inode, ulong lookups)
    {
        public readonly Inode Inode = inode;
        public ulong Lookups = lookups;
    }

    public InodeTable(DirectoryCache directories, Action<string> log)
    {
        this.directories = directories;
        this.log = log;
    }

    /// <summary>Whether all names of a file with several in upper are remembered, since its number does not tell it from others.</summary>
    public bool KeepsAllNames { get; init; }

    /// <summary>How many inodes there are.</summary>
    public int Count { get { using (gate.Enter()) { return buckets.Count; } } }

    /// <summary>How many buckets there are for them, in either table.</summary>
    public int Buckets { get { using (gate.Enter()) { return buckets.Length; } } }

    /// <summary>How many inodes have been left to the collector, or will be before it is called.</summary>
    public long Dropped { get { using (gate.Enter()) { return pool.Dropped + pool.Count; } } }

    /// <summary>How many dead inodes wait for an object.</summary>
    public int Recycled { get { using (gate.Enter()) { return pool.Count; } } }

    /// <summary>An inode for an object that is no directory: as a new one, but for its name. It may be one that has died.</summary>
    /// <param name="name">With its NUL.</param>
    /// <remarks>
    /// An inode dies with the last reference of the kernel, which keeps one for every request that names the inode until it
    /// has the answer, and for every open file. Whoever comes to an inode by another way lends himself a reference, so that
    /// nobody ever finds another object in the inode that he has at hand.
    /// </remarks>
    public Inode Make(ReadOnlySpan<byte> name)
    {
        Inode? inode;
        using (gate.Enter()) { inode = pool.Take(); }
        inode ??= new Inode();
        inode.Begin(name);
        return inode;
    }

    /// <summary>Leaves the dead inodes that wait for an object to the collector, which is about to be called.</summary>
    public void DropRecycled()
    {
        using (gate.Enter()) { pool.Drop(); }
    }

    /// <summary>The nodeids of all inodes, those that they had before included, but not the root's.</summary>
    public List<ulong> NodeIds()
    {
        using (gate.Enter())
        {
            var all = new List<ulong>(buckets.Count + superseded.Count);
            foreach (Inode inode in buckets)
            {
                if (inode.NodeId != RootId) { all.Add(inode.NodeId); }
            }
            all.AddRange(superseded.Keys);
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

    /// <summary>The inode of a nodeid.</summary>
    /// <returns><see cref="Errno.ESTALE"/> when the kernel uses a nodeid that it has forgotten, or that we never gave.</returns>
    public Errno Find(ulong nodeId, out Inode inode) => Find(nodeId, out inode, out _);

    /// <summary>The inode of a nodeid, and whether the nodeid is one that the inode had before.</summary>
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
            if (superseded.TryGetValue(nodeId, out Superseded? old))
            {
                inode = old.Inode;
                isSuperseded = true;
                return Errno.None;
            }
        }
        inode = null!;
        return Errno.ESTALE;
    }

    /// <summary>The directory of a nodeid.</summary>
    public Errno FindDirectory(ulong nodeId, out DirectoryInode directory)
    {
        Errno error = Find(nodeId, out Inode inode);
        directory = (inode as DirectoryInode)!;
        return error.IsError ? error : directory is null ? Errno.ENOTDIR : Errno.None;
    }

    /// <summary>Finds the inode that stands for a real object, and lends the caller a reference to it.</summary>
    public BorrowedInode Borrow(RealKey key)
    {
        using (gate.Enter()) { return FindByKeyLocked(key) is { } inode ? new BorrowedInode(this, inode, LendLocked(inode)) : default; }
    }

    /// <summary>What users see as st_ino of a real object whose inode is known.</summary>
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
        return buckets.Find(key) ?? hardLinks.GetValueOrDefault(key) ?? expected.GetValueOrDefault(key);
    }

    /// <summary>Lends the kernel one reference to an inode that is known already.</summary>
    /// <returns>False when a name changed in <paramref name="parent"/> since <paramref name="version"/>, so that what was found may be old, or when nothing is known by this key.</returns>
    public bool TryLend(RealKey key, DirectoryInode parent, int version, out Inode inode, out ulong nodeId)
    {
        using (gate.Enter())
        {
            inode = FindByKeyLocked(key)!;
            nodeId = 0;
            if (inode is null || parent.Version != version) { return false; }
            nodeId = LendLocked(inode);
            return true;
        }
    }

    /// <summary>Enters a new inode, or finds that another thread has entered it, and lends the kernel one reference.</summary>
    /// <param name="candidate">The new inode. What does not enter is the table's again, and the caller's no more.</param>
    /// <param name="version">The directory's version before the object was found.</param>
    /// <param name="inode">That of the object, or null.</param>
    /// <param name="nodeId">What the reference is counted under.</param>
    /// <returns>False when a name changed in the inode's directory since <paramref name="version"/>: look again.</returns>
    public bool TryAddAndLend(Inode candidate, int version, out Inode inode, out ulong nodeId) =>
        TryAddAndLend(candidate, InoChoice.Own(candidate.Ino), version, out inode, out nodeId);

    /// <inheritdoc cref="TryAddAndLend(Inode, int, out Inode, out ulong)"/>
    /// <param name="ino">Which st_ino it is to have.</param>
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
                ClaimInoLocked(candidate, ino);
                AddLocked(candidate);
            }
            nodeId = LendLocked(inode);
            return true;
        }
    }

    /// <summary>Gives a new inode a number that no other one shows now.</summary>
    /// <remarks>
    /// Copies of a copy say that they came from one and the same object, and so may a file of upper and another one that
    /// lower has: who comes first has the number. The kernel refuses the second with ESTALE: ovl_verify_inode().
    /// </remarks>
    private void ClaimInoLocked(Inode inode, in InoChoice ino)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        inode.Ino = FreeLocked(ino);
        if (inode.Ino != ino.Real) { claimed[inode.Ino] = inode; }
    }

    private ulong FreeLocked(in InoChoice ino)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        bool isTaken = claimed.ContainsKey(ino.Ino) || (ino.Origin is { } origin && FindByKeyLocked(origin)?.Ino == ino.Ino);
        if (!isTaken) { return ino.Ino; }
        ulong number = ino.Real;
        while (claimed.ContainsKey(number)) { number = InodeNumbers.Another(number); }
        return number;
    }

    /// <summary>The number that an object would have as a new inode.</summary>
    public ulong Free(in InoChoice ino)
    {
        using (gate.Enter()) { return FreeLocked(ino); }
    }

    /// <summary>Enters a new object that nobody else can have found: it was just created. Caller holds the directory's names lock.</summary>
    public void AddAndLend(Inode inode)
    {
        using (gate.Enter())
        {
            // The real number may be a reused one whose last owner the kernel has not forgotten yet.
            if (FindByKeyLocked(inode.Key) is { } old) { buckets.RemoveKey(old); }
            AddLocked(inode);
            _ = LendLocked(inode);
        }
    }

    /// <summary>Lends the kernel one more reference to an inode at hand.</summary>
    /// <returns>The nodeid that it is counted under, which the kernel is to be told: the inode may have another one by then.</returns>
    public ulong Lend(Inode inode)
    {
        using (gate.Enter()) { return LendLocked(inode); }
    }

    private static ulong LendLocked(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        inode.Lookups++;
        return inode.NodeId;
    }

    private void AddLocked(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        inode.NodeId = ++lastNodeId;
        buckets.Add(inode);
        if (inode.Parent is { } parent) { parent.Children++; }
    }

    /// <summary>
    /// The object is about to appear in upper: from now on it is found by both its real objects, since a lookup may see
    /// the upper one before <see cref="Rekey"/>. <see cref="ExpectNoMore"/> follows, whether it has appeared or not.
    /// </summary>
    public void Expect(Inode inode, RealKey key)
    {
        using (gate.Enter()) { expected[key] = inode; }
    }

    /// <summary>The end of what <see cref="Expect"/> began.</summary>
    public void ExpectNoMore(RealKey key)
    {
        using (gate.Enter()) { expected.Remove(key); }
    }

    /// <summary>The object has moved to upper: from now on it is found by its upper inode.</summary>
    /// <param name="inode">The inode.</param>
    /// <param name="key">The upper inode's key.</param>
    /// <param name="keepLower">Whether other lower names still lead to the old key.</param>
    public void Rekey(Inode inode, RealKey key, bool keepLower)
    {
        using (gate.Enter())
        {
            if (keepLower) { RetainLocked(inode, inode.Key); }
            buckets.RemoveKey(inode);
            inode.Key = key;
            buckets.AddKey(inode);
            claimed.TryAdd(inode.Ino, inode);
            if (inode.Parent is { } parent) { parent.Version++; }
        }
    }

    /// <summary>The object has lost its last name: its inode number may come again for another one.</summary>
    public void Unhash(Inode inode)
    {
        using (gate.Enter()) { buckets.RemoveKey(inode); }
    }

    /// <summary>A name in a directory has changed.</summary>
    public void Changed(DirectoryInode directory)
    {
        using (gate.Enter()) { directory.Version++; }
    }

    /// <summary>The version to compare with after a lookup.</summary>
    public int VersionOf(DirectoryInode directory)
    {
        using (gate.Enter()) { return directory.Version; }
    }

    /// <summary>Keeps an inode, and what it knows of its lower names, as long as the mount lives.</summary>
    public void RetainHardLink(Inode inode, RealKey lowerKey)
    {
        using (gate.Enter()) { RetainLocked(inode, lowerKey); }
    }

    private void RetainLocked(Inode inode, RealKey lowerKey)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        hardLinks[lowerKey] = inode;
        inode.Links!.RetainedUnder = lowerKey;
    }

    /// <summary>The last name of a hard-linked file is gone: it is forgotten like any other.</summary>
    public void ReleaseHardLink(Inode inode)
    {
        using (gate.Enter())
        {
            if (inode.Links!.RetainedUnder is { } key) { hardLinks.Remove(key); }
            inode.Links.RetainedUnder = null;
            DropIfUnusedLocked(inode);
        }
    }

    /// <summary>Remembers one more name of a file that has several; the name's directory lives as long.</summary>
    /// <remarks>Names of a lower file are all needed. Those of any other only spare a descriptor, and some will do.</remarks>
    public void AddAlias(Inode inode, DirectoryInode parent, ReadOnlySpan<byte> name, bool isUpper)
    {
        using (gate.Enter()) { AddAliasLocked(inode, parent, name, isUpper); }
    }

    /// <summary>Remembers a name that was found.</summary>
    /// <returns>False when a name changed in <paramref name="parent"/> since <paramref name="version"/>: it may be this one, so look again.</returns>
    public bool TryAddAlias(Inode inode, DirectoryInode parent, int version, ReadOnlySpan<byte> name, bool isUpper)
    {
        using (gate.Enter())
        {
            if (parent.Version != version) { return false; }
            AddAliasLocked(inode, parent, name, isUpper);
            return true;
        }
    }

    private void AddAliasLocked(Inode inode, DirectoryInode parent, ReadOnlySpan<byte> name, bool isUpper)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        AliasList aliases = inode.MakeAliasListLocked();
        if (inode.Links is null && !KeepsAllNames && aliases.Count >= EnoughAliases) { return; }
        if (aliases.Find(parent, name) is not null) { return; }
        aliases.Add(new Alias(parent, name.ToArray()) { IsUpper = isUpper });
        parent.Children++;
    }

    /// <summary>Forgets a name of a file that has several.</summary>
    public void RemoveAlias(Inode inode, Alias alias)
    {
        using (gate.Enter())
        {
            inode.AliasList!.Remove(alias);
            alias.Parent.Children--;
            DropIfUnusedLocked(alias.Parent);
        }
    }

    /// <summary>Whether an object of upper is known to have a name.</summary>
    public bool IsAt(Inode inode, DirectoryInode parent, ReadOnlySpan<byte> name)
    {
        using (gate.Enter())
        {
            if (!inode.IsNameless && ReferenceEquals(inode.Parent, parent) && name.SequenceEqual(inode.Name)) { return true; }
            return inode.AliasList?.Find(parent, name) is { IsUpper: true };
        }
    }

    /// <summary>What is known of a name of a file that has several.</summary>
    public Alias? FindAlias(Inode inode, DirectoryInode parent, ReadOnlySpan<byte> name)
    {
        if (inode.AliasList is null) { return null; }
        using (gate.Enter()) { return inode.AliasList.Find(parent, name); }
    }

    /// <summary>Follows a rename. Caller holds the rename lock exclusively.</summary>
    public void Move(Inode inode, DirectoryInode parent, byte[] name)
    {
        using (gate.Enter())
        {
            parent.Children++;
            DirectoryInode? old = inode.Parent;
            inode.Parent = parent;
            inode.SetName(name);
            if (inode.IsDirectory && inode.IsKnownByName)
            {
                bool isKeyed = inode.IsKeyed;
                if (isKeyed) { buckets.RemoveKey(inode); }
                inode.Key = InodeNumbers.KeyOfName(parent.NodeId, name);
                if (isKeyed) { buckets.AddKey(inode); }
            }
            if (old is not null)
            {
                old.Children--;
                DropIfUnusedLocked(old);
            }
        }
    }

    /// <summary>How the open files of an inode reach their data, for one more that was opened by this nodeid.</summary>
    /// <returns>False when the inode has another nodeid by now, whose files have another way.</returns>
    public bool TryGetBacking(Inode inode, ulong nodeId, out BackingFile backing)
    {
        using (gate.Enter())
        {
            backing = inode.Backing ??= new BackingFile();
            return inode.NodeId == nodeId;
        }
    }

    /// <summary>
    /// Gives an inode a new nodeid, and a new way to its data: files that are open keep the old ones, since the kernel has
    /// bound the pages of that nodeid to the lower file.
    /// </summary>
    /// <returns>False when somebody else has done it.</returns>
    public bool TrySupersede(Inode inode, BackingFile backing)
    {
        using (gate.Enter())
        {
            if (!ReferenceEquals(inode.Backing, backing)) { return false; }
            inode.Backing = new BackingFile();
            superseded.Add(inode.NodeId, new Superseded(inode, inode.Lookups));
            inode.OldNodeIds++;
            buckets.ChangeNodeId(inode, ++lastNodeId);
            inode.Lookups = 0;
            return true;
        }
    }

    /// <summary>Nodeids of regular files to which the kernel has references.</summary>
    /// <param name="nodeIds">Room for them.</param>
    /// <returns>How many were found, which may be none although there are some: others wait, so that not everything is looked at.</returns>
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

    /// <summary>The kernel returns references. Too many are clamped and logged: forgetting never fails.</summary>
    public void Forget(ulong nodeId, ulong lookups)
    {
        using (gate.Enter())
        {
            if (nodeId == RootId) { return; }
            if (buckets.Find(nodeId) is { } inode)
            {
                if (lookups > inode.Lookups) { log($"veneer: the kernel returned {lookups} references to node {nodeId}, which had {inode.Lookups}"); }
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
    }

    /// <summary>How many descriptors are held of objects without a name.</summary>
    public int Orphans => Volatile.Read(ref orphanCount);

    /// <summary>A descriptor leads to the object from now on, which has no name, or is about to lose it.</summary>
    public void SetOrphan(Inode inode, int descriptor)
    {
        Interlocked.Increment(ref orphanCount);
        inode.BecomeOrphaned(descriptor);
    }

    /// <summary>The object is reached by its name again. Caller holds the rename lock exclusively.</summary>
    /// <inheritdoc cref="Inode.BecomeNamed"/>
    public void TakeStandIn(Inode inode, out int descriptor, out byte[]? workName)
    {
        inode.BecomeNamed(out descriptor, out workName);
        if (descriptor >= 0) { Interlocked.Decrement(ref orphanCount); }
    }

    /// <summary>The name in work of an object without another one that nobody knows any more. The caller discards it, under no lock.</summary>
    /// <returns>False when there is none.</returns>
    public bool TryTakeLeftover(out byte[] name)
    {
        name = [];
        if (leftovers.Count == 0) { return false; } // a race only puts it off to the next call
        using (gate.Enter())
        {
            if (leftovers.Count == 0) { return false; }
            name = leftovers[^1];
            leftovers.RemoveAt(leftovers.Count - 1);
            return true;
        }
    }

    /// <summary>
    /// The descriptor of a file without a name that nobody knows any more. Closing it may free all its blocks, which
    /// takes long for a large file: the caller does it, under no lock.
    /// </summary>
    /// <returns>False when there is none.</returns>
    public bool TryTakeOrphan(out int descriptor)
    {
        descriptor = -1;
        if (orphans.Count == 0) { return false; } // a race only puts it off to the next call
        using (gate.Enter())
        {
            if (orphans.Count == 0) { return false; }
            descriptor = orphans[^1];
            orphans.RemoveAt(orphans.Count - 1);
            Interlocked.Decrement(ref orphanCount);
            return true;
        }
    }

    private void DropIfUnusedLocked(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        while (true)
        {
            if (inode.Lookups > 0 || inode is DirectoryInode { Children: > 0 }) { return; }
            if (inode.NodeId == RootId || IsRetainedLocked(inode)) { return; }
            buckets.Remove(inode);
            if (claimed.Count > 0 && claimed.TryGetValue(inode.Ino, out Inode? claimant) && ReferenceEquals(claimant, inode)) { claimed.Remove(inode.Ino); }
            if (inode.Orphan >= 0) { orphans.Add(inode.Orphan); }
            if (inode.WorkName is { } leftover) { leftovers.Add(leftover); }
            if (inode is DirectoryInode directory)
            {
                if (directory.Upper is { } upper) { directories.Drop(upper); }
                foreach (RealDirectory lower in directory.Lowers) { directories.Drop(lower); }
            }
            foreach (Alias alias in inode.Aliases)
            {
                if (alias.IsRemoved) { continue; }
                alias.Parent.Children--;
                DropIfUnusedLocked(alias.Parent);
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

    /// <summary>The mount is over: every descriptor is closed.</summary>
    public void Clear()
    {
        using (gate.Enter())
        {
            foreach (Inode inode in buckets)
            {
                if (inode.Orphan >= 0) { Libc.Close(inode.Orphan); }
                if (inode is not DirectoryInode directory) { continue; }
                if (directory.Upper is { } upper) { directories.Drop(upper); }
                foreach (RealDirectory lower in directory.Lowers) { directories.Drop(lower); }
            }
            foreach (int orphan in orphans) { Libc.Close(orphan); }
            orphans.Clear();
            orphanCount = 0;
            buckets.Clear();
            superseded.Clear();
            hardLinks.Clear();
            claimed.Clear();
        }
    }
}

/// <summary>An inode with a reference to it, as the kernel has them, so that it stays what it is until <see cref="Dispose"/>.</summary>
internal readonly struct BorrowedInode(InodeTable table, Inode inode, ulong nodeId) : IDisposable
{
    /// <summary>Null when there is none.</summary>
    public Inode? Inode => inode;

    /// <summary>Gives it back.</summary>
    public void Dispose()
    {
        if (inode is not null) { table.Forget(nodeId, 1); }
    }
}
