using Veneer.Fuse;
using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Control;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay;

internal sealed partial class OverlayFileSystem
{
    /// <summary>From this size on, a lower file that is only read is passed through with <c>passthrough=lower</c>.</summary>
    private const ulong LargeFile = 1 << 20;

    /// <summary>Below this size nobody looks whether a lower file is an image: programs and libraries are larger.</summary>
    private const ulong SmallestImage = 8 << 10;

    /// <summary>The unit that O_DIRECT works in at the least.</summary>
    private const int SectorSize = 512;

    /// <summary>How many milliseconds to wait for the kernel to tell that a file was closed.</summary>
    private const int MostReleaseWaits = 500;

    [ThreadStatic]
    private static AlignedBuffer? aligned;

    /// <summary>What a real file is opened with, of all that the caller asked for.</summary>
    /// <remarks>
    /// Not O_APPEND: the kernel tells the offset of every write, also that of an append, since it knows the size and lets
    /// no other write in meanwhile. It also writes the dirty pages of a map through any descriptor that was mapped, and
    /// pwrite(2) would append them.
    /// </remarks>
    private OpenFlags RealFlags(OpenFlags flags)
    {
        OpenFlags kept = flags & (volume.IsDurable ? OpenFlags.AccessMode | OpenFlags.Direct | OpenFlags.Sync | OpenFlags.DataSync : OpenFlags.AccessMode | OpenFlags.Direct);
        // O_RDONLY|O_TRUNC truncates all the same.
        if ((flags & OpenFlags.Truncate) != 0 && (flags & OpenFlags.AccessMode) == OpenFlags.ReadOnly) { kept |= OpenFlags.ReadWrite; }
        return kept | OpenFlags.LargeFile | OpenFlags.NonBlock;
    }

    public Errno Open(in Request request, in OpenIn input, out OpenOut result)
    {
        result = default;
        Errno error = volume.Inodes.Find(request.NodeId, out Inode inode, out bool isSuperseded);
        if (error.IsError) { return error; }
        // The kernel looks the name up again, and finds the inode's new nodeid.
        if (isSuperseded) { return Errno.ESTALE; }
        if (files.AreTooMany(request.Header.Uid)) { return Errno.ENFILE; }
        bool truncates = (input.Flags & OpenFlags.Truncate) != 0;
        bool writes = (input.Flags & OpenFlags.AccessMode) != OpenFlags.ReadOnly || truncates;
        if (writes)
        {
            error = CheckProtection(inode, onlyAdds: !truncates && (input.Flags & OpenFlags.Append) != 0);
            if (error.IsError) { return error; }
            // A copy-up for truncation leaves the data behind: make sure that the open cannot fail for want of a descriptor.
            int reserve = -1;
            if (truncates && !inode.HasUpper)
            {
                error = Libc.Duplicate(volume.Layers.Topmost.Root.Descriptor, out reserve);
                if (error.IsError) { return error; }
            }
            bool wasUpper = HasUpperData(inode);
            error = copyUp.Ensure(inode, request, truncation: truncates ? new Truncation(0, input.KillSuidGid) : null);
            if (reserve >= 0) { Libc.Close(reserve); }
            if (error.IsError) { return error; }
            // The copy has another st_ctime, and this answer has no place for attributes.
            if (!wasUpper) { notifier?.InvalidateAttributes(request.NodeId); }
        }
        else if (inode.IsSmall && !inode.HasUpper && IsCached(inode) && (input.Flags & OpenFlags.Direct) == 0)
        {
            FillPages(inode, request.NodeId);
        }
        while (true)
        {
            int descriptor = -1;
            bool isLower = true, isPrivate = false;
            // Whether the filesystem has O_DIRECT the open is to tell.
            if (writes || HasUpperData(inode) || !IsCached(inode) || (input.Flags & OpenFlags.Direct) != 0)
            {
                error = OpenReal(inode, RealFlags(input.Flags), out descriptor, out isLower, out isPrivate);
                if (error.IsError) { return error; }
            }
            if (truncates)
            {
                // Privileges go first: a crash in between must not leave them on changed data.
                if (input.KillSuidGid) { error = SetId.Clear(descriptor, Libc.Self, request); }
                if (!error.IsError) { error = Libc.Truncate(descriptor, 0); }
                if (error.IsError)
                {
                    Libc.Close(descriptor);
                    return error;
                }
            }
            bool wasTrusted = !inode.ChangesUnseen;
            error = Admit(inode, request.NodeId, request.Header.Uid, input.Flags, descriptor, isLower, isPrivate, out result);
            if (error.IsError)
            {
                if (descriptor >= 0) { Libc.Close(descriptor); }
                return error;
            }
            if (wasTrusted && inode.ChangesUnseen) { notifier?.InvalidateAttributes(request.NodeId); }
            // Copied up between opening and admission: the lower file is the wrong one by now.
            if (!isLower || !HasUpperData(inode)) { return Errno.None; }
            Release(request.NodeId, result.Fh);
        }
    }

