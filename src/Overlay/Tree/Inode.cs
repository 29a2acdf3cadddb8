using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>What leads to the real object of an inode.</summary>
internal enum ObjectPlace : byte
{
    /// <summary>Its name; or it is in a lower layer, where it stays.</summary>
    Named,
    /// <summary>A name in work, since each of its names may be removed.</summary>
    Held,
    /// <summary>A descriptor or a name in work, since its name has been removed.</summary>
    Orphaned,
    /// <summary>Nothing: its last name was removed when there was no descriptor for it.</summary>
    Gone,
}

/// <summary>One overlay object as the kernel knows it.</summary>
/// <remarks>
/// <see cref="InodeReferences"/> says how long it lives. Unless the comment of a field says otherwise, the field is set before the
/// inode enters the table and never changes.
/// <para>
/// An inode that is not a directory comes from <see cref="InodeTable.Make"/> and is recycled when it has died. So
/// <see cref="ClearLocked"/> must clear every field.
/// </para>
/// </remarks>
/// <param name="hasUpper">Whether upper has the object.</param>
internal class Inode(bool hasUpper = false)
{
    /// <summary>The number by which the kernel knows the inode. It changes when the inode is superseded. Protected by the table.</summary>
    public ulong NodeId;

    /// <summary>References that the kernel holds (nlookup). Protected by the table.</summary>
    public ulong Lookups;

    /// <summary>The directory that has <see cref="Name"/>. Protected by the rename lock.</summary>
    public DirectoryInode? Parent;

    /// <summary>The directory that has the topmost lower object, or null when there is none. Set after <see cref="Name"/>.</summary>
    public RealDirectory? LowerDirectory;

    /// <summary>
    /// How the open files reach their data; null until a file is opened. Protected by the table, but some readers take no lock.
    /// </summary>
    public BackingFile? Backing;

    /// <summary>The next inode in the bucket by nodeid; of a dead inode, the next in the pool. Protected by the table.</summary>
    public Inode? NextByNodeId;

    /// <summary>The next inode in the bucket by key. Protected by the table.</summary>
    public Inode? NextByKey;

    /// <summary>What users see as st_ino.</summary>
    public ulong Ino;

    private static readonly byte[] noName = [0];

    private byte[] name = noName;
    private RareFields? rareFields;
    private ulong keyIno;
    private int keyDevice;
    private ushort type;

    /// <summary>What chattr(1) forbids. FUSE cannot tell the kernel, so the server itself refuses such changes.</summary>
    public volatile Protection Protection;

    /// <summary>Whether the file may change without a request, so that the kernel must not cache its attributes. Set once.</summary>
    /// <remarks>
    /// A program that has the file open for reading and writing, passed through, can map it. The map is one of the real file: a
    /// write to it changes st_mtime of the real inode. The map may last longer than the open file.
    /// </remarks>
    public volatile bool ChangesUnseen;

    private volatile bool hasUpper = hasUpper;
    private volatile bool isNameless;

    /// <summary>Whether the table finds the inode by <see cref="Key"/>. Protected by the table.</summary>
    public bool IsKeyed;

    /// <summary>
    /// Whether upper says where the object came from, so that its directory must be impure. Copy-up sets it, under the copy-up lock.
    /// Kernel: OVL_TYPE_ORIGIN().
    /// </summary>
    public bool HasOrigin;

    /// <summary>Whether a lookup can find st_ino by the origin that copy-up wrote. Protected by the copy-up lock.</summary>
    public bool FindsOrigin;

    /// <summary>Fields that few inodes need. There may be a million inodes, and each field of an inode costs memory in all.</summary>
    private sealed class RareFields
    {
        public byte[]? LowerName;
        public RealName? Metacopy;
        public int Orphan = -1;
        public byte[]? WorkName;
        public HardLinks? Links;
        public volatile byte[]? Hold;
        public AliasList? Aliases;
        public int OldNodeIds;

        public void Clear()
        {
            LowerName = null;
            Metacopy = null;
            Orphan = -1;
            WorkName = null;
            Links = null;
            Hold = null;
            Aliases = null;
            OldNodeIds = 0;
        }
    }

    private RareFields Rare =>
        Volatile.Read(ref rareFields) ?? Interlocked.CompareExchange(ref rareFields, new RareFields(), null) ?? rareFields;

