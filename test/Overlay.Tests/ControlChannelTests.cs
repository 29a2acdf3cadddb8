using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using Veneer.Fuse;
using Veneer.Fuse.Tests;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Control;

namespace Veneer.Overlay.Tests;

/// <summary>The channel by which tools talk to a live mount: paging, permission, and whatever else may come.</summary>
public sealed class ControlChannelTests : IDisposable
{
    private const uint Mounter = 1000; // as which FakeKernel asks

    private readonly Interruption interruption = new();
    private readonly ControlChannel channel;
    private InHeader header = new() { Uid = Mounter };
    private string answer = "short";
    private string asked = "";

    public ControlChannelTests() => channel = new ControlChannel(Mounter, Answer);

    public void Dispose() => overlay?.Dispose();

    private Errno Answer(in Request request, Query query, ReadOnlySpan<byte> argument, Utf8JsonWriter document)
    {
        if (query != Query.Stats) { return Errno.EOPNOTSUPP; }
        asked += Encoding.UTF8.GetString(argument) + ";";
        document.WriteStringValue(answer);
        return Errno.None;
    }

    private Errno Send(in ControlMessage message, out ControlMessage reply) => SendRaw(Bytes.Of(message), out reply);

    private Errno SendRaw(byte[] message, out ControlMessage reply)
    {
        byte[] output = new byte[Unsafe.SizeOf<ControlMessage>()];
        Errno error = channel.Serve(new Request(header, interruption), message, output, out int length);
        reply = MemoryMarshal.Read<ControlMessage>(output);
        Assert.Equal(error.IsError ? 0 : ControlMessage.HeaderSize + (int)reply.Length, length);
        return error;
    }

    private static string TextOf(in ControlMessage reply)
    {
        ReadOnlySpan<byte> bytes = reply.Bytes;
        return Encoding.UTF8.GetString(bytes[..(int)reply.Length]);
    }

    [Fact]
    public void The_structure_is_as_documented()
    {
        Assert.Equal(8192, Unsafe.SizeOf<ControlMessage>());
        byte[] bytes = [.. Enumerable.Range(0, 8192).Select(place => (byte)place)];
        ControlMessage message = MemoryMarshal.Read<ControlMessage>(bytes);
        Assert.Equal((0x03020100u, 0x07060504u, (Query)0x0B0A0908u, 0x0F0E0D0Cu),
            (message.Magic, message.Version, message.Query, message.Length));
        Assert.Equal(0x1716151413121110ul, message.Document);
        Assert.Equal(0x1F1E1D1C1B1A1918ul, message.Offset);
        Assert.Equal(0x2726252423222120ul, message.Total);
        Assert.Equal(0x2F2E2D2C2B2A2928ul, message.Reserved);
        Assert.Equal((0x30, 8144), (message.Bytes[0], ControlMessage.MaxLength));
        Assert.Equal((3u << 30) | (8192u << 16) | ('V' << 8) | 1u, ControlMessage.Request);
    }

    [Fact]
    public void A_short_answer_comes_whole_and_is_not_kept()
    {
        Assert.Equal(Errno.None, Send(new ControlMessage(Query.Stats, "what"u8), out ControlMessage reply));

        Assert.Equal("\"short\"", TextOf(reply));
        Assert.Equal((0ul, 0ul, 7ul), (reply.Document, reply.Offset, reply.Total));
        Assert.Equal("what;", asked);
    }

    [Theory]
    [InlineData(ControlMessage.MaxLength)]
    [InlineData(ControlMessage.MaxLength + 1)]
    [InlineData((2 * ControlMessage.MaxLength) - 1)]
    [InlineData(100_000)]
    public void A_long_answer_comes_in_parts_of_one_document(int length)
    {
        answer = new string('x', length - 3) + "y"; // with its quotes
        var text = new StringBuilder();
        var message = new ControlMessage(Query.Stats, default);
        int parts = 0;
        do
        {
            Assert.Equal(Errno.None, Send(message, out ControlMessage reply));
            Assert.Equal((ulong)text.Length, reply.Offset);
            Assert.Equal((ulong)length, reply.Total);
            text.Append(TextOf(reply));
            answer = "something else by now";
            message = new ControlMessage(Query.Stats, default) { Document = reply.Document, Offset = (ulong)text.Length };
            parts++;
        }
        while (message.Document != 0);

        Assert.Equal($"\"{new string('x', length - 3)}y\"", text.ToString());
        Assert.Equal((length + ControlMessage.MaxLength - 1) / ControlMessage.MaxLength, parts);
        Assert.Equal(";", asked);
    }

