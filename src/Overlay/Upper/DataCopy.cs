using System.Runtime.InteropServices;
using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>
/// Copies the data of lower files: by shared blocks where the filesystems can, else in the kernel, else through memory. Holes
/// stay holes.
/// </summary>
/// <param name="tree">The tree of the overlay.</param>
internal sealed unsafe class DataCopy(ObjectTree tree)
{
    /// <summary>How many bytes are copied at once through memory.</summary>
    private const int Chunk = 1 << 20;

    /// <summary>How many bytes are copied at once in the kernel.</summary>
    private const long KernelChunk = 8 << 20;

    /// <summary>Whether upper can share blocks with the lowers. It is assumed until an attempt fails.</summary>
    private bool mayShareBlocks = true;

    private long bytes;

    /// <summary>How many bytes of data were copied.</summary>
    public long Bytes => Interlocked.Read(ref bytes);

    /// <summary>The lower file that has the data of a file.</summary>
    /// <param name="inode">The file.</param>
    public static RealName SourceOf(Inode inode) => inode.Metacopy ?? new RealName(inode.LowerDirectory!, inode.LowerName.ToArray());

    /// <summary>Copies the first <paramref name="size"/> bytes of a file.</summary>
    /// <param name="inode">The file.</param>
    /// <param name="copy">A descriptor of the copy, which has no data.</param>
    /// <param name="size">How many bytes.</param>
    /// <param name="mayHaveHoles">Whether to look for holes.</param>
    /// <param name="request">The request that waits for the copy.</param>
    /// <returns><see cref="Errno.EINTR"/> when the caller of the request was killed.</returns>
    public Errno Run(Inode inode, int copy, long size, bool mayHaveHoles, in Request request)
    {
        if (size == 0) { return Errno.None; }
        RealName data = SourceOf(inode);
        Errno error = tree.Objects.Of(data.Directory, data.Name, out RealReference source);
        if (error.IsError) { return error; }
        int original;
        using (source) { error = source.OpenData(OpenFlags.ReadOnly, out original); }
        if (error.IsError) { return error; }
        error = ShareOrCopy(original, copy, size, mayHaveHoles, request);
        if (!error.IsError) { Interlocked.Add(ref bytes, size); }
        Libc.Close(original);
        return error;
    }

    /// <summary>Lets the copy share the blocks of the lower file, or copies them.</summary>
    private Errno ShareOrCopy(int source, int target, long size, bool mayHaveHoles, in Request request)
    {
        Errno shared = Volatile.Read(ref mayShareBlocks) ? Libc.Clone(target, source) : Errno.EOPNOTSUPP;
        if (shared is Errno.EOPNOTSUPP or Errno.ENOTTY or Errno.EXDEV) { Volatile.Write(ref mayShareBlocks, false); }
        if (shared.IsError) { return Copy(source, target, size, mayHaveHoles, request); }
        Errno error = Libc.StatAt(target, Libc.Self, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error; }
        return (long)stat.Size > size ? Libc.Truncate(target, size) : Errno.None;
    }

    /// <summary>Copies data in the kernel, or through memory if the kernel cannot. What is not data becomes a hole.</summary>
    private static Errno Copy(int source, int target, long size, bool mayHaveHoles, in Request request)
    {
        bool inKernel = true;
        void* buffer = null;
        try
        {
            long at = 0;
            while (at < size)
            {
                long data = at;
                Errno error = mayHaveHoles ? Libc.Seek(source, at, SeekWhence.Data, out data) : Errno.EINVAL;
                if (error == Errno.ENXIO) { break; } // only a hole is left
                if (error.IsError) { data = at; } // the filesystem does not know of holes: all is data
                if (data >= size) { break; }
                long end = size;
                if (!error.IsError && !Libc.Seek(source, data, SeekWhence.Hole, out long hole).IsError)
                {
                    end = Math.Min(hole, size);
                }
                at = data;
                while (at < end)
                {
                    if (request.IsCallerDead) { return Errno.EINTR; }
                    if (inKernel)
                    {
                        long from = at, to = at;
                        error = Libc.CopyFileRange(source, ref from, target, ref to, Math.Min(end - at, KernelChunk), out long copied);
                        if (!error.IsError && copied > 0)
                        {
                            at += copied;
                            continue;
                        }
                        if (error is Errno.ENOSPC or Errno.EDQUOT or Errno.EIO or Errno.EFBIG) { return error; }
                        inKernel = false; // EXDEV, EOPNOTSUPP, EINVAL, or nothing copied: read and write show any other error
                    }
                    if (buffer == null) { buffer = NativeMemory.Alloc(Chunk); }
                    error = CopyChunk(source, target, at, new Span<byte>(buffer, (int)Math.Min(end - at, Chunk)), out int count);
                    if (error.IsError) { return error; }
                    if (count == 0) { return Errno.EIO; } // the lower file became shorter, though layers must not change while mounted
                    at += count;
                }
            }
            return at < size || mayHaveHoles ? Libc.Truncate(target, size) : Errno.None;
        }
        finally
        {
            NativeMemory.Free(buffer);
        }
    }

    private static Errno CopyChunk(int source, int target, long at, Span<byte> buffer, out int count)
    {
        Errno error = Libc.ReadAt(source, buffer, at, out count);
        for (int written = 0; !error.IsError && written < count;)
        {
            error = Libc.WriteAt(target, buffer[written..count], at + written, out int step);
            if (!error.IsError && step == 0) { return Errno.EIO; }
            written += step;
        }
        return error;
    }
}
