using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>Fills the reply to READ.</summary>
public ref struct ContentWriter
{
    private readonly Exchange? exchange;
    private readonly Span<byte> buffer;

    internal ContentWriter(Span<byte> buffer, Exchange? exchange = null)
    {
        this.buffer = buffer;
        this.exchange = exchange;
    }

    /// <summary>The bytes of content so far.</summary>
    public int Used { get; private set; }

    /// <summary>Adds content, up to the length that the request asks for.</summary>
    public void Add(ReadOnlySpan<byte> content)
    {
        content = content[..Math.Min(content.Length, buffer.Length - Used)];
        content.CopyTo(buffer[Used..]);
        Used += content.Length;
    }

    /// <summary>Makes the content of a file the reply, up to the length that the request asks for.</summary>
    /// <remarks>
    /// The kernel takes fewer bytes than it asked for as the end of the file, and fills its pages with zeros. A short read
    /// or an error on the way must not look like that.
    /// </remarks>
    /// <param name="file">An open file.</param>
    /// <param name="offset">The offset of the content in the file, in bytes.</param>
    public Errno TakeFrom(int file, long offset)
    {
        int count = 0;
        if (exchange is null || !exchange.TryTake(file, offset, buffer.Length, out count))
        {
            while (count < buffer.Length)
            {
                Errno error = Libc.ReadAt(file, buffer[count..], offset + count, out int step);
                if (error.IsError) { return error; }
                if (step == 0) { break; }
                count += step;
            }
        }
        Used = count;
        return Errno.None;
    }
}
