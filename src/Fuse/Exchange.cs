using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>One thread's exchange with the kernel: requests come in, replies go out.</summary>
/// <remarks>Requests and replies are outside the managed heap, so that the steady path allocates nothing.</remarks>
internal abstract unsafe class Exchange : IDisposable
{
    /// <summary>
    /// Room for the headers of a request in bytes. The kernel refuses a buffer without room for the largest WRITE and its
    /// headers, and one below 8 KiB (FUSE_MIN_READ_BUFFER).
    /// </summary>
    private const int HeaderRoom = 4096;

    /// <summary>
    /// The smallest buffer in bytes, even where writes are small: a READ has 32 pages unless MAX_PAGES is agreed on, an
    /// xattr 64 KiB.
    /// </summary>
    private static readonly int smallestBuffer = Math.Max(32 * Environment.SystemPageSize, 1 << 16);

    /// <summary>The size of the largest request or reply in bytes, headers included.</summary>
    protected static int BufferSize(int maxWrite) => Math.Max(maxWrite, smallestBuffer) + HeaderRoom;

    /// <summary>Makes the calling thread the one that receives.</summary>
    public virtual Errno Enter() => Errno.None;

    /// <summary>Waits for a request.</summary>
    /// <returns>
    /// <see cref="Errno.ENOENT"/>, <see cref="Errno.EINTR"/> and <see cref="Errno.EAGAIN"/>: there is no request yet.
    /// <see cref="Errno.EPROTO"/>: the message is too short for a header, so that nobody can be answered. Any other error:
    /// no more requests will come.
    /// </returns>
    public abstract Errno Receive();

    /// <summary>The header of the current request.</summary>
    public abstract ref readonly InHeader Header { get; }

    /// <summary>The result of the current request, once it is answered.</summary>
    public Outcome Outcome;

    /// <summary>Makes a reader of the current request.</summary>
    /// <returns>False when the request's lengths contradict each other.</returns>
    public abstract bool TryRead(out RequestReader reader);

    /// <summary>The memory for a reply's content. It may overlap the names and the data of the request.</summary>
    public abstract Span<byte> Payload { get; }

    /// <summary>The beginning of <see cref="Payload"/>: as many bytes as the request asks for, or all that there are.</summary>
    public Span<byte> PayloadOf(uint asked) => Payload[..(int)Math.Min(asked, (uint)Payload.Length)];

    /// <summary>Tries to splice a file's pages into the reply, past <see cref="Payload"/>.</summary>
    /// <param name="file">An open file.</param>
    /// <param name="offset">The offset of the content in the file, in bytes.</param>
    /// <param name="length">The length of the content in bytes.</param>
    /// <param name="count">
    /// The bytes that are in the reply already: all of them, or those at the beginning of <see cref="Payload"/>.
    /// </param>
    /// <returns>Whether the whole content is in the reply. If not, the rest must go into <see cref="Payload"/>.</returns>
    public virtual bool TryTake(int file, long offset, int length, out int count)
    {
        count = 0;
        return false;
    }

    /// <summary>Answers a request in place of the thread that serves it. That thread's own answer then finds nobody.</summary>
    /// <remarks>Called by a thread other than the one that serves.</remarks>
    /// <returns>
    /// <see cref="Errno.EOPNOTSUPP"/> for a request that came over a ring: only the ring's own thread can answer it.
    /// <see cref="Errno.ENOENT"/> when the serving thread was faster.
    /// </returns>
    public virtual Errno AnswerFor(ulong unique, Errno error) => Errno.EOPNOTSUPP;

    /// <summary>Sends the reply, with as much of <see cref="Payload"/> as the header's length says.</summary>
    /// <returns>An error when the kernel did not get the reply.</returns>
    public abstract Errno Send(in OutHeader header);

    /// <inheritdoc/>
    public abstract void Dispose();
}
