using Veneer.Fuse;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>What the caller does to a regular file as soon as it is in upper: data behind the new end is not worth copying.</summary>
/// <param name="Size">The new length.</param>
/// <param name="DropsSetId">Whether the set-id bits go with the data.</param>
internal readonly record struct Truncation(long Size, bool DropsSetId);

/// <summary>Brings objects from a lower layer to upper, before their first change.</summary>
/// <remarks>
/// Crash safety. The copy is built in work and gets its final name in one rename (or link), last.
/// Killed before it: the name still shows the lower object, and the next mount empties work.
/// Killed after it: the upper object is whole. There is no third state. A copy that leaves out data because the caller
/// truncates the file is truncated before it gets its name, with all that goes with that.
/// <para>
/// Locks. The copy-up lock comes first in the lock order: the long part, building the copy, runs under it alone. The
/// rename lock (shared) and the names lock of the directory are taken for publishing. Ancestors are copied first, each
/// under its own lock alone.
/// </para>
/// </remarks>
internal sealed class CopyUp(ObjectTree tree, UpperLayer upper, KernelSession session, Remove remove, ImpureMark impure)
{
    /// <summary>Blocks requests of others no longer than this many bytes take to copy.</summary>
    private const long SmallFile = 128 * 1024;

    /// <summary>How often whoever waits for another one's copy-up looks whether its caller still lives, in milliseconds.</summary>
    private const int LockPatience = 20;

    /// <summary>Whether upper can share blocks with the lowers, until a try says that it cannot.</summary>
    private bool mayShareBlocks = true;

    private long copies;
    private long copiedBytes;

    /// <summary>How many objects were copied up.</summary>
    public long Copies => Interlocked.Read(ref copies);

    /// <summary>How much data of files that was.</summary>
    public long CopiedBytes => Interlocked.Read(ref copiedBytes);

    /// <summary>Makes sure that the object is in upper, under every name that the kernel knows.</summary>
    /// <param name="inode">The object. The caller holds no lock.</param>
    /// <param name="request">Who waits for it: a fatal signal stops the copying of data.</param>
    /// <param name="needsData">Whether attributes alone are not enough; otherwise the copy is a metacopy.</param>
    /// <param name="truncation">That the caller is about to truncate the file; it does so all the same.</param>
    /// <returns><see cref="Errno.EROFS"/> without upper; <see cref="Errno.EINTR"/> when the caller was killed; or what upper says: then nothing has changed, but a file with several names may have come up under some of them.</returns>
    public Errno Ensure(Inode inode, in Request request, bool needsData = true, Truncation? truncation = null)
    {
        if (IsDone(inode, needsData)) { return Errno.None; }
        if (!upper.IsWritable) { return Errno.EROFS; }

        if (inode.Parent is { HasUpper: false, IsUnlinked: false })
        {
            Errno error = EnsureAncestors(inode, request);
            if (error.IsError) { return error; }
        }
        return EnsureOne(inode, request, needsData, truncation);
    }

    /// <summary>Topmost ancestor first. A lower object does not move before it is copied up, so the parents stay.</summary>
    private Errno EnsureAncestors(Inode inode, in Request request)
    {
        var missing = new List<DirectoryInode>();
        for (DirectoryInode? above = inode.Parent; above is { HasUpper: false }; above = above.Parent) { missing.Add(above); }
        for (int i = missing.Count - 1; i >= 0; i--)
        {
            Errno error = EnsureOne(missing[i], request, true, null);
            if (error.IsError) { return error; }
        }
        return Errno.None;
    }

    private static bool IsDone(Inode inode, bool needsData) =>
        inode.HasUpper && (inode.Metacopy is null || !needsData) && (inode.Links is null || IsComplete(inode));

    /// <summary>Whether upper has the copy under every name seen so far.</summary>
    private static bool IsComplete(Inode inode)
    {
        foreach (Alias alias in inode.Aliases)
        {
            if (!alias.IsUpper && !alias.IsRemoved) { return false; }
        }
        return true;
    }

