using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>How entries are packed into the answer to READDIR and READDIRPLUS.</summary>
public sealed class ReadDirTests
{
    private static readonly ServerOptions oneThread = new() { Threads = 1, MaxWrite = 1 << 16 };

    /// <summary>Names of 1 to 17 bytes: every padding twice.</summary>
    private static readonly byte[][] names =
        [.. Enumerable.Range(1, 17).Select(length => Bytes.Of(new string((char)('a' + length), length)))];

    private sealed record Entry(string Name, ulong Ino, ulong Next, uint Type, ulong NodeId);

    /// <summary>Takes an answer apart as the kernel does, and checks that padding is zero.</summary>
    private static List<Entry> Parse(byte[] body, bool plus)
    {
        var entries = new List<Entry>();
        ReadOnlySpan<byte> rest = body;
        while (rest.Length > 0)
        {
            ulong nodeId = 0;
            int at = 0;
            if (plus)
            {
                EntryOut entry = MemoryMarshal.Read<EntryOut>(rest);
                nodeId = entry.NodeId;
                Assert.Equal(TestFileSystem.Entry.Attr, entry.Attr);
                at = 128;
            }
            var ino = MemoryMarshal.Read<ulong>(rest[at..]);
            var next = MemoryMarshal.Read<ulong>(rest[(at + 8)..]);
            int length = MemoryMarshal.Read<int>(rest[(at + 16)..]);
            uint type = MemoryMarshal.Read<uint>(rest[(at + 20)..]);
            string name = Bytes.Text(rest.Slice(at + 24, length));
            int end = (at + 24 + length + 7) / 8 * 8;
            Assert.True(rest[(at + 24 + length)..end].IndexOfAnyExcept((byte)0) < 0, $"The padding after {name} is not empty");
            entries.Add(new Entry(name, ino, next, type, nodeId));
            rest = rest[end..];
        }
        return entries;
    }

    private static Answer Read(FakeKernel kernel, bool plus, uint size, ulong offset) =>
        kernel.Call(plus ? Opcode.ReadDirPlus : Opcode.ReadDir, 1, Bytes.Of(new ReadIn { Size = size, Offset = offset }));

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Entries_are_padded_to_eight_bytes_with_zeros(bool plus)
    {
        using var kernel =
            FakeKernel.Start(new TestFileSystem { Names = names, Content = [.. Enumerable.Repeat((byte)0xFF, 60_000)] }, oneThread);
        kernel.Call(Opcode.Read, 1, Bytes.Of(new ReadIn { Size = 60_000 })); // leaves its bytes in the server's buffer

        List<Entry> entries = Parse(Read(kernel, plus, 60_000, 0).Body, plus);

        Assert.Equal(
            names.Select((name, i) => new Entry(Bytes.Text(name), (ulong)i + 1000, (ulong)i + 1, 8, plus ? (ulong)i + 100 : 0)),
            entries);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_listing_continues_where_the_answer_was_full_at_every_size(bool plus)
    {
        using var kernel = FakeKernel.Start(new TestFileSystem { Names = names }, oneThread);
        int largest = (plus ? 128 : 0) + 24 + 24;
        for (uint size = (uint)largest; size < 3 * largest; size++)
        {
            var found = new List<string>();
            ulong offset = 0;
            while (true)
            {
                byte[] body = Read(kernel, plus, size, offset).Body;
                Assert.InRange(body.Length, 0, (int)size);
                List<Entry> entries = Parse(body, plus);
                if (entries.Count == 0) { break; }
                found.AddRange(entries.Select(entry => entry.Name));
                offset = entries[^1].Next;
            }
            Assert.Equal(names.Select(name => Bytes.Text(name)), found);
        }
    }

    [Theory]
    [InlineData(false, 31)]
    [InlineData(true, 159)]
    public void An_entry_that_does_not_fit_is_not_cut(bool plus, uint size)
    {
        using var kernel = FakeKernel.Start(new TestFileSystem { Names = names }, oneThread);

        Assert.Empty(Read(kernel, plus, size, 0).Body);
        Assert.Single(Parse(Read(kernel, plus, size + 1, 0).Body, plus));
        Assert.Empty(Read(kernel, plus, 0, 0).Body);
    }

    [Fact]
    public void A_name_need_not_be_text()
    {
        byte[] name = [0xFF, 0xFE, (byte)'\n', 1];
        using var kernel = FakeKernel.Start(new TestFileSystem { Names = [name] }, oneThread);

        Assert.Equal(Bytes.Text(name), Assert.Single(Parse(Read(kernel, plus: true, 4096, 0).Body, plus: true)).Name);
    }

    [Fact]
    public void What_was_lent_in_an_answer_that_nobody_got_is_taken_back()
    {
        FakeKernel? kernel = null;
        var fileSystem = new TestFileSystem { Names = names };
        fileSystem.Script = call =>
        {
            if (call.Method == "ReadDirPlus") { kernel!.Disconnect(); }
            return Errno.None;
        };
        using (kernel = FakeKernel.Start(fileSystem, oneThread))
        {
            kernel.Send(Opcode.ReadDirPlus, 1, Bytes.Of(new ReadIn { Size = 60_000 }));
            Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref fileSystem.Stops) == 1, 10_000));
        }
        Assert.Equal(
            names.Select((_, i) => ((ulong)i + 100, 1UL)),
            fileSystem.Calls.Where(call => call.Method == "Forget").Select(call => (call.NodeId, (ulong)call.Input!)));
    }
}
