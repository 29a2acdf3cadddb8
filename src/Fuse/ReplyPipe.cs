using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>Moves a file's pages into a reply past our memory: they are copied once, within the kernel.</summary>
/// <remarks>Serves one thread and holds one reply at a time. See splice(2).</remarks>
internal sealed class ReplyPipe : IDisposable
{
    /// <summary>
    /// The size of the pipe in bytes: enough for the largest read-ahead of a caller, 128 KiB. A user has 64 MiB for all
    /// pipes (pipe(7), pipe-user-pages-soft).
    /// </summary>
    private const int Room = 1 << 18;

    /// <summary>
    /// The most bytes that are sure to fit: the header has a page of its own, and the content may begin within one.
    /// </summary>
    private static readonly int most = Room - (2 * Environment.SystemPageSize);

    private readonly Fd readEnd;
    private readonly Fd writeEnd;

    private ReplyPipe(int readEnd, int writeEnd)
    {
        this.readEnd = new Fd(readEnd);
        this.writeEnd = new Fd(writeEnd);
    }

    /// <summary>Makes a pipe. Null where the system's limits do not allow it.</summary>
    public static ReplyPipe? Make()
    {
        if (Libc.Pipe(out int readEnd, out int writeEnd).IsError) { return null; }
        var pipe = new ReplyPipe(readEnd, writeEnd);
        if (!Libc.SetPipeRoom(writeEnd, Room).IsError) { return pipe; }
        pipe.Dispose();
        return null;
    }

    /// <summary>Fills the pipe with a reply that holds the pages of a file, if the file has all of them.</summary>
    /// <param name="unique">The request to answer.</param>
    /// <param name="file">An open file.</param>
    /// <param name="offset">The offset of the content in the file, in bytes.</param>
    /// <param name="length">The length of the content in bytes.</param>
    /// <param name="message">Room for a header and the content.</param>
    /// <param name="count">
    /// The bytes of content in the pipe; on failure, the bytes that were read already and are in the message after its
    /// header.
    /// </param>
    /// <returns>
    /// Whether the reply is in the pipe. False when the file ends earlier, cannot be spliced, or failed. The pipe is empty
    /// then, since its header announced more.
    /// </returns>
    public bool Fill(ulong unique, int file, long offset, int length, Span<byte> message, out int count)
    {
        count = 0;
        int header = Unsafe.SizeOf<OutHeader>();
        if (length > most) { return false; }
        MemoryMarshal.Write(message, new OutHeader { Length = (uint)(header + length), Unique = unique });
        if (Libc.Write(writeEnd.Value, message[..header], out _).IsError) { return false; }
        while (count < length && !Libc.Splice(file, offset + count, writeEnd.Value, length - count, out int step).IsError && step > 0)
        {
            count += step;
        }
        if (count == length) { return true; }
        if (Libc.Read(readEnd.Value, message[..(header + count)], out int drained).IsError || drained < header + count)
        {
            throw new InvalidOperationException("A pipe gave less than was put into it.");
        }
        return false;
    }

    /// <summary>Sends the reply.</summary>
    /// <param name="device">The device that the request came from.</param>
    /// <param name="length">The length of header and content in bytes.</param>
    public Errno Send(Device device, int length) => Libc.Splice(readEnd.Value, -1, device.Descriptor, length, out _);

    /// <inheritdoc/>
    public void Dispose()
    {
        readEnd.Dispose();
        writeEnd.Dispose();
    }
}
