using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>What is to be created.</summary>
/// <param name="mode">Type and permissions, not masked.</param>
/// <param name="device">For a device file, in the kernel's 32-bit encoding.</param>
internal readonly ref struct NewObject(uint mode, uint device = 0)
{
    /// <summary>Type and permissions, not masked.</summary>
    public uint Mode { get; } = mode;

    /// <summary>For a device file.</summary>
    public uint Device { get; } = device;

    /// <summary>A symbolic link's target, with its NUL.</summary>
    public ReadOnlySpan<byte> Target { get; init; }

    /// <summary>The owner.</summary>
    public uint Uid { get; init; }

    /// <summary>The group, unless the directory has the set-group-id bit.</summary>
    public uint Gid { get; init; }

    /// <summary>The caller's umask; a default ACL of the directory takes its place.</summary>
    public uint Umask { get; init; }

    /// <summary>For a regular file that is also opened: how. Null: not opened.</summary>
    public OpenFlags? Open { get; init; }
}

/// <summary>Makes new objects in upper.</summary>
/// <remarks>
/// Callers hold the rename lock, for a directory exclusively where <see cref="IsLong"/> says so, and the directory's names
/// lock; the directory is in upper.
/// <para>
/// Crash safety. Where upper has nothing under the name, the filesystem's own create is atomic: the object has its
/// owner, mode and ACL from the first moment. Over a whiteout it is built in work and takes the whiteout's place in one
/// rename; killed before it, the name still shows nothing, and the next mount empties work.
/// </para>
/// </remarks>
internal sealed class Create(ObjectTree tree, UpperLayer upper)
{
    /// <summary>Whether a directory is made in more than one step, in between which nobody may look.</summary>
    public bool IsLong => upper.Work is { Features: not { Exchange: true, HasOpaque: true } };

    /// <summary>Whether a directory that was made may merge with lower ones, all of whose entries it hides one by one.</summary>
    public bool MayMerge => upper.Work is { Features.HasOpaque: false };

