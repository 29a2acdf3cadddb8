using Veneer.Fuse;
using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay;

internal sealed partial class OverlayFileSystem
{
    public Errno Lookup(in Request request, ReadOnlySpan<byte> name, out EntryOut entry)
    {
        entry = default;
        Errno error = volume.Inodes.FindDirectory(request.NodeId, out DirectoryInode parent);
        return error.IsError ? error : Lend(parent, name, out entry);
    }

    public void Forget(ulong nodeId, ulong lookups)
    {
        volume.Inodes.Forget(nodeId, lookups);
        while (volume.Inodes.TryTakeOrphan(out int orphan)) { CloseLast(orphan); }
        while (volume.Inodes.TryTakeLeftover(out byte[] leftover)) { Discard(new Leftover(leftover, ManyWhiteouts)); }
    }

    public Errno ReadLink(in Request request, Span<byte> target, out int length)
    {
        length = 0;
        Errno error = volume.Inodes.Find(request.NodeId, out Inode inode);
        if (error.IsError) { return error; }
        error = volume.Objects.Resolve(inode, out RealReference real);
        if (error.IsError) { return error; }
        using (real) { return Libc.ReadLinkAt(real.Directory, real.Name, target, out length); }
    }

    public Errno SymLink(in Request request, ReadOnlySpan<byte> name, ReadOnlySpan<byte> target, out EntryOut entry)
    {
        var what = new NewObject(FileType.SymbolicLink | 0x1FF) { Target = target, Uid = request.Header.Uid, Gid = request.Header.Gid };
        return MakeObject(request, name, what, out entry, out _, out _);
    }

    public Errno MkNod(in Request request, ReadOnlySpan<byte> name, in MkNodIn input, out EntryOut entry)
    {
        entry = default;
        uint type = input.Mode & FileType.Mask;
        // A whiteout is no object that users may make. Kernel: ovl_mknod()
        if (type == FileType.CharacterDevice && input.Rdev == 0) { return Errno.EPERM; }
        var what = new NewObject(type == 0 ? input.Mode | FileType.Regular : input.Mode, input.Rdev) { Uid = request.Header.Uid, Gid = request.Header.Gid, Umask = input.Umask };
        return MakeObject(request, name, what, out entry, out _, out _);
    }

    public Errno MkDir(in Request request, ReadOnlySpan<byte> name, in MkDirIn input, out EntryOut entry)
    {
        var what = new NewObject(FileType.Directory | (input.Mode & ModeBits.Mask)) { Uid = request.Header.Uid, Gid = request.Header.Gid, Umask = input.Umask };
        return MakeObject(request, name, what, out entry, out _, out _);
    }

    /// <summary>Makes an object in the request's directory and lends the kernel one reference to it.</summary>
    private Errno MakeObject(in Request request, ReadOnlySpan<byte> name, in NewObject what, out EntryOut entry, out Inode inode, out int descriptor)
    {
        entry = default;
        inode = null!;
        descriptor = -1;
        Errno error = volume.Inodes.FindDirectory(request.NodeId, out DirectoryInode parent);
        if (error.IsError) { return error; }
        errors.Touch();
        error = CheckProtection(parent, onlyAdds: true);
        if (error.IsError) { return error; }
        error = copyUp.Ensure(parent, request);
        if (error.IsError) { return error; }
        bool isDirectory = (what.Mode & FileType.Mask) == FileType.Directory;
        if (isDirectory && create.MayMerge) { return MakeMergingDirectory(parent, name, what, out entry); }
        bool exclusive = isDirectory && create.IsLong;
        using (volume.RenameLock.Enter(exclusive))
        {
            using (parent.LockNames())
            {
                if (parent.IsUnlinked) { return Errno.ENOENT; }
                error = create.RunLocked(parent, name, what, null, out Statx stat, out descriptor);
                if (error.IsError) { return error; }
                inode = NewUpperInode(parent, name, stat);
                volume.Inodes.AddAndLend(inode);
                volume.Inodes.Changed(parent);
                entry = EntryOf(inode, inode.NodeId, stat);
                return Errno.None;
            }
        }
    }