    /// <summary>Saves the READ that would come for the content of a small lower file. If that fails, the READ comes and says why.</summary>
    private void FillPages(Inode inode, ulong nodeId)
    {
        if (notifier is null || !volume.Inodes.TryGetBacking(inode, nodeId, out BackingFile backing) || !backing.HasNoPages || !smallReads.IsLikely()) { return; }
        Span<byte> message = stackalloc byte[Notifier.StoreHeader + (int)SmallestImage];
        // Whoever changes the file, be it only its size, copies it up first. While somebody does, which may take long, the READ comes.
        if (!inode.TryLockCopyUp(0, out ObjectLock.Scope scope)) { return; }
        using (scope)
        {
            if (inode.HasUpper || OpenReal(inode, RealFlags(OpenFlags.ReadOnly), out int descriptor, out _, out _).IsError) { return; }
            Errno error = Libc.ReadAt(descriptor, message[Notifier.StoreHeader..], 0, out int count);
            Libc.Close(descriptor);
            // As much as there was room for is not the whole of it: the file is not what it was.
            if (error.IsError || count == 0 || count == (int)SmallestImage) { return; }
            backing.Fill(notifier, nodeId, message[..(Notifier.StoreHeader + count)]);
        }
    }

    private static bool Writes(OpenFlags flags) => (flags & OpenFlags.AccessMode) != OpenFlags.ReadOnly;

    private static bool HasUpperData(Inode inode) => inode.HasUpper && inode.Metacopy is null;

    private Errno OpenReal(Inode inode, OpenFlags flags, out int descriptor, out bool isLower, out bool isPrivate)
    {
        descriptor = -1;
        while (true)
        {
            isLower = !HasUpperData(inode);
            isPrivate = false;
            bool byName = !inode.IsNameless;
            Errno error = volume.Objects.ResolveData(inode, out RealReference real);
            if (error.IsError) { return error; }
            using (real)
            {
                isPrivate = real.Layer?.IsPrivate ?? false;
                error = OpenReal(real, inode, flags, out descriptor);
                // Append-only itself, and not only by what upper's attribute says: nothing else may open it. Kernel: may_open()
                if (error == Errno.EPERM && Writes(flags) && (inode.Protection & Protection.AppendOnly) != 0) { error = OpenReal(real, inode, flags | OpenFlags.Append, out descriptor); }
            }
            // The file lost its name meanwhile, which may be another one's by now: the descriptor was there before.
            if (!byName || isLower || !inode.IsNameless) { return error; }
            if (!error.IsError) { Libc.Close(descriptor); }
        }
    }

    /// <summary>Only the data of a metacopy has not been seen to be a file when the inode was made of it.</summary>
    private static Errno OpenReal(in RealReference real, Inode inode, OpenFlags flags, out int descriptor) =>
        inode.Metacopy is null ? real.Open(flags, out descriptor) : real.OpenData(flags, out descriptor);

