using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>An object that is to be made.</summary>
/// <param name="mode">The type and the permissions, before the umask.</param>
/// <param name="device">The device number of a device file, in the kernel's 32-bit encoding.</param>
internal readonly ref struct NewObject(uint mode, uint device = 0)
{
    /// <summary>The type and the permissions, before the umask.</summary>
    public uint Mode { get; } = mode;

    /// <summary>The device number of a device file, in the kernel's 32-bit encoding.</summary>
    public uint Device { get; } = device;

    /// <summary>The target of a symbolic link, with its NUL.</summary>
    public ReadOnlySpan<byte> Target { get; init; }

    /// <summary>The owner.</summary>
    public uint Uid { get; init; }

    /// <summary>The group. If the directory has the set-group-id bit, the object gets the directory's group instead.</summary>
    public uint Gid { get; init; }

    /// <summary>The caller's umask. It does not apply if the directory has a default ACL.</summary>
    public uint Umask { get; init; }

    /// <summary>The flags to open a regular file with. Null if it is not to be opened.</summary>
    public OpenFlags? Open { get; init; }
}

/// <summary>Makes new objects in upper.</summary>
/// <remarks>
/// Callers hold the rename lock and the names lock of the directory. To make a directory, they hold the rename lock exclusively
/// if <see cref="IsLong"/> is true. The directory that gets the name is in upper.
/// <para>
/// Crash safety. If upper has nothing under the name, the object is made by one system call, with its owner, mode and ACL. If
/// upper has a whiteout there, the object is built in work and takes the place of the whiteout by one rename. Killed before
/// that: the name still shows nothing, and the next mount empties work.
/// </para>
/// </remarks>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="maker">Makes inodes.</param>
/// <param name="remove">Keeps objects without a name.</param>
internal sealed class Create(ObjectTree tree, UpperLayer upper, InodeMaker maker, Remove remove)
{
    /// <summary>Whether a directory is made in several steps. Then nobody may look the name up in between.</summary>
    public bool IsLong => upper.Work is { Features: not { Exchange: true, HasOpaque: true } };

    /// <summary>
    /// Whether a new directory may merge with lower directories, since it cannot be marked opaque. Then it gets a whiteout for
    /// each of their entries.
    /// </summary>
    public bool MayMerge => upper.Work is { Features.HasOpaque: false };