    /// <summary>
    /// One of the names, with its NUL. If upper has the object, it has it under this name. Protected by the rename lock.
    /// </summary>
    public ReadOnlySpan<byte> Name => Terminated(Volatile.Read(ref name));

    /// <summary>Changes the name. Caller holds the rename lock exclusively, unless nobody else knows the inode.</summary>
    /// <param name="value">With its NUL. The array must not change afterwards.</param>
    public void SetNameLocked(byte[] value)
    {
        this.AssertRenameExcluded();
        if (LowerDirectory is not null && rareFields?.LowerName is null) { Rare.LowerName = name; }
        Volatile.Write(ref name, value);
    }

    /// <summary>Sets the first name, with its NUL. The array of the earlier object's name is reused if it is long enough.</summary>
    /// <remarks>Nobody else knows the inode.</remarks>
    public void Begin(ReadOnlySpan<byte> value)
    {
        // Arrays take multiples of 8 bytes anyhow. A new array is at least twice as long, so that later names fit as well.
        if (value.Length > name.Length) { name = new byte[(Math.Max(value.Length, 2 * name.Length) + 7) & ~7]; }
        value.CopyTo(name);
    }

    /// <summary>The name in an array, up to and with the NUL. The array may be longer.</summary>
    private static ReadOnlySpan<byte> Terminated(byte[] name) => name.AsSpan(0, name.AsSpan().IndexOf((byte)0) + 1);

    /// <summary>The name of the topmost lower object, with its NUL: the first <see cref="Name"/>, unless set to another one.</summary>
    public ReadOnlySpan<byte> LowerName
    {
        // In this order: SetNameLocked() keeps the old name before it changes the name.
        get
        {
            byte[] current = Volatile.Read(ref name);
            return Terminated(Volatile.Read(ref rareFields)?.LowerName ?? current);
        }
    }

    /// <summary>Sets the name of the topmost lower object, with its NUL, which is not the first <see cref="Name"/>.</summary>
    public void SetLowerName(byte[] value) => Rare.LowerName = value;

    /// <summary>Where the data is while upper has only the attributes; otherwise null. Changed under the copy-up lock.</summary>
    public RealName? Metacopy
    {
        get => rareFields?.Metacopy;
        set
        {
            if (value is not null || rareFields is not null) { Rare.Metacopy = value; }
        }
    }

    /// <summary>
    /// A descriptor (O_PATH) of the real object, if <see cref="Name"/> does not lead to it any more; otherwise -1. It is closed after
    /// the inode has died.
    /// </summary>
    public int Orphan => rareFields?.Orphan ?? -1;

    /// <summary>
    /// The name in work, with its NUL, that leads to a real object without a name in upper, if there was no descriptor for
    /// <see cref="Orphan"/>; otherwise null. The object is discarded after the inode has died.
    /// </summary>
    public byte[]? WorkName => rareFields?.WorkName;

    /// <summary>What is known of a file that has several names in a lower layer; otherwise null.</summary>
    public HardLinks? Links => rareFields?.Links;

    /// <summary>The object has several names in a lower layer. Nobody else knows the inode.</summary>
    /// <param name="count">How many names there are.</param>
    public void BeginLinks(uint count) => Rare.Links = new HardLinks(count);

    /// <summary>
    /// The name in work, with its NUL, that leads to the copy of a file with <see cref="Links"/> and keeps it linkable, whichever of
    /// its names is removed. Null before copy-up, and after the last name is removed.
    /// </summary>
    /// <remarks>A descriptor would serve as well, but there may be more such files than a process may have descriptors.</remarks>
    public byte[]? Hold => rareFields?.Hold;

    /// <summary>The known names of a file that has several. Some may have been removed: see <see cref="Alias.IsRemoved"/>.</summary>
    public ReadOnlySpan<Alias> Aliases => rareFields?.Aliases is { } all ? all.All : default;

    /// <summary>The list of <see cref="Aliases"/>, which the table changes; null until there is one.</summary>
    public AliasList? AliasList => rareFields?.Aliases;