    /// <summary>Makes an object.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="what">What.</param>
    /// <param name="below">What <see cref="ListBelow"/> has found, for a directory.</param>
    /// <param name="stat">The new object's attributes.</param>
    /// <param name="descriptor">The opened file, or -1.</param>
    /// <returns><see cref="Errno.EEXIST"/> when there is such a name.</returns>
    public Errno RunLocked(DirectoryInode parent, ReadOnlySpan<byte> name, in NewObject what, MergedDirectory? below, out Statx stat, out int descriptor)
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
                if (!tree.Lookup.Reader.IsWhiteout(parent.Upper!, name, stat)) { return Errno.EEXIST; }
                error = OverWhiteout(parent, directory.Directory, name, what, below, out descriptor);
            }
            else if (!error.IsError && (what.Mode & FileType.Mask) == FileType.Directory && parent.IsMerged && !upper.AllowsOfflineChanges)
            {
                _ = Libc.SetXattrAt(directory.Directory, name, tree.Xattr.Opaque, "y"u8, XattrFlags.None); // best effort: it only spares lookups, as in ovl_create_upper()
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

    /// <summary>Makes a file without a name.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="what">What.</param>
    /// <param name="isLinkable">Whether we are to give it a name, whatever the user may do.</param>
    /// <param name="stat">The new object's attributes.</param>
    /// <param name="descriptor">The opened file, or -1.</param>
    public Errno TemporaryLocked(DirectoryInode parent, in NewObject what, bool isLinkable, out Statx stat, out int descriptor)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        parent.AssertNamesLocked();
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
                error = Libc.OpenAt(directory.Directory, ".\0"u8, flags, caller.Apply(what.Mode & ModeBits.Mask), ResolveFlags.Confined, out descriptor);
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
                    return Libc.OpenAt(directory, name, OpenFlags.Create | OpenFlags.Exclusive | OpenFlags.NoFollow | flags, permissions, ResolveFlags.Confined, out descriptor);
                case FileType.Directory:
                    return Libc.MakeDirectoryAt(directory, name, permissions);
                case FileType.SymbolicLink:
                    return Libc.SymbolicLinkAt(what.Target, directory, name);
                default:
                    return Libc.MakeNodeAt(directory, name, (what.Mode & FileType.Mask) | permissions, what.Device);
            }
        }
    }

    /// <summary>Builds the object in work and lets it take the whiteout's place. Kernel: ovl_create_over_whiteout().</summary>
    private Errno OverWhiteout(DirectoryInode parent, int directory, ReadOnlySpan<byte> name, in NewObject what, MergedDirectory? below, out int descriptor)
    {
        descriptor = -1;
        Errno error = Libc.StatAt(directory, Libc.Self, StatxMask.Basic, out Statx parentStat);
        if (error.IsError) { return error; }

        // What the filesystem would do by itself in the directory must be done by hand in work.
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
        error = Make(work, temporary.Name, new NewObject(mode, what.Device) { Target = what.Target, Uid = what.Uid, Gid = gid, Open = what.Open }, out descriptor);
        if (error.IsError) { return error; }

        // The set-group-id bit of work itself, or a mode that creation would not give.
        if (hasMode) { error = Libc.ChangeModeAt(work, temporary.Name, mode & ModeBits.Mask); }
        if (!error.IsError && isExtended) { error = Libc.SetXattrAt(work, temporary.Name, PosixAcl.AccessName, acl[..aclLength], XattrFlags.None); }
        if (!error.IsError && isDirectory && aclLength > 0) { error = Libc.SetXattrAt(work, temporary.Name, PosixAcl.DefaultName, inherited, XattrFlags.None); }
        if (!error.IsError && isDirectory) { error = HideLower(below, work, temporary.Name); }
        if (!error.IsError) { error = PutOverWhiteout(new UpperName(parent.Upper!, directory, name), isDirectory, temporary); }
        if (error.IsError && descriptor >= 0)
        {
            Libc.Close(descriptor);
            descriptor = -1;
        }
        return error;
    }

    /// <summary>An object of work takes the place of a whiteout.</summary>
    private Errno PutOverWhiteout(in UpperName whiteout, bool isDirectory, in Temporary temporary)
    {
        if (!isDirectory) { return temporary.Replace(whiteout.Descriptor, whiteout.Name); }
        if (upper.Features.Exchange) { return temporary.Exchange(whiteout.Descriptor, whiteout.Name); }
        Errno error = temporary.Over(upper.Work!.Steps.Replace(whiteout, temporary.Name, out byte[] aside));
        if (!error.IsError) { upper.Work.Discard(aside); }
        return error;
    }

    /// <summary>What a directory would show of the lowers if it had a name, and were not opaque. Caller holds no lock.</summary>
    /// <param name="parent">Where it is to be made.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="below">Null for nothing; else to be given back to <see cref="Listings"/>.</param>
    public Errno ListBelow(DirectoryInode parent, ReadOnlySpan<byte> name, out MergedDirectory? below)
    {
        below = null;
        Below known = tree.Lookup.FindBelow(parent.Stack, name);
        if (known.Error.IsError || known.Found is not { Exists: true, Stat.IsDirectory: true }) { return known.Error; }
        Errno error = tree.Lookup.Complete(parent.Stack, name, known.Found, out Whole whole);
        return error.IsError || whole.Lowers.Length == 0 ? error : tree.Listings.Read(new DirectoryStack(null, whole.Lowers), 0, out below);
    }

    /// <summary>Nothing of what the lowers have under a name may be seen in the directory that is to get it.</summary>
    private Errno HideLower(MergedDirectory? below, int work, ReadOnlySpan<byte> made)
    {
        if (!MayMerge) { return Libc.SetXattrAt(work, made, tree.Xattr.Opaque, "y"u8, XattrFlags.None); }
        if (below is null) { return Errno.None; }
        Errno error = Libc.OpenAt(work, made, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int directory);
        if (error.IsError) { return error; }
        for (int i = 0; i < below.Count && !error.IsError; i++) { error = upper.Work!.MakeWhiteout(directory, below.NameOf(i)); }
        Libc.Close(directory);
        return error;
    }

    /// <summary>Gives a file that is in upper one more name.</summary>
    /// <param name="source">The file.</param>
    /// <param name="parent">The directory of the new name.</param>
    /// <param name="name">With its NUL.</param>
    public Errno LinkLocked(in RealReference source, DirectoryInode parent, ReadOnlySpan<byte> name)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        parent.AssertNamesLocked();
        Errno error = tree.Objects.Of(parent.Upper!, Libc.Self, out RealReference directory);
        if (error.IsError) { return error; }
        using (directory)
        {
            error = LinkTo(source, directory.Directory, name);
            if (error == Errno.EEXIST) { error = LinkOverWhiteout(source, parent, directory.Directory, name); }
            if (!error.IsError) { upper.Moves?.Add(directory.Directory, name); }
            return error;
        }
    }

    private Errno LinkOverWhiteout(in RealReference source, DirectoryInode parent, int directory, ReadOnlySpan<byte> name)
    {
        Errno error = Libc.StatAt(directory, name, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error; }
        if (!tree.Lookup.Reader.IsWhiteout(parent.Upper!, name, stat)) { return Errno.EEXIST; }

        using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
        error = LinkTo(source, temporary.Directory, temporary.Name);
        return error.IsError ? error : temporary.Replace(directory, name);
    }

    private static Errno LinkTo(in RealReference source, int directory, ReadOnlySpan<byte> name) =>
        source.Name.Length > 1
            ? Libc.LinkAt(source.Directory, source.Name, directory, name)
            : Libc.LinkDescriptor(source.Directory, directory, name);
}