    private Errno EnsureOne(Inode inode, in Request request, bool needsData, Truncation? truncation)
    {
        if (inode.Links is not null)
        {
            Errno error = EnsureParents(inode, request);
            if (error.IsError) { return error; }
        }
        if (!TryLock(inode, request, out ObjectLock.Scope scope)) { return Errno.EINTR; }
        using (scope)
        {
            if (IsDone(inode, needsData)) { return Errno.None; }
            if (inode.HasUpper)
            {
                if (inode.Metacopy is not null && needsData)
                {
                    Errno error = CopyDataOfMetacopyLocked(inode, request);
                    if (error.IsError) { return error; }
                }
                return LinkAliasesLocked(inode);
            }
            Errno copied = inode.Type switch
            {
                FileType.Directory => CopyDirectoryLocked((DirectoryInode)inode),
                FileType.Regular => CopyRegularLocked(inode, request, needsData, truncation),
                _ => CopyOtherLocked(inode),
            };
            if (!copied.IsError) { Interlocked.Increment(ref copies); }
            return copied;
        }
    }

    /// <summary>Waits for the copy-up lock. Whoever has it may copy for long: meanwhile another worker serves the others.</summary>
    /// <returns>False when the caller was killed.</returns>
    private bool TryLock(Inode inode, in Request request, out ObjectLock.Scope scope)
    {
        if (inode.TryLockCopyUp(0, out scope)) { return true; }
        using (session.Block())
        {
            while (!inode.TryLockCopyUp(LockPatience, out scope))
            {
                if (request.IsCallerDead) { return false; }
            }
            return true;
        }
    }

    /// <summary>Every directory that has a name of the file must be in upper before the file is.</summary>
    private Errno EnsureParents(Inode inode, in Request request)
    {
        foreach (Alias alias in inode.Aliases)
        {
            if (alias.IsRemoved || alias.Parent.HasUpper) { continue; }
            Errno error = Ensure(alias.Parent, request);
            if (error.IsError) { return error; }
        }
        return Errno.None;
    }

    /// <remarks>Caller holds the copy-up lock.</remarks>
    private Errno CopyDirectoryLocked(DirectoryInode inode)
    {
        inode.AssertCopyUpLocked();
        RealDirectory lower = inode.Lowers[0];
        Errno error = tree.Objects.Of(lower, Libc.Self, out RealReference source);
        if (error.IsError) { return error; }
        using (source)
        {
            Span<byte> space = stackalloc byte[WorkDirectory.NameLength];
            ReadOnlySpan<byte> temporary = upper.Work!.NewName(space);
            int work = upper.Work.Descriptor;
            error = StatSource(source, out Statx stat);
            if (error.IsError) { return error; }
            error = Libc.MakeDirectoryAt(work, temporary, 0x1C0);
            if (error.IsError) { return error; }
            error = Libc.OpenAt(work, temporary, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int copy);
            if (!error.IsError)
            {
                error = CopyAttributes(inode, source, stat, copy, Libc.Self);
                if (!error.IsError && upper.IsStrict) { error = SyncDirectory(copy); }
                Libc.Close(copy);
            }
            if (!error.IsError) { error = PublishLocked(inode, temporary); }
            if (error.IsError) { upper.Work.Discard(temporary); }
            return error;
        }
    }

    /// <summary>What is to be copied. Nothing gets another owner than it had: <see cref="Errno.EOVERFLOW"/> where his number is not known. Kernel: ovl_copy_up_one()</summary>
    private Errno StatSource(in RealReference source, out Statx stat)
    {
        Errno error = Libc.StatAt(source.Directory, source.Name, StatxMask.Basic, out stat);
        if (error.IsError) { return error; }
        tree.Owners.Mark(source.Directory, source.Name, ref stat);
        return stat.Uid == Owners.Unmapped || stat.Gid == Owners.Unmapped ? Errno.EOVERFLOW : Errno.None;
    }

