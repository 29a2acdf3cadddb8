using Veneer.Fuse;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Requests;

/// <summary>
/// Serves RENAME and RENAME2: checks what can be refused, copies both sides up, then changes the names under the exclusive
/// rename lock.
/// </summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="finder">Finds names and their inodes.</param>
/// <param name="copyUp">Brings objects to upper.</param>
/// <param name="remove">Removes names.</param>
/// <param name="rename">Moves names.</param>
internal sealed class RenameRequests(ObjectTree tree, UpperLayer upper, NameFinder finder, CopyUp copyUp, Remove remove, Rename rename)
{
    public Errno Run(in Request request, ReadOnlySpan<byte> name, ulong newDirectory, ReadOnlySpan<byte> newName, RenameFlags flags)
    {
        Errno error = Run(request, name, newDirectory, newName, flags, out Leftover? leftover);
        remove.Discard(leftover);
        return error;
    }

    private Errno Run(in Request request, ReadOnlySpan<byte> name, ulong newDirectory, ReadOnlySpan<byte> newName, RenameFlags flags,
        out Leftover? leftover)
    {
        leftover = null;
        if ((flags & ~(RenameFlags.NoReplace | RenameFlags.Exchange)) != 0) { return Errno.EINVAL; }
        if (!upper.IsWritable) { return Errno.EROFS; }
        Errno error = tree.Inodes.FindDirectory(request.NodeId, out DirectoryInode oldParent);
        if (error.IsError) { return error; }
        error = tree.Inodes.FindDirectory(newDirectory, out DirectoryInode newParent);
        if (error.IsError) { return error; }
        var from = new RenameSide(oldParent, name);
        var to = new RenameSide(newParent, newName);
        try
        {
            return Run(request, ref from, ref to, flags, out leftover);
        }
        finally
        {
            from.Borrowed.Dispose();
            to.Borrowed.Dispose();
        }
    }

    private Errno Run(in Request request, ref RenameSide from, ref RenameSide to, RenameFlags flags, out Leftover? leftover)
    {
        leftover = null;
        bool exchange = (flags & RenameFlags.Exchange) != 0;
        bool needsData = !upper.WritesMetacopies;
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

            using (tree.RenameLock.Exclude())
            {
                error = FindAgainLocked(ref from, isSure: from.Found.HasUpper);
                if (!error.IsError)
                {
                    error = FindAgainLocked(ref to, isSure: !to.Found.HasUpper); // the object there may have lost another name
                }
                if (error == Errno.EAGAIN) { continue; } // a name has changed meanwhile
                if (error.IsError) { return error; }
                if (!ReferenceEquals(from.Inode, moved) || !ReferenceEquals(to.Inode, replaced))
                {
                    continue; // a name has changed meanwhile
                }
                if (ReferenceEquals(from.Inode, to.Inode)) { return Errno.None; } // two names of one file: see rename(2)
                if (!from.Found.HasUpper || (exchange && !to.Found.HasUpper)) { continue; }
                if (!exchange && to.Directory is { } emptied && tree.Inodes.VersionOf(emptied) != to.EmptyVersion) { continue; }
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

    /// <summary>Finds the object on one side of a rename. Caller holds no lock.</summary>
    private Errno FindSide(ref RenameSide side)
    {
        using BorrowedInode before = side.Borrowed; // kept until the new one is found: the same object then has the same inode
        side.Version = tree.Inodes.VersionOf(side.Parent);
        // The lowers decide whether a directory may get the name, if directories cannot be marked opaque.
        if (!upper.Features.HasOpaque && !side.Below.IsKnown) { side.Below = tree.Lookup.FindBelow(side.Parent.Stack, side.Name); }
        return finder.FindInode(side.Parent, side.Name, ref side.Below, out side.Found, out side.Borrowed);
    }

    /// <summary>
    /// Finds the object on one side of a rename again, unless nothing can have changed. Caller holds the rename lock
    /// exclusively.
    /// </summary>
    /// <param name="side">The side, as it was found before.</param>
    /// <param name="isSure">Whether everything that was found stays true as long as no name in the directory changes.</param>
    /// <returns><see cref="Errno.EAGAIN"/> when the lowers would have to be read.</returns>
    private Errno FindAgainLocked(ref RenameSide side, bool isSure)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: true);
        if (isSure && side.Version == tree.Inodes.VersionOf(side.Parent)) { return Errno.None; }
        using BorrowedInode before = side.Borrowed;
        side.Version = tree.Inodes.VersionOf(side.Parent);
        return finder.FindInodeLocked(side.Parent, side.Name, side.Below, out side.Found, out side.Borrowed);
    }

    /// <summary>Finds both sides of a rename and checks what can be refused before anything is copied up.</summary>
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
        error = from.Parent.CheckChange();
        if (!error.IsError) { error = to.Parent.CheckChange(onlyAdds: replaced is null); }
        if (!error.IsError) { error = old.CheckChange(); }
        if (!error.IsError && replaced is not null) { error = replaced.CheckChange(); }
        if (error.IsError) { return error; }
        if (!rename.CanMove(old) || (exchange && !rename.CanMove(replaced!))) { return Errno.EXDEV; }
        if (exchange) { return Errno.None; }
        if (!from.Below.IsKnown)
        {
            from.Below = tree.Lookup.FindBelow(from.Parent.Stack, from.Name); // tells whether a whiteout must be left
        }
        if (replaced is null) { return Errno.None; }
        if (replaced is DirectoryInode directory)
        {
            if (!old.IsDirectory) { return Errno.EISDIR; }
            error = finder.CheckEmpty(directory, out to.EmptyVersion, out to.Whiteouts);
            // Kernel overlayfs leaves a pure upper directory to upper's filesystem, and xfs answers EEXIST: xfs_rename()
            return error == Errno.ENOTEMPTY && directory.IsPureUpper && upper.IsOnXfs ? Errno.EEXIST : error;
        }
        return old.IsDirectory ? Errno.ENOTDIR : Errno.None;
    }
}