    /// <summary>Makes a directory that hides what the lowers have by a whiteout for each of it, and so is found as one that merges with them.</summary>
    private Errno MakeMergingDirectory(DirectoryInode parent, ReadOnlySpan<byte> name, in NewObject what, out EntryOut entry)
    {
        entry = default;
        Errno error = create.ListBelow(parent, name, out MergedDirectory? below); // before anything is locked
        if (error.IsError) { return error; }
        try
        {
            using (volume.RenameLock.Exclude())
            {
                using (parent.LockNames())
                {
                    error = parent.IsUnlinked ? Errno.ENOENT : create.RunLocked(parent, name, what, below, out _, out _);
                    if (!error.IsError) { volume.Inodes.Changed(parent); }
                }
            }
        }
        finally
        {
            if (below is not null) { volume.Listings.Return(below); }
        }
        return error.IsError ? error : Lend(parent, name, out entry);
    }

    /// <summary>The inode of an object that was just made, with nothing below it.</summary>
    private Inode NewUpperInode(DirectoryInode? parent, ReadOnlySpan<byte> name, in Statx stat)
    {
        RealKey key = volume.Keys.InUpper(parent, name, stat);
        Inode inode;
        if (stat.IsDirectory)
        {
            byte[] ownName = name.ToArray();
            inode = new DirectoryInode(new DirectoryStack(new RealDirectory(parent!.Upper!, ownName), []));
            inode.SetName(ownName);
        }
        else
        {
            inode = volume.Inodes.Make(name);
            inode.HasUpper = true;
        }
        inode.Type = stat.Type;
        inode.Parent = parent;
        inode.Key = key;
        inode.Ino = volume.Numbers.Number(volume.Numbers.Key(stat.Dev, stat.Ino));
        return inode;
    }

    public Errno Link(in Request request, ulong target, ReadOnlySpan<byte> newName, out EntryOut entry)
    {
        entry = default;
        Errno error = volume.Inodes.Find(target, out Inode inode);
        if (error.IsError) { return error; }
        error = volume.Inodes.FindDirectory(request.NodeId, out DirectoryInode parent);
        if (error.IsError) { return error; }
        error = CheckProtection(inode);
        if (error.IsError) { return error; }
        error = CheckProtection(parent, onlyAdds: true);
        if (error.IsError) { return error; }
        bool needsData = !volume.WritesMetacopies || inode.IsNameless;
        error = copyUp.Ensure(inode, request, needsData);
        if (error.IsError) { return error; }
        error = copyUp.Ensure(parent, request);
        if (error.IsError) { return error; }
        if (!needsData)
        {
            using (volume.RenameLock.Share())
            {
                using var name = new HeldName(inode);
                error = rename.SetRedirect(inode, sameDirectory: false);
            }
            if (error == Errno.EXDEV) { error = copyUp.Ensure(inode, request); }
            if (error.IsError) { return error; }
        }
        // A file without a name, from O_TMPFILE, is found by its first one from then on: nobody may be on the way through
        // its descriptor, which is closed.
        bool exclusive = inode.IsNameless;
        int held = -1;
        try
        {
            using (volume.RenameLock.Enter(exclusive))
            {
                error = HoldSource(inode, parent, out held);
                if (error.IsError) { return error; }
                using (parent.LockNames())
                {
                    if (parent.IsUnlinked) { return Errno.ENOENT; }
                    if (inode.HasOrigin)
                    {
                        error = copyUp.SetImpure(parent);
                        if (error.IsError) { return error; }
                    }
                    error = volume.Objects.ResolveLocked(inode, out RealReference real);
                    if (error.IsError) { return error; }
                    using (real) { error = create.LinkLocked(held >= 0 ? new RealReference(held) : real, parent, newName); }
                    if (error.IsError) { return error; }
                    if (exclusive && inode.IsNameless) { Rehome(inode, parent, newName.ToArray()); }
                    else if (inode.Links is null && !inode.IsNameless) { volume.Inodes.AddAlias(inode, inode.Parent!, inode.Name, isUpper: true); }
                    volume.Inodes.AddAlias(inode, parent, newName, isUpper: true);
                    if (inode.Links is { } links) { links.Count++; }
                    inode.IsUnlinked = false;
                    volume.Inodes.Changed(parent);
                }
            }
        }
        finally
        {
            if (held >= 0) { Libc.Close(held); }
        }
        error = ReadAttributes(inode, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error; }
        entry = EntryOf(inode, volume.Inodes.Lend(inode), stat);
        return Errno.None;
    }