    /// <summary>Makes an object with a name.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">The name, with its NUL.</param>
    /// <param name="what">The object to make.</param>
    /// <param name="below">The listing that <see cref="ListBelow"/> gave, if the object is a directory.</param>
    /// <param name="stat">The attributes of the new object.</param>
    /// <param name="descriptor">A descriptor of the opened file, or -1.</param>
    /// <returns><see cref="Errno.EEXIST"/> when the name exists.</returns>
    public Errno RunLocked(
        DirectoryInode parent, ReadOnlySpan<byte> name, in NewObject what, MergedDirectory? below, out Statx stat, out int descriptor)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        parent.AssertNamesLocked();
        stat = default;
        descriptor = -1;
        Errno error = tree.Objects.Of(parent.Upper!, Libc.Self, out RealReference directory);
        if (error.IsError) { return error; }
        using (directory)
        {
            error = Make(directory.Directory, name, what, out descriptor);
            if (error == Errno.EEXIST)
            {
                error = Libc.StatAt(directory.Directory, name, StatxMask.Basic, out stat);
                if (error.IsError) { return error; }
                if (!tree.Reader.IsWhiteout(parent.Upper!, name, stat)) { return Errno.EEXIST; }
                error = OverWhiteout(parent, directory.Directory, name, what, below, out descriptor);
            }
            else if (!error.IsError && (what.Mode & FileType.Mask) == FileType.Directory
                && parent.IsMerged && !upper.AllowsOfflineChanges)
            {
                // best effort: it only spares lookups, as in ovl_create_upper()
                _ = Libc.SetXattrAt(directory.Directory, name, tree.Xattr.Opaque, "y"u8, XattrFlags.None);
            }
            if (error.IsError) { return error; }
            error = descriptor >= 0
                ? Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out stat)
                : Libc.StatAt(directory.Directory, name, StatxMask.Basic, out stat);
            if (error.IsError && descriptor >= 0)
            {
                Libc.Close(descriptor);
                descriptor = -1;
            }
            return error;
        }
    }

    /// <summary>
    /// Makes a file without a name, as O_TMPFILE does, and its inode, to which a descriptor or a name in work leads. The caller enters
    /// the inode in the table.
    /// </summary>
    /// <param name="parent">The directory whose filesystem gets the file.</param>
    /// <param name="what">The file to make.</param>
    /// <param name="staysInWork">Whether the file gets a name in work instead of a descriptor, if it can be linked.</param>
    /// <param name="inode">The new inode.</param>
    /// <param name="stat">The attributes of the new file.</param>
    /// <param name="descriptor">A descriptor of the opened file, or -1.</param>
    public Errno TemporaryLocked(DirectoryInode parent, in NewObject what, bool staysInWork, out Inode inode, out Statx stat,
        out int descriptor)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        parent.AssertNamesLocked();
        inode = null!;
        Errno error = OpenTemporary(parent, what, isLinkable: staysInWork, out stat, out descriptor);
        if (error.IsError) { return error; }
        inode = maker.NewUpperInode(null, Libc.Self, stat);
        if (!staysInWork || !remove.LinkInWorkLocked(inode, descriptor, Libc.Self))
        {
            error = Libc.Duplicate(descriptor, out int kept);
            if (error.IsError)
            {
                Libc.Close(descriptor);
                descriptor = -1;
                return error;
            }
            tree.Orphans.AddLocked(inode, kept);
        }
        inode.BecomeUnlinkedLocked();
        return Errno.None;
    }

    /// <summary>Makes a file without a name and opens it.</summary>
    /// <param name="parent">The directory whose filesystem gets the file.</param>
    /// <param name="what">The file to make.</param>
    /// <param name="isLinkable">Whether the server must be able to give the file a name, even if the user asked for O_EXCL.</param>
    /// <param name="stat">The attributes of the new file.</param>
    /// <param name="descriptor">A descriptor of the opened file, or -1.</param>
    private Errno OpenTemporary(DirectoryInode parent, in NewObject what, bool isLinkable, out Statx stat, out int descriptor)
    {
        stat = default;
        descriptor = -1;
        Errno error = tree.Objects.Of(parent.Upper!, Libc.Self, out RealReference directory);
        if (error.IsError) { return error; }
        using (directory)
        {
            error = CallerIdentity.Assume(what.Uid, what.Gid, what.Umask, out CallerIdentity.Scope caller);
            if (error.IsError) { return error; }
            using (caller)
            {
                OpenFlags flags = OpenFlags.TemporaryFile | OpenFlags.ReadWrite | (what.Open!.Value & (OpenFlags.Direct | OpenFlags.Sync));
                if (!isLinkable) { flags |= what.Open!.Value & OpenFlags.Exclusive; }
                error = Libc.OpenAt(directory.Directory, ".\0"u8, flags, caller.Apply(what.Mode & ModeBits.Mask),
                    ResolveFlags.Confined, out descriptor);
            }
            if (!error.IsError) { error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out stat); }
            if (error.IsError && descriptor >= 0)
            {
                Libc.Close(descriptor);
                descriptor = -1;
            }
            return error;
        }
    }

    /// <summary>Makes an object in a real directory, as the user who asked for it.</summary>
    private static Errno Make(int directory, ReadOnlySpan<byte> name, in NewObject what, out int descriptor)
    {
        descriptor = -1;
        Errno error = CallerIdentity.Assume(what.Uid, what.Gid, what.Umask, out CallerIdentity.Scope caller);
        if (error.IsError) { return error; }
        using (caller)
        {
            uint permissions = caller.Apply(what.Mode & ModeBits.Mask);
            switch (what.Mode & FileType.Mask)
            {
                case FileType.Regular when what.Open is { } flags:
                    return Libc.OpenAt(directory, name, OpenFlags.Create | OpenFlags.Exclusive | OpenFlags.NoFollow | flags,
                        permissions, ResolveFlags.Confined, out descriptor);
                case FileType.Directory:
                    return Libc.MakeDirectoryAt(directory, name, permissions);
                case FileType.SymbolicLink:
                    return Libc.SymbolicLinkAt(what.Target, directory, name);
                default:
                    return Libc.MakeNodeAt(directory, name, (what.Mode & FileType.Mask) | permissions, what.Device);
            }
        }
    }

    /// <summary>
    /// Builds the object in work, and lets it take the place of the whiteout. Kernel: ovl_create_over_whiteout().
    /// </summary>
    private Errno OverWhiteout(
        DirectoryInode parent, int directory, ReadOnlySpan<byte> name, in NewObject what, MergedDirectory? below, out int descriptor)
    {
        descriptor = -1;
        Errno error = Libc.StatAt(directory, Libc.Self, StatxMask.Basic, out Statx parentStat);
        if (error.IsError) { return error; }

        // In the directory, the filesystem would apply the default ACL, the umask and the set-group-id bit. In work we must.
        Span<byte> acl = stackalloc byte[PosixAcl.MaxLength];
        uint mode = what.Mode;
        int aclLength = 0;
        bool isExtended = false;
        bool hasMode = (what.Mode & FileType.Mask) != FileType.SymbolicLink;
        bool isDirectory = (what.Mode & FileType.Mask) == FileType.Directory;
        if (hasMode)
        {
            error = Libc.GetXattrAt(directory, Libc.Self, PosixAcl.DefaultName, acl, out aclLength);
            if (error.IsError)
            {
                aclLength = 0;
                if (!error.IsNoXattr) { return error; }
                mode &= ~what.Umask;
            }
        }
        Span<byte> inherited = stackalloc byte[aclLength];
        acl[..aclLength].CopyTo(inherited);
        if (aclLength > 0 && !PosixAcl.Inherit(acl[..aclLength], ref mode, out isExtended)) { return Errno.EIO; }
        uint gid = what.Gid;
        if ((parentStat.Mode & ModeBits.SetGid) != 0)
        {
            gid = parentStat.Gid;
            if (isDirectory) { mode |= ModeBits.SetGid; }
        }

        using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
        int work = temporary.Directory;
        var built = new NewObject(mode, what.Device) { Target = what.Target, Uid = what.Uid, Gid = gid, Open = what.Open };
        error = Make(work, temporary.Name, built, out descriptor);
        if (error.IsError) { return error; }

        // Work may have given it a set-group-id bit, and a new object may not get each bit of its mode.
        if (hasMode) { error = Libc.ChangeModeAt(work, temporary.Name, mode & ModeBits.Mask); }
        if (!error.IsError && isExtended)
        {
            error = Libc.SetXattrAt(work, temporary.Name, PosixAcl.AccessName, acl[..aclLength], XattrFlags.None);
        }
        if (!error.IsError && isDirectory && aclLength > 0)
        {
            error = Libc.SetXattrAt(work, temporary.Name, PosixAcl.DefaultName, inherited, XattrFlags.None);
        }
        if (!error.IsError && isDirectory) { error = HideLower(below, work, temporary.Name); }
        if (!error.IsError) { error = PutOverWhiteout(new UpperName(parent.Upper!, directory, name), isDirectory, temporary); }
        if (error.IsError && descriptor >= 0)
        {
            Libc.Close(descriptor);
            descriptor = -1;
        }
        return error;
    }

    /// <summary>Lets an object of work take the place of a whiteout.</summary>
    private Errno PutOverWhiteout(in UpperName whiteout, bool isDirectory, in Temporary temporary)
    {
        if (!isDirectory) { return temporary.Replace(whiteout.Descriptor, whiteout.Name); }
        if (upper.Features.Exchange) { return temporary.Exchange(whiteout.Descriptor, whiteout.Name); }
        Errno error = temporary.Over(upper.Work!.Steps.ReplaceLocked(whiteout, temporary.Name, out byte[] aside));
        if (!error.IsError) { upper.Work.Discard(aside); }
        return error;
    }

    /// <summary>
    /// Lists what a new directory would show of the lowers, if it were not opaque. Caller holds no lock.
    /// </summary>
    /// <param name="parent">The directory in which it is to be made.</param>
    /// <param name="name">The name that it is to get, with its NUL.</param>
    /// <param name="below">The listing, to be given back to <see cref="Listings"/>. Null when the lowers show nothing.</param>
    public Errno ListBelow(DirectoryInode parent, ReadOnlySpan<byte> name, out MergedDirectory? below)
    {
        below = null;
        Below known = tree.Lookup.FindBelow(parent.Stack, name);
        if (known.Error.IsError || known.Found is not { Exists: true, Stat.IsDirectory: true }) { return known.Error; }
        Errno error = tree.Lookup.Complete(parent.Stack, name, known.Found, out Whole whole);
        return error.IsError || whole.Lowers.Length == 0
            ? error
            : tree.Listings.Read(new DirectoryStack(null, whole.Lowers), 0, out below);
    }

    /// <summary>
    /// Hides in a new directory what the lowers have under the name that it is to get: it becomes opaque, or gets whiteouts.
    /// </summary>
    private Errno HideLower(MergedDirectory? below, int work, ReadOnlySpan<byte> made)
    {
        if (!MayMerge) { return Libc.SetXattrAt(work, made, tree.Xattr.Opaque, "y"u8, XattrFlags.None); }
        if (below is null) { return Errno.None; }
        Errno error = Libc.OpenAt(work, made, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0,
            ResolveFlags.Confined, out int directory);
        if (error.IsError) { return error; }
        for (int i = 0; i < below.Count && !error.IsError; i++) { error = upper.Work!.MakeWhiteout(directory, below.NameOf(i)); }
        Libc.Close(directory);
        return error;
    }
}
