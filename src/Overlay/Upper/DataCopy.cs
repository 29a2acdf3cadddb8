using System.Runtime.InteropServices;
using Veneer.Fuse;
using Veneer.Linux;

namespace Veneer.Overlay.Upper;

/// <summary>Copies the data of a file: shared blocks where the filesystem can, else in the kernel, else through memory. Holes stay holes.</summary>
internal static unsafe class DataCopy
{
    private const int Chunk = 1 << 20;
    private const long KernelChunk = 8 << 20;

    /// <summary>Copies the first <paramref name="size"/> bytes into an empty file.</summary>
    /// <param name="source">The lower file.</param>
    /// <param name="target">The copy.</param>
    /// <param name="size">How much.</param>
    /// <param name="mayHaveHoles">Whether holes are to be looked for.</param>
    /// <param name="mayShare">Whether sharing blocks is worth a try; set to false when the filesystems cannot.</param>
    /// <param name="request">Who waits.</param>
    /// <returns><see cref="Errno.EINTR"/> when whoever waits was killed.</returns>
    public static Errno Run(int source, int target, long size, bool mayHaveHoles, ref bool mayShare, in Request request)
    {
        Errno shared = mayShare ? Libc.Clone(target, source) : Errno.EOPNOTSUPP;
        if (shared is Errno.EOPNOTSUPP or Errno.ENOTTY or Errno.EXDEV) { mayShare = false; }
        if (!shared.IsError)
        {
            Errno shorter = Libc.StatAt(target, Libc.Self, StatxMask.Basic, out Statx stat);
            if (shorter.IsError) { return shorter; }
            return (long)stat.Size > size ? Libc.Truncate(target, size) : Errno.None;
        }
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
                if (error.IsError) { data = at; } // no support for holes: all is data
                if (data >= size) { break; }
                long end = size;
                if (!error.IsError && !Libc.Seek(source, data, SeekWhence.Hole, out long hole).IsError) { end = Math.Min(hole, size); }
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
                        inKernel = false; // EXDEV, EOPNOTSUPP, EINVAL, or nothing copied: the plain way tells
                    }
                    if (buffer == null) { buffer = NativeMemory.Alloc(Chunk); }
                    error = CopyChunk(source, target, at, new Span<byte>(buffer, (int)Math.Min(end - at, Chunk)), out int count);
                    if (error.IsError) { return error; }
                    if (count == 0) { return Errno.EIO; } // the lower file is shorter than it was: layers must not change while mounted
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
