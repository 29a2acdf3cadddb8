using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text.RegularExpressions;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>Every request reaches the right method with the right arguments, and its reply has the right bytes.</summary>
public sealed partial class DispatchTests
{
    private static readonly ServerOptions oneThread = new() { Threads = 1, MaxWrite = 1 << 16 };

    public static TheoryData<Opcode> Opcodes => [.. Requests.All.Select(sample => sample.Opcode)];

    public static TheoryData<Opcode> OpcodesWithResult =>
    [
        .. Requests.All
            .Where(sample => sample is { Expected: not null, Reply: not null, Opcode: not (Opcode.Release or Opcode.ReleaseDir) })
            .Select(sample => sample.Opcode),
    ];

    [Theory, MemberData(nameof(Opcodes))]
    public void A_well_formed_request_reaches_its_method_and_is_answered(Opcode opcode)
    {
        Sample sample = Requests.Of(opcode);
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, oneThread);
        ulong unique = kernel.NextUnique();

        kernel.SendRaw(sample.Packet(unique));
        if (sample.Reply is not null)
        {
            Answer answer = kernel.Receive();
            Assert.Equal((unique, Errno.None), (answer.Unique, answer.Error));
            Assert.Equal(sample.Reply, answer.Body);
        }
        else if (opcode == Opcode.Interrupt)
        {
            Answer answer = kernel.Receive(); // there is no such request
            Assert.Equal((unique, Errno.EAGAIN), (answer.Unique, answer.Error));
        }
        Call[] calls = [.. fileSystem.Calls];
        kernel.Settle();