    /// <summary>Chooses how the open file reaches its data, and gives it a number.</summary>
    /// <returns><see cref="Errno.ESTALE"/> when the inode has a new nodeid: the kernel looks the name up again.</returns>
    private Errno Admit(Inode inode, ulong nodeId, uint uid, OpenFlags flags, int descriptor, bool isLower, bool isPrivate, out OpenOut result)
    {
        result = default;
        // Others may have superseded the nodeid while we waited for a copy-up.
        if (!volume.Inodes.TryGetBacking(inode, nodeId, out BackingFile backing)) { return Errno.ESTALE; }
        bool isAppendOnly = volume.IsWritable && (inode.Protection & Protection.AppendOnly) != 0;
        Pass pass = backings is null || descriptor < 0 || isAppendOnly ? Pass.Nothing : !isLower ? Pass.Everything : isPrivate ? PassLower(backing, descriptor) : Pass.Nothing;
        Errno error = Admit(backing, descriptor, isLower, flags, isAppendOnly && Writes(flags) ? Way.Guarded : WayFor(flags), pass, ref result);
        if (error == Errno.ESTALE) { Supersede(inode, nodeId, backing); }
        if (error.IsError) { return error; }
        if ((result.Flags & OpenReply.Passthrough) != 0 && (flags & OpenFlags.AccessMode) == OpenFlags.ReadWrite) { inode.ChangesUnseen = true; }
        if (Writes(flags)) { errors.Touch(); }
        result.Fh = files.Add(inode, nodeId, backing, flags, descriptor, isLower, uid);
        return Errno.None;
    }

    /// <summary>
    /// An open whose flags fcntl(2) may change later: the kernel asks us with those of the moment, where it would go on with
    /// the old ones on the real file. And without durability a write that syncs must not go there unseen.
    /// </summary>
    private Way WayFor(OpenFlags flags) =>
        (flags & OpenFlags.Direct) != 0 || (Writes(flags) && (flags & OpenFlags.Append) != 0) || (!volume.IsDurable && (flags & OpenFlags.Sync) != 0) ? Way.Asked : Way.Any;

    private Errno Admit(BackingFile backing, int descriptor, bool isLower, OpenFlags flags, Way way, Pass pass, ref OpenOut result)
    {
        for (int attempt = 0; ; attempt++)
        {
            switch (backing.Admit(descriptor, isLower, Writes(flags), way, pass, backings, ref result))
            {
                case Admission.Admitted:
                    return Errno.None;
                case Admission.Superseded:
                    return Errno.ESTALE;
                // Who cannot read cannot map either.
                case Admission.Unguarded when (flags & OpenFlags.AccessMode) == OpenFlags.WriteOnly:
                    way = Way.Asked;
                    break;
                case Admission.Unguarded when attempt >= MostReleaseWaits:
                    return Errno.EBUSY;
                // The file became append-only while it was open. It may be closed by now, and the kernel tells of that later.
                default:
                    WaitForRelease();
                    break;
            }
        }
    }

    private void WaitForRelease()
    {
        workers?.BeginBlocking();
        Thread.Sleep(1);
        workers?.EndBlocking();
    }

    /// <summary>Open files are bound to the lower file: they keep the nodeid, and the inode goes on under a new one.</summary>
    private void Supersede(Inode inode, ulong nodeId, BackingFile backing)
    {
        if (volume.Inodes.TrySupersede(inode, backing)) { notifier?.InvalidateAttributes(nodeId); }
    }

    /// <summary>
    /// What of a lower file may be passed through. What is open before a copy-up and passed through keeps the lower data and
    /// the old inode, so it is done only where nothing can change, or where that was asked for: then for maps of programs and
    /// libraries, whose pages all mounts share, and for large files. See docs/adr/0003-lower-passthrough.md.
    /// </summary>
    private Pass PassLower(BackingFile backing, int descriptor)
    {
        if (!volume.IsWritable) { return Pass.Everything; } // nothing can ever change
        if (backing.PassOfLower == Pass.Unknown) { backing.PassOfLower = volume.Options.PassLower ? JudgeLower(descriptor) : Pass.Nothing; }
        return backing.PassOfLower;
    }

    /// <summary>
    /// Whether a lower file is never passed through, so that the real file need not be opened before somebody reads what
    /// the kernel has not kept.
    /// </summary>
    private bool IsCached(Inode inode) =>
        backings is null || (volume.IsWritable && (!volume.Options.PassLower || inode.IsSmall || inode.Backing is { PassOfLower: Pass.Nothing }));