    /// <summary>
    /// A descriptor of what is linked to, if its name is in another directory than the new one: two names locks are not
    /// held at once, and by then the name may be another file's. Caller holds the rename lock.
    /// </summary>
    /// <param name="inode">What is linked to, in upper.</param>
    /// <param name="parent">The directory of the new name.</param>
    /// <param name="descriptor">-1: its name is as good.</param>
    private Errno HoldSource(Inode inode, DirectoryInode parent, out int descriptor)
    {
        descriptor = -1;
        if (inode.IsNameless || inode.Links?.Hold is not null || ReferenceEquals(inode.Parent, parent)) { return Errno.None; }
        using var held = new HeldName(inode);
        Errno error = volume.Objects.ResolveLocked(inode, out RealReference real);
        if (error.IsError) { return error; }
        using (real) { return Libc.OpenAt(real.Directory, real.Name, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.None, out descriptor); }
    }

    /// <summary>A file that was reached through a descriptor has a name. Caller holds the rename lock exclusively.</summary>
    private void Rehome(Inode inode, DirectoryInode parent, byte[] name)
    {
        volume.Inodes.Move(inode, parent, name);
        if (volume.Inodes.TakeOrphan(inode) is >= 0 and int orphan) { Libc.Close(orphan); }
        if (inode.WorkName is { } workName) { volume.Work!.Discard(workName); }
        inode.WorkName = null;
    }

    public Errno Unlink(in Request request, ReadOnlySpan<byte> name) => RemoveName(request, name, directory: false);

    public Errno RmDir(in Request request, ReadOnlySpan<byte> name) => RemoveName(request, name, directory: true);

    /// <summary>From how many whiteouts on their removal is announced; fewer are gone before another worker is awake.</summary>
    private const int ManyWhiteouts = 100;

    private Errno RemoveName(in Request request, ReadOnlySpan<byte> name, bool directory)
    {
        Errno error = RemoveName(request, name, directory, out Leftover? leftover);
        Discard(leftover);
        return error;
    }

    /// <summary>A directory may hold any number of whiteouts. Caller holds no lock.</summary>
    private void Discard(Leftover? leftover)
    {
        if (leftover is null) { return; }
        bool isLong = leftover.Entries >= ManyWhiteouts;
        if (isLong) { workers?.BeginBlocking(); }
        try { volume.Work!.Discard(leftover.Name); }
        finally
        {
            if (isLong) { workers?.EndBlocking(); }
        }
    }

    private Errno RemoveName(in Request request, ReadOnlySpan<byte> name, bool directory, out Leftover? leftover)
    {
        leftover = null;
        if (!volume.IsWritable) { return Errno.EROFS; }
        Errno error = volume.Inodes.FindDirectory(request.NodeId, out DirectoryInode parent);
        if (error.IsError) { return error; }
        error = CheckProtection(parent);
        if (error.IsError) { return error; }
        if (parent.Upper is null)
        {
            // Before anything is copied up for a removal that cannot be.
            error = CheckRemoval(parent, name, directory);
            if (error.IsError) { return error; }
            error = copyUp.Ensure(parent, request);
            if (error.IsError) { return error; }
        }

        // Before anything is locked: the lowers may take any time to answer.
        Below below = volume.Lookup.FindBelow(parent.Stack, name);
        return directory ? RemoveDirectory(parent, name, below, out leftover) : RemoveFile(parent, name, below);
    }

