using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>Content that goes from a file into a reply without being copied to us.</summary>
public sealed class ReplyPipeTests : IDisposable
{
    private static readonly int header = Unsafe.SizeOf<OutHeader>();

    private readonly string path = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());
    private readonly byte[] content = new byte[150_000];
    private readonly byte[] message = new byte[1 << 20];
    private readonly ReplyPipe pipe = ReplyPipe.Make()!;
    private readonly Fd file;

    public ReplyPipeTests()
    {
        new Random(1).NextBytes(content);
        File.WriteAllBytes(path, content);
        Assert.Equal(Errno.None,
            Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.ReadOnly, 0, ResolveFlags.None, out int descriptor));
        file = new Fd(descriptor);
    }

    public void Dispose()
    {
        file.Dispose();
        pipe.Dispose();
        File.Delete(path);
    }

    [Theory]
    [InlineData(0, 4096)]
    [InlineData(0, 131_072)]
    [InlineData(1, 140_001)]
    [InlineData(4095, 4098)]
    public void It_sends_a_header_and_the_bytes_asked_for(int offset, int length)
    {
        Assert.Equal(Errno.None, Libc.Pipe(out int readEnd, out int writeEnd));
        using Fd received = new(readEnd);
        using (var target = new Device(new Fd(writeEnd)))
        {
            Assert.Equal(Errno.None, Libc.SetPipeRoom(writeEnd, 1 << 18));
            Assert.True(pipe.Fill(7, file.Value, offset, length, message, out int count));
            Assert.Equal(length, count);
            Assert.Equal(Errno.None, pipe.Send(target, header + length));
        }
        byte[] sent = new byte[header + length + 1];
        Assert.Equal(Errno.None, Libc.Read(received.Value, sent, out int arrived));
        Assert.Equal(header + length, arrived);
        Assert.Equal(new OutHeader { Length = (uint)(header + length), Unique = 7 }, MemoryMarshal.Read<OutHeader>(sent));
        Assert.Equal(content[offset..(offset + length)], sent[header..^1]);
    }

    [Fact]
    public void Where_the_file_ends_before_the_bytes_are_in_memory_and_the_pipe_serves_on()
    {
        Assert.False(pipe.Fill(7, file.Value, 140_000, 65_536, message, out int count));
        Assert.Equal(10_000, count);
        Assert.Equal(content[140_000..], message[header..(header + count)]);

        Assert.True(pipe.Fill(8, file.Value, 0, 65_536, message, out count));
        Assert.Equal(65_536, count);
    }

    [Fact]
    public void Nothing_is_taken_of_what_does_not_fit_or_cannot_be_read()
    {
        Assert.False(pipe.Fill(7, file.Value, 0, 1 << 18, message, out int count));
        Assert.Equal(0, count);
        Assert.False(pipe.Fill(7, -1, 0, 65_536, message, out count));
        Assert.Equal(0, count);
        Assert.True(pipe.Fill(8, file.Value, 0, 65_536, message, out _));
    }
}
