using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Requests;

/// <summary>Serves requests on open files: reads, writes, syncs, allocates, seeks and copies.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="policy">How open files reach their data.</param>
/// <param name="files">The open files.</param>
/// <param name="errors">Errors of writing to upper.</param>
internal sealed class FileRequests(
    ObjectTree tree, UpperLayer upper, KernelSession session, OpenPolicy policy, OpenFiles files,
    WritebackErrors errors)
{
    /// <summary>The smallest unit of O_DIRECT, in bytes.</summary>
    private const int SectorSize = 512;

    [ThreadStatic]
    private static AlignedBuffer? aligned;

    /// <summary>
    /// Gets the descriptor of an open file. It is opened if it was not yet needed; after a copy-up it is moved to the copy.
    /// </summary>
    /// <param name="fh">The open file.</param>
    /// <param name="descriptor">The descriptor, which belongs to <paramref name="file"/>.</param>
    /// <param name="file">The open file.</param>
    /// <param name="reads">Whether the descriptor is for reading content.</param>
    public Errno DescriptorOf(ulong fh, out int descriptor, out OpenFile file, bool reads = false)
    {
        descriptor = -1;
        Errno error = files.Find(fh, out file);
        if (error.IsError) { return error; }
        if (!file.HasData) { error = policy.OpenData(file, reads); }
        descriptor = file.Descriptor;
        return error;
    }

    public Errno Read(in Request request, in ReadIn input, ref ContentWriter content)
    {
        Errno error = DescriptorOf(input.Fh, out int descriptor, out OpenFile file, reads: true);
        if (error.IsError) { return error; }
        bool isDirect = (input.Flags & OpenFlags.Direct) != 0;
        error = file.SetDirect(isDirect);
        if (error.IsError) { return error; }
        return isDirect ? ReadDirect(file, descriptor, input, ref content) : content.TakeFrom(descriptor, (long)input.Offset);
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
                error = file.SetDirect(false);
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
    /// Whether offset and length suit O_DIRECT on common devices. The kernel splits a request, perhaps in the middle of the
    /// blocks of a device with large ones. What the caller may do with O_DIRECT is then done without it.
    /// </summary>
    private static bool IsOfSectors(long offset, int length) => ((offset | (uint)length) & (SectorSize - 1)) == 0;

    /// <summary>Checks that a write to an append-only file, through an open that may only append, does not begin before the end.</summary>
    /// <remarks>
    /// The kernel would refuse to clear O_APPEND of such an open, or to bypass it with RWF_NOAPPEND, but it does not know that a
    /// FUSE inode is append-only: setfl(), kiocb_set_rw_flags().
    /// </remarks>
    private static Errno CheckAppends(OpenFile file, int descriptor, in WriteIn input)
    {
        if ((file.Inode.Protection & Protection.AppendOnly) == 0
            || (file.Flags & OpenFlags.Append) == 0
            || (input.WriteFlags & WriteFlags.Cache) != 0)
        {
            return Errno.None;
        }
        Errno error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error; }
        return input.Offset < stat.Size ? Errno.EPERM : Errno.None;
    }

    public Errno Write(in Request request, in WriteIn input, ReadOnlySpan<byte> data, out int count)
    {
        count = 0;
        Errno error = DescriptorOf(input.Fh, out int descriptor, out OpenFile file);
        if (error.IsError) { return error; }
        if (file.IsLower) { return Errno.EBADF; } // never happens: an open that may write has copied up
        error = CheckAppends(file, descriptor, input);
        if (error.IsError) { return error; }
        errors.NoteWrite();
        if ((input.WriteFlags & WriteFlags.KillSuidGid) != 0)
        {
            error = SetId.Clear(descriptor, Libc.Self, request);
            if (error.IsError) { return error; }
        }
        // Pages of a map are written back in any length, so O_DIRECT does not suit them.
        bool isDirect = (input.Flags & OpenFlags.Direct) != 0 && (input.WriteFlags & WriteFlags.Cache) == 0;
        error = file.SetDirect(isDirect);
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
                error = file.SetDirect(false);
                if (!error.IsError) { error = Libc.WriteAt(descriptor, data[count..], (long)input.Offset + count, out step); }
            }
            if (error.IsError)
            {
                // A partial write succeeds, and the rest fails when it is tried again. But pages of a map are written only once: if
                // the kernel were not told of the error, the rest would be lost silently.
                return count > 0 && (input.WriteFlags & WriteFlags.Cache) == 0 ? Errno.None : error;
            }
            count += step;
        }
        return SyncWritten(file, descriptor, input);
    }

    /// <summary>
    /// Syncs for RWF_DSYNC and RWF_SYNC of a single write. The kernel sends an FSYNC for what went to its pages; for a write that
    /// bypasses them it sets flags in the request. If the file was opened with these flags, so was the real file.
    /// </summary>
    private Errno SyncWritten(OpenFile file, int descriptor, in WriteIn input)
    {
        OpenFlags added = input.Flags & ~file.Flags & OpenFlags.Sync;
        if (added == 0 || !upper.IsDurable || (input.WriteFlags & WriteFlags.Cache) != 0) { return Errno.None; }
        return SyncDescriptor(descriptor, dataOnly: added == OpenFlags.DataSync);
    }

    public Errno FSync(in Request request, in FSyncIn input)
    {
        Errno error = DescriptorOf(input.Fh, out int descriptor, out OpenFile file);
        if (error.IsError) { return error; }
        if (file.IsLower) { return Failed(); }
        return upper.IsDurable ? SyncDescriptor(descriptor, input.DataOnly) : errors.Check(descriptor);
    }

    /// <summary>The result of a sync that has nothing to write: EIO after a failed write.</summary>
    private Errno Failed() => errors.Failure.IsError ? Errno.EIO : Errno.None;

    private Errno SyncDescriptor(int descriptor, bool dataOnly)
    {
        if (errors.Failure.IsError) { return Errno.EIO; }
        using (session.Block()) { return errors.NoteSync(Libc.Sync(descriptor, dataOnly)); }
    }

    public Errno FAllocate(in Request request, in FAllocateIn input)
    {
        Errno error = DescriptorOf(input.Fh, out int descriptor, out OpenFile file);
        if (error.IsError) { return error; }
        if (file.IsLower) { return Errno.EBADF; }
        errors.NoteWrite();
        error = file.Inode.CheckChange(onlyAdds: (input.Mode & ~AllocateMode.KeepSize) == 0); // Kernel: vfs_fallocate()
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
        // Kernel: generic_copy_file_checks(), and generic_file_rw_checks() as long as O_APPEND is not cleared.
        if ((file.Inode.Protection & Protection.Immutable) != 0) { return Errno.EPERM; }
        if ((file.Inode.Protection & Protection.AppendOnly) != 0 && (file.Flags & OpenFlags.Append) != 0) { return Errno.EBADF; }
        errors.NoteWrite();
        long from = (long)input.OffsetIn, to = (long)input.OffsetOut;
        using (session.Block())
        {
            error = Libc.CopyFileRange(source, ref from, target, ref to, (long)Math.Min(input.Length, long.MaxValue), out long count);
            copied = error.IsError ? 0 : (ulong)count;
        }
        return error;
    }

    public Errno FSyncDir(in Request request, in FSyncIn input)
    {
        if (!upper.IsDurable) { return errors.Check(-1); }
        Errno error = tree.Inodes.FindDirectory(request.NodeId, out DirectoryInode directory);
        if (error.IsError) { return error; }
        int descriptor;
        using (tree.RenameLock.Share())
        {
            if (directory.Upper is not { } upper) { return Failed(); } // the directory is not in upper: there is nothing to sync
            error = tree.Objects.Of(upper, Libc.Self, out RealReference real);
            if (error.IsError) { return error; }
            using (real) { error = real.Open(OpenFlags.ReadOnly | OpenFlags.Directory, out descriptor); }
            if (error.IsError) { return error; }
        }
        error = SyncDescriptor(descriptor, input.DataOnly);
        Libc.Close(descriptor);
        return error;
    }
}