    private Errno RemoveFile(DirectoryInode parent, ReadOnlySpan<byte> name, in Below below)
    {
        bool exclusive = volume.Features is not { Exchange: true, ForgetsNames: true };
        while (true)
        {
            using (volume.RenameLock.Enter(exclusive))
            {
                using (parent.LockNames())
                {
                    Errno error = FindInodeLocked(parent, name, below, out Found found, out BorrowedInode borrowed);
                    using BorrowedInode held = borrowed;
                    if (error.IsError) { return error; }
                    if (borrowed.Inode is not { } inode) { return Errno.ENOENT; }
                    error = CheckProtection(inode);
                    if (error.IsError) { return error; }
                    if (found.Stat.IsDirectory) { return Errno.EISDIR; }
                    // Another name may have to stand in for this one: nobody may be on the way through it.
                    bool hasOthers = found.Stat.Nlink > 1 || inode.Links is not null;
                    if (!hasOthers || exclusive)
                    {
                        error = remove.UnlinkLocked(parent, name, inode, found, below.IsPositive, exclusive, out bool isHeld);
                        if (!isHeld) { return error; }
                        // It failed, and others may use the descriptor that was to stand in: once more without them.
                    }
                }
            }
            exclusive = true;
        }
    }

    private Errno RemoveDirectory(DirectoryInode parent, ReadOnlySpan<byte> name, Below below, out Leftover? leftover)
    {
        leftover = null;
        bool staysInWork = volume.HasManyOrphans; // nobody may be on the way to it then
        bool exclusive = staysInWork || !volume.Features.Exchange;
        while (true)
        {
            Errno error = FindInode(parent, name, ref below, out _, out BorrowedInode borrowed);
            using BorrowedInode held = borrowed;
            if (error.IsError) { return error; }
            if (borrowed.Inode is not { } inode) { return Errno.ENOENT; }
            error = CheckProtection(inode);
            if (error.IsError) { return error; }
            if (inode is not DirectoryInode removed) { return Errno.ENOTDIR; }
            error = CheckEmpty(removed, out int version, out int whiteouts);
            if (error.IsError) { return error; }
            using (volume.RenameLock.Enter(exclusive))
            {
                using (parent.LockNames())
                {
                    error = FindInodeLocked(parent, name, below, out Found found, out BorrowedInode now);
                    using BorrowedInode again = now;
                    if (error.IsError) { return error; }
                    using (removed.LockNames())
                    {
                        if (!ReferenceEquals(now.Inode, removed) || volume.Inodes.VersionOf(removed) != version) { continue; } // something came between
                        return remove.DirectoryLocked(parent, name, removed, found, below.IsPositive, whiteouts, staysInWork, out leftover);
                    }
                }
            }
        }
    }

    private Errno CheckRemoval(DirectoryInode parent, ReadOnlySpan<byte> name, bool directory)
    {
        Below below = default;
        Errno error = FindInode(parent, name, ref below, out _, out BorrowedInode borrowed);
        using BorrowedInode held = borrowed;
        if (error.IsError) { return error; }
        if (borrowed.Inode is not { } inode) { return Errno.ENOENT; }
        error = CheckProtection(inode);
        if (error.IsError || !directory) { return error; }
        if (inode is not DirectoryInode removed) { return Errno.ENOTDIR; }
        return CheckEmpty(removed, out _, out _);
    }

    /// <summary>Whether users see nothing in a directory. Caller holds no lock.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="version">It is true as long as the directory has this version.</param>
    /// <param name="whiteouts">How many whiteouts upper has in it.</param>
    private Errno CheckEmpty(DirectoryInode directory, out int version, out int whiteouts)
    {
        version = whiteouts = 0;
        Errno error = volume.Listings.Read(directory.Stack, volume.Inodes.VersionOf(directory), out MergedDirectory content, onlyWhetherEmpty: true);
        if (error.IsError) { return error; }
        bool isEmpty = content.Count == 0;
        (version, whiteouts) = (content.Version, content.UpperWhiteouts);
        volume.Listings.Return(content);
        return isEmpty ? Errno.None : Errno.ENOTEMPTY;
    }

