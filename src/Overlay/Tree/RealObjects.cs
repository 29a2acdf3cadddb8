using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>Until it is disposed of, the name that upper has of an object goes to no other one.</summary>
/// <remarks>
/// For whoever changes the object by its name: a file that was removed after it was found, and another made in its place,
/// would get the change. A directory is reached by a descriptor of its own. Caller holds the rename lock.
/// </remarks>
internal readonly ref struct HeldName
{
    private readonly ObjectLock.Scope names;

    public HeldName(Inode inode)
    {
        if (!inode.IsDirectory && inode.Parent is { } parent) { names = parent.LockNames(); }
    }

    public void Dispose() => names.Dispose();
}

/// <summary>Finds the real objects of inodes.</summary>
/// <remarks>
/// An object of upper is reached by names that move: the rename lock is held, shared, as long as the reference. One of a
/// lower stays where it is, and whoever uses it may wait for its filesystem: no lock is held.
/// </remarks>
/// <param name="directories">Descriptors of real directories.</param>
/// <param name="work">Work as a directory of upper's layer; null when read-only.</param>
/// <param name="renameLock">Held while a name in upper is used.</param>
internal sealed class RealObjects(DirectoryCache directories, RealDirectory? work, SharedLock renameLock)
{
    /// <summary>The object that holds the attributes: upper's if there is one, else the topmost lower's. Caller holds no lock that comes after the rename lock, nor that.</summary>
    public Errno Resolve(Inode inode, out RealReference real)
    {
        if (!inode.HasUpper)
        {
            return inode is DirectoryInode directory ? Of(directory.Lowers[0], Libc.Self, out real) : Of(inode.LowerDirectory!, inode.LowerName, out real);
        }
        SharedLock.Scope held = renameLock.Share();
        Errno error = ResolveLocked(inode, out real);
        if (error.IsError) { held.Dispose(); }
        else { real.Hold(held); }
        return error;
    }

    /// <summary>The object of upper that holds the attributes. Caller holds the rename lock while he uses what he gets, and may change it.</summary>
    /// <returns><see cref="Errno.ESTALE"/> when no name leads to it; never an object of a lower.</returns>
    public Errno ResolveLocked(Inode inode, out RealReference real)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        if (inode is DirectoryInode { Upper: { } directory }) { return Of(directory, Libc.Self, out real); }
        // What stands in is looked at first: before a name goes, it is there.
        switch (inode.Place)
        {
            case ObjectPlace.Held when inode.Links!.Hold is { } hold:
                real = new RealReference(work!.Descriptor, hold);
                return Errno.None;
            case ObjectPlace.Orphaned when inode.Orphan is >= 0 and int orphan:
                real = new RealReference(orphan);
                return Errno.None;
            case ObjectPlace.Orphaned when inode.WorkName is { } name:
                real = new RealReference(work!.Descriptor, name);
                return Errno.None;
            case ObjectPlace.Gone: // its name may be another file's by now
                real = default;
                return Errno.ESTALE;
        }
        if (inode is { HasUpper: true, IsDirectory: false, Parent.Upper: { } parent }) { return Of(parent, inode.Name, out real); }
        real = default;
        return Errno.ESTALE;
    }

    /// <summary>The object that holds the data of a regular file. Caller holds no lock, as for <see cref="Resolve"/>.</summary>
    public Errno ResolveData(Inode inode, out RealReference real) =>
        inode.Metacopy is { } data ? Of(data.Directory, data.Name, out real) : Resolve(inode, out real);

    /// <summary>A name in a real directory. Caller holds the rename lock if that is one of upper, and not if it is one of a lower.</summary>
    public Errno Of(RealDirectory directory, ReadOnlySpan<byte> name, out RealReference real)
    {
        Errno error = directories.Borrow(directory, out BorrowedDirectory borrowed);
        real = error.IsError ? default : new RealReference(borrowed, name);
        return error;
    }
}
