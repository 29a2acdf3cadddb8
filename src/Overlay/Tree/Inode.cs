using System.Diagnostics;
using System.Runtime.CompilerServices;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tree;

/// <summary>What leads to an object.</summary>
internal enum ObjectPlace : byte
{
    /// <summary>Its name; or it is in a lower layer, where it stays.</summary>
    Named,
    /// <summary>A name in work, since any of its names may go.</summary>
    Held,
    /// <summary>A descriptor, or a name in work: its name is gone.</summary>
    Orphaned,
    /// <summary>Nothing: its last name went when there was no descriptor to spare.</summary>
    Gone,
}

/// <summary>One overlay object as the kernel knows it.</summary>
/// <remarks>
/// Lives while the kernel holds a reference, or a child names it, or it is retained. Where a field is not said to be
/// protected otherwise, it is set before the inode enters the table and never changes.
/// <para>
/// What is no directory comes from <see cref="InodeTable.Make"/>, and serves another object when it has died: a new field
/// has its place in <see cref="Clear"/> as well.
/// </para>
/// </remarks>
/// <param name="hasUpper">Whether upper has the object.</param>
internal class Inode(bool hasUpper = false)
{
    /// <summary>The wire's name for the inode. Changes when an inode is superseded. Protected by the table.</summary>
    public ulong NodeId;

    /// <summary>References that the kernel holds (nlookup). Protected by the table.</summary>
    public ulong Lookups;

    /// <summary>The directory that holds <see cref="Name"/>. Protected by the rename lock.</summary>
    public DirectoryInode? Parent;

    /// <summary>The directory that holds the topmost lower object, or null when there is none. Set after <see cref="Name"/>.</summary>
    public RealDirectory? LowerDirectory;

    /// <summary>Open files and how the kernel caches them; null while none was ever open.</summary>
    public BackingFile? Backing;

    /// <summary>Next in the table's bucket by nodeid. Protected by the table.</summary>
    public Inode? NextByNodeId;

    /// <summary>Next in the table's bucket by key. Protected by the table.</summary>
    public Inode? NextByKey;

    /// <summary>What users see as st_ino.</summary>
    public ulong Ino;

    private static readonly byte[] noName = [0];

    private byte[] name = noName;
    private RareFields? rareFields;
    private ulong keyIno;
    private int keyDevice;
    private ushort type;

    /// <summary>What chattr(1) forbids. FUSE has no way to tell the kernel, so we refuse ourselves.</summary>
    public volatile Protection Protection;

    /// <summary>Whether the file may change without the kernel's FUSE inode knowing, so that its attributes must not be cached.</summary>
    /// <remarks>
    /// Whoever opened the file for reading and writing, passed through, can map it. The map is one of the real file: what
    /// is written there changes st_mtime of the real inode, and no request tells. It outlives the open file. Set once.
    /// </remarks>
    public volatile bool ChangesUnseen;

    private volatile bool hasUpper = hasUpper;
    private volatile bool isNameless;

    /// <summary>Whether the table finds the inode by <see cref="Key"/>. Protected by the table.</summary>
    public bool IsKeyed;

    /// <summary>Whether upper says where the object came from, so that its directory must be impure. Kernel: OVL_TYPE_ORIGIN().</summary>
    public bool HasOrigin;

    /// <summary>Whether the origin that a copy-up wrote leads back to the number. Protected by the copy-up lock.</summary>
    public bool FindsOrigin;

    /// <summary>What few inodes have. There may be a million of them, and each field of this class costs all.</summary>
    private sealed class RareFields
    {
        public byte[]? LowerName;
        public RealName? Metacopy;
        public int Orphan = -1;
        public byte[]? WorkName;
        public HardLinks? Links;
        public AliasList? Aliases;
        public int OldNodeIds;

        public void Clear()
        {
            LowerName = null;
            Metacopy = null;
            Orphan = -1;
            WorkName = null;
            Links = null;
            Aliases = null;
            OldNodeIds = 0;
        }
    }

    private RareFields Rare => Volatile.Read(ref rareFields) ?? Interlocked.CompareExchange(ref rareFields, new RareFields(), null) ?? rareFields;

    /// <summary>One of the names, with its NUL; upper has the object under it. Protected by the rename lock.</summary>
    public ReadOnlySpan<byte> Name => Terminated(Volatile.Read(ref name));