    private Errno SyncDirectory(int path)
    {
        Errno error = Libc.Reopen(path, OpenFlags.ReadOnly | OpenFlags.Directory, out int descriptor);
        if (error.IsError) { return error; }
        using (session.Block()) { error = Libc.Sync(descriptor, dataOnly: false); }
        Libc.Close(descriptor);
        return error;
    }

    /// <remarks>Caller holds the copy-up lock. Symbolic links, devices, FIFOs and sockets.</remarks>
    private Errno CopyOtherLocked(Inode inode)
    {
        inode.AssertCopyUpLocked();
        Errno error = tree.Objects.Of(inode.LowerDirectory!, inode.LowerName, out RealReference source);
        if (error.IsError) { return error; }
        using (source)
        {
            Span<byte> space = stackalloc byte[WorkDirectory.NameLength];
            ReadOnlySpan<byte> temporary = upper.Work!.NewName(space);
            int work = upper.Work.Descriptor;
            error = StatSource(source, out Statx stat);
            if (error.IsError) { return error; }
            if (stat.IsSymbolicLink)
            {
                Span<byte> target = stackalloc byte[4097];
                error = Libc.ReadLinkAt(source.Directory, source.Name, target[..4096], out int length);
                if (error.IsError) { return error; }
                target[length] = 0;
                error = Libc.SymbolicLinkAt(target[..(length + 1)], work, temporary);
            }
            else
            {
                error = Libc.MakeNodeAt(work, temporary, stat.Mode, stat.Rdev);
            }
            if (error.IsError) { return error; }
            error = CopyAttributes(inode, source, stat, work, temporary);
            if (!error.IsError) { error = PublishLocked(inode, temporary); }
            if (!error.IsError) { inode.HasOrigin = stat.Nlink == 1; }
            if (error.IsError || inode.Links is not null) { upper.Work.Discard(temporary); }
            return error;
        }
    }

    /// <remarks>Caller holds the copy-up lock.</remarks>
    private Errno CopyRegularLocked(Inode inode, in Request request, bool needsData, Truncation? truncation)
    {
        inode.AssertCopyUpLocked();
        // What holds the attributes; CopyData finds the data, which may be in a layer further down.
        Errno error = tree.Objects.Of(inode.LowerDirectory!, inode.LowerName, out RealReference source);
        if (error.IsError) { return error; }
        using (source)
        {
            error = StatSource(source, out Statx stat);
            if (error.IsError) { return error; }
            Span<byte> space = stackalloc byte[WorkDirectory.NameLength];
            scoped ReadOnlySpan<byte> temporary = default;
            int copy;
            if (upper.Work!.Features.TemporaryFiles)
            {
                error = Libc.OpenAt(upper.Work.Descriptor, ".\0"u8, OpenFlags.TemporaryFile | OpenFlags.ReadWrite, 0x180, ResolveFlags.Confined, out copy);
            }
            else
            {
                temporary = upper.Work.NewName(space);
                error = Libc.OpenAt(upper.Work.Descriptor, temporary, OpenFlags.Create | OpenFlags.Exclusive | OpenFlags.ReadWrite | OpenFlags.NoFollow, 0x180, ResolveFlags.Confined, out copy);
            }
            if (error.IsError) { return error; }

            // All names of a hard-linked file are one copy, which would lose its data with the first name that is moved.
            RealName? below = needsData || inode.Links is not null ? null : DataOf(inode);
            long size = below is not null ? 0 : Math.Min((long)stat.Size, truncation?.Size ?? long.MaxValue);
            bool syncs = upper.IsDurable && (size > 0 || upper.IsStrict);
            bool isLong = size > SmallFile || syncs;
            using (session.Block(isLong))
            {
                error = below is not null
                    ? LeaveData(copy, (long)stat.Size)
                    : CopyData(inode, copy, size, inode.Metacopy is not null || stat.Blocks * 512 < stat.Size, request);
                if (!error.IsError) { error = CopyAttributes(inode, source, stat, copy, Libc.Self); }
                if (!error.IsError && below is null && size < (long)stat.Size) { error = Truncate(copy, truncation!.Value, request); }
                if (!error.IsError && syncs) { error = Libc.Sync(copy, dataOnly: false); }
            }
            if (!error.IsError) { error = PublishLocked(inode, copy, temporary, stat, below); }
            Libc.Close(copy);
            if (temporary.Length > 0) { upper.Work.Discard(temporary); } // after a link it is one name too many, after an error all there is
            return error;
        }
    }

