using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>What leads to an object in place of a name that is about to be removed.</summary>
internal enum StandIn
{
    /// <summary>Nothing new.</summary>
    None,
    /// <summary>A descriptor or a name in work.</summary>
    DescriptorOrWorkName,
    /// <summary>Another name of the object.</summary>
    OtherName,
}

/// <summary>Removes names: it takes them out of upper, hides what the lowers have there by a whiteout, or does both.</summary>
/// <remarks>
/// Callers hold the rename lock and the names lock of the directory, which is in upper. They hold the rename lock exclusively if
/// the file has several names, or names change in several steps.
/// <para>
/// Crash safety. Each name is removed or covered by one system call on upper: unlink, mknod or link of a whiteout, rename of a
/// whiteout over a file, or exchange of a whiteout with a directory. If the filesystem has no exchange, <see cref="Steps"/> does
/// it. The next mount empties work.
/// </para>
/// </remarks>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="session">The connection to the kernel.</param>
internal sealed class Remove(ObjectTree tree, UpperLayer upper, KernelSession session)
{
    /// <summary>Removes a name of an object that is not a directory.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">The name, with its NUL.</param>
    /// <param name="inode">The object.</param>
    /// <param name="found">What the layers have under the name.</param>
    /// <param name="positive">Whether a lower would show an object there.</param>
    /// <param name="exclusive">Whether the rename lock is held exclusively.</param>
    /// <param name="isHeld">
    /// Whether the name could not be removed, and the inode keeps a stand-in that other threads may use: see <see cref="UndoLocked"/>.
    /// </param>
    public Errno UnlinkLocked(
        DirectoryInode parent, ReadOnlySpan<byte> name, Inode inode, in Found found, bool positive, bool exclusive, out bool isHeld)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: exclusive);
        parent.AssertNamesLocked();
        isHeld = false;
        Errno error = tree.Objects.Of(parent.Upper!, Libc.Self, out RealReference directory);
        if (error.IsError) { return error; }
        using (directory)
        {
            StandIn standIn = found.HasUpper ? ProvideStandInLocked(parent, name, inode, directory.Directory) : StandIn.None;
            bool leavesNames = !upper.Work!.Features.UnlinksOpenFilesAtOnce && found.Stat.IsRegular;
            if (positive) { error = upper.Work.AnnounceWhiteout(directory.Directory); }
            if (!error.IsError)
            {
                error = !found.HasUpper ? upper.Work.MakeWhiteout(directory.Directory, name)
                    : positive ? CoverFile(new UpperName(parent.Upper!, directory.Directory, name), leavesNames)
                    : leavesNames ? UnlinkInWork(directory.Directory, name)
                    : Libc.UnlinkAt(directory.Directory, name);
            }
            if (error.IsError)
            {
                isHeld = UndoLocked(standIn, parent, name, inode, exclusive);
                return error;
            }
        }
        tree.Inodes.NoteChange(parent); // at once: a lookup that found the name before must run again
        AfterUnlinkLocked(parent, name, inode, found);
        return Errno.None;
    }

    /// <summary>Lets a whiteout take the place of a file.</summary>
    /// <param name="file">The name of the file.</param>
    /// <param name="leavesNames">
    /// Whether the filesystem would give an open file another name in its directory. Then the file is moved to work first.
    /// </param>
    private Errno CoverFile(in UpperName file, bool leavesNames)
    {
        using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
        Errno error = upper.Work!.MakeWhiteout(temporary.Directory, temporary.Name);
        if (error.IsError) { return error; }
        if (!leavesNames) { return temporary.Replace(file.Descriptor, file.Name); }
        error = temporary.Over(upper.Work.Steps.ReplaceLocked(file, temporary.Name, out byte[]? aside));
        if (!error.IsError && aside is not null) { upper.Work.Discard(aside); }
        return error;
    }

    /// <summary>
    /// Moves a file to work and unlinks it there. If the file is open, the filesystem gives it another name: in work no user sees
    /// that name, and no directory has to be empty.
    /// </summary>
    private Errno UnlinkInWork(int directory, ReadOnlySpan<byte> name)
    {
        using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
        return upper.Work!.Withdraw(directory, name, temporary.Name);
    }

    /// <summary>
    /// Provides another way to an object whose name is about to be removed, so that those who have it open keep it: a descriptor,
    /// a name in work, or another name.
    /// </summary>
    /// <remarks>
    /// Another name comes first, because it costs nothing: many programs give a file its name by link and unlink, and the kernel
    /// may know any number of such files. Caller holds the names lock of the directory; or the rename lock exclusively, as it does if the
    /// object has another name.
    /// </remarks>
    /// <returns>What leads to the object. <see cref="UndoLocked"/> takes it back if the name cannot be removed.</returns>
    public StandIn ProvideStandInLocked(DirectoryInode parent, ReadOnlySpan<byte> name, Inode inode, int directory)
    {
        parent.AssertNamesStay();
        if (inode.IsNameless || inode.Hold is not null
            || !ReferenceEquals(inode.Parent, parent) || !name.SequenceEqual(inode.Name))
        {
            return StandIn.None;
        }
        foreach (Alias other in inode.Aliases)
        {
            if (!other.IsUpper || other.IsRemoved) { continue; }
            if (ReferenceEquals(other.Parent, parent) && name.SequenceEqual(other.Name)) { continue; }
            tree.Inodes.MoveLocked(inode, other.Parent, other.Name);
            return StandIn.OtherName;
        }
        if (inode.Orphan < 0 && inode.WorkName is null) // otherwise it is left from a removal that failed
        {
            if (upper.HasManyOrphans && LinkInWorkLocked(inode, directory, name)) { return StandIn.DescriptorOrWorkName; }
            if (Libc.OpenAt(directory, name, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.None, out int descriptor).IsError)
            {
                // Out of descriptors: the file is removed all the same. Whoever still asks for it gets ESTALE.
                return StandIn.None;
            }
            tree.Orphans.AddLocked(inode, descriptor);
        }
        else { inode.BecomeOrphanedAgainLocked(); }
        return StandIn.DescriptorOrWorkName;
    }

    /// <summary>
    /// Takes back what <see cref="ProvideStandInLocked"/> did, since the name was not removed: it leads to the object again. Caller
    /// holds the same locks.
    /// </summary>
    /// <returns>
    /// Whether the descriptor or the name in work is still there: other threads may use it, since the rename lock is shared.
    /// </returns>
    public bool UndoLocked(StandIn standIn, DirectoryInode parent, ReadOnlySpan<byte> name, Inode inode, bool exclusive)
    {
        parent.AssertNamesStay();
        if (standIn == StandIn.OtherName) { tree.Inodes.MoveLocked(inode, parent, name.ToArray()); }
        if (standIn != StandIn.DescriptorOrWorkName) { return false; }
        if (!exclusive)
        {
            inode.BecomeNamedAgainLocked();
            return true;
        }
        DropStandInLocked(inode);
        return false;
    }

    /// <summary>
    /// Drops the descriptor or the name in work that leads to an object, which is reached by its name again. Caller holds the
    /// rename lock exclusively.
    /// </summary>
    public void DropStandInLocked(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: true);
        tree.Orphans.RemoveLocked(inode, out int descriptor, out byte[]? workName);
        if (descriptor >= 0) { Libc.Close(descriptor); }
        if (workName is not null) { upper.Work!.Discard(workName); }
    }

    /// <summary>
    /// Gives a name in work to an object that has no name, or is about to lose it. Caller holds the locks of <see cref="Inode.Place"/>.
    /// </summary>
    /// <param name="inode">The object.</param>
    /// <param name="directory">A descriptor of the directory that has the object, or of the object itself.</param>
    /// <param name="name">The name in the directory, with its NUL; empty but for the NUL for the object itself.</param>
    /// <returns>False when the object cannot be linked, for example because it has the most links that are allowed.</returns>
    public bool LinkInWorkLocked(Inode inode, int directory, ReadOnlySpan<byte> name)
    {
        inode.AssertPlaceLocked();
        Span<byte> space = stackalloc byte[WorkDirectory.NameLength];
        byte[] workName = upper.Work!.NewName(space).ToArray();
        Errno error = name.Length > 1
            ? Libc.LinkAt(directory, name, upper.Work.Descriptor, workName)
            : Libc.LinkDescriptor(directory, upper.Work.Descriptor, workName);
        if (error.IsError) { return false; }
        inode.BecomeOrphanedLocked(workName);
        return true;
    }

    /// <summary>
    /// Notes in the inode and the table that a name of an object that is not a directory was removed. Caller holds the rename lock.
    /// </summary>
    public void AfterUnlinkLocked(DirectoryInode parent, ReadOnlySpan<byte> name, Inode inode, in Found found)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        if (tree.Aliases.Find(inode, parent, name) is { } alias) { tree.Aliases.Remove(inode, alias); }
        if (inode.Links is { } links)
        {
            if (!inode.HasUpper) { tree.Aliases.Retain(inode, inode.Key); }
            if (links.Count > 0) { links.Count--; }
            if (links.Count > 0) { return; }
            if (inode.Hold is { } hold) { MakeOrphan(inode, hold); }
            inode.BecomeUnlinkedLocked();
            tree.Numbers.Release(inode.Key);
            tree.Inodes.Unhash(inode);
            tree.Aliases.Release(inode);
            return;
        }
        if (found.HasUpper && HasOtherNames(inode, found)) { return; }
        inode.BecomeUnlinkedLocked();
        tree.Numbers.Release(inode.Key);
        tree.Inodes.Unhash(inode);
    }

    /// <summary>Whether a file of upper has another name besides the one that was removed.</summary>
    private bool HasOtherNames(Inode inode, in Found found)
    {
        if (inode.WorkName is not { } workName) { return found.Stat.Nlink > 1; }
        return !Libc.StatAt(upper.Work!.Descriptor, workName, StatxMask.Basic, out Statx stat).IsError && stat.Nlink > 1;
    }

    /// <summary>
    /// Keeps the copy of a hard-linked file, whose last name was removed, for those who have it open: by a descriptor, or by the
    /// name in work.
    /// </summary>
    private void MakeOrphan(Inode inode, byte[] hold)
    {
        if (upper.HasManyOrphans)
        {
            inode.BecomeOrphanedLocked(hold);
            return;
        }
        Errno error = Libc.OpenAt(
            upper.Work!.Descriptor, hold, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.None, out int descriptor);
        if (error.IsError) { return; } // out of descriptors: the copy stays in work until unmount
        tree.Orphans.AddLocked(inode, descriptor);
        upper.Work.Discard(hold);
    }

    /// <summary>
    /// Leaves a removed directory in work, where it is found for those who have it open. Caller holds the rename lock exclusively.
    /// </summary>
    /// <param name="removed">The directory, which was moved to work.</param>
    /// <param name="name">The name of the directory in work, with its NUL.</param>
    public void KeepInWorkLocked(DirectoryInode removed, byte[] name)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: true);
        removed.Upper!.MoveLocked(upper.WorkRoot!, name);
        removed.SetWorkNameLocked(name);
    }

    /// <summary>
    /// Removes a directory in which users see no entries. Caller holds the rename lock, exclusively if the directory stays in work.
    /// </summary>
    /// <param name="parent">The directory that has the name.</param>
    /// <param name="name">The name, with its NUL.</param>
    /// <param name="removed">The directory to remove.</param>
    /// <param name="found">What the layers have under the name.</param>
    /// <param name="positive">Whether a lower would show an object there.</param>
    /// <param name="whiteouts">The number of whiteouts that the directory of upper contains.</param>
    /// <param name="staysInWork">
    /// Whether the directory is moved to work and stays there, for those who have it open. If not, a descriptor keeps it for them.
    /// </param>
    /// <param name="leftover">A directory in work that the caller must discard afterwards, or null.</param>
    public Errno DirectoryLocked(
        DirectoryInode parent, ReadOnlySpan<byte> name, DirectoryInode removed, in Found found, bool positive, int whiteouts,
        bool staysInWork, out Leftover? leftover)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: staysInWork);
        parent.AssertNamesLocked();
        removed.AssertNamesLocked();
        leftover = null;
        Errno error = tree.Objects.Of(parent.Upper!, Libc.Self, out RealReference directory);
        if (error.IsError) { return error; }
        using (directory)
        {
            if (positive) { error = upper.Work!.AnnounceWhiteout(directory.Directory); }
            if (error.IsError) { return error; }
            if (!found.HasUpper)
            {
                error = upper.Work!.MakeWhiteout(directory.Directory, name);
            }
            else
            {
                var target = new UpperName(parent.Upper!, directory.Directory, name);
                if (staysInWork)
                {
                    error = positive
                        ? CoverDirectory(target, whiteouts, out leftover)
                        : MoveAway(directory.Directory, name, whiteouts, out leftover);
                    if (!error.IsError)
                    {
                        KeepInWorkLocked(removed, leftover!.Name);
                        leftover = null;
                    }
                }
                else
                {
                    // best effort: without it, a process whose working directory this is gets ESTALE
                    _ = tree.Directories.KeepOpen(removed.Upper!);
                    error = positive ? CoverDirectory(target, whiteouts, out leftover)
                        : whiteouts > 0 ? MoveAway(directory.Directory, name, whiteouts, out leftover)
                        : Libc.RemoveDirectoryAt(directory.Directory, name);
                    if (error.IsError) { tree.Directories.UndoKeepOpen(removed.Upper!); }
                }
            }
        }
        if (error.IsError) { return error; }
        tree.Inodes.NoteChange(parent); // at once: a lookup that found the name before must run again
        AfterRemoveLocked(removed);
        return Errno.None;
    }

    /// <summary>Notes in the inode and the table that a directory was removed. Caller holds the rename lock.</summary>
    public void AfterRemoveLocked(DirectoryInode removed)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        removed.BecomeUnlinkedLocked();
        tree.Inodes.Unhash(removed);
    }

    /// <summary>Lets a whiteout take the place of a directory, which goes to work. It contains nothing but whiteouts.</summary>
    private Errno CoverDirectory(in UpperName directory, int whiteouts, out Leftover? leftover)
    {
        leftover = null;
        using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
        Errno error = upper.Work!.MakeWhiteout(temporary.Directory, temporary.Name);
        if (error.IsError) { return error; }
        if (upper.Features.Exchange)
        {
            error = temporary.Exchange(directory.Descriptor, directory.Name);
            if (!error.IsError) { leftover = new Leftover(temporary.Keep(), whiteouts); }
            return error;
        }
        error = temporary.Over(upper.Work.Steps.ReplaceLocked(directory, temporary.Name, out byte[] aside));
        if (!error.IsError) { leftover = new Leftover(aside, whiteouts); }
        return error;
    }

    /// <summary>Moves a directory, which contains nothing but whiteouts, to work.</summary>
    private Errno MoveAway(int directory, ReadOnlySpan<byte> name, int whiteouts, out Leftover? leftover)
    {
        using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
        Errno error = upper.Work!.Withdraw(directory, name, temporary.Name);
        leftover = error.IsError ? null : new Leftover(temporary.Keep(), whiteouts);
        return error;
    }

    /// <summary>
    /// From this number of whiteouts on, another worker takes over while they are removed. Fewer are gone before it is awake.
    /// </summary>
    public const int ManyWhiteouts = 100;

    /// <summary>Discards a directory in work, which may contain any number of whiteouts. Caller holds no lock.</summary>
    /// <param name="leftover">The directory, or null for nothing.</param>
    public void Discard(Leftover? leftover)
    {
        if (leftover is null) { return; }
        bool isLong = leftover.Entries >= ManyWhiteouts;
        using (session.Block(isLong)) { upper.Work!.Discard(leftover.Name); }
    }
}