    /// <summary>The name is another one from now on. Caller holds the rename lock exclusively, or nobody else knows the inode.</summary>
    /// <param name="value">With its NUL. Nobody changes it any more.</param>
    public void SetName(byte[] value)
    {
        if (LowerDirectory is not null && rareFields?.LowerName is null) { Rare.LowerName = name; }
        Volatile.Write(ref name, value);
    }

    /// <summary>The first name, in the memory of that of the object before, if there is room. Nobody else knows the inode yet.</summary>
    /// <param name="value">With its NUL.</param>
    public void Begin(ReadOnlySpan<byte> value)
    {
        // Memory comes in steps of 8 bytes anyhow. A name that outgrows another's place makes room for longer ones.
        if (value.Length > name.Length) { name = new byte[(Math.Max(value.Length, 2 * name.Length) + 7) & ~7]; }
        value.CopyTo(name);
    }

    /// <summary>A name up to its NUL: the array may be longer.</summary>
    private static ReadOnlySpan<byte> Terminated(byte[] name) => name.AsSpan(0, name.AsSpan().IndexOf((byte)0) + 1);

    /// <summary>The name of the topmost lower object, with its NUL: the first <see cref="Name"/>, unless set to another one.</summary>
    public ReadOnlySpan<byte> LowerName
    {
        // In this order: whoever changes the name has kept the old one by then.
        get
        {
            byte[] current = Volatile.Read(ref name);
            return Terminated(Volatile.Read(ref rareFields)?.LowerName ?? current);
        }
    }

    /// <summary>The topmost lower object has another name than the first <see cref="Name"/>.</summary>
    /// <param name="value">With its NUL.</param>
    public void SetLowerName(byte[] value) => Rare.LowerName = value;

    /// <summary>Where the data is while upper has attributes only; null otherwise. Protected by the copy-up lock.</summary>
    public RealName? Metacopy
    {
        get => rareFields?.Metacopy;
        set
        {
            if (value is not null || rareFields is not null) { Rare.Metacopy = value; }
        }
    }

    /// <summary>A descriptor (O_PATH) of the real object once <see cref="Name"/> does not lead to it any more, or -1. Closed when the inode dies.</summary>
    public int Orphan => rareFields?.Orphan ?? -1;

    /// <summary>
    /// The name in work, with its NUL, that leads to a real object without a name in upper, where there was no descriptor to
    /// spare for <see cref="Orphan"/>; else null. The object is discarded when the inode dies.
    /// </summary>
    public byte[]? WorkName => rareFields?.WorkName;

    /// <summary>For a file that has several names in a lower layer; null for all others.</summary>
    public HardLinks? Links { get => rareFields?.Links; set => Rare.Links = value; }

    /// <summary>The names seen so far of a file that has several; some may be removed by now.</summary>
    public ReadOnlySpan<Alias> Aliases => rareFields?.Aliases is { } all ? all.All : default;

    /// <summary>The same for the table, which changes it; null as long as there was none.</summary>
    public AliasList? AliasList => rareFields?.Aliases;

