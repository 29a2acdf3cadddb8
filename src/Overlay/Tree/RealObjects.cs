using System.Diagnostics;
using System.Runtime.CompilerServices;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>Holds the names lock of an object's directory, so that no other object gets the object's name in upper.</summary>
/// <remarks>
/// Whoever changes an object by its name needs it: if the object were removed and another one got the name, that one would be changed.
/// A directory needs no lock, since it has a descriptor of its own. The exclusive rename lock serves as well.
/// </remarks>
internal readonly ref struct HeldName
{
    private readonly ObjectLock.Scope names;

    /// <summary>Takes the lock. Caller holds the rename lock.</summary>
    public HeldName(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        if (!inode.IsDirectory && inode.Parent is { } parent) { names = parent.LockNames(); }
    }

    /// <summary>Releases the lock.</summary>
    public void Dispose() => names.Dispose();
}

/// <summary>Finds the real objects of inodes.</summary>
/// <remarks>
/// An object of upper is reached by names that may change: the rename lock is held shared as long as the reference. An object of a
/// lower stays where it is, and whoever uses it may wait for the lower's filesystem: no lock is held.
/// </remarks>
/// <param name="directories">The descriptors of real directories.</param>
/// <param name="work">The work directory as a directory of upper's layer; null when read-only.</param>
/// <param name="renameLock">Held while a name in upper is used.</param>
internal sealed class RealObjects(DirectoryCache directories, RealDirectory? work, SharedLock renameLock)
{
    /// <summary>
    /// Finds the object that has the attributes: that of upper, or the topmost lower one. Caller holds neither the rename lock nor a
    /// lock that comes after it.
    /// </summary>
    public Errno Resolve(Inode inode, out RealReference real)
    {
        if (!inode.HasUpper)
        {
            return inode is DirectoryInode directory
                ? Of(directory.Lowers[0], Libc.Self, out real)
                : Of(inode.LowerDirectory!, inode.LowerName, out real);
        }
        SharedLock.Scope held = renameLock.Share();
        Errno error = ResolveLocked(inode, out real);
        if (error.IsError) { held.Dispose(); }
        else { real.Hold(held); }
        return error;
    }

    /// <summary>
    /// Finds the object of upper, never one of a lower, so that the caller may change it. Caller holds the rename lock as long as the
    /// reference.
    /// </summary>
    /// <returns><see cref="Errno.ESTALE"/> when nothing leads to it.</returns>
    public Errno ResolveLocked(Inode inode, out RealReference real)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        if (inode is DirectoryInode { Upper: { } directory }) { return Of(directory, Libc.Self, out real); }
        // What stands in for the name is tried first: it is set before the name goes.
        switch (inode.Place)
        {
            case ObjectPlace.Held when inode.Hold is { } hold:
                real = new RealReference(work!.Descriptor, hold);
                return Errno.None;
            case ObjectPlace.Orphaned when inode.Orphan is >= 0 and int orphan:
                real = new RealReference(orphan);
                return Errno.None;
            case ObjectPlace.Orphaned when inode.WorkName is { } name:
                real = new RealReference(work!.Descriptor, name);
                return Errno.None;
            case ObjectPlace.Gone: // another file may have the name by now
                real = default;
                return Errno.ESTALE;
        }
        if (inode is { HasUpper: true, IsDirectory: false, Parent.Upper: { } parent }) { return Of(parent, inode.Name, out real); }
        real = default;
        return Errno.ESTALE;
    }

    /// <summary>Finds the object that has the data of a regular file. Caller holds no lock, as for <see cref="Resolve"/>.</summary>
    public Errno ResolveData(Inode inode, out RealReference real) =>
        inode.Metacopy is { } data ? Of(data.Directory, data.Name, out real) : Resolve(inode, out real);

    /// <summary>
    /// Makes a reference to a name in a real directory. Caller holds the rename lock if the directory is in upper, and does not hold it
    /// if the directory is in a lower.
    /// </summary>
    public Errno Of(RealDirectory directory, ReadOnlySpan<byte> name, out RealReference real)
    {
        AssertMayUse(directory);
        Errno error = directories.Borrow(directory, out BorrowedDirectory borrowed);
        real = error.IsError ? default : new RealReference(borrowed, name);
        return error;
    }

    [Conditional("LOCK_ORDER")]
    private static void AssertMayUse(RealDirectory directory, [CallerMemberName] string member = "")
    {
        if (directory.Layer.IsUpper) { LockOrder.AssertHeld(OverlayLocks.Rename, member: member); }
        else { LockOrder.AssertNotHeld(OverlayLocks.Rename, member); }
    }
}
