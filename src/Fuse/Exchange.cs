using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>One thread's side of the conversation with the kernel: a request comes in, its reply goes out.</summary>
/// <remarks>The memory of both is outside the managed heap, so that the steady path allocates nothing.</remarks>
internal abstract unsafe class Exchange : IDisposable
{
    /// <summary>The kernel insists on room for a WRITE plus headers, and on at least 8 KiB (FUSE_MIN_READ_BUFFER).</summary>
    private const int HeaderRoom = 4096;

    /// <summary>What may be large although writes are small: reads of 32 pages unless MAX_PAGES is agreed on, xattrs of 64 KiB.</summary>
    private static readonly int smallestBuffer = Math.Max(32 * Environment.SystemPageSize, 1 << 16);

    /// <summary>Bytes that one request or reply may need, all included.</summary>
    protected static int BufferSize(int maxWrite) => Math.Max(maxWrite, smallestBuffer) + HeaderRoom;

    /// <summary>The calling thread is the one that receives from now on.</summary>
    public virtual Errno Enter() => Errno.None;

    /// <summary>Waits for a request.</summary>
    /// <returns>
    /// <see cref="Errno.ENOENT"/>, <see cref="Errno.EINTR"/> and <see cref="Errno.EAGAIN"/>: there is none yet.
    /// <see cref="Errno.EPROTO"/>: what came is too short to be one, so that there is nobody to answer.
    /// Any other error: there will be none.
    /// </returns>
    public abstract Errno Receive();

    /// <summary>The header of the request received.</summary>
    public abstract ref readonly InHeader Header { get; }

    /// <summary>How the request received ended, once it was answered.</summary>
    public Outcome Outcome;

    /// <summary>Takes the request received apart.</summary>
    /// <returns>False when it contradicts itself.</returns>
    public abstract bool TryRead(out RequestReader reader);

    /// <summary>Where a reply's content goes. It may lie over the names and the data of the request.</summary>
    public abstract Span<byte> Payload { get; }

    /// <summary>Room for what was asked for, as far as there is.</summary>
    public Span<byte> PayloadOf(uint asked) => Payload[..(int)Math.Min(asked, (uint)Payload.Length)];

    /// <summary>Tries to take content from a file's pages, so that it need not go through <see cref="Payload"/>.</summary>
    /// <param name="file">An open file.</param>
    /// <param name="offset">Where it begins, in bytes.</param>
    /// <param name="length">How many bytes.</param>
    /// <param name="count">How many are in the reply already: all of them, or as many as are in the payload.</param>
    /// <returns>Whether all of them are in the reply. Otherwise the rest, if there is more, must go into the payload.</returns>
    public virtual bool TryTake(int file, long offset, int length, out int count)
    {
        count = 0;
        return false;
    }

    /// <summary>Answers a request in the place of the thread that serves it. What that answers later finds nobody.</summary>
    /// <remarks>For another thread than the one that serves.</remarks>
    /// <returns>False for a request that came over a ring: only the thread of that can answer it.</returns>
    public virtual bool AnswerFor(ulong unique, Errno error) => false;

    /// <summary>Sends the reply, with as much of <see cref="Payload"/> as the header's length says.</summary>
    /// <returns>An error: the kernel has not got it.</returns>
    public abstract Errno Send(in OutHeader header);

    /// <inheritdoc/>
    public abstract void Dispose();
}