    /// <summary>The inode that a name leads to, or none when users see nothing there. Caller holds no lock, and gives back what he gets.</summary>
    private Errno FindInode(DirectoryInode parent, ReadOnlySpan<byte> name, ref Below below, out Found found, out BorrowedInode inode) =>
        Borrow(volume.Lookup.Find(parent.Stack, name, ref below, out found), parent, name, found, out inode);

    /// <summary>As the other one, and for it to be called with the rename lock: of the lowers it takes what is known.</summary>
    /// <returns><see cref="Errno.EAGAIN"/> when that would be needed, and is not known.</returns>
    private Errno FindInodeLocked(DirectoryInode parent, ReadOnlySpan<byte> name, in Below below, out Found found, out BorrowedInode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        return Borrow(volume.Lookup.FindLocked(parent.Stack, name, below, out found), parent, name, found, out inode);
    }

    private Errno Borrow(Errno error, DirectoryInode parent, ReadOnlySpan<byte> name, in Found found, out BorrowedInode inode)
    {
        inode = default;
        if (error.IsError || !found.Exists) { return error; }
        inode = volume.Inodes.Borrow(volume.Keys.Of(parent, name, found));
        if (inode.Inode is not { } known) { return Errno.ESTALE; } // the kernel names only what it has looked up
        if (!found.HasUpper || !volume.Keys.DoubtsUpper || known.IsDirectory || volume.Inodes.IsAt(known, parent, name)) { return Errno.None; }
        inode.Dispose();
        inode = default;
        return Errno.EIO; // another file has the number by now: a lookup says so
    }

    public Errno Rename(in Request request, ReadOnlySpan<byte> name, ulong newDirectory, ReadOnlySpan<byte> newName, RenameFlags flags)
    {
        Errno error = Rename(request, name, newDirectory, newName, flags, out Leftover? leftover);
        Discard(leftover);
        return error;
    }

    private Errno Rename(in Request request, ReadOnlySpan<byte> name, ulong newDirectory, ReadOnlySpan<byte> newName, RenameFlags flags, out Leftover? leftover)
    {
        leftover = null;
        if ((flags & ~(RenameFlags.NoReplace | RenameFlags.Exchange)) != 0) { return Errno.EINVAL; }
        if (!volume.IsWritable) { return Errno.EROFS; }
        Errno error = volume.Inodes.FindDirectory(request.NodeId, out DirectoryInode oldParent);
        if (error.IsError) { return error; }
        error = volume.Inodes.FindDirectory(newDirectory, out DirectoryInode newParent);
        if (error.IsError) { return error; }
        var from = new RenameSide(oldParent, name);
        var to = new RenameSide(newParent, newName);
        try
        {
            return Rename(request, ref from, ref to, flags, out leftover);
        }
        finally
        {
            from.Borrowed.Dispose();
            to.Borrowed.Dispose();
        }
    }

    private Errno Rename(in Request request, ref RenameSide from, ref RenameSide to, RenameFlags flags, out Leftover? leftover)
    {
        leftover = null;
        bool exchange = (flags & RenameFlags.Exchange) != 0;
        bool needsData = !volume.WritesMetacopies;
        while (true)
        {
            Errno error = PrepareRename(ref from, ref to, flags);
            if (error.IsError) { return error; }
            Inode moved = from.Inode!;
            Inode? replaced = to.Inode;
            error = copyUp.Ensure(moved, request, needsData);
            if (error.IsError) { return error; }
            error = copyUp.Ensure(from.Parent, request);
            if (error.IsError) { return error; }
            error = copyUp.Ensure(to.Parent, request);
            if (error.IsError) { return error; }
            if (exchange)
            {
                error = copyUp.Ensure(replaced!, request, needsData);
                if (error.IsError) { return error; }
            }

            using (volume.RenameLock.Exclude())
            {
                error = FindAgainLocked(ref from, isSure: from.Found.HasUpper);
                if (!error.IsError) { error = FindAgainLocked(ref to, isSure: !to.Found.HasUpper); } // what is there may have lost another name
                if (error == Errno.EAGAIN) { continue; } // something else came between
                if (error.IsError) { return error; }
                if (!ReferenceEquals(from.Inode, moved) || !ReferenceEquals(to.Inode, replaced)) { continue; } // something else came between
                if (ReferenceEquals(from.Inode, to.Inode)) { return Errno.None; } // two names of one file: see rename(2)
                if (!from.Found.HasUpper || (exchange && !to.Found.HasUpper)) { continue; }
                if (!exchange && to.Directory is { } emptied && volume.Inodes.VersionOf(emptied) != to.EmptyVersion) { continue; }
                error = rename.RunLocked(ref from, ref to, exchange);
                if (error == Errno.EXDEV && !needsData && (moved.Metacopy is not null || (exchange && replaced!.Metacopy is not null)))
                {
                    needsData = true;
                    continue;
                }
                leftover = to.Leftover;
                return error;
            }
        }
    }

