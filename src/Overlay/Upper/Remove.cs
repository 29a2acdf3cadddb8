using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>What leads to an object whose name is about to go.</summary>
internal enum StandIn
{
    /// <summary>Nothing new.</summary>
    None,
    /// <summary>A descriptor, or a name in work.</summary>
    Descriptor,
    /// <summary>Another name.</summary>
    OtherName,
}

/// <summary>Takes names away: from upper, by a whiteout, or both at once.</summary>
/// <remarks>
/// Callers hold the rename lock (exclusively when the file has several names, or names change in steps) and the
/// directory's names lock; the directory is in upper.
/// <para>
/// Crash safety. Each name goes, or is covered, by one system call on upper: unlink, mknod or link of a whiteout,
/// rename of a whiteout over a file, exchange of a whiteout with a directory; where there is no exchange, by
/// <see cref="Steps"/>. What is left in work goes at the next mount.
/// </para>
/// </remarks>
internal sealed class Remove(ObjectTree tree, UpperLayer upper, KernelSession session)
{
    /// <summary>Removes a name of something that is not a directory.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="inode">What has the name.</param>
    /// <param name="found">What the layers have there.</param>
    /// <param name="positive">Whether a lower would show something there.</param>
    /// <param name="exclusive">Whether the rename lock is held exclusively.</param>
    /// <param name="isHeld">It failed, and the inode has a descriptor that others may use: see <see cref="Undo"/>.</param>
    public Errno UnlinkLocked(DirectoryInode parent, ReadOnlySpan<byte> name, Inode inode, in Found found, bool positive, bool exclusive, out bool isHeld)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: exclusive);
        parent.AssertNamesLocked();
        isHeld = false;
        Errno error = tree.Objects.Of(parent.Upper!, Libc.Self, out RealReference directory);
        if (error.IsError) { return error; }
        using (directory)
        {
            StandIn standIn = found.HasUpper ? ProvideStandIn(parent, name, inode, directory.Directory) : StandIn.None;
            bool leavesNames = !upper.Work!.Features.ForgetsNames && found.Stat.IsRegular;
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
                isHeld = Undo(standIn, parent, name, inode, exclusive);
                return error;
            }
        }
        tree.Inodes.Changed(parent); // at once: who is about to enter what he found before looks again
        AfterUnlinkLocked(parent, name, inode, found);
        return Errno.None;
    }

    /// <param name="file">What is covered.</param>
    /// <param name="leavesNames">Whether the filesystem would give it another name in its directory, were it open.</param>
    private Errno CoverFile(in UpperName file, bool leavesNames)
    {
        using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
        Errno error = upper.Work!.MakeWhiteout(temporary.Directory, temporary.Name);
        if (error.IsError) { return error; }
        if (!leavesNames) { return temporary.Replace(file.Descriptor, file.Name); }
        error = temporary.Over(upper.Work.Steps.Replace(file, temporary.Name, out byte[]? aside));
        if (!error.IsError && aside is not null) { upper.Work.Discard(aside); }
        return error;
    }

    /// <summary>What stays of an open file under another name stays where no user sees it, and where no directory has to be empty.</summary>
    private Errno UnlinkInWork(int directory, ReadOnlySpan<byte> name)
    {
        using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
        return upper.Work!.Withdraw(directory, name, temporary.Name);
    }

    /// <summary>Before a name goes: the inode's descriptor, or a name in work, so that whoever has the file open keeps it.</summary>
    /// <remarks>
    /// A file with another name goes on under that: link and unlink are how many programs give a file its name, and the
    /// kernel may know any number of such files. The caller then holds the rename lock exclusively.
    /// </remarks>
    /// <returns>What <see cref="Undo"/> takes back if the name stays after all.</returns>
    public StandIn ProvideStandIn(DirectoryInode parent, ReadOnlySpan<byte> name, Inode inode, int directory)
    {
        if (inode.IsNameless || inode.Links?.Hold is not null || !ReferenceEquals(inode.Parent, parent) || !name.SequenceEqual(inode.Name)) { return StandIn.None; }
        foreach (Alias other in inode.Aliases)
        {
            if (!other.IsUpper || other.IsRemoved || (ReferenceEquals(other.Parent, parent) && name.SequenceEqual(other.Name))) { continue; }
            tree.Inodes.Move(inode, other.Parent, other.Name);
            return StandIn.OtherName;
        }
        if (inode.Orphan < 0 && inode.WorkName is null) // else it is there from a removal that failed
        {
            if (upper.HasManyOrphans && LinkInWork(inode, directory, name)) { return StandIn.Descriptor; }
            if (Libc.OpenAt(directory, name, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.None, out int descriptor).IsError)
            {
                return StandIn.None; // out of descriptors: the file is removed all the same, and answers ESTALE to those who still ask
            }
            tree.Orphans.Add(inode, descriptor);
        }
        else { inode.BecomeOrphanedAgain(); }
        return StandIn.Descriptor;
    }

    /// <summary>The name has not gone: the inode is reached by it as before.</summary>
    /// <returns>True when what was to stand in is still there, since the rename lock is shared and others may use it.</returns>
    public bool Undo(StandIn standIn, DirectoryInode parent, ReadOnlySpan<byte> name, Inode inode, bool exclusive)
    {
        if (standIn == StandIn.OtherName) { tree.Inodes.Move(inode, parent, name.ToArray()); }
        if (standIn != StandIn.Descriptor) { return false; }
        if (!exclusive)
        {
            inode.BecomeNamedAgain();
            return true;
        }
        DropStandIn(inode);
        return false;
    }

    /// <summary>The object is reached by its name: what stood in goes. Caller holds the rename lock exclusively.</summary>
    public void DropStandIn(Inode inode)
    {
        tree.Orphans.Remove(inode, out int descriptor, out byte[]? workName);
        if (descriptor >= 0) { Libc.Close(descriptor); }
        if (workName is not null) { upper.Work!.Discard(workName); }
    }

    /// <summary>Lets a name in work lead to an object that has no name, or is about to lose it.</summary>
    /// <param name="inode">The object.</param>
    /// <param name="directory">The directory that has it, or, with an empty name, a descriptor of the object itself.</param>
    /// <param name="name">With its NUL.</param>
    /// <returns>False when it can have none, as when it has as many as the filesystem allows.</returns>
    public bool LinkInWork(Inode inode, int directory, ReadOnlySpan<byte> name)
    {
        Span<byte> space = stackalloc byte[WorkDirectory.NameLength];
        byte[] workName = upper.Work!.NewName(space).ToArray();
        Errno error = name.Length > 1
            ? Libc.LinkAt(directory, name, upper.Work.Descriptor, workName)
            : Libc.LinkDescriptor(directory, upper.Work.Descriptor, workName);
        if (error.IsError) { return false; }
        inode.BecomeOrphaned(workName);
        return true;
    }

    /// <summary>After a name is gone: what the inode knows of its names.</summary>
    public void AfterUnlinkLocked(DirectoryInode parent, ReadOnlySpan<byte> name, Inode inode, in Found found)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        if (tree.Aliases.Find(inode, parent, name) is { } alias) { tree.Aliases.Remove(inode, alias); }
        if (inode.Links is { } links)
        {
            if (!inode.HasUpper) { tree.Aliases.Retain(inode, inode.Key); }
            if (links.Count > 0) { links.Count--; }
            if (links.Count > 0) { return; }
            if (links.Hold is { } hold) { LetGo(inode, hold); }
            inode.BecomeUnlinked();
            tree.Inodes.Unhash(inode);
            tree.Aliases.Release(inode);
            return;
        }
        if (found.HasUpper && HasOtherNames(inode, found)) { return; }
        inode.BecomeUnlinked();
        tree.Numbers.Release(inode.Key);
        tree.Inodes.Unhash(inode);
    }

    private bool HasOtherNames(Inode inode, in Found found)
    {
        if (inode.WorkName is not { } workName) { return found.Stat.Nlink > 1; }
        return !Libc.StatAt(upper.Work!.Descriptor, workName, StatxMask.Basic, out Statx stat).IsError && stat.Nlink > 1;
    }

    /// <summary>The last name of a hard-linked copy is gone: from now on a descriptor keeps it for those who have it open.</summary>
    private void LetGo(Inode inode, byte[] hold)
    {
        if (upper.HasManyOrphans)
        {
            inode.BecomeOrphaned(hold);
            return;
        }
        if (Libc.OpenAt(upper.Work!.Descriptor, hold, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.None, out int descriptor).IsError)
        {
            return; // out of descriptors: the copy stays until unmount
        }
        tree.Orphans.Add(inode, descriptor);
        upper.Work.Discard(hold);
    }

    /// <summary>A directory that was moved to work stays there, and is found there, for those who have it open.</summary>
    public void LeaveInWork(DirectoryInode removed, byte[] name)
    {
        removed.Upper!.Move(upper.WorkRoot!, name);
        removed.LieInWork(name);
    }

    /// <summary>Removes a directory that is empty to the user. If it stays in work, caller holds the rename lock exclusively.</summary>
    /// <param name="parent">The directory that has it.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="removed">What is removed.</param>
    /// <param name="found">What the layers have there.</param>
    /// <param name="positive">Whether a lower would show something there.</param>
    /// <param name="whiteouts">How many whiteouts upper has in it.</param>
    /// <param name="staysInWork">Whether it is to be moved to work, and to stay there for those who have it open, who else need a descriptor.</param>
    /// <param name="leftover">What is to be discarded afterwards, or null.</param>
    public Errno DirectoryLocked(DirectoryInode parent, ReadOnlySpan<byte> name, DirectoryInode removed, in Found found, bool positive, int whiteouts, bool staysInWork, out Leftover? leftover)
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
                    error = positive ? CoverDirectory(target, whiteouts, out leftover) : MoveAway(directory.Directory, name, whiteouts, out leftover);
                    if (!error.IsError)
                    {
                        LeaveInWork(removed, leftover!.Name);
                        leftover = null;
                    }
                }
                else
                {
                    _ = tree.Directories.KeepOpen(removed.Upper!); // best effort: without it, whoever stands in the directory gets ESTALE
                    error = positive ? CoverDirectory(target, whiteouts, out leftover)
                        : whiteouts > 0 ? MoveAway(directory.Directory, name, whiteouts, out leftover)
                        : Libc.RemoveDirectoryAt(directory.Directory, name);
                    if (error.IsError) { tree.Directories.KeepOpenNoMore(removed.Upper!); }
                }
            }
        }
        if (error.IsError) { return error; }
        tree.Inodes.Changed(parent); // at once: who is about to enter what he found before looks again
        AfterRemoveLocked(removed);
        return Errno.None;
    }

    /// <summary>After a directory is gone.</summary>
    public void AfterRemoveLocked(DirectoryInode removed)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        removed.BecomeUnlinked();
        tree.Inodes.Unhash(removed);
    }

    /// <summary>A whiteout takes the directory's place; the directory, with nothing but whiteouts in it, goes in work.</summary>
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
        error = temporary.Over(upper.Work.Steps.Replace(directory, temporary.Name, out byte[] aside));
        if (!error.IsError) { leftover = new Leftover(aside, whiteouts); }
        return error;
    }

    private Errno MoveAway(int directory, ReadOnlySpan<byte> name, int whiteouts, out Leftover? leftover)
    {
        using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
        Errno error = upper.Work!.Withdraw(directory, name, temporary.Name);
        leftover = error.IsError ? null : new Leftover(temporary.Keep(), whiteouts);
        return error;
    }

    /// <summary>From how many whiteouts on their removal is announced; fewer are gone before another worker is awake.</summary>
    public const int ManyWhiteouts = 100;

    /// <summary>A directory may hold any number of whiteouts. Caller holds no lock.</summary>
    public void Discard(Leftover? leftover)
    {
        if (leftover is null) { return; }
        bool isLong = leftover.Entries >= ManyWhiteouts;
        using (session.Block(isLong)) { upper.Work!.Discard(leftover.Name); }
    }
}