    /// <summary>Makes a list of names. Caller holds the lock of the table.</summary>
    public AliasList MakeAliasListLocked()
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        return Rare.Aliases ??= new AliasList();
    }

    /// <summary>How many nodeids it had before that open files still use. Protected by the table.</summary>
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

    /// <summary>Whether the object is known by where it is: its numbers may be those of others.</summary>
    public bool IsKnownByName => keyDevice < 0;

    /// <summary>The type bits of the mode.</summary>
    public uint Type { get => type; set => type = (ushort)value; }

    /// <summary>Whether the lower file is too small to be passed through, whatever is in it.</summary>
    public bool IsSmall;

    /// <summary>Whether the object, or at least its attributes, are in upper. Set once, under the copy-up lock.</summary>
    public bool HasUpper { get => hasUpper; set => hasUpper = value; }

    /// <summary>What leads to the object. Changed by the methods that follow, and by nothing else.</summary>
    /// <remarks>
    /// Callers hold the rename lock and, to change it, the names lock of the directory; the place of an object that others may
    /// reach by its name goes back to <see cref="ObjectPlace.Named"/> under the exclusive rename lock alone. Some readers have no lock:
    /// what stands in for the name is there before <see cref="IsNameless"/> says so, and goes after it has said the contrary.
    /// </remarks>
    public ObjectPlace Place =>
        Links?.Hold is not null ? ObjectPlace.Held : isNameless ? ObjectPlace.Orphaned : IsUnlinked && HasUpper ? ObjectPlace.Gone : ObjectPlace.Named;

    /// <summary>Whether <see cref="Name"/> is gone and <see cref="Orphan"/> or <see cref="WorkName"/> stands in. A hard-linked copy has <see cref="HardLinks.Hold"/>.</summary>
    public bool IsNameless => isNameless;

    /// <summary>Whether the object has no name left in the overlay: st_nlink is 0.</summary>
    public bool IsUnlinked { get; private set; }

    /// <summary>A name in work keeps the copy of a hard-linked file linkable, whichever of its names goes.</summary>
    /// <param name="workName">With its NUL.</param>
    public void BecomeHeld(byte[] workName) => Links!.Hold = workName;

    /// <summary>The name goes, and a descriptor leads to the object. <see cref="InodeTable"/> counts them.</summary>
    public void BecomeOrphaned(int descriptor)
    {
        Rare.Orphan = descriptor;
        StandIn();
    }

    /// <summary>The name goes, and a name in work leads to the object.</summary>
    /// <param name="workName">With its NUL.</param>
    public void BecomeOrphaned(byte[] workName)
    {
        Rare.WorkName = workName;
        StandIn();
    }

    /// <summary>The name goes once more: what stood in when it did not go after all is there still.</summary>
    public void BecomeOrphanedAgain() => StandIn();

    private void StandIn()
    {
        isNameless = true;
        if (Links is { Hold: not null } links) { links.Hold = null; }
    }

    /// <summary>The name has not gone after all; what stands in stays, since others may use it.</summary>
    public void BecomeNamedAgain() => isNameless = false;

    /// <summary>The object is reached by its name, and nobody is on the way through what stood in. <see cref="InodeTable"/> counts descriptors.</summary>
    /// <param name="descriptor">What stood in, for the caller to close; or -1.</param>
    /// <param name="workName">What stood in, for the caller to discard; or null.</param>
    public void BecomeNamed(out int descriptor, out byte[]? workName)
    {
        isNameless = false;
        (descriptor, workName) = (Orphan, WorkName);
        if (rareFields is { } rare) { (rare.Orphan, rare.WorkName) = (-1, null); }
    }

    /// <summary>A removed directory lies in work under this name, and is found there by its real directory.</summary>
    /// <param name="workName">With its NUL.</param>
    public void LieInWork(byte[] workName) => Rare.WorkName = workName;

    /// <summary>The last name is gone.</summary>
    public void BecomeUnlinked() => IsUnlinked = true;

    /// <summary>The object has got a name again, as a file from O_TMPFILE does.</summary>
    public void BecomeLinked() => IsUnlinked = false;

    /// <summary>Whether the data is in upper.</summary>
    public bool HasUpperData => HasUpper && Metacopy is null;

    /// <summary>Whether the object may be changed at all. Kernel: IS_IMMUTABLE() and IS_APPEND(), which FUSE inodes never are.</summary>
    /// <param name="onlyAdds">Whether the change is one that append-only allows.</param>
    /// <returns><see cref="Errno.EPERM"/> when it may not.</returns>
    public Errno CheckChange(bool onlyAdds = false)
    {
        Format.Protection protection = Protection;
        bool refused = (protection & Format.Protection.Immutable) != 0 || ((protection & Format.Protection.AppendOnly) != 0 && !onlyAdds);
        return refused ? Errno.EPERM : Errno.None;
    }

    /// <summary>Whether this is a directory.</summary>
    public bool IsDirectory => Type == FileType.Directory;

    /// <summary>Whether this is a regular file.</summary>
    public bool IsRegular => Type == FileType.Regular;

    /// <summary>Takes the copy-up lock of this object, if it is free or gets free in time. It is the object itself, to spare one.</summary>
    /// <param name="milliseconds">How long to wait.</param>
    /// <param name="scope">To be disposed of.</param>
    public bool TryLockCopyUp(int milliseconds, out ObjectLock.Scope scope) => ObjectLock.TryEnter(this, OverlayLocks.CopyUp, milliseconds, out scope);

    /// <summary>The caller needs the copy-up lock of this object.</summary>
    [Conditional("LOCK_ORDER")]
    public void AssertCopyUpLocked([CallerMemberName] string member = "") => LockOrder.AssertHeld(OverlayLocks.CopyUp, this, member: member);

    /// <summary>Whether nothing but the table and the kernel can know the inode, as far as can be seen from here: a dead one may serve another object then.</summary>
    public bool IsRecyclable => !IsDirectory && Links is null && AliasList is null or { Count: 0 } && Backing is null or { IsIdle: true };

    /// <summary>As new. Caller holds the table's lock, and nobody else knows the inode.</summary>
    public void Clear()
    {
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

/// <summary>What is known of a file that has several names in a lower layer. Protected by the table.</summary>
/// <remarks>
/// A lower hard link would break at copy-up: one name would get the copy and the others keep the lower file. While
/// mounted, all names stay one inode: every name that the kernel knows is linked to the copy before the first write.
/// </remarks>
internal sealed class HardLinks(uint count)
{
    private volatile byte[]? hold;

    /// <summary>What users see as st_nlink.</summary>
    public uint Count = count;

    /// <summary>
    /// The name in work, with its NUL, that leads to the copy and keeps it linkable, whichever name goes first; null
    /// before copy-up and after the last name is gone. A descriptor would do as well, but a tree may have more such
    /// files than a process may have descriptors.
    /// </summary>
    public byte[]? Hold { get => hold; set => hold = value; } // by Inode alone

    /// <summary>The lower object's key, under which the table keeps the inode for as long as the mount lives.</summary>
    public RealKey? RetainedUnder;
}

/// <summary>One name of a file that has several.</summary>
internal sealed class Alias(DirectoryInode parent, byte[] name)
{
    /// <summary>The directory.</summary>
    public DirectoryInode Parent { get; } = parent;

    /// <summary>With its NUL.</summary>
    public byte[] Name { get; } = name;

    /// <summary>Whether upper has the copy under this name. Protected by the directory's names lock.</summary>
    public volatile bool IsUpper;

    /// <summary>Whether the name is gone. Protected by the directory's names lock.</summary>
    public volatile bool IsRemoved;
}

/// <summary>A directory of the overlay.</summary>
/// <param name="stack">The real directories behind it.</param>
internal sealed class DirectoryInode(DirectoryStack stack) : Inode(hasUpper: stack.Upper is not null)
{
    /// <summary>The real directories behind it.</summary>
    public DirectoryStack Stack => stack;

    /// <summary>The directory in upper, or null. Set once, under the copy-up lock.</summary>
    public RealDirectory? Upper
    {
        get => stack.Upper;
        set
        {
            stack.Upper = value;
            HasUpper = value is not null;
        }
    }

    /// <summary>The directories of the lower layers that show through, topmost first.</summary>
    public RealDirectory[] Lowers => stack.Lowers;

    /// <summary>Inodes whose <see cref="Inode.Parent"/> this is. Protected by the table.</summary>
    public int Children;

    /// <summary>The redirect attribute of the upper directory, without NUL; null when there is none. Protected by the rename lock.</summary>
    public byte[]? Redirect;

    /// <summary>Whether the upper directory has the opaque attribute.</summary>
    public bool IsOpaque;

    /// <summary>Whether the upper directory has the impure attribute.</summary>
    public bool IsImpure;

    /// <summary>Counts changes of names, so that a lookup that ran beside one tries again. Protected by the table.</summary>
    public int Version;

    /// <summary>Takes the lock on names in this directory until the result is disposed of. It is the stack, to spare an object.</summary>
    public ObjectLock.Scope LockNames([CallerMemberName] string member = "") => ObjectLock.Enter(stack, OverlayLocks.Names, member);

    /// <summary>The caller needs the names lock of this directory.</summary>
    [Conditional("LOCK_ORDER")]
    public void AssertNamesLocked([CallerMemberName] string member = "") => LockOrder.AssertHeld(OverlayLocks.Names, stack, member: member);

    /// <inheritdoc cref="DirectoryStack.IsMerged"/>
    public bool IsMerged => stack.IsMerged;

    /// <inheritdoc cref="DirectoryStack.IsPureUpper"/>
    public bool IsPureUpper => stack.IsPureUpper;

    /// <inheritdoc cref="DirectoryStack.Topmost"/>
    public RealDirectory Topmost => stack.Topmost;
}