    private static Pass JudgeLower(int descriptor)
    {
        if (Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat).IsError) { return Pass.Nothing; }
        if (stat.Size >= LargeFile) { return Pass.Everything; }
        Span<byte> magic = stackalloc byte[4];
        bool isImage = !Libc.ReadAt(descriptor, magic, 0, out int count).IsError && count == 4 && magic.SequenceEqual("\u007FELF"u8);
        return isImage ? Pass.Maps : Pass.Nothing;
    }

    public Errno Create(in Request request, ReadOnlySpan<byte> name, in CreateIn input, out CreateOut result)
    {
        result = default;
        if (files.AreTooMany(request.Header.Uid)) { return Errno.ENFILE; }
        var what = new NewObject(FileType.Regular | (input.Mode & ModeBits.Mask)) { Uid = request.Header.Uid, Gid = request.Header.Gid, Umask = input.Umask, Open = RealFlags(input.Flags & ~OpenFlags.Truncate) };
        Errno error = MakeObject(request, name, what, out result.Entry, out Inode inode, out int descriptor);
        if (error.IsError) { return error; }
        return AdmitNew(inode, request.Header.Uid, input.Flags, descriptor, ref result);
    }

    private Errno AdmitNew(Inode inode, uint uid, OpenFlags flags, int descriptor, ref CreateOut result)
    {
        Errno error = Admit(inode, result.Entry.NodeId, uid, flags, descriptor, isLower: false, isPrivate: true, out result.Open);
        if (error.IsError)
        {
            Libc.Close(descriptor);
            volume.Inodes.Forget(result.Entry.NodeId, 1);
            return error;
        }
        result.Entry.AttrValid = AttrValidOf(inode);
        return error;
    }

    public Errno TmpFile(in Request request, in CreateIn input, out CreateOut result)
    {
        result = default;
        if (!volume.IsWritable) { return Errno.EROFS; }
        if (!volume.Features.TemporaryFiles) { return Errno.EOPNOTSUPP; }
        if (files.AreTooMany(request.Header.Uid)) { return Errno.ENFILE; }
        Errno error = volume.Inodes.FindDirectory(request.NodeId, out DirectoryInode parent);
        if (error.IsError) { return error; }
        error = CheckProtection(parent, onlyAdds: true);
        if (error.IsError) { return error; }
        error = copyUp.Ensure(parent, request);
        if (error.IsError) { return error; }
        var what = new NewObject(FileType.Regular | (input.Mode & ModeBits.Mask)) { Uid = request.Header.Uid, Gid = request.Header.Gid, Umask = input.Umask, Open = RealFlags(input.Flags & ~OpenFlags.Truncate) | (input.Flags & OpenFlags.Exclusive) };
        bool staysInWork = volume.HasManyOrphans;
        Inode inode;
        int descriptor;
        using (volume.RenameLock.Share())
        {
            using (parent.LockNames())
            {
                error = create.TemporaryLocked(parent, what, isLinkable: staysInWork, out Statx stat, out descriptor);
                if (error.IsError) { return error; }
                inode = NewUpperInode(null, Libc.Self, stat);
                if (!staysInWork || !remove.LinkInWork(inode, descriptor, Libc.Self))
                {
                    error = Libc.Duplicate(descriptor, out int kept);
                    if (error.IsError)
                    {
                        Libc.Close(descriptor);
                        return error;
                    }
                    volume.Inodes.SetOrphan(inode, kept);
                }
                inode.IsUnlinked = true;
                volume.Inodes.AddAndLend(inode);
                result.Entry = EntryOf(inode, inode.NodeId, stat);
            }
        }
        return AdmitNew(inode, request.Header.Uid, input.Flags, descriptor, ref result);
    }

    public void Release(ulong nodeId, ulong fh)
    {
        if (files.Take(fh) is not { } file) { return; }
        if (Writes(file.Flags))
        {
            if (!errors.IsExact) { _ = errors.Check(file.Descriptor); } // kept for the next fsync
            errors.Touch();
        }
        file.Backing.Leave(Writes(file.Flags), backings);
        if (file.Descriptor >= 0)
        {
            if (file.Inode.IsUnlinked) { CloseLast(file.Descriptor); }
            else { Libc.Close(file.Descriptor); }
        }
        files.Return(fh);
    }

    /// <summary>Closes what may be the last descriptor of a file without a name: freeing a large one takes its time.</summary>
    private void CloseLast(int descriptor)
    {
        const ulong manyBlocks = (64 << 20) / 512;
        bool isLong = !Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat).IsError && stat.Nlink == 0 && stat.Blocks > manyBlocks;
        if (isLong) { workers?.BeginBlocking(); }
        Libc.Close(descriptor);
        if (isLong) { workers?.EndBlocking(); }
    }

    public Errno Flush(in Request request, in FlushIn input) => Errno.ENOSYS; // close(2) has nothing to wait for: writes are not kept back

    /// <summary>The descriptor of an open file, which since its copy-up means the copy.</summary>
    private Errno DescriptorOf(ulong fh, out int descriptor, out OpenFile file, bool reads = false)
    {
        descriptor = -1;
        Errno error = files.Find(fh, out file);
        if (error.IsError) { return error; }
        descriptor = file.Descriptor;
        if (descriptor >= 0 && (!file.IsLower || !HasUpperData(file.Inode))) { return Errno.None; }
        error = Refresh(file, reads);
        descriptor = file.Descriptor;
        return error;
    }

    private Errno Refresh(OpenFile file, bool reads)
    {
        using (file.Lock())
        {
            if (file.Descriptor >= 0 && (!file.IsLower || !HasUpperData(file.Inode))) { return Errno.None; }
            Errno error = OpenReal(file.Inode, RealFlags(file.Flags & ~OpenFlags.Truncate), out int descriptor, out bool isLower, out _);
            if (error.IsError) { return error; }
            if (file.Descriptor < 0)
            {
                if (reads) { smallReads.SawRead(); }
                file.IsLower = isLower;
                file.IsDirect = (file.Flags & OpenFlags.Direct) != 0;
                file.Descriptor = descriptor;
                return Errno.None;
            }
            // In place: a read under way on another thread ends on the lower file, the next begins on the copy.
            error = Libc.Duplicate(descriptor, file.Descriptor);
            Libc.Close(descriptor);
            if (error.IsError) { return error; }
            file.IsLower = isLower;
            file.IsDirect = (file.Flags & OpenFlags.Direct) != 0;
            return error;
        }
    }

    public Errno Read(in Request request, in ReadIn input, ref ContentWriter content)
    {
        Errno error = DescriptorOf(input.Fh, out int descriptor, out OpenFile file, reads: true);
        if (error.IsError) { return error; }
        bool isDirect = (input.Flags & OpenFlags.Direct) != 0;
        error = Follow(file, descriptor, isDirect);
        if (error.IsError) { return error; }
        return isDirect ? ReadDirect(file, descriptor, input, ref content) : content.TakeFrom(descriptor, (long)input.Offset);
    }

    /// <summary>Gives the real file the O_DIRECT that the caller's descriptor has by now. Kernel: ovl_change_flags()</summary>
    private static Errno Follow(OpenFile file, int descriptor, bool isDirect)
    {
        if (file.IsDirect == isDirect) { return Errno.None; }
        using (file.Lock())
        {
            Errno error = Libc.SetDirect(descriptor, isDirect);
            if (!error.IsError) { file.IsDirect = isDirect; }
            return error;
        }
    }

    private static Errno ReadDirect(OpenFile file, int descriptor, in ReadIn input, ref ContentWriter content)
    {
        Span<byte> buffer = (aligned ??= new AlignedBuffer()).Take((int)input.Size);
        int count = 0;
        while (count < buffer.Length)
        {
            Errno error = Libc.ReadAt(descriptor, buffer[count..], (long)input.Offset + count, out int step);
            if (error == Errno.EINVAL && IsOfSectors((long)input.Offset + count, buffer.Length - count))
            {
                error = Follow(file, descriptor, isDirect: false);
                if (!error.IsError) { error = Libc.ReadAt(descriptor, buffer[count..], (long)input.Offset + count, out step); }
            }
            if (error.IsError) { return error; }
            count += step;
            if (!IsOfSectors(step, 0) || step == 0) { break; } // the end of the file
        }
        content.Add(buffer[..count]);
        return Errno.None;
    }

    /// <summary>
    /// Whether O_DIRECT may well allow this on the real file. The kernel cuts what it is asked for into requests, and may cut
    /// between the blocks of a device with large ones: then what the caller may do is done without O_DIRECT.
    /// </summary>
    private static bool IsOfSectors(long offset, int length) => ((offset | (uint)length) & (SectorSize - 1)) == 0;

    /// <summary>Whether something may be written to an append-only file, by an open that is for appending alone.</summary>
    /// <remarks>
    /// The kernel lets nobody take O_APPEND away from such an open, nor pass it by with RWF_NOAPPEND, but does not know that
    /// a FUSE inode is one: setfl(), kiocb_set_rw_flags().
    /// </remarks>
    private static Errno CheckAppends(OpenFile file, int descriptor, in WriteIn input)
    {
        if ((file.Inode.Protection & Protection.AppendOnly) == 0 || (file.Flags & OpenFlags.Append) == 0 || (input.WriteFlags & WriteFlags.Cache) != 0) { return Errno.None; }
        Errno error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error; }
        return input.Offset < stat.Size ? Errno.EPERM : Errno.None;
    }

    public Errno Write(in Request request, in WriteIn input, ReadOnlySpan<byte> data, out int count)
    {
        count = 0;
        Errno error = DescriptorOf(input.Fh, out int descriptor, out OpenFile file);
        if (error.IsError) { return error; }
        if (file.IsLower) { return Errno.EBADF; } // never: an open that may write has copied up
        error = CheckAppends(file, descriptor, input);
        if (error.IsError) { return error; }
        errors.Touch();
        if ((input.WriteFlags & WriteFlags.KillSuidGid) != 0)
        {
            error = SetId.Clear(descriptor, Libc.Self, request);
            if (error.IsError) { return error; }
        }
        // The pages of a map are of whatever length.
        bool isDirect = (input.Flags & OpenFlags.Direct) != 0 && (input.WriteFlags & WriteFlags.Cache) == 0;
        error = Follow(file, descriptor, isDirect);
        if (error.IsError) { return error; }
        if (isDirect)
        {
            Span<byte> buffer = (aligned ??= new AlignedBuffer()).Take(data.Length);
            data.CopyTo(buffer);
            data = buffer;
        }
        while (count < data.Length)
        {
            error = Libc.WriteAt(descriptor, data[count..], (long)input.Offset + count, out int step);
            if (error == Errno.EINVAL && isDirect && IsOfSectors((long)input.Offset + count, data.Length - count))
            {
                error = Follow(file, descriptor, isDirect: false);
                if (!error.IsError) { error = Libc.WriteAt(descriptor, data[count..], (long)input.Offset + count, out step); }
            }
            if (error.IsError)
            {
                // What was written counts; the rest fails next time. But pages of a map are written once, and what the
                // kernel is not told is missing is lost in silence.
                return count > 0 && (input.WriteFlags & WriteFlags.Cache) == 0 ? Errno.None : error;
            }
            count += step;
        }
        return SyncWritten(file, descriptor, input);
    }

    /// <summary>
    /// RWF_DSYNC and RWF_SYNC of a single write: the kernel asks us to sync what went to its pages, and says by flags what
    /// goes past them. Where the file was opened so, so is the real one.
    /// </summary>
    private Errno SyncWritten(OpenFile file, int descriptor, in WriteIn input)
    {
        OpenFlags added = input.Flags & ~file.Flags & OpenFlags.Sync;
        if (added == 0 || !volume.IsDurable || (input.WriteFlags & WriteFlags.Cache) != 0) { return Errno.None; }
        return SyncDescriptor(descriptor, dataOnly: added == OpenFlags.DataSync);
    }

    public Errno FSync(in Request request, in FSyncIn input)
    {
        Errno error = DescriptorOf(input.Fh, out int descriptor, out OpenFile file);
        if (error.IsError) { return error; }
        if (file.IsLower) { return Failed(); }
        return volume.IsDurable ? SyncDescriptor(descriptor, input.DataOnly) : errors.Check(descriptor);
    }

    /// <summary>What a sync gives that has nothing to do.</summary>
    private Errno Failed() => errors.Failure.IsError ? Errno.EIO : Errno.None;

    private Errno SyncDescriptor(int descriptor, bool dataOnly)
    {
        if (errors.Failure.IsError) { return Errno.EIO; }
        workers?.BeginBlocking();
        try { return errors.Synced(Libc.Sync(descriptor, dataOnly)); }
        finally { workers?.EndBlocking(); }
    }

    public Errno FAllocate(in Request request, in FAllocateIn input)
    {
        Errno error = DescriptorOf(input.Fh, out int descriptor, out OpenFile file);
        if (error.IsError) { return error; }
        if (file.IsLower) { return Errno.EBADF; }
        errors.Touch();
        error = CheckProtection(file.Inode, onlyAdds: (input.Mode & ~AllocateMode.KeepSize) == 0); // Kernel: vfs_fallocate()
        return error.IsError ? error : Libc.Allocate(descriptor, input.Mode, (long)input.Offset, (long)input.Length);
    }

    public Errno LSeek(in Request request, in LSeekIn input, out ulong offset)
    {
        offset = 0;
        Errno error = DescriptorOf(input.Fh, out int descriptor, out _);
        if (error.IsError) { return error; }
        error = Libc.Seek(descriptor, (long)input.Offset, input.Whence, out long position);
        if (!error.IsError) { offset = (ulong)position; }
        return error;
    }

    public Errno CopyFileRange(in Request request, in CopyFileRangeIn input, out ulong copied)
    {
        copied = 0;
        Errno error = DescriptorOf(input.FhIn, out int source, out _);
        if (error.IsError) { return error; }
        error = DescriptorOf(input.FhOut, out int target, out OpenFile file);
        if (error.IsError) { return error; }
        if (file.IsLower) { return Errno.EBADF; }
        // Kernel: generic_copy_file_checks(), and generic_file_rw_checks() as long as nobody takes O_APPEND away.
        if ((file.Inode.Protection & Protection.Immutable) != 0) { return Errno.EPERM; }
        if ((file.Inode.Protection & Protection.AppendOnly) != 0 && (file.Flags & OpenFlags.Append) != 0) { return Errno.EBADF; }
        errors.Touch();
        long from = (long)input.OffsetIn, to = (long)input.OffsetOut;
        workers?.BeginBlocking();
        try { error = Libc.CopyFileRange(source, ref from, target, ref to, (long)Math.Min(input.Length, long.MaxValue), out long count); copied = error.IsError ? 0 : (ulong)count; }
        finally { workers?.EndBlocking(); }
        return error;
    }

    public Errno Ioctl(in Request request, in IoctlIn input, ReadOnlySpan<byte> argument, Span<byte> output, out int outputLength, out int result)
    {
        outputLength = 0;
        result = 0;
        if (input.Command == ControlMessage.Request) { return control.Serve(request, argument, output, out outputLength); }
        if (input.Command == ShutdownRequest) { return ShutDown(request); }
        if ((input.Flags & IoctlFlags.Compat) != 0) { return Errno.ENOTTY; }
        Errno error = volume.Inodes.Find(request.NodeId, out Inode inode);
        if (error.IsError) { return error; }
        if (!inode.IsRegular && !inode.IsDirectory) { return Errno.ENOTTY; }
        switch (input.Command)
        {
            case InodeFlags.Get:
            case InodeFlags.GetExtended:
                return GetFileFlags(inode, input.Command, output, out outputLength);
            case InodeFlags.Set:
            case InodeFlags.SetExtended:
                error = copyUp.Ensure(inode, request);
                if (!error.IsError) { error = SetFileFlags(inode, input.Command, argument); }
                // Of what an ioctl changes the kernel does not know that it is another now, such as st_ctime.
                notifier?.InvalidateAttributes(inode.NodeId);
                return error;
            default:
                return Errno.ENOTTY;
        }
    }

    private Errno GetFileFlags(Inode inode, uint command, Span<byte> output, out int outputLength)
    {
        outputLength = 0;
        Errno error = volume.Objects.Resolve(inode, out RealReference real);
        if (error.IsError) { return error; }
        using (real) { return FileFlags.Read(real, command, inode.HasUpper, volume.Xattr, output, out outputLength); }
    }

    private Errno SetFileFlags(Inode inode, uint command, ReadOnlySpan<byte> argument)
    {
        using (volume.RenameLock.Share())
        {
            using var held = new HeldName(inode);
            Errno error = volume.Objects.ResolveLocked(inode, out RealReference real);
            if (error.IsError) { return error; }
            using (real)
            {
                error = FileFlags.Write(real, command, volume.Xattr, argument, out Protection protection);
                if (!error.IsError) { inode.Protection = protection; }
                return error;
            }
        }
    }
}