    /// <summary>Makes the copy a metacopy: a hole as long as the data, which stays below. Kernel: ovl_set_metacopy_xattr(), ovl_set_size().</summary>
    private Errno LeaveData(int copy, long size)
    {
        Errno error = Libc.SetXattrAt(copy, Libc.Self, tree.Xattr.Metacopy, default, XattrFlags.None);
        return error.IsError ? error : Libc.Truncate(copy, size);
    }

    /// <summary>The copy has no more data than is to be left: but for this, it would be seen with the times and privileges of the whole file.</summary>
    private static Errno Truncate(int copy, Truncation truncation, in Request request)
    {
        Errno error = truncation.DropsSetId ? SetId.Clear(copy, Libc.Self, request) : Errno.None;
        return error.IsError ? error : Libc.Truncate(copy, truncation.Size); // which also sets the time and drops capabilities
    }

    /// <remarks>
    /// Caller holds the copy-up lock. Killed on the way: the metacopy attribute is still there, so the data still comes
    /// from below; but the time of change may be that of the copying and the capabilities may be gone, as with the
    /// kernel. All data is copied even when the caller truncates the file: a short metacopy is read in full by the
    /// kernel, and a file that is none any more without its data is full of zeros.
    /// </remarks>
    private Errno CopyDataOfMetacopyLocked(Inode inode, in Request request)
    {
        inode.AssertCopyUpLocked();
        Errno error = OpenMetacopy(inode, out int copy, out Statx stat);
        if (error.IsError) { return error; }
        Errno isMarked = Libc.GetXattrAt(copy, Libc.Self, tree.Xattr.Metacopy, default, out _);
        if (isMarked.IsError)
        {
            Libc.Close(copy);
            if (!isMarked.IsNoXattr) { return isMarked; }
            // What looked the file up before the attribute went, and was kept after it: upper has the data, and maybe newer.
            inode.Metacopy = null;
            return Errno.None;
        }
        Span<byte> capability = stackalloc byte[64];
        Errno hasCapability = Libc.GetXattrAt(copy, Libc.Self, "security.capability\0"u8, capability, out int capabilityLength);
        using (session.Block())
        {
            error = CopyData(inode, copy, (long)stat.Size, mayHaveHoles: true, request);
            if (!error.IsError && upper.IsDurable) { error = Libc.Sync(copy, dataOnly: false); }
        }
        // Writing drops the capability, also when it fails; the data is no change of the user's. Kernel: ovl_copy_up_meta_inode_data()
        if (!hasCapability.IsError)
        {
            Errno restored = Libc.SetXattrAt(copy, Libc.Self, "security.capability\0"u8, capability[..capabilityLength], XattrFlags.None);
            if (!error.IsError) { error = restored; }
        }
        if (!error.IsError) { error = Libc.ChangeTimesAt(copy, Libc.Self, TimeSpec.From(stat.AccessTime), TimeSpec.From(stat.ModifyTime)); }
        if (!error.IsError) { error = Libc.RemoveXattrAt(copy, Libc.Self, tree.Xattr.Metacopy); }
        Libc.Close(copy);
        if (error.IsError) { return error; }
        inode.Metacopy = null;
        // A lookup that read the attribute before it went must not make an inode of what it has found.
        if (inode.Parent is { } parent) { tree.Inodes.Changed(parent); }
        foreach (Alias alias in inode.Aliases) { tree.Inodes.Changed(alias.Parent); }
        return Errno.None;
    }

