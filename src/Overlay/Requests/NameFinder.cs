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
/// <param name="maker">Makes inodes for objects that were found.</param>
/// <param name="sameFile">Distinguishes files with the same number.</param>
internal sealed class NameFinder(ObjectTree tree, InodeMaker maker, SameFile sameFile)
{
    /// <summary>Finds a name and lends the kernel one reference to the object.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="entry">The answer; its nodeid is 0 when there is no such name.</param>
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

    /// <summary>Lends the kernel one reference to an object that was found.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="found">The topmost real object.</param>
    /// <param name="whole">What is behind the object, if that is known.</param>
    /// <param name="isComplete">Whether <paramref name="whole"/> is known. If not, it is looked up for a new inode.</param>
    /// <param name="version">The directory's version before the name was looked up.</param>
    /// <param name="entry">The answer.</param>
    /// <param name="error">The error, if there was one.</param>
    /// <returns>False when a name in the directory has changed since <paramref name="version"/>: look it up again.</returns>
    public bool TryLend(DirectoryInode parent, ReadOnlySpan<byte> name, in Found found, in Whole whole, bool isComplete, int version,
        out EntryOut entry, out Errno error)
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
        if (found.HasUpper && tree.Keys.DoubtsUpper && !found.Stat.IsDirectory && !tree.Aliases.HasName(inode, parent, name))
        {
            error = sameFile.Check(inode, parent, name, version, found.Stat);
            if (error.IsError) { tree.Inodes.Forget(nodeId, 1); }
            if (error == Errno.EAGAIN) { return false; }
            if (error.IsError) { return true; }
        }
        bool hasSeveral = inode.Links is not null || (found.HasUpper && found.Stat.Nlink > 1 && !inode.IsDirectory);
        if (hasSeveral && !tree.Aliases.TryAdd(inode, parent, version, name, found.HasUpper))
        {
            tree.Inodes.Forget(nodeId, 1);
            return false;
        }
        error = FillEntry(inode, nodeId, found, out entry);
        if (error.IsError) { tree.Inodes.Forget(nodeId, 1); }
        return true;
    }

    /// <summary>Finds what is behind an object and enters its inode.</summary>
    private bool TryComplete(DirectoryInode parent, ReadOnlySpan<byte> name, in Found found, RealKey key, int version, out Inode inode,
        out ulong nodeId, out Errno error)
    {
        error = tree.Lookup.Complete(parent.Stack, name, found, out Whole whole);
        if (!error.IsError) { return TryEnter(parent, name, found, whole, key, version, out inode, out nodeId); }
        (inode, nodeId) = (null!, 0);
        return false;
    }

    private bool TryEnter(DirectoryInode parent, ReadOnlySpan<byte> name, in Found found, in Whole whole, RealKey key, int version,
        out Inode inode, out ulong nodeId)
    {
        Inode candidate = maker.NewInode(parent, name, found, whole, key, out InoChoice ino);
        return tree.Inodes.TryAddAndLend(candidate, ino, version, out inode, out nodeId);
    }

    private Errno FillEntry(Inode inode, ulong nodeId, in Found found, out EntryOut entry)
    {
        entry = default;
        if (inode.Links is null && inode.Metacopy is null && found.HasUpper == inode.HasUpper && !tree.NeedsFreshAttributes(inode))
        {
            entry = Replies.EntryOf(inode, nodeId, found.Stat);
            return Errno.None;
        }
        // The inode by now has another real object than was found, or the attributes are in two places.
        Errno error = tree.ReadAttributes(inode, StatxMask.Basic, out Statx stat);
        if (!error.IsError) { entry = Replies.EntryOf(inode, nodeId, stat); }
        return error;
    }

    /// <summary>Checks that users see nothing in a directory. Caller holds no lock.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="version">The directory's version for which the answer is true.</param>
    /// <param name="whiteouts">The number of whiteouts in upper's directory.</param>
    /// <returns><see cref="Errno.ENOTEMPTY"/> when users see something.</returns>
    public Errno CheckEmpty(DirectoryInode directory, out int version, out int whiteouts)
    {
        version = whiteouts = 0;
        Errno error = tree.Listings.Read(directory.Stack, tree.Inodes.VersionOf(directory), out MergedDirectory content,
            onlyWhetherEmpty: true);
        if (error.IsError) { return error; }
        bool isEmpty = content.Count == 0;
        (version, whiteouts) = (content.Version, content.UpperWhiteouts);
        tree.Listings.Return(content);
        return isEmpty ? Errno.None : Errno.ENOTEMPTY;
    }

    /// <summary>
    /// Finds the inode of a name; none when users see nothing there. Caller holds no lock, and disposes of the borrowed inode.
    /// </summary>
    public Errno FindInode(DirectoryInode parent, ReadOnlySpan<byte> name, ref Below below, out Found found, out BorrowedInode inode) =>
        Borrow(tree.Lookup.Find(parent.Stack, name, ref below, out found), parent, name, found, out inode);

    /// <summary>
    /// Finds the inode of a name without reading the lowers. Caller holds the rename lock, and disposes of the borrowed inode.
    /// </summary>
    /// <returns><see cref="Errno.EAGAIN"/> when the answer depends on the lowers, and <paramref name="below"/> is not known.</returns>
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
        if (!found.HasUpper || !tree.Keys.DoubtsUpper || known.IsDirectory || tree.Aliases.HasName(known, parent, name))
        {
            return Errno.None;
        }
        inode.Dispose();
        inode = default;
        return Errno.EIO; // another file has the number by now: a lookup reports that
    }
}
