using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>A copy of a lower object on its way to upper. Kernel: struct ovl_copy_up_ctx.</summary>
/// <param name="inode">The object.</param>
/// <param name="original">Attributes of what was copied.</param>
internal readonly ref struct Copy(Inode inode, Statx original)
{
    /// <summary>The object.</summary>
    public Inode Inode { get; } = inode;

    /// <summary>Attributes of what was copied.</summary>
    public Statx Original { get; } = original;

    /// <summary>Whether the copy has the temporary name; else <see cref="Descriptor"/> alone leads to it.</summary>
    public bool IsNamed { get; init; } = true;

    /// <summary>The copy of a regular file, open; else -1.</summary>
    public int Descriptor { get; init; } = -1;

    /// <summary>Where the data is that a metacopy leaves out; null when the copy has it.</summary>
    public RealName? Below { get; init; }
}

/// <summary>Gives copies their names in upper.</summary>
/// <remarks>
/// Callers hold the copy-up lock and nothing else: the rename lock (shared) and the names lock of the directory are taken here.
/// <para>
/// Crash safety. A copy gets its final name by one rename or link, last. What is in work goes at the next mount.
/// </para>
/// </remarks>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="remove">Takes names away.</param>
/// <param name="impure">The impure mark.</param>
internal sealed class Publication(ObjectTree tree, UpperLayer upper, KernelSession session, Remove remove, ImpureMark impure)
{
    /// <summary>Gives a copy its name in upper, or all of them; what has lost its name meanwhile gets none.</summary>
    /// <param name="copy">The copy.</param>
    /// <param name="temporary">Its name in work, if it has one.</param>
    public Errno RunLocked(in Copy copy, in Temporary temporary)
    {
        copy.Inode.AssertCopyUpLocked();
        Inode inode = copy.Inode;
        Errno error = copy.Descriptor >= 0
            ? Libc.StatAt(copy.Descriptor, Libc.Self, StatxMask.Basic, out Statx stat)
            : Libc.StatAt(temporary.Directory, temporary.Name, StatxMask.Basic, out stat);
        if (error.IsError) { return error; }
        RealKey key = tree.Keys.InUpper(inode.Parent, inode.Name, stat);
        bool isExpected = false;
        try
        {
            using (tree.RenameLock.Share())
            {
                if (inode.Links is { } links)
                {
                    tree.Inodes.Expect(inode, key);
                    isExpected = true;
                    return PublishLinksLocked(copy, links, stat, temporary);
                }
                DirectoryInode parent = inode.Parent!;
                using (parent.LockNames())
                {
                    // A removed directory is not the one to be found under its name.
                    if (inode is DirectoryInode { IsUnlinked: true } removed) { return OrphanLocked(removed, temporary); }
                    tree.Inodes.Expect(inode, key);
                    isExpected = true;
                    return inode.IsUnlinked ? OrphanLocked(copy, stat, temporary) : NameLocked(copy, parent, stat, temporary);
                }
            }
        }
        finally
        {
            if (isExpected) { tree.Inodes.ExpectNoMore(key); }
        }
    }

    /// <summary>Gives the copy the object's name.</summary>
    private Errno NameLocked(in Copy copy, DirectoryInode parent, in Statx stat, in Temporary temporary)
    {
        parent.AssertNamesLocked();
        Errno error = tree.Objects.Of(parent.Upper!, Libc.Self, out RealReference target);
        if (error.IsError) { return error; }
        using (target)
        {
            error = impure.Set(parent);
            if (error.IsError) { return error; }
            Errno hasTimes = Libc.StatAt(target.Directory, Libc.Self, StatxMask.Basic, out Statx times);
            // A link is atomic where a rename cannot be told to replace nothing; directories have none.
            error = copy.Descriptor >= 0 && upper.Features.Links
                ? LinkTo(copy, temporary, target.Directory, copy.Inode.Name)
                : temporary.Publish(target.Directory, copy.Inode.Name);
            if (error.IsError) { return error; }
            Settle(parent, target.Directory, hasTimes, times);
        }
        copy.Inode.HasOrigin = copy.Original.Nlink == 1;
        SetUpperLocked(copy.Inode, stat, keepLower: false, copy.Below);
        return Errno.None;
    }

    /// <summary>Gives the copy, which is no directory, one more name.</summary>
    private static Errno LinkTo(in Copy copy, in Temporary temporary, int target, ReadOnlySpan<byte> name) => copy.IsNamed
        ? Libc.LinkAt(temporary.Directory, temporary.Name, target, name)
        : Libc.LinkDescriptor(copy.Descriptor, target, name);

    /// <summary>The directory was removed: whoever has it open can change its attributes, as those of any directory without a name.</summary>
    /// <remarks>It is not entered in the table again, which would find it by the name, or by a number that comes again.</remarks>
    private Errno OrphanLocked(DirectoryInode removed, in Temporary temporary)
    {
        removed.AssertCopyUpLocked();
        var orphan = new RealDirectory(upper.WorkRoot!, temporary.Name.ToArray());
        if (upper.HasManyOrphans) { removed.LieInWork(temporary.Keep()); }
        else
        {
            Errno error = tree.Directories.KeepOpen(orphan);
            if (error.IsError) { return error; }
        }
        removed.Upper = orphan;
        session.Notifier?.InvalidateAttributes(removed.NodeId);
        return Errno.None;
    }

