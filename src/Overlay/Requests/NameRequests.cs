using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Requests;

/// <summary>Serves requests about names: looks them up, makes, links and removes them.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="maker">Makes inodes for objects that were found.</param>
/// <param name="finder">Finds names and their inodes.</param>
/// <param name="copyUp">Brings objects to upper.</param>
/// <param name="create">Makes objects in upper.</param>
/// <param name="remove">Removes names.</param>
/// <param name="link">Gives files further names.</param>
/// <param name="rename">Moves names.</param>
/// <param name="errors">Errors of writing to upper.</param>
internal sealed class NameRequests(
    ObjectTree tree, UpperLayer upper, KernelSession session, InodeMaker maker, NameFinder finder, CopyUp copyUp,
    Create create, Remove remove, Link link, Rename rename, WritebackErrors errors)
{
    public Errno Lookup(in Request request, ReadOnlySpan<byte> name, out EntryOut entry)
    {
        entry = default;
        Errno error = tree.Inodes.FindDirectory(request.NodeId, out DirectoryInode parent);
        return error.IsError ? error : finder.Lend(parent, name, out entry);
    }

    public void Forget(ulong nodeId, ulong lookups)
    {
        tree.Inodes.Forget(nodeId, lookups);
        while (tree.Orphans.TryTakeDescriptor(out int orphan)) { session.CloseLast(orphan); }
        while (tree.Orphans.TryTakeWorkName(out byte[] leftover)) { remove.Discard(new Leftover(leftover, Remove.ManyWhiteouts)); }
    }

    public Errno ReadLink(in Request request, Span<byte> target, out int length)
    {
        length = 0;
        Errno error = tree.Inodes.Find(request.NodeId, out Inode inode);
        if (error.IsError) { return error; }
        error = tree.Objects.Resolve(inode, out RealReference real);
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
        // Users may not make a whiteout. Kernel: ovl_mknod()
        if (type == FileType.CharacterDevice && input.Rdev == 0) { return Errno.EPERM; }
        var what = new NewObject(type == 0 ? input.Mode | FileType.Regular : input.Mode, input.Rdev)
        {
            Uid = request.Header.Uid, Gid = request.Header.Gid, Umask = input.Umask
        };
        return MakeObject(request, name, what, out entry, out _, out _);
    }

    public Errno MkDir(in Request request, ReadOnlySpan<byte> name, in MkDirIn input, out EntryOut entry)
    {
        var what = new NewObject(FileType.Directory | (input.Mode & ModeBits.Mask))
        {
            Uid = request.Header.Uid, Gid = request.Header.Gid, Umask = input.Umask
        };
        return MakeObject(request, name, what, out entry, out _, out _);
    }

    /// <summary>Makes an object in the request's directory and lends the kernel one reference to it.</summary>
    /// <param name="request">The request.</param>
    /// <param name="name">The new name, with its NUL.</param>
    /// <param name="what">The object to make.</param>
    /// <param name="entry">The answer.</param>
    /// <param name="inode">The new inode; null for a directory that is looked up again afterwards.</param>
    /// <param name="descriptor">A descriptor of the file if it is to be open, which the caller closes; otherwise -1.</param>
    public Errno MakeObject(in Request request, ReadOnlySpan<byte> name, in NewObject what, out EntryOut entry, out Inode inode,
        out int descriptor)
    {
        entry = default;
        inode = null!;
        descriptor = -1;
        Errno error = tree.Inodes.FindDirectory(request.NodeId, out DirectoryInode parent);
        if (error.IsError) { return error; }
        errors.NoteWrite();
        error = parent.CheckChange(onlyAdds: true);
        if (error.IsError) { return error; }
        error = copyUp.Ensure(parent, request);
        if (error.IsError) { return error; }
        bool isDirectory = (what.Mode & FileType.Mask) == FileType.Directory;
        if (isDirectory && create.MayMerge) { return MakeMergingDirectory(parent, name, what, out entry); }
        bool exclusive = isDirectory && create.IsLong;
        using (tree.RenameLock.Enter(exclusive))
        {
            using (parent.LockNames())
            {
                if (parent.IsUnlinked) { return Errno.ENOENT; }
                error = create.RunLocked(parent, name, what, null, out Statx stat, out descriptor);
                if (error.IsError) { return error; }
                inode = maker.NewUpperInode(parent, name, stat);
                tree.Inodes.AddAndLendLocked(inode);
                tree.Inodes.NoteChange(parent);
                entry = Replies.EntryOf(inode, inode.NodeId, stat);
                return Errno.None;
            }
        }
    }

    /// <summary>
    /// Makes a directory that hides the lowers' entries by one whiteout each, since it cannot be marked opaque. So a lookup
    /// finds it as a merged directory.
    /// </summary>
    private Errno MakeMergingDirectory(DirectoryInode parent, ReadOnlySpan<byte> name, in NewObject what, out EntryOut entry)
    {
        entry = default;
        Errno error = create.ListBelow(parent, name, out MergedDirectory? below); // before anything is locked
        if (error.IsError) { return error; }
        try
        {
            using (tree.RenameLock.Exclude())
            {
                using (parent.LockNames())
                {
                    error = parent.IsUnlinked ? Errno.ENOENT : create.RunLocked(parent, name, what, below, out _, out _);
                    if (!error.IsError) { tree.Inodes.NoteChange(parent); }
                }
            }
        }
        finally
        {
            if (below is not null) { tree.Listings.Return(below); }
        }
        return error.IsError ? error : finder.Lend(parent, name, out entry);
    }

    public Errno Link(in Request request, ulong target, ReadOnlySpan<byte> newName, out EntryOut entry)
    {
        entry = default;
        Errno error = tree.Inodes.Find(target, out Inode inode);
        if (error.IsError) { return error; }
        error = tree.Inodes.FindDirectory(request.NodeId, out DirectoryInode parent);
        if (error.IsError) { return error; }
        error = inode.CheckChange();
        if (error.IsError) { return error; }
        error = parent.CheckChange(onlyAdds: true);
        if (error.IsError) { return error; }
        bool needsData = !upper.WritesMetacopies || inode.IsNameless;
        error = copyUp.Ensure(inode, request, needsData);
        if (error.IsError) { return error; }
        error = copyUp.Ensure(parent, request);
        if (error.IsError) { return error; }
        if (!needsData)
        {
            using (tree.RenameLock.Share())
            {
                using var name = new HeldName(inode);
                error = rename.SetRedirectLocked(inode, sameDirectory: false);
            }
            if (error == Errno.EXDEV) { error = copyUp.Ensure(inode, request); }
            if (error.IsError) { return error; }
        }
        bool exclusive = inode.IsNameless; // it gets its first name
        int held = -1;
        try
        {
            using (tree.RenameLock.Enter(exclusive))
            {
                error = link.HoldSourceLocked(inode, parent, out held);
                if (error.IsError) { return error; }
                using (parent.LockNames())
                {
                    error = parent.IsUnlinked ? Errno.ENOENT : link.RunLocked(inode, parent, newName, held, exclusive);
                    if (error.IsError) { return error; }
                }
            }
        }
        finally
        {
            if (held >= 0) { Libc.Close(held); }
        }
        error = tree.ReadAttributes(inode, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error; }
        entry = Replies.EntryOf(inode, tree.Inodes.Lend(inode), stat);
        return Errno.None;
    }

    public Errno Unlink(in Request request, ReadOnlySpan<byte> name) => RemoveName(request, name, directory: false);

    public Errno RmDir(in Request request, ReadOnlySpan<byte> name) => RemoveName(request, name, directory: true);

    private Errno RemoveName(in Request request, ReadOnlySpan<byte> name, bool directory)
    {
        Errno error = RemoveName(request, name, directory, out Leftover? leftover);
        remove.Discard(leftover);
        return error;
    }

    private Errno RemoveName(in Request request, ReadOnlySpan<byte> name, bool directory, out Leftover? leftover)
    {
        leftover = null;
        if (!upper.IsWritable) { return Errno.EROFS; }
        Errno error = tree.Inodes.FindDirectory(request.NodeId, out DirectoryInode parent);
        if (error.IsError) { return error; }
        error = parent.CheckChange();
        if (error.IsError) { return error; }
        if (parent.Upper is null)
        {
            // Checked before the directory is copied up for a removal that must fail.
            error = CheckRemoval(parent, name, directory);
            if (error.IsError) { return error; }
            error = copyUp.Ensure(parent, request);
            if (error.IsError) { return error; }
        }

        // Before anything is locked: the lowers may take any time to answer.
        Below below = tree.Lookup.FindBelow(parent.Stack, name);
        return directory ? RemoveDirectory(parent, name, below, out leftover) : RemoveFile(parent, name, below);
    }

    private Errno RemoveFile(DirectoryInode parent, ReadOnlySpan<byte> name, in Below below)
    {
        bool exclusive = upper.Features is not { Exchange: true, UnlinksOpenFilesAtOnce: true };
        while (true)
        {
            using (tree.RenameLock.Enter(exclusive))
            {
                using (parent.LockNames())
                {
                    Errno error = finder.FindInodeLocked(parent, name, below, out Found found, out BorrowedInode borrowed);
                    using BorrowedInode held = borrowed;
                    if (error.IsError) { return error; }
                    if (borrowed.Inode is not { } inode) { return Errno.ENOENT; }
                    error = inode.CheckChange();
                    if (error.IsError) { return error; }
                    if (found.Stat.IsDirectory) { return Errno.EISDIR; }
                    // Another name may have to stand in for this one: no other thread may be using this name then. A filesystem such
                    // as sshfs tells one link, whatever names there are.
                    bool hasOthers = found.Stat.Nlink > 1 || inode.Links is not null || tree.NeedsFreshAttributes(inode);
                    if (!hasOthers || exclusive)
                    {
                        error = remove.UnlinkLocked(parent, name, inode, found, below.IsPositive, exclusive, out bool isHeld);
                        if (!isHeld) { return error; }
                        // It failed, and other threads may use the descriptor that was to stand in: try again without them.
                    }
                }
            }
            exclusive = true;
        }
    }

    private Errno RemoveDirectory(DirectoryInode parent, ReadOnlySpan<byte> name, Below below, out Leftover? leftover)
    {
        leftover = null;
        bool staysInWork = upper.HasManyOrphans; // no other thread may be resolving it then
        bool exclusive = staysInWork || !upper.Features.Exchange;
        while (true)
        {
            Errno error = finder.FindInode(parent, name, ref below, out _, out BorrowedInode borrowed);
            using BorrowedInode held = borrowed;
            if (error.IsError) { return error; }
            if (borrowed.Inode is not { } inode) { return Errno.ENOENT; }
            error = inode.CheckChange();
            if (error.IsError) { return error; }
            if (inode is not DirectoryInode removed) { return Errno.ENOTDIR; }
            error = finder.CheckEmpty(removed, out int version, out int whiteouts);
            if (error.IsError) { return error; }
            using (tree.RenameLock.Enter(exclusive))
            {
                using (parent.LockNames())
                {
                    error = finder.FindInodeLocked(parent, name, below, out Found found, out BorrowedInode now);
                    using BorrowedInode again = now;
                    if (error.IsError) { return error; }
                    using (removed.LockNames())
                    {
                        if (!ReferenceEquals(now.Inode, removed) || tree.Inodes.VersionOf(removed) != version)
                        {
                            continue; // a name has changed meanwhile
                        }
                        return remove.DirectoryLocked(parent, name, removed, found, below.IsPositive, whiteouts, staysInWork,
                            out leftover);
                    }
                }
            }
        }
    }

    private Errno CheckRemoval(DirectoryInode parent, ReadOnlySpan<byte> name, bool directory)
    {
        Below below = default;
        Errno error = finder.FindInode(parent, name, ref below, out _, out BorrowedInode borrowed);
        using BorrowedInode held = borrowed;
        if (error.IsError) { return error; }
        if (borrowed.Inode is not { } inode) { return Errno.ENOENT; }
        error = inode.CheckChange();
        if (error.IsError || !directory) { return error; }
        if (inode is not DirectoryInode removed) { return Errno.ENOTDIR; }
        return finder.CheckEmpty(removed, out _, out _);
    }
}
