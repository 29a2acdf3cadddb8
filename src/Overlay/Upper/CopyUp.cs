using Veneer.Fuse;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
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
internal sealed class CopyUp(ObjectTree tree, UpperLayer upper, KernelSession session, Publication publication)
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
                return publication.LinkAliasesLocked(inode);
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
        Errno error = tree.Objects.Of(inode.Lowers[0], Libc.Self, out RealReference source);
        if (error.IsError) { return error; }
        using (source)
        {
            error = StatSource(source, out Statx stat);
            if (error.IsError) { return error; }
            using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
            error = Libc.MakeDirectoryAt(temporary.Directory, temporary.Name, 0x1C0);
            if (error.IsError) { return error; }
            error = Libc.OpenAt(temporary.Directory, temporary.Name, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int copy);
            if (error.IsError) { return error; }
            error = CopyAttributes(inode, source, stat, copy, Libc.Self);
            if (!error.IsError && upper.IsStrict) { error = SyncDirectory(copy); }
            Libc.Close(copy);
            return error.IsError ? error : publication.RunLocked(new Copy(inode, stat), temporary);
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
            error = StatSource(source, out Statx stat);
            if (error.IsError) { return error; }
            using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
            error = MakeOther(source, stat, temporary.Directory, temporary.Name);
            if (!error.IsError) { error = CopyAttributes(inode, source, stat, temporary.Directory, temporary.Name); }
            return error.IsError ? error : publication.RunLocked(new Copy(inode, stat), temporary);
        }
    }

    private static Errno MakeOther(in RealReference source, in Statx stat, int work, ReadOnlySpan<byte> name)
    {
        if (!stat.IsSymbolicLink) { return Libc.MakeNodeAt(work, name, stat.Mode, stat.Rdev); }
        Span<byte> target = stackalloc byte[4097];
        Errno error = Libc.ReadLinkAt(source.Directory, source.Name, target[..4096], out int length);
        if (error.IsError) { return error; }
        target[length] = 0;
        return Libc.SymbolicLinkAt(target[..(length + 1)], work, name);
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
            var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
            bool isNamed = !upper.Features.TemporaryFiles;
            error = isNamed
                ? Libc.OpenAt(temporary.Directory, temporary.Name, OpenFlags.Create | OpenFlags.Exclusive | OpenFlags.ReadWrite | OpenFlags.NoFollow, 0x180, ResolveFlags.Confined, out int copy)
                : Libc.OpenAt(temporary.Directory, ".\0"u8, OpenFlags.TemporaryFile | OpenFlags.ReadWrite, 0x180, ResolveFlags.Confined, out copy);
            if (error.IsError) { return error; }
            // All names of a hard-linked file are one copy, which would lose its data with the first name that is moved.
            RealName? below = needsData || inode.Links is not null ? null : DataOf(inode);
            error = Fill(inode, source, stat, copy, below, truncation, request);
            if (!error.IsError) { error = publication.RunLocked(new Copy(inode, stat) { Descriptor = copy, IsNamed = isNamed, Below = below }, temporary); }
            Libc.Close(copy);
            if (isNamed) { temporary.Dispose(); } // after a link it is one name too many
            return error;
        }
    }

    /// <summary>Gives a new file the data and the attributes of a lower one.</summary>
    /// <param name="inode">The object.</param>
    /// <param name="source">What has the attributes.</param>
    /// <param name="stat">Its attributes.</param>
    /// <param name="copy">The new file.</param>
    /// <param name="below">Where the data stays; null when it is copied.</param>
    /// <param name="truncation">That the caller is about to truncate the file.</param>
    /// <param name="request">Who waits for it.</param>
    private Errno Fill(Inode inode, in RealReference source, in Statx stat, int copy, RealName? below, Truncation? truncation, in Request request)
    {
        long size = below is not null ? 0 : Math.Min((long)stat.Size, truncation?.Size ?? long.MaxValue);
        bool syncs = upper.IsDurable && (size > 0 || upper.IsStrict);
        using (session.Block(size > SmallFile || syncs))
        {
            Errno error = below is not null
                ? LeaveData(copy, (long)stat.Size)
                : CopyData(inode, copy, size, inode.Metacopy is not null || stat.Blocks * 512 < stat.Size, request);
            if (!error.IsError) { error = CopyAttributes(inode, source, stat, copy, Libc.Self); }
            if (!error.IsError && below is null && size < (long)stat.Size)
            {
                // Else the copy would be seen with the times and privileges of the whole file.
                error = ObjectChange.SetSize(copy, truncation!.Value.Size, isOpen: true, truncation.Value.DropsSetId, request);
            }
            return !error.IsError && syncs ? Libc.Sync(copy, dataOnly: false) : error;
        }
    }

    /// <summary>Makes the copy a metacopy: a hole as long as the data, which stays below. Kernel: ovl_set_metacopy_xattr(), ovl_set_size().</summary>
    private Errno LeaveData(int copy, long size)
    {
        Errno error = Libc.SetXattrAt(copy, Libc.Self, tree.Xattr.Metacopy, default, XattrFlags.None);
        return error.IsError ? error : Libc.Truncate(copy, size);
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
}