    /// <summary>The list of <see cref="Aliases"/>, made if there is none. Caller holds the lock of the table.</summary>
    public AliasList MakeAliasListLocked()
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        return Rare.Aliases ??= new AliasList();
    }

    /// <summary>How many of the inode's earlier nodeids open files use. Protected by the table.</summary>
    public int OldNodeIds
    {
        get => rareFields?.OldNodeIds ?? 0;
        set => Rare.OldNodeIds = value;
    }

    /// <summary>The real object's key under which the table finds the inode. Protected by the table.</summary>
    public RealKey Key
    {
        get => new(keyDevice, keyIno);
        set => (keyDevice, keyIno) = (value.Device, value.Ino);
    }

    /// <summary>Whether the key tells the object's place, since other objects may have its numbers.</summary>
    public bool IsKnownByName => keyDevice < 0;

    /// <summary>The type bits of the mode.</summary>
    public uint Type { get => type; set => type = (ushort)value; }

    /// <summary>Whether the lower file is too small to be passed through, whatever its content.</summary>
    public bool IsSmall;

    /// <summary>Whether the object, or at least its attributes, are in upper. Set once, under the copy-up lock.</summary>
    public bool HasUpper => hasUpper;

    /// <summary>
    /// From now on the object, or at least its attributes, are in upper. Caller holds the copy-up lock, or nobody else knows the inode.
    /// </summary>
    public void BecomeUpperLocked()
    {
        this.AssertMayBecomeUpper();
        hasUpper = true;
    }

    /// <summary>
    /// What leads to the object. It follows from <see cref="Hold"/>, <see cref="IsNameless"/>, <see cref="IsUnlinked"/> and
    /// <see cref="HasUpper"/>, which only the methods of this class whose names begin with Become change.
    /// </summary>
    /// <remarks>
    /// To change the place, the caller holds the names lock of the directory, or the rename lock exclusively: see
    /// <see cref="InodeLocking"/>. What stands in for the name is cleared only under the exclusive rename lock, since others may be
    /// using it. Some readers take no lock: what stands in is set before <see cref="IsNameless"/> becomes true, and cleared after that
    /// has become false.
    /// </remarks>
    public ObjectPlace Place =>
        Hold is not null ? ObjectPlace.Held
            : isNameless ? ObjectPlace.Orphaned
            : IsUnlinked && HasUpper ? ObjectPlace.Gone
            : ObjectPlace.Named;

    /// <summary>
    /// Whether <see cref="Name"/> has been removed, or is about to be, and <see cref="Orphan"/> or <see cref="WorkName"/> leads to the
    /// object instead. <see cref="Hold"/> is no such stand-in: it leads to the copy while there are names, and afterwards becomes one.
    /// </summary>
    public bool IsNameless => isNameless;

    /// <summary>Whether the object has no name left in the overlay: st_nlink is 0.</summary>
    /// <remarks>
    /// Such an object is not <see cref="ObjectPlace.Gone"/> as long as something leads to it: a stand-in, or its place in a lower.
    /// </remarks>
    public bool IsUnlinked { get; private set; }

    /// <summary>
    /// From now on a name in work, with its NUL, leads to the copy of a file with several lower names. Caller holds the copy-up lock and
    /// the rename lock: the names of such a file are removed under the exclusive rename lock.
    /// </summary>
    public void BecomeHeldLocked(byte[] workName)
    {
        this.AssertCopyUpLocked();
        LockOrder.AssertHeld(OverlayLocks.Rename);
        Rare.Hold = workName;
    }

    /// <summary>
    /// The name is about to go: from now on a descriptor leads to the object. Called by <see cref="Orphans"/> only. Caller holds the
    /// locks of <see cref="Place"/>.
    /// </summary>
    public void BecomeOrphanedLocked(int descriptor)
    {
        this.AssertPlaceLocked();
        Rare.Orphan = descriptor;
        StandIn();
    }

    /// <summary>
    /// The name is about to go: from now on a name in work, with its NUL, leads to the object. Caller holds the locks of
    /// <see cref="Place"/>.
    /// </summary>
    public void BecomeOrphanedLocked(byte[] workName)
    {
        this.AssertPlaceLocked();
        Rare.WorkName = workName;
        StandIn();
    }

    /// <summary>
    /// The name is about to go, and what stands in for it is there already, since an earlier removal failed: see
    /// <see cref="BecomeNamedAgainLocked"/>. Caller holds the locks of <see cref="Place"/>.
    /// </summary>
    public void BecomeOrphanedAgainLocked()
    {
        this.AssertPlaceLocked();
        StandIn();
    }

    private void StandIn()
    {
        isNameless = true;
        if (rareFields is { Hold: not null } rare) { rare.Hold = null; }
    }

    /// <summary>
    /// The removal of the name failed. What stands in for it stays, since others may be using it. Caller holds the locks of
    /// <see cref="Place"/>.
    /// </summary>
    public void BecomeNamedAgainLocked()
    {
        this.AssertPlaceLocked();
        isNameless = false;
    }

    /// <summary>
    /// From now on the object is reached by its name, and nobody is using what stood in for it. Called by <see cref="Orphans"/> only.
    /// Caller holds the rename lock exclusively.
    /// </summary>
    /// <param name="descriptor">The descriptor that stood in, which the caller closes; or -1.</param>
    /// <param name="workName">The name in work that stood in, which the caller discards; or null.</param>
    public void BecomeNamedLocked(out int descriptor, out byte[]? workName)
    {
        this.AssertRenameExcluded();
        isNameless = false;
        (descriptor, workName) = (Orphan, WorkName);
        if (rareFields is { } rare) { (rare.Orphan, rare.WorkName) = (-1, null); }
    }

    /// <summary>
    /// A removed directory is in work from now on, by a name with its NUL. Its real directory leads to it there. Caller holds the locks
    /// of <see cref="Place"/>.
    /// </summary>
    public void SetWorkNameLocked(byte[] workName)
    {
        this.AssertPlaceLocked();
        Rare.WorkName = workName;
    }

    /// <summary>
    /// The last name has been removed. Caller holds the names lock of the directory that had it, or the rename lock exclusively.
    /// </summary>
    public void BecomeUnlinkedLocked()
    {
        this.AssertNameLocked();
        IsUnlinked = true;
    }

    /// <summary>
    /// The object has got a name, as a file from O_TMPFILE may. Caller holds the names lock of the directory that has it, or the rename
    /// lock exclusively.
    /// </summary>
    public void BecomeLinkedLocked()
    {
        this.AssertNameLocked();
        IsUnlinked = false;
    }

    /// <summary>Whether the data is in upper.</summary>
    public bool HasUpperData => HasUpper && Metacopy is null;

    /// <summary>Checks whether <see cref="Protection"/> allows a change. Kernel: IS_IMMUTABLE(), IS_APPEND().</summary>
    /// <param name="onlyAdds">Whether the change is one that append-only allows.</param>
    /// <returns><see cref="Errno.EPERM"/> when it does not.</returns>
    public Errno CheckChange(bool onlyAdds = false)
    {
        Format.Protection protection = Protection;
        bool refused = (protection & Format.Protection.Immutable) != 0
            || ((protection & Format.Protection.AppendOnly) != 0 && !onlyAdds);
        return refused ? Errno.EPERM : Errno.None;
    }

    /// <summary>Whether this is a directory.</summary>
    public bool IsDirectory => Type == FileType.Directory;

    /// <summary>Whether this is a regular file.</summary>
    public bool IsRegular => Type == FileType.Regular;

    /// <summary>Takes the copy-up lock, if it is free or becomes free in time. The inode itself is locked, to save an object.</summary>
    /// <param name="milliseconds">The longest time to wait, in milliseconds.</param>
    /// <param name="scope">Holds the lock until it is disposed of.</param>
    public bool TryLockCopyUp(int milliseconds, out ObjectLock.Scope scope) =>
        ObjectLock.TryEnter(this, OverlayLocks.CopyUp, milliseconds, out scope);

    /// <summary>Whether the inode may be recycled when it has died: nothing that the inode knows of may still refer to it.</summary>
    public bool IsRecyclable =>
        !IsDirectory && Links is null && AliasList is null or { Count: 0 } && Backing is null or { IsIdle: true };

    /// <summary>Makes the inode as new. Caller holds the lock of the table, and nobody else knows the inode.</summary>
    public void ClearLocked()
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        NodeId = Lookups = Ino = keyIno = 0;
        keyDevice = type = 0;
        Parent = null;
        LowerDirectory = null;
        NextByNodeId = NextByKey = null;
        Backing?.Clear();
        name[0] = 0;
        rareFields?.Clear();
        Protection = Protection.None;
        ChangesUnseen = hasUpper = isNameless = IsKeyed = IsUnlinked = HasOrigin = FindsOrigin = IsSmall = false;
    }
}