    /// <summary>The object was unlinked while it was copied: it never gets a name in upper, and only its descriptor, or a name in work, leads to it.</summary>
    private Errno OrphanLocked(in Copy copy, in Statx stat, in Temporary temporary)
    {
        copy.Inode.AssertCopyUpLocked();
        Inode inode = copy.Inode;
        bool staysInWork = upper.HasManyOrphans && (copy.Descriptor >= 0
            ? remove.LinkInWork(inode, copy.Descriptor, Libc.Self)
            : remove.LinkInWork(inode, temporary.Directory, temporary.Name));
        if (!staysInWork)
        {
            Errno error = copy.Descriptor >= 0
                ? Libc.Duplicate(copy.Descriptor, out int descriptor)
                : Libc.OpenAt(temporary.Directory, temporary.Name, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.None, out descriptor);
            if (error.IsError) { return error; }
            tree.Orphans.Add(inode, descriptor);
        }
        SetUpperLocked(inode, stat, keepLower: false, copy.Below);
        return Errno.None;
    }

    /// <summary>Gives the copy of a hard-linked file all names that are known, and one in work that keeps it linkable.</summary>
    /// <remarks>
    /// Caller holds the copy-up lock and, shared, the rename lock. Killed between two names: some show the copy and some
    /// the lower file, which still are the same.
    /// </remarks>
    private Errno PublishLinksLocked(in Copy copy, HardLinks links, in Statx stat, in Temporary temporary)
    {
        copy.Inode.AssertCopyUpLocked();
        LockOrder.AssertHeld(OverlayLocks.Rename);
        Inode inode = copy.Inode;
        Span<byte> space = stackalloc byte[WorkDirectory.NameLength];
        byte[] hold = upper.Work!.NewName(space).ToArray();
        Errno error = LinkTo(copy, temporary, upper.Work.Descriptor, hold);
        if (error.IsError) { return error; }
        error = LinkKnownNamesLocked(inode, hold);
        if (error.IsError && !HasUpperName(inode))
        {
            upper.Work.Discard(hold);
            return error;
        }
        inode.BecomeHeld(hold);
        SetUpperLocked(inode, stat, keepLower: true);
        return error;
    }

    private static bool HasUpperName(Inode inode)
    {
        foreach (Alias alias in inode.Aliases)
        {
            if (alias.IsUpper && !alias.IsRemoved) { return true; }
        }
        return false;
    }

    /// <summary>Gives a copy the names that were seen since. Caller holds the copy-up lock.</summary>
    public Errno LinkAliasesLocked(Inode inode)
    {
        inode.AssertCopyUpLocked();
        if (inode.Links?.Hold is not { } hold) { return Errno.None; }
        using (tree.RenameLock.Share()) { return LinkKnownNamesLocked(inode, hold); }
    }

    private Errno LinkKnownNamesLocked(Inode inode, byte[] hold)
    {
        inode.AssertCopyUpLocked();
        LockOrder.AssertHeld(OverlayLocks.Rename);
        foreach (Alias alias in inode.Aliases)
        {
            if (alias.IsUpper) { continue; }
            // A name that was looked up a moment ago: its directory is copied up by the next change.
            if (alias.Parent.Upper is not { } upperDirectory) { continue; }
            using (alias.Parent.LockNames())
            {
                if (alias.IsRemoved || alias.IsUpper) { continue; }
                Errno error = tree.Objects.Of(upperDirectory, Libc.Self, out RealReference target);
                if (error.IsError) { return error; }
                using (target)
                {
                    error = impure.Set(alias.Parent);
                    if (error.IsError) { return error; }
                    Errno hasTimes = Libc.StatAt(target.Directory, Libc.Self, StatxMask.Basic, out Statx times);
                    error = Libc.LinkAt(upper.Work!.Descriptor, hold, target.Directory, alias.Name);
                    if (error.IsError) { return error; }
                    upper.Moves?.Add(target.Directory, alias.Name);
                    Settle(alias.Parent, target.Directory, hasTimes, times);
                }
                alias.IsUpper = true;
                tree.Inodes.Changed(alias.Parent);
            }
        }
        return Errno.None;
    }

    private void SetUpperLocked(Inode inode, in Statx stat, bool keepLower, RealName? below = null)
    {
        inode.AssertCopyUpLocked();
        if (inode is DirectoryInode directory)
        {
            directory.HasOrigin = true;
            directory.Upper = new RealDirectory(directory.Parent!.Upper!, directory.Name.ToArray());
            session.Notifier?.InvalidateAttributes(directory.NodeId);
        }
        // In this order: whoever opens the data meanwhile, without a lock, finds it below or in upper, and never a hole.
        if (below is not null) { inode.Metacopy = below; }
        inode.HasUpper = true;
        if (below is null) { inode.Metacopy = null; }
        RealKey key = tree.Keys.InUpper(inode.Parent, inode.Name, stat);
        if (!inode.IsDirectory && inode.Links is null && !inode.FindsOrigin) { tree.Numbers.Remember(key, inode.Ino); }
        tree.Inodes.Rekey(inode, key, keepLower);
    }

    /// <summary>A copy-up is no change of the directory that the user made, but its st_ctime and st_size are others now.</summary>
    private void Settle(DirectoryInode parent, int directory, Errno known, in Statx times)
    {
        if (!known.IsError)
        {
            _ = Libc.ChangeTimesAt(directory, Libc.Self, TimeSpec.From(times.AccessTime), TimeSpec.From(times.ModifyTime)); // best effort, as in ovl_set_timestamps()
        }
        session.Notifier?.InvalidateAttributes(parent.NodeId);
    }
}