        if (sample.Reply is null) { calls = [.. fileSystem.Calls.SkipLast(1)]; }
        Assert.Equal(sample.Expected is null ? [] : [sample.Expected], calls);
        Assert.Empty(kernel.Logged);
    }

    [Theory, MemberData(nameof(OpcodesWithResult))]
    public void An_error_is_answered_without_a_body(Opcode opcode)
    {
        var fileSystem = new TestFileSystem { Script = _ => Errno.EDQUOT };
        using var kernel = FakeKernel.Start(fileSystem, oneThread);

        kernel.SendRaw(Requests.Of(opcode).Packet(2));

        Answer answer = kernel.Receive();
        Assert.Equal(Errno.EDQUOT, answer.Error);
        Assert.Empty(answer.Body);
    }

    [Theory, MemberData(nameof(Opcodes))]
    public void A_request_that_ends_too_early_is_invalid_at_every_length(Opcode opcode)
    {
        Sample sample = Requests.Of(opcode);
        bool hasReply = opcode is not (Opcode.Forget or Opcode.BatchForget or Opcode.Interrupt);
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, oneThread);
        byte[] whole = sample.Packet(kernel.NextUnique());

        for (int length = 1; length < whole.Length; length++)
        {
            foreach (bool isConsistent in new[] { true, false })
            {
                byte[] packet = whole[..length];
                ulong unique = kernel.NextUnique();
                if (length >= 16) { MemoryMarshal.Write(packet.AsSpan(8), unique); }
                if (isConsistent && length >= 4) { MemoryMarshal.Write(packet, length); }
                kernel.SendRaw(packet);
                if (length >= Unsafe.SizeOf<InHeader>() && hasReply)
                {
                    Answer answer = kernel.Receive();
                    Assert.Equal((unique, Errno.EINVAL), (answer.Unique, answer.Error));
                    Assert.Empty(answer.Body);
                }
                kernel.Settle(); // and nothing else came
            }
        }
        Assert.DoesNotContain(fileSystem.Calls, call => call.Method != nameof(IFileSystem.StatFs) && call.Input is not 0UL);
        Assert.Empty(kernel.Logged);
    }

    [Fact]
    public void A_header_that_says_more_or_less_than_was_read_is_invalid()
    {
        using var kernel = FakeKernel.Start(new TestFileSystem(), oneThread);
        foreach (uint length in new uint[] { 0, 39, 40, 47, 49, uint.MaxValue })
        {
            byte[] packet = Requests.Of(Opcode.Access).Packet(kernel.NextUnique());
            MemoryMarshal.Write(packet, length);
            kernel.SendRaw(packet);
            Assert.Equal(Errno.EINVAL, kernel.Receive().Error);
        }
    }

    [Fact]
    public void What_is_not_served_is_said_to_be_missing()
    {
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, oneThread);

        Opcode[] unknown = [(Opcode)0, (Opcode)7, (Opcode)19, (Opcode)54, (Opcode)4096, (Opcode)uint.MaxValue];
        foreach (Opcode opcode in Requests.NotServed.Concat(unknown))
        {
            Answer answer = kernel.Call(opcode, 1, new byte[48]);
            Assert.Equal(Errno.ENOSYS, answer.Error);
            Assert.Empty(answer.Body);
        }
        Assert.Empty(fileSystem.Calls);
    }

    [Fact]
    public void Every_number_of_the_protocol_is_served_or_known_not_to_be()
    {
        Assert.Empty(Enum.GetValues<Opcode>()
            .Except(Requests.All.Select(sample => sample.Opcode)).Except(Requests.NotServed).Except([Opcode.Init]));
    }

    [Theory, MemberData(nameof(Opcodes))]
    public void A_method_that_throws_costs_its_request_only(Opcode opcode)
    {
        Sample sample = Requests.Of(opcode);
        if (sample.Expected is null) { return; }
        var fileSystem = new TestFileSystem
        {
            Script = call => call.NodeId == Sample.Node ? throw new InvalidOperationException("the reason") : Errno.None,
        };
        using var kernel = FakeKernel.Start(fileSystem, oneThread);
        ulong unique = kernel.NextUnique();

        kernel.SendRaw(sample.Packet(unique));

        if (sample.Reply is not null)
        {
            Answer answer = kernel.Receive();
            Assert.Equal((unique, Errno.EIO), (answer.Unique, answer.Error));
            Assert.Empty(answer.Body);
        }
        kernel.Settle();
        string line = Assert.Single(kernel.Logged);
        Assert.Contains("the reason", line, StringComparison.Ordinal);
        Assert.Contains(opcode.ToString(), line, StringComparison.Ordinal);
    }

    [Fact]
    public void Who_asks_is_in_the_header()
    {
        (ulong NodeId, uint Uid, uint Gid, uint Pid) seen = default;
        var fileSystem = new TestFileSystem
        {
            OnRequest = (in Request request) =>
                seen = (request.NodeId, request.Header.Uid, request.Header.Gid, request.Header.Pid),
        };
        using var kernel = FakeKernel.Start(fileSystem, oneThread);

        kernel.Call(Opcode.GetAttr, 5, Bytes.Of(new GetAttrIn()));

        Assert.Equal((5UL, 1000u, 100u, 4321u), seen);
    }

    [Fact]
    public void Names_are_bytes_of_any_value()
    {
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, oneThread);
        byte[] name = [.. Enumerable.Range(1, 255).Select(value => (byte)value).Where(value => value != '/')];

        Assert.Equal(Errno.None, kernel.Call(Opcode.Lookup, 1, [.. name, 0]).Error);
        Assert.Equal(Bytes.Text(name) + "\0", fileSystem.Last().Names);
        Assert.Equal(Errno.None, kernel.Call(Opcode.Rename2, 1, Bytes.Of(new Rename2In()), [0xFF, 0], [0xC3, 0x28, 0]).Error);
        Assert.Equal("\u00FF\0\u00C3(\0", fileSystem.Last().Names);
        byte[] longest = [.. Enumerable.Repeat((byte)'n', 1024), 0];
        Assert.Equal(Errno.None, kernel.Call(Opcode.Rename2, 1, Bytes.Of(new Rename2In()), longest, longest).Error);
        Assert.Equal(2050, fileSystem.Last().Names.Length);
    }

    [Theory]
    [InlineData(Opcode.Lookup)]
    [InlineData(Opcode.Unlink)]
    [InlineData(Opcode.RmDir)]
    [InlineData(Opcode.RemoveXattr)]
    public void An_empty_name_is_no_name(Opcode opcode)
    {
        // To the calls beneath it would be the directory itself.
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, oneThread);

        Assert.Equal(Errno.EINVAL, kernel.Call(opcode, 1, [0]).Error);
        Assert.Empty(fileSystem.Calls);
    }

    [Theory]
    [InlineData(Opcode.MkDir, "MkDir")]
    [InlineData(Opcode.Write, "Write")]
    [InlineData(Opcode.SetXattr, "SetXattr")]
    public void Extensions_at_the_end_are_skipped(Opcode opcode, string method)
    {
        Sample sample = Requests.Of(opcode);
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, oneThread);
        byte[] padding = new byte[(8 - sample.Body.Length % 8) % 8]; // the kernel aligns extensions
        byte[] packet = FakeKernel.Packet(2, opcode, Sample.Node, sample.Body, padding, [.. Enumerable.Repeat((byte)'x', 24)]);
        MemoryMarshal.Write(packet.AsSpan(36), (ushort)3);

        kernel.SendRaw(packet);

        Assert.Equal(Errno.None, kernel.Receive().Error);
        Assert.Equal(sample.Expected, fileSystem.Last());
        Assert.Equal(method, sample.Expected!.Method);
    }

    [Fact]
    public void Extensions_do_not_count_as_part_of_the_request()
    {
        using var kernel = FakeKernel.Start(new TestFileSystem(), oneThread);
        foreach (ushort units in new ushort[] { 1, 3, 4, 5, ushort.MaxValue })
        {
            // 48 + 8 bytes: with one unit the structure is cut, with more than seven the header is.
            byte[] packet = FakeKernel.Packet(kernel.NextUnique(), Opcode.SetAttr, 1, Bytes.Of(new SetAttrIn()));
            MemoryMarshal.Write(packet.AsSpan(36), units);
            kernel.SendRaw(packet);
            Assert.Equal(Errno.EINVAL, kernel.Receive().Error);
        }
    }

    [Fact]
    public void Forgets_have_no_answer_and_all_arrive()
    {
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, oneThread);

        kernel.Send(Opcode.Forget, 5, Bytes.Of(new ForgetIn { Lookups = 7 }));
        kernel.Send(Opcode.BatchForget, 0,
            Bytes.Of(new BatchForgetIn { Count = 3 }),
            Bytes.Of(new ForgetOne { NodeId = 6, Lookups = 1 }), Bytes.Of(new ForgetOne { NodeId = 7, Lookups = 2 }),
            Bytes.Of(new ForgetOne { NodeId = 8, Lookups = ulong.MaxValue }));
        kernel.Settle();

        Assert.Equal([(5UL, 7UL), (6UL, 1UL), (7UL, 2UL), (8UL, ulong.MaxValue)],
            fileSystem.Calls.Where(call => call.Method == "Forget").Select(call => (call.NodeId, (ulong)call.Input!)));
    }

    [Fact]
    public void A_batch_that_says_more_than_it_has_forgets_what_it_has()
    {
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, oneThread);

        kernel.Send(Opcode.BatchForget, 0, Bytes.Of(new BatchForgetIn { Count = uint.MaxValue }),
            Bytes.Of(new ForgetOne { NodeId = 6, Lookups = 1 }), new byte[15]);
        kernel.Settle();

        Assert.Equal(["Forget", "StatFs"], fileSystem.Calls.Select(call => call.Method));
    }

    [Fact]
    public void A_forget_that_fails_is_logged_and_still_has_no_answer()
    {
        var fileSystem = new TestFileSystem
        {
            Script = call => call.Method == "Forget" ? throw new InvalidOperationException("no such inode") : Errno.None,
        };
        using var kernel = FakeKernel.Start(fileSystem, oneThread);

        kernel.Send(Opcode.Forget, 5, Bytes.Of(new ForgetIn { Lookups = 7 }));
        kernel.Settle();

        Assert.Contains("no such inode", Assert.Single(kernel.Logged), StringComparison.Ordinal);
    }

    [Fact]
    public void The_size_of_an_attribute_is_told_when_there_is_no_room()
    {
        using var kernel = FakeKernel.Start(new TestFileSystem(), oneThread);
        byte[] name = Requests.Name("user.name");

        Assert.Equal(16u, kernel.Call(Opcode.GetXattr, 1, Bytes.Of(new GetXattrIn()), name).As<GetXattrOut>().Size);
        Assert.Equal(16u, kernel.Call(Opcode.ListXattr, 1, Bytes.Of(new GetXattrIn())).As<GetXattrOut>().Size);
        Assert.Equal(Errno.ERANGE, kernel.Call(Opcode.GetXattr, 1, Bytes.Of(new GetXattrIn { Size = 15 }), name).Error);
        Assert.Equal(Errno.ERANGE, kernel.Call(Opcode.ListXattr, 1, Bytes.Of(new GetXattrIn { Size = 15 })).Error);
        Assert.Equal(16, kernel.Call(Opcode.GetXattr, 1, Bytes.Of(new GetXattrIn { Size = 16 }), name).Body.Length);
        Assert.Equal(16, kernel.Call(Opcode.ListXattr, 1, Bytes.Of(new GetXattrIn { Size = uint.MaxValue })).Body.Length);
    }

    [Fact]
    public void A_size_that_was_asked_for_with_room_is_no_value()
    {
        // A filesystem that answers with a size but did not fill the buffer must not show old bytes.
        using var kernel =
            FakeKernel.Start(new TestFileSystem { Content = new byte[100], IsRecording = false, FillsNothing = true }, oneThread);

        Assert.Equal(Errno.ERANGE,
            kernel.Call(Opcode.GetXattr, 1, Bytes.Of(new GetXattrIn { Size = 50 }), Requests.Name("user.name")).Error);
    }

    [Fact]
    public void Small_writes_do_not_make_large_answers_impossible()
    {
        // The kernel bounds values by 64 KiB, ioctls by 16 KiB, and reads by 32 pages, whatever a write may have.
        byte[] content = new byte[1 << 16];
        new Random(1).NextBytes(content);
        using var kernel = FakeKernel.Start(new TestFileSystem { Content = content },
            new ServerOptions { Threads = 1, MaxWrite = Environment.SystemPageSize });

        Assert.Equal(content,
            kernel.Call(Opcode.GetXattr, 1, Bytes.Of(new GetXattrIn { Size = 1 << 16 }), Requests.Name("user.name")).Body);
        Assert.Equal(content, kernel.Call(Opcode.ListXattr, 1, Bytes.Of(new GetXattrIn { Size = 1 << 16 })).Body);
        Assert.Equal(content, kernel.Call(Opcode.Read, 1, Bytes.Of(new ReadIn { Size = (uint)(32 * Environment.SystemPageSize) })).Body);
        Assert.Equal(Errno.None, kernel.Call(Opcode.Ioctl, 1, Bytes.Of(new IoctlIn { OutSize = 16383 })).Error);
        Assert.Equal(Errno.None,
            kernel.Call(Opcode.ReadDirPlus, 1, Bytes.Of(new ReadIn { Size = (uint)(32 * Environment.SystemPageSize) })).Error);
        Assert.Equal(Errno.None,
            kernel.Call(Opcode.SetXattr, 1, Bytes.Of(new SetXattrIn { Size = 1 << 16 }), Requests.Name("user.name"), content).Error);
        Assert.Empty(kernel.Logged);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(16)]
    [InlineData(40)]
    public void The_largest_write_fits(int pages)
    {
        int size = pages * Environment.SystemPageSize;
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, new ServerOptions { Threads = 1, MaxWrite = size });

        Answer answer = kernel.Call(Opcode.Write, 1, Bytes.Of(new WriteIn { Size = (uint)size }), new byte[size]);

        Assert.Equal((uint)size, answer.As<WriteOut>().Size);
        Assert.Equal(size, fileSystem.Last().Data.Length);
    }

    [Fact]
    public void An_attribute_is_set_without_the_extension_too()
    {
        // Unless SETXATTR_EXT is in force (protocol 7.33), only the first half of the structure is sent.
        var fileSystem = new TestFileSystem { Wanted = ~InitFlags.SetXattrExt };
        using var kernel = FakeKernel.Start(fileSystem, oneThread);
        byte[] body =
            [.. Bytes.Of(new SetXattrIn { Size = 5, Flags = XattrFlags.Create })[..8], .. Requests.Name("user.name"), .. Bytes.Of("value")];

        Assert.Equal(Errno.None, kernel.Call(Opcode.SetXattr, Sample.Node, body).Error);

        Assert.Equal(new Call("SetXattr", Sample.Node, "user.name\0", new SetXattrIn { Size = 5, Flags = XattrFlags.Create }, "value"),
            fileSystem.Last());
        for (int length = 0; length < body.Length; length++)
        {
            Assert.Equal(Errno.EINVAL, kernel.Call(Opcode.SetXattr, 1, body[..length]).Error);
        }
    }

    [Fact]
    public void A_copy_of_before_7_45_is_cut_to_what_its_answer_can_tell()
    {
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, oneThread);
        byte[] body = Bytes.Of(new CopyFileRangeIn { Length = 5UL << 32 });

        Assert.Equal(0x7FFFF000u, kernel.Call(Opcode.CopyFileRange, 1, body).As<WriteOut>().Size);
        Assert.Equal(5UL << 32, kernel.Call(Opcode.CopyFileRange64, 1, body).As<CopyFileRangeOut>().Copied);
    }

    [GeneratedRegex(@"\d+ us$", RegexOptions.None, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Microseconds();

    [Fact]
    public void Each_request_is_traced_with_its_outcome_when_asked_for()
    {
        var lines = new System.Collections.Concurrent.ConcurrentQueue<string>();
        var fileSystem = new TestFileSystem { Script = call => call.Names.StartsWith('n') ? Errno.ENOENT : Errno.None };
        using var kernel = FakeKernel.Start(fileSystem, oneThread with { Trace = lines.Enqueue });
        lines.Clear();

        kernel.SendAs(10, Opcode.Lookup, 3, [.. Bytes.Of("n\u00FF \\"), 0]);
        kernel.Receive();
        kernel.SendAs(12, Opcode.Lookup, 3, Requests.Name("there"));
        kernel.Receive();

        kernel.SendAs(14, Opcode.Lookup, 3); // malformed: it has no name
        kernel.Receive();

        Assert.Equal(
            [
                @"10 Lookup node=3 n\xff\x20\x5c pid=4321 uid=1000", @"10 Lookup node=3 n\xff\x20\x5c -> ENOENT, N us",
                "12 Lookup node=3 there pid=4321 uid=1000", "12 Lookup node=3 there -> OK, 144 bytes, N us",
                "14 -> EINVAL",
            ],
            lines.Select(line => Microseconds().Replace(line, "N us")));
    }
}