    /// <summary>Finds what one side of a rename is about. Caller holds no lock.</summary>
    private Errno FindSide(ref RenameSide side)
    {
        using BorrowedInode before = side.Borrowed; // until the other is there: what is the same object is known by its inode
        side.Version = volume.Inodes.VersionOf(side.Parent);
        // Whether a directory may get the name, where none can be marked as opaque.
        if (!volume.Features.HasOpaque && !side.Below.IsKnown) { side.Below = volume.Lookup.FindBelow(side.Parent.Stack, side.Name); }
        return FindInode(side.Parent, side.Name, ref side.Below, out side.Found, out side.Borrowed);
    }

    /// <summary>Does it again, unless nothing can have changed since. Caller holds the rename lock exclusively.</summary>
    /// <param name="side">What was found before.</param>
    /// <param name="isSure">Whether all that was found is true as long as no name in the directory changes.</param>
    /// <returns><see cref="Errno.EAGAIN"/> when the lowers would have to be asked.</returns>
    private Errno FindAgainLocked(ref RenameSide side, bool isSure)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: true);
        if (isSure && side.Version == volume.Inodes.VersionOf(side.Parent)) { return Errno.None; }
        using BorrowedInode before = side.Borrowed;
        side.Version = volume.Inodes.VersionOf(side.Parent);
        return FindInodeLocked(side.Parent, side.Name, side.Below, out side.Found, out side.Borrowed);
    }

    /// <summary>What can be said before anything is copied up.</summary>
    private Errno PrepareRename(ref RenameSide from, ref RenameSide to, RenameFlags flags)
    {
        Errno error = FindSide(ref from);
        if (error.IsError) { return error; }
        if (from.Inode is not { } old) { return Errno.ENOENT; }
        error = FindSide(ref to);
        if (error.IsError) { return error; }
        Inode? replaced = to.Inode;
        bool exchange = (flags & RenameFlags.Exchange) != 0;
        if (exchange && replaced is null) { return Errno.ENOENT; }
        if ((flags & RenameFlags.NoReplace) != 0 && replaced is not null) { return Errno.EEXIST; }
        error = CheckProtection(from.Parent);
        if (!error.IsError) { error = CheckProtection(to.Parent, onlyAdds: replaced is null); }
        if (!error.IsError) { error = CheckProtection(old); }
        if (!error.IsError && replaced is not null) { error = CheckProtection(replaced); }
        if (error.IsError) { return error; }
        if (!rename.CanMove(old) || (exchange && !rename.CanMove(replaced!))) { return Errno.EXDEV; }
        if (exchange) { return Errno.None; }
        if (!from.Below.IsKnown) { from.Below = volume.Lookup.FindBelow(from.Parent.Stack, from.Name); } // whether a whiteout is to be left
        if (replaced is null) { return Errno.None; }
        if (replaced is DirectoryInode directory)
        {
            if (!old.IsDirectory) { return Errno.EISDIR; }
            error = CheckEmpty(directory, out to.EmptyVersion, out to.Whiteouts);
            // The kernel leaves what is in upper alone to upper's filesystem, and xfs has its own word for it: xfs_rename()
            return error == Errno.ENOTEMPTY && directory.IsPureUpper && volume.IsOnXfs ? Errno.EEXIST : error;
        }
        return old.IsDirectory ? Errno.ENOTDIR : Errno.None;
    }
}