    /// <summary>Opens the file in upper.</summary>
    private Errno OpenMetacopy(Inode inode, out int copy, out Statx stat)
    {
        copy = -1;
        stat = default;
        using (tree.RenameLock.Share())
        {
            using var held = new HeldName(inode);
            Errno error = tree.Objects.ResolveLocked(inode, out RealReference real);
            if (error.IsError) { return error; }
            using (real)
            {
                error = Libc.StatAt(real.Directory, real.Name, StatxMask.Basic, out stat);
                return error.IsError ? error : real.OpenData(OpenFlags.ReadWrite, out copy);
            }
        }
    }

    /// <summary>Where a lower layer has the data of a file.</summary>
    private static RealName DataOf(Inode inode) => inode.Metacopy ?? new RealName(inode.LowerDirectory!, inode.LowerName.ToArray());

    private Errno CopyData(Inode inode, int copy, long size, bool mayHaveHoles, in Request request)
    {
        if (size == 0) { return Errno.None; }
        RealName data = DataOf(inode);
        Errno error = tree.Objects.Of(data.Directory, data.Name, out RealReference source);
        if (error.IsError) { return error; }
        int original;
        using (source) { error = source.OpenData(OpenFlags.ReadOnly, out original); }
        if (error.IsError) { return error; }
        bool mayShare = Volatile.Read(ref mayShareBlocks);
        error = DataCopy.Run(original, copy, size, mayHaveHoles, ref mayShare, request);
        Volatile.Write(ref mayShareBlocks, mayShare);
        if (!error.IsError) { Interlocked.Add(ref copiedBytes, size); }
        Libc.Close(original);
        return error;
    }

    /// <summary>Gives the copy everything but its data, in the order in which nothing undoes what came before.</summary>
    /// <remarks>
    /// Order matters: owner, xattrs, mode, times. A write drops security.capability, and so does chown, which also clears
    /// setuid; chmod and utimens leave them alone.
    /// </remarks>
    private Errno CopyAttributes(Inode inode, in RealReference source, in Statx stat, int directory, ReadOnlySpan<byte> name)
    {
        // What was made a moment ago is ours already.
        Errno error = stat.Uid == 0 && stat.Gid == 0 && upper.Work!.GivesRoot ? Errno.None : Libc.ChangeOwnerAt(directory, name, stat.Uid, stat.Gid);
        if (error.IsError) { return error; }
        error = XattrCopy.Run(source.Directory, source.Name, tree.LowerXattr, directory, name, tree.Xattr);
        if (error.IsError) { return error; }
        if (stat.IsRegular || stat.IsDirectory)
        {
            error = FileFlags.CopyUp(source, stat, directory, name, tree.Xattr);
            if (error.IsError) { return error; }
        }
        if (stat.IsDirectory || stat.Nlink == 1)
        {
            error = SetOrigin(source, directory, name, out inode.FindsOrigin);
            if (error.IsError) { return error; }
        }
        if (!stat.IsSymbolicLink)
        {
            error = Libc.ChangeModeAt(directory, name, stat.Mode & ModeBits.Mask);
            if (error.IsError) { return error; }
        }
        return Libc.ChangeTimesAt(directory, name, TimeSpec.From(stat.AccessTime), TimeSpec.From(stat.ModifyTime));
    }

    /// <summary>Writes where the copy came from, so that its inode number stays. Kernel: ovl_set_origin_fh().</summary>
    private Errno SetOrigin(in RealReference source, int directory, ReadOnlySpan<byte> name, out bool isFound)
    {
        Span<byte> value = stackalloc byte[OriginHandle.MaxLength];
        int length = 0;
        // Without a handle the attribute is empty: copied up, origin unknown. What has no number of its own has no handle that lasts.
        if (source.Layer!.Identity != RealIdentity.Names && !FileHandle.Of(source.Directory, source.Name, out FileHandle handle).IsError)
        {
            length = OriginHandle.Encode(handle, source.Layer.Uuid, value);
        }
        Errno error = Libc.SetXattrAt(directory, name, tree.Xattr.Origin, value[..length], XattrFlags.None);
        isFound = !error.IsError && length > 0 && source.Layer.FindsOrigins;
        // user.* attributes are refused on symbolic links and special files.
        return error is Errno.EPERM or Errno.EOPNOTSUPP ? Errno.None : error;
    }

