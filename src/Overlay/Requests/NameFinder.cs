using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Requests;

/// <summary>Finds names and the inodes that they lead to.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="maker">Makes inodes of what was found.</param>
/// <param name="sameFile">Tells files of one number apart.</param>
internal sealed class NameFinder(ObjectTree tree, InodeMaker maker, SameFile sameFile)
{
    /// <summary>Finds a name and lends the kernel one reference to what it leads to.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="entry">A nodeid of 0: there is nothing.</param>
    /// <param name="firstLower">The first of the directory's lowers that can have the name.</param>
    public Errno Lend(DirectoryInode parent, ReadOnlySpan<byte> name, out EntryOut entry, int firstLower = 0)
    {
        while (true)
        {
            entry = default;
            int version = tree.Inodes.VersionOf(parent);
            Errno error = tree.Lookup.Find(parent.Stack, name, out Found found, firstLower);
            if (error.IsError) { return error; }
            if (!found.Exists)
            {
                entry.EntryValid = Replies.CacheSeconds;
                return Errno.None;
            }
            if (TryLend(parent, name, found, default, isComplete: false, version, out entry, out error)) { return error; }
        }
    }

    /// <summary>Lends the kernel one reference to what was found.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="found">What was found.</param>
    /// <param name="whole">What is behind it, if that is known.</param>
    /// <param name="isComplete">Whether it is; else it is looked up for a new inode.</param>
    /// <param name="version">The directory's version before.</param>
    /// <param name="entry">The answer.</param>
    /// <param name="error">The error.</param>
    /// <returns>False when a name changed in the directory since <paramref name="version"/>: look again.</returns>
    public bool TryLend(DirectoryInode parent, ReadOnlySpan<byte> name, in Found found, in Whole whole, bool isComplete, int version, out EntryOut entry, out Errno error)
    {
        entry = default;
        error = Errno.None;
        RealKey key = tree.Keys.Of(parent, name, found);
        if (!tree.Inodes.TryLend(key, parent, version, out Inode inode, out ulong nodeId))
        {
            bool isEntered = isComplete
                ? TryEnter(parent, name, found, whole, key, version, out inode, out nodeId)
                : TryComplete(parent, name, found, key, version, out inode, out nodeId, out error);
            if (!isEntered) { return error.IsError; }
        }
        if (found.HasUpper && tree.Keys.DoubtsUpper && !found.Stat.IsDirectory && !tree.Inodes.IsAt(inode, parent, name))
        {
            error = sameFile.Check(inode, parent, name, version, found.Stat);
            if (error.IsError) { tree.Inodes.Forget(nodeId, 1); }
            if (error == Errno.EAGAIN) { return false; }
            if (error.IsError) { return true; }
        }
        bool hasSeveral = inode.Links is not null || (found.HasUpper && found.Stat.Nlink > 1 && !inode.IsDirectory);
        if (hasSeveral && !tree.Inodes.TryAddAlias(inode, parent, version, name, found.HasUpper))
        {
            tree.Inodes.Forget(nodeId, 1);
            return false;
        }
        error = FillEntry(inode, nodeId, found, out entry);
        if (error.IsError) { tree.Inodes.Forget(nodeId, 1); }
        return true;
    }

    /// <summary>Enters the inode of what was found, once it is known what is behind it.</summary>
    private bool TryComplete(DirectoryInode parent, ReadOnlySpan<byte> name, in Found found, RealKey key, int version, out Inode inode, out ulong nodeId, out Errno error)
    {
        error = tree.Lookup.Complete(parent.Stack, name, found, out Whole whole);
        if (!error.IsError) { return TryEnter(parent, name, found, whole, key, version, out inode, out nodeId); }
        (inode, nodeId) = (null!, 0);
        return false;
    }

    private bool TryEnter(DirectoryInode parent, ReadOnlySpan<byte> name, in Found found, in Whole whole, RealKey key, int version, out Inode inode, out ulong nodeId)
    {
        Inode candidate = maker.NewInode(parent, name, found, whole, key, out InoChoice ino);
        return tree.Inodes.TryAddAndLend(candidate, ino, version, out inode, out nodeId);
    }

    private Errno FillEntry(Inode inode, ulong nodeId, in Found found, out EntryOut entry)
    {
        entry = default;
        if (inode.Links is null && inode.Metacopy is null && found.HasUpper == inode.HasUpper && !tree.IsStattedAnew(inode))
        {
            entry = Replies.EntryOf(inode, nodeId, found.Stat);
            return Errno.None;
        }
        // The name shows another real object than the inode has by now, or the attributes are in two places.
        Errno error = tree.ReadAttributes(inode, StatxMask.Basic, out Statx stat);
        if (!error.IsError) { entry = Replies.EntryOf(inode, nodeId, stat); }
        return error;
    }

    /// <summary>Whether users see nothing in a directory. Caller holds no lock.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="version">It is true as long as the directory has this version.</param>
    /// <param name="whiteouts">How many whiteouts upper has in it.</param>
    public Errno CheckEmpty(DirectoryInode directory, out int version, out int whiteouts)
    {
        version = whiteouts = 0;
        Errno error = tree.Listings.Read(directory.Stack, tree.Inodes.VersionOf(directory), out MergedDirectory content, onlyWhetherEmpty: true);
        if (error.IsError) { return error; }
        bool isEmpty = content.Count == 0;
        (version, whiteouts) = (content.Version, content.UpperWhiteouts);
        tree.Listings.Return(content);
        return isEmpty ? Errno.None : Errno.ENOTEMPTY;
    }

    /// <summary>The inode that a name leads to, or none when users see nothing there. Caller holds no lock, and gives back what he gets.</summary>
    public Errno FindInode(DirectoryInode parent, ReadOnlySpan<byte> name, ref Below below, out Found found, out BorrowedInode inode) =>
        Borrow(tree.Lookup.Find(parent.Stack, name, ref below, out found), parent, name, found, out inode);

    /// <summary>As the other one, and for it to be called with the rename lock: of the lowers it takes what is known.</summary>
    /// <returns><see cref="Errno.EAGAIN"/> when that would be needed, and is not known.</returns>
    public Errno FindInodeLocked(DirectoryInode parent, ReadOnlySpan<byte> name, in Below below, out Found found, out BorrowedInode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        return Borrow(tree.Lookup.FindLocked(parent.Stack, name, below, out found), parent, name, found, out inode);
    }

    private Errno Borrow(Errno error, DirectoryInode parent, ReadOnlySpan<byte> name, in Found found, out BorrowedInode inode)
    {
        inode = default;
        if (error.IsError || !found.Exists) { return error; }
        inode = tree.Inodes.Borrow(tree.Keys.Of(parent, name, found));
        if (inode.Inode is not { } known) { return Errno.ESTALE; } // the kernel names only what it has looked up
        if (!found.HasUpper || !tree.Keys.DoubtsUpper || known.IsDirectory || tree.Inodes.IsAt(known, parent, name)) { return Errno.None; }
        inode.Dispose();
        inode = default;
        return Errno.EIO; // another file has the number by now: a lookup says so
    }
}
