using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>Gives files of upper further names, and the first name to a file without one, from O_TMPFILE.</summary>
/// <remarks>
/// Callers hold the rename lock, exclusively if the file has no name: the descriptor that stood in for the name is closed, so no
/// other thread may be using it. The file and the directory of the new name are in upper.
/// <para>
/// Crash safety. The name is made by one link, or where a whiteout has it, by one rename of a link that was made in work. Killed before
/// that: the directory may be impure without need. The next mount empties work.
/// </para>
/// </remarks>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="remove">Removes names.</param>
/// <param name="impure">The impure mark.</param>
internal sealed class Link(ObjectTree tree, UpperLayer upper, Remove remove, ImpureMark impure)
{
    /// <summary>
    /// Opens the object to link if its name is in another directory than the new name: two names locks are not held at once, and by the
    /// time of the link the old name may belong to another file.
    /// </summary>
    /// <param name="inode">The object to link.</param>
    /// <param name="parent">The directory of the new name.</param>
    /// <param name="descriptor">An O_PATH descriptor, which the caller closes; -1 if the object's name serves as well.</param>
    public Errno HoldSourceLocked(Inode inode, DirectoryInode parent, out int descriptor)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        descriptor = -1;
        if (inode.IsNameless || inode.Hold is not null || ReferenceEquals(inode.Parent, parent)) { return Errno.None; }
        using var held = new HeldName(inode);
        Errno error = tree.Objects.ResolveLocked(inode, out RealReference real);
        if (error.IsError) { return error; }
        using (real)
        {
            return Libc.OpenAt(real.Directory, real.Name, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.None, out descriptor);
        }
    }

    /// <summary>Gives a file another name, and notes it in the inode and the table.</summary>
    /// <param name="inode">The file.</param>
    /// <param name="parent">The directory of the new name, whose names lock the caller holds.</param>
    /// <param name="name">The new name, with its NUL.</param>
    /// <param name="held">The descriptor from <see cref="HoldSourceLocked"/>, or -1.</param>
    /// <param name="exclusive">Whether the rename lock is held exclusively.</param>
    public Errno RunLocked(Inode inode, DirectoryInode parent, ReadOnlySpan<byte> name, int held, bool exclusive)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: exclusive);
        parent.AssertNamesLocked();
        Errno error;
        if (inode.HasOrigin)
        {
            error = impure.SetLocked(parent);
            if (error.IsError) { return error; }
        }
        error = tree.Objects.ResolveLocked(inode, out RealReference real);
        if (error.IsError) { return error; }
        using (real) { error = MakeName(held >= 0 ? new RealReference(held) : real, parent, name); }
        if (error.IsError) { return error; }
        if (exclusive && inode.IsNameless) { GiveFirstName(inode, parent, name.ToArray()); }
        else if (inode.Links is null && !inode.IsNameless) { tree.Aliases.Add(inode, inode.Parent!, inode.Name, isUpper: true); }
        tree.Aliases.Add(inode, parent, name, isUpper: true);
        if (inode.Links is { } links) { links.Count++; }
        inode.BecomeLinkedLocked();
        tree.Inodes.NoteChange(parent);
        return Errno.None;
    }

    /// <summary>From now on a file that was reached through a descriptor or a name in work is reached by its first name.</summary>
    private void GiveFirstName(Inode inode, DirectoryInode parent, byte[] name)
    {
        tree.Inodes.MoveLocked(inode, parent, name);
        remove.DropStandInLocked(inode);
    }

    private Errno MakeName(in RealReference source, DirectoryInode parent, ReadOnlySpan<byte> name)
    {
        Errno error = tree.Objects.Of(parent.Upper!, Libc.Self, out RealReference directory);
        if (error.IsError) { return error; }
        using (directory)
        {
            error = LinkTo(source, directory.Directory, name);
            if (error == Errno.EEXIST) { error = LinkOverWhiteout(source, parent, directory.Directory, name); }
            if (!error.IsError) { upper.Moves?.AddLocked(directory.Directory, name); }
            return error;
        }
    }

    private Errno LinkOverWhiteout(in RealReference source, DirectoryInode parent, int directory, ReadOnlySpan<byte> name)
    {
        Errno error = Libc.StatAt(directory, name, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error; }
        if (!tree.Reader.IsWhiteout(parent.Upper!, name, stat)) { return Errno.EEXIST; }

        using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
        error = LinkTo(source, temporary.Directory, temporary.Name);
        return error.IsError ? error : temporary.Replace(directory, name);
    }

    private static Errno LinkTo(in RealReference source, int directory, ReadOnlySpan<byte> name) =>
        source.Name.Length > 1
            ? Libc.LinkAt(source.Directory, source.Name, directory, name)
            : Libc.LinkDescriptor(source.Directory, directory, name);
}