    /// <summary>Gives a temporary of work its name in upper.</summary>
    /// <remarks>Caller holds the copy-up lock.</remarks>
    private Errno PublishLocked(Inode inode, ReadOnlySpan<byte> temporary)
    {
        inode.AssertCopyUpLocked();
        Errno error = Libc.StatAt(upper.Work!.Descriptor, temporary, StatxMask.Basic, out Statx stat);
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
                    error = Libc.OpenAt(upper.Work.Descriptor, temporary, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.None, out int descriptor);
                    if (error.IsError) { return error; }
                    error = PublishLinksLocked(inode, links, descriptor, temporary, stat);
                    Libc.Close(descriptor);
                    return error;
                }
                DirectoryInode parent = inode.Parent!;
                using (parent.LockNames())
                {
                    // A removed directory is not the one to be found under its name.
                    if (inode is DirectoryInode { IsUnlinked: true } removed) { return OrphanLocked(removed, temporary); }
                    tree.Inodes.Expect(inode, key);
                    isExpected = true;
                    if (inode.IsUnlinked) { return OrphanLocked(inode, temporary, stat); }
                    error = tree.Objects.Of(parent.Upper!, Libc.Self, out RealReference target);
                    if (error.IsError) { return error; }
                    using (target)
                    {
                        error = impure.Set(parent);
                        if (error.IsError) { return error; }
                        Errno hasTimes = Libc.StatAt(target.Directory, Libc.Self, StatxMask.Basic, out Statx times);
                        error = upper.Work.Publish(temporary, target.Directory, inode.Name);
                        if (error.IsError) { return error; }
                        Settle(parent, target.Directory, hasTimes, times);
                    }
                    SetUpperLocked(inode, stat, keepLower: false);
                    return Errno.None;
                }
            }
        }
        finally
        {
            if (isExpected) { tree.Inodes.ExpectNoMore(key); }
        }
    }

    /// <summary>Gives the copy of a regular file its name in upper.</summary>
    /// <param name="below">Where the data is that a metacopy leaves out; null when the copy has it.</param>
    /// <remarks>Caller holds the copy-up lock.</remarks>
    private Errno PublishLocked(Inode inode, int copy, ReadOnlySpan<byte> temporary, in Statx original, RealName? below)
    {
        inode.AssertCopyUpLocked();
        Errno error = Libc.StatAt(copy, Libc.Self, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error; }
        RealKey key = tree.Numbers.Key(stat.Dev, stat.Ino);
        tree.Inodes.Expect(inode, key);
        try
        {
            using (tree.RenameLock.Share())
            {
                if (inode.Links is { } links) { return PublishLinksLocked(inode, links, copy, temporary, stat); }
                DirectoryInode parent = inode.Parent!;
                using (parent.LockNames())
                {
                    if (inode.IsUnlinked)
                    {
                        // Open, or its descriptor held, but without a name: the copy never gets one in upper.
                        if (!upper.HasManyOrphans || !remove.LinkInWork(inode, copy, Libc.Self))
                        {
                            error = Libc.Duplicate(copy, out int descriptor);
                            if (error.IsError) { return error; }
                            tree.Inodes.SetOrphan(inode, descriptor);
                        }
                        SetUpperLocked(inode, stat, keepLower: false, below);
                        return Errno.None;
                    }
                    error = tree.Objects.Of(parent.Upper!, Libc.Self, out RealReference target);
                    if (error.IsError) { return error; }
                    using (target)
                    {
                        error = impure.Set(parent);
                        if (error.IsError) { return error; }
                        Errno hasTimes = Libc.StatAt(target.Directory, Libc.Self, StatxMask.Basic, out Statx times);
                        error = temporary.Length == 0 ? Libc.LinkDescriptor(copy, target.Directory, inode.Name)
                            : upper.Work!.Features.Links ? Libc.LinkAt(upper.Work.Descriptor, temporary, target.Directory, inode.Name)
                            : upper.Work.Publish(temporary, target.Directory, inode.Name);
                        if (error.IsError) { return error; }
                        Settle(parent, target.Directory, hasTimes, times);
                    }
                    inode.HasOrigin = original.Nlink == 1;
                    SetUpperLocked(inode, stat, keepLower: false, below);
                    return Errno.None;
                }
            }
        }
        finally
        {
            tree.Inodes.ExpectNoMore(key);
        }
    }

    /// <summary>The directory was removed: whoever has it open can change its attributes, as those of any directory without a name.</summary>
    /// <remarks>It is not entered in the table again, which would find it by the name, or by a number that comes again.</remarks>
    private Errno OrphanLocked(DirectoryInode removed, ReadOnlySpan<byte> temporary)
    {
        removed.AssertCopyUpLocked();
        byte[] name = temporary.ToArray();
        var orphan = new RealDirectory(upper.WorkRoot!, name);
        bool staysInWork = upper.HasManyOrphans;
        if (!staysInWork)
        {
            Errno error = tree.Directories.KeepOpen(orphan);
            if (error.IsError) { return error; }
        }
        removed.WorkName = staysInWork ? name : null;
        removed.Upper = orphan;
        if (!staysInWork) { upper.Work!.Discard(name); }
        session.Notifier?.InvalidateAttributes(removed.NodeId);
        return Errno.None;
    }

    /// <summary>The object was unlinked while it was copied: only its descriptor leads to it.</summary>
    private Errno OrphanLocked(Inode inode, ReadOnlySpan<byte> temporary, in Statx stat)
    {
        inode.AssertCopyUpLocked();
        if (!upper.HasManyOrphans || !remove.LinkInWork(inode, upper.Work!.Descriptor, temporary))
        {
            Errno error = Libc.OpenAt(upper.Work!.Descriptor, temporary, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.None, out int descriptor);
            if (error.IsError) { return error; }
            tree.Inodes.SetOrphan(inode, descriptor);
        }
        SetUpperLocked(inode, stat, keepLower: false);
        upper.Work.Discard(temporary);
        return Errno.None;
    }

    /// <summary>Gives the copy of a hard-linked file all names that are known, and one in work that keeps it linkable.</summary>
    /// <remarks>
    /// Caller holds the copy-up lock and, shared, the rename lock. Killed between two names: some show the copy and some
    /// the lower file, which still are the same.
    /// </remarks>
    private Errno PublishLinksLocked(Inode inode, HardLinks links, int copy, ReadOnlySpan<byte> temporary, in Statx stat)
    {
        inode.AssertCopyUpLocked();
        LockOrder.AssertHeld(OverlayLocks.Rename);
        Span<byte> space = stackalloc byte[WorkDirectory.NameLength];
        byte[] hold = upper.Work!.NewName(space).ToArray();
        Errno error = temporary.Length > 0
            ? Libc.LinkAt(upper.Work.Descriptor, temporary, upper.Work.Descriptor, hold)
            : Libc.LinkDescriptor(copy, upper.Work.Descriptor, hold);
        if (error.IsError) { return error; }
        error = LinkKnownNamesLocked(inode, hold);
        if (error.IsError && !HasUpperName(inode))
        {
            upper.Work.Discard(hold);
            return error;
        }
        links.Hold = hold;
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

    /// <remarks>Caller holds the copy-up lock.</remarks>
    private Errno LinkAliasesLocked(Inode inode)
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