    [Fact]
    public void An_answer_goes_when_it_has_been_read()
    {
        answer = new string('x', 10_000);
        Send(new ControlMessage(Query.Stats, default), out ControlMessage first);
        var next = new ControlMessage(Query.Stats, default) { Document = first.Document, Offset = first.Length };
        Assert.Equal(Errno.None, Send(next, out ControlMessage last));
        Assert.Equal(0ul, last.Document);

        Assert.Equal(Errno.ESTALE, Send(next, out _));
    }

    [Fact]
    public void Only_so_many_answers_are_kept_and_the_oldest_goes_first()
    {
        answer = new string('x', 10_000);
        var ids = new List<ulong>();
        for (int i = 0; i <= ControlChannel.MaxDocuments; i++)
        {
            Send(new ControlMessage(Query.Stats, default), out ControlMessage first);
            ids.Add(first.Document);
        }

        Assert.Distinct(ids);
        Assert.Equal(Errno.ESTALE, Send(new ControlMessage(Query.Stats, default) { Document = ids[0] }, out _));
        foreach (ulong id in ids.Skip(1))
        {
            Assert.Equal(Errno.None, Send(new ControlMessage(Query.Stats, default) { Document = id }, out _));
        }
    }

    [Fact]
    public void Only_so_many_bytes_are_kept()
    {
        answer = new string('x', (ControlChannel.MaxBytes / 2) - 2); // with its quotes, two fill the room
        Send(new ControlMessage(Query.Stats, default), out ControlMessage one);
        Send(new ControlMessage(Query.Stats, default), out ControlMessage two);
        Assert.Equal(Errno.None, Send(new ControlMessage(Query.Stats, default) { Document = one.Document }, out _));
        Send(new ControlMessage(Query.Stats, default), out ControlMessage three);

        Assert.Equal(Errno.ESTALE, Send(new ControlMessage(Query.Stats, default) { Document = one.Document }, out _));
        Assert.Equal(Errno.None, Send(new ControlMessage(Query.Stats, default) { Document = two.Document }, out _));
        Assert.Equal(Errno.None, Send(new ControlMessage(Query.Stats, default) { Document = three.Document }, out _));

        answer = new string('x', ControlChannel.MaxBytes);
        Assert.Equal(Errno.EFBIG, Send(new ControlMessage(Query.Stats, default), out _));
        Assert.Equal(Errno.None, Send(new ControlMessage(Query.Stats, default) { Document = three.Document }, out _));
    }

    [Fact]
    public void Only_root_and_the_mounter_may_ask()
    {
        (uint, Errno)[] users = [(0, Errno.None), (Mounter, Errno.None), (Mounter + 1, Errno.EPERM), (uint.MaxValue, Errno.EPERM)];
        foreach ((uint uid, Errno expected) in users)
        {
            header.Uid = uid;
            Assert.Equal(expected, Send(new ControlMessage(Query.Stats, default), out _));
            Assert.Equal(expected.IsError ? Errno.EPERM : Errno.EOPNOTSUPP, Send(new ControlMessage((Query)99, default), out _));
        }
        Assert.Equal(";;", asked);
    }

    [Fact]
    public void Nor_may_others_read_on()
    {
        answer = new string('x', 10_000);
        Send(new ControlMessage(Query.Stats, default), out ControlMessage first);
        header.Uid = Mounter + 1;

        Assert.Equal(Errno.EPERM, Send(new ControlMessage(Query.Stats, default) { Document = first.Document }, out _));
    }

    [Fact]
    public void What_is_malformed_is_refused()
    {
        var good = new ControlMessage(Query.Stats, default);
        foreach (ControlMessage bad in new[]
        {
            good with { Magic = 0 },
            good with { Version = 0 },
            good with { Version = ControlMessage.CurrentVersion + 1 },
            good with { Length = ControlMessage.MaxLength + 1 },
            good with { Length = uint.MaxValue },
            good with { Offset = 1 },
            good with { Reserved = 1 },
        })
        {
            Assert.Equal(Errno.EINVAL, Send(bad, out _));
        }
        Assert.Equal(Errno.EOPNOTSUPP, Send(good with { Query = Query.None }, out _));
        Assert.Equal(Errno.ESTALE, Send(good with { Document = 1 }, out _));
        byte[] whole = Bytes.Of(good);
        foreach (int length in new[] { 0, 1, 47, 48, 8191 }) { Assert.Equal(Errno.EINVAL, SendRaw(whole[..length], out _)); }
        Assert.Equal(Errno.EINVAL, SendRaw([.. whole, 0], out _));
        Assert.Equal("", asked);

        answer = new string('x', 10_000);
        Send(good, out ControlMessage first);
        foreach (ulong offset in new[] { 10_003ul, ulong.MaxValue, 1ul << 63, 1ul << 32 })
        {
            Assert.Equal(Errno.EINVAL, Send(good with { Document = first.Document, Offset = offset }, out _));
        }
    }

