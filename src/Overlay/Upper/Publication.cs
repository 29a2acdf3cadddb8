using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>A copy of a lower object on its way to upper. Kernel: struct ovl_copy_up_ctx.</summary>
/// <param name="inode">The object.</param>
/// <param name="original">The attributes of the lower object.</param>
internal readonly ref struct Copy(Inode inode, Statx original)
{
    /// <summary>The object.</summary>
    public Inode Inode { get; } = inode;

    /// <summary>The attributes of the lower object.</summary>
    public Statx Original { get; } = original;

    /// <summary>Whether the copy has the temporary name. If not, only <see cref="Descriptor"/> leads to it.</summary>
    public bool IsNamed { get; init; } = true;

    /// <summary>A descriptor of the copy if it is a regular file, or -1.</summary>
    public int Descriptor { get; init; } = -1;

    /// <summary>The lower file that keeps the data, for a metacopy. Null when the copy has its data.</summary>
    public RealName? Below { get; init; }
}

/// <summary>Gives copies their names in upper.</summary>
/// <remarks>
/// Callers hold the copy-up lock and no other. The rename lock (shared) and the names lock of the directory are taken here.
/// <para>
/// Crash safety. A copy gets its final name by one rename or link, last. The next mount empties work.
/// </para>
/// </remarks>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="remove">Removes names.</param>
/// <param name="impure">The impure mark.</param>
internal sealed class Publication(ObjectTree tree, UpperLayer upper, KernelSession session, Remove remove, ImpureMark impure)
{
    /// <summary>
    /// Gives a copy the name of its object in upper, or all known names of a hard-linked file. If the object was unlinked
    /// meanwhile, the copy gets no name.
    /// </summary>
    /// <param name="copy">The copy.</param>
    /// <param name="temporary">The name of the copy in work, if it has one.</param>
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
                if (inode.Links is { } links && !inode.IsUnlinked)
                {
                    tree.Inodes.Expect(inode, key);
                    isExpected = true;
                    return PublishLinksLocked(copy, links, stat, temporary);
                }
                DirectoryInode parent = inode.Parent!;
                using (parent.LockNames())
                {
                    // A directory that was removed must not be found by its name: another directory may have it now.
                    if (inode is DirectoryInode { IsUnlinked: true } removed) { return OrphanLocked(removed, temporary); }
                    tree.Inodes.Expect(inode, key);
                    isExpected = true;
                    return inode.IsUnlinked
                        ? OrphanLocked(copy, stat, temporary)
                        : NameLocked(copy, parent, stat, temporary);
                }
            }
        }
        finally
        {
            if (isExpected) { tree.Inodes.ExpectNoMore(key); }
        }
    }

    /// <summary>Gives the copy the name of the object.</summary>
    private Errno NameLocked(in Copy copy, DirectoryInode parent, in Statx stat, in Temporary temporary)
    {
        parent.AssertNamesLocked();
        Errno error = tree.Objects.Of(parent.Upper!, Libc.Self, out RealReference target);
        if (error.IsError) { return error; }
        using (target)
        {
            error = impure.SetLocked(parent);
            if (error.IsError) { return error; }
            Errno hasTimes = Libc.StatAt(target.Directory, Libc.Self, StatxMask.Basic, out Statx times);
            // A link never replaces anything. A rename may, if the filesystem has no RENAME_NOREPLACE. Only regular files are
            // linked: directories cannot be.
            error = copy.Descriptor >= 0 && upper.Features.Links
                ? LinkTo(copy, temporary, target.Directory, copy.Inode.Name)
                : temporary.PublishLocked(target.Directory, copy.Inode.Name);
            if (error.IsError) { return error; }
            RestoreTimes(parent, target.Directory, hasTimes, times);
        }
        copy.Inode.HasOrigin = copy.Original.Nlink == 1;
        SetUpperLocked(copy.Inode, stat, keepLower: false, copy.Below);
        return Errno.None;
    }

    /// <summary>Gives the copy, which is not a directory, another name.</summary>
    private static Errno LinkTo(in Copy copy, in Temporary temporary, int target, ReadOnlySpan<byte> name) => copy.IsNamed
        ? Libc.LinkAt(temporary.Directory, temporary.Name, target, name)
        : Libc.LinkDescriptor(copy.Descriptor, target, name);

    /// <summary>
    /// Keeps the copy of a directory that was removed while it was copied: whoever has the directory open may still change its
    /// attributes.
    /// </summary>
    /// <remarks>
    /// The table does not get the key of the copy. By it, the directory would be found for another object that has the name, or
    /// the inode number after the copy is gone.
    /// </remarks>
    private Errno OrphanLocked(DirectoryInode removed, in Temporary temporary)
    {
        removed.AssertCopyUpLocked();
        var orphan = new RealDirectory(upper.WorkRoot!, temporary.Name.ToArray());
        if (upper.HasManyOrphans) { removed.SetWorkNameLocked(temporary.Keep()); }
        else
        {
            Errno error = tree.Directories.KeepOpen(orphan);
            if (error.IsError) { return error; }
        }
        removed.BecomeUpperLocked(orphan);
        session.Notifier?.InvalidateAttributes(removed.NodeId);
        return Errno.None;
    }

    /// <summary>
    /// Keeps the copy of an object that was unlinked while it was copied. It never gets a name in upper: only a descriptor or a
    /// name in work leads to it.
    /// </summary>
    private Errno OrphanLocked(in Copy copy, in Statx stat, in Temporary temporary)
    {
        copy.Inode.AssertCopyUpLocked();
        Inode inode = copy.Inode;
        bool staysInWork = upper.HasManyOrphans && (copy.Descriptor >= 0
            ? remove.LinkInWorkLocked(inode, copy.Descriptor, Libc.Self)
            : remove.LinkInWorkLocked(inode, temporary.Directory, temporary.Name));
        if (!staysInWork)
        {
            Errno error = copy.Descriptor >= 0
                ? Libc.Duplicate(copy.Descriptor, out int descriptor)
                : Libc.OpenAt(temporary.Directory, temporary.Name, OpenFlags.Path | OpenFlags.NoFollow, 0,
                    ResolveFlags.None, out descriptor);
            if (error.IsError) { return error; }
            tree.Orphans.AddLocked(inode, descriptor);
        }
        SetUpperLocked(inode, stat, keepLower: false, copy.Below);
        return Errno.None;
    }

    /// <summary>
    /// Gives the copy of a hard-linked file a name in work, by which more names can be linked later, and all names that are known.
    /// Caller holds the copy-up lock and the rename lock (shared).
    /// </summary>
    /// <remarks>
    /// Crash safety. Killed between two names: some names show the copy and others the lower file. Their content is still the same.
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
        inode.BecomeHeldLocked(hold);
        SetUpperLocked(inode, stat, keepLower: true);
        return error;
    }

    /// <summary>Whether the copy has at least one of the names of a hard-linked file.</summary>
    private static bool HasUpperName(Inode inode)
    {
        foreach (Alias alias in inode.Aliases)
        {
            if (alias.IsUpper && !alias.IsRemoved) { return true; }
        }
        return false;
    }

    /// <summary>
    /// Gives an older copy of a hard-linked file the names that were seen since. Caller holds the copy-up lock.
    /// </summary>
    /// <param name="inode">The file.</param>
    public Errno LinkAliasesLocked(Inode inode)
    {
        inode.AssertCopyUpLocked();
        if (inode.Hold is not { } hold) { return Errno.None; }
        using (tree.RenameLock.Share()) { return LinkKnownNamesLocked(inode, hold); }
    }

    /// <summary>Links the copy under each known name that it does not have yet.</summary>
    private Errno LinkKnownNamesLocked(Inode inode, byte[] hold)
    {
        inode.AssertCopyUpLocked();
        LockOrder.AssertHeld(OverlayLocks.Rename);
        foreach (Alias alias in inode.Aliases)
        {
            if (alias.IsUpper) { continue; }
            // The name was looked up a moment ago. The next change copies its directory up, and then the name is linked.
            if (alias.Parent.Upper is not { } upperDirectory) { continue; }
            using (alias.Parent.LockNames())
            {
                if (alias.IsRemoved || alias.IsUpper) { continue; }
                Errno error = tree.Objects.Of(upperDirectory, Libc.Self, out RealReference target);
                if (error.IsError) { return error; }
                using (target)
                {
                    error = impure.SetLocked(alias.Parent);
                    if (error.IsError) { return error; }
                    Errno hasTimes = Libc.StatAt(target.Directory, Libc.Self, StatxMask.Basic, out Statx times);
                    error = Libc.LinkAt(upper.Work!.Descriptor, hold, target.Directory, alias.Name);
                    if (error.IsError) { return error; }
                    upper.Moves?.AddLocked(target.Directory, alias.Name);
                    RestoreTimes(alias.Parent, target.Directory, hasTimes, times);
                }
                alias.IsUpper = true;
                tree.Inodes.NoteChange(alias.Parent);
            }
        }
        return Errno.None;
    }

    /// <summary>Notes in the inode and the table that the object is in upper.</summary>
    private void SetUpperLocked(Inode inode, in Statx stat, bool keepLower, RealName? below = null)
    {
        inode.AssertCopyUpLocked();
        if (inode is DirectoryInode directory)
        {
            directory.HasOrigin = true;
            directory.BecomeUpperLocked(new RealDirectory(directory.Parent!.Upper!, directory.Name.ToArray()));
            session.Notifier?.InvalidateAttributes(directory.NodeId);
        }
        // The order matters to threads that open the data without a lock: they must find the data below or in upper, and never
        // the hole of a metacopy.
        if (below is not null) { inode.Metacopy = below; }
        inode.BecomeUpperLocked();
        if (below is null) { inode.Metacopy = null; }
        RealKey key = tree.Keys.InUpper(inode.Parent, inode.Name, stat);
        // The copy of a file with several lower names has no origin, as with the kernel, and keeps its number while mounted.
        // That of an object without a name is of no use to a lookup.
        if (!inode.IsDirectory && !inode.IsUnlinked && (inode.Links is not null || !inode.FindsOrigin))
        {
            tree.Numbers.Remember(key, inode.Ino);
        }
        tree.Inodes.ChangeKey(inode, key, keepLower);
    }

    /// <summary>
    /// Gives the directory its times back after a copy-up, which is not a change that a user made. The kernel forgets its
    /// attributes: st_ctime and st_size have changed.
    /// </summary>
    private void RestoreTimes(DirectoryInode parent, int directory, Errno known, in Statx times)
    {
        if (!known.IsError)
        {
            // best effort, as in ovl_set_timestamps()
            _ = Libc.ChangeTimesAt(directory, Libc.Self, TimeSpec.From(times.AccessTime), TimeSpec.From(times.ModifyTime));
        }
        session.Notifier?.InvalidateAttributes(parent.NodeId);
    }
}