    // The same through a server, over a filesystem that is one.

    private OverlayMount? overlay;

    private FakeKernel Serve(DirectoryInfo lower)
    {
        overlay = OverlayMount.Open(Unmounted.Over(lower.FullName), static _ => { });
        return FakeKernel.Start(overlay.FileSystem, new ServerOptions { Threads = 1, MaxWrite = 1 << 16 });
    }

    private static Answer Ioctl(FakeKernel kernel, uint uid, uint command, byte[] argument, uint outSize = 8192)
    {
        var input = new IoctlIn { Flags = IoctlFlags.Directory, Command = command, InSize = (uint)argument.Length, OutSize = outSize };
        ulong unique = kernel.NextUnique();
        byte[] packet = FakeKernel.Packet(unique, Opcode.Ioctl, 1, Bytes.Of(input), argument);
        MemoryMarshal.AsRef<InHeader>(packet.AsSpan()).Uid = uid;
        kernel.SendRaw(packet);
        return kernel.Receive(unique);
    }

    [Fact]
    public void A_server_answers()
    {
        DirectoryInfo scratch = Directory.CreateTempSubdirectory("veneer-control-");
        try
        {
            using FakeKernel kernel = Serve(scratch);
            byte[] question = Bytes.Of(new ControlMessage(Query.Stats, default));

            Answer good = Ioctl(kernel, 0, ControlMessage.Request, question);
            Assert.Equal(Errno.None, good.Error);
            byte[] whole = new byte[8192];
            good.Body.AsSpan(Unsafe.SizeOf<IoctlOut>()).CopyTo(whole);
            ControlMessage reply = MemoryMarshal.Read<ControlMessage>(whole);
            Assert.Equal(reply.Total, reply.Length);
            using JsonDocument document = JsonDocument.Parse(TextOf(reply));
            Assert.Equal(JsonValueKind.Object, document.RootElement.ValueKind);

            Assert.Equal(Libc.EffectiveUid == 1234 ? Errno.None : Errno.EPERM, Ioctl(kernel, 1234, ControlMessage.Request, question).Error);
            Assert.Equal(Errno.EINVAL, Ioctl(kernel, 0, ControlMessage.Request, question[..100]).Error);
            Assert.Equal(Errno.EINVAL, Ioctl(kernel, 0, ControlMessage.Request, question, outSize: 100).Error);
            Assert.Equal(Errno.EOPNOTSUPP,
                Ioctl(kernel, 0, ControlMessage.Request, Bytes.Of(new ControlMessage((Query)uint.MaxValue, default))).Error);
            Assert.Equal(Errno.EINVAL,
                Ioctl(kernel, 0, ControlMessage.Request, Bytes.Of(new ControlMessage(Query.Stats, "argument"u8))).Error);
            Assert.Equal(Errno.ENOTTY, Ioctl(kernel, 0, ControlMessage.Request + 1, question).Error);
            Assert.Equal(Errno.ENOTTY, Ioctl(kernel, 1234, 0x5401, [], 0).Error);
            Assert.Empty(kernel.Logged);
        }
        finally
        {
            scratch.Delete(recursive: true);
        }
    }

    [Theory]
    [InlineData("", true)]
    [InlineData("/", true)]
    [InlineData("/directory/file", true)]
    [InlineData("/directory/", true)]
    [InlineData("/nothing", true)]
    [InlineData("/..file", true)]
    [InlineData("directory", false)]
    [InlineData("//", false)]
    [InlineData("//directory", false)]
    [InlineData("/directory//file", false)]
    [InlineData("/./directory", false)]
    [InlineData("/directory/..", false)]
    [InlineData("/directory\0file", false)]
    public void A_path_of_an_object_is_names_after_a_slash_each(string path, bool isTaken)
    {
        DirectoryInfo scratch = Directory.CreateTempSubdirectory("veneer-control-");
        try
        {
            File.WriteAllText(Path.Combine(scratch.CreateSubdirectory("directory").FullName, "file"), "");
            using FakeKernel kernel = Serve(scratch);

            byte[] question = Bytes.Of(new ControlMessage(Query.Layers, Encoding.UTF8.GetBytes(path)));
            Errno error = Ioctl(kernel, 0, ControlMessage.Request, question).Error;

            Assert.Equal(isTaken ? Errno.None : Errno.EINVAL, error);
        }
        finally
        {
            scratch.Delete(recursive: true);
        }
    }
}
