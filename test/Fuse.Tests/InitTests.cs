using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>What kernel and server agree on before the first request.</summary>
public sealed class InitTests
{
    private const InitFlags Everything = FakeKernel.EverythingOffered;

    /// <summary>Asks once and gives the server's answer.</summary>
    private static InitOut Negotiate(TestFileSystem fileSystem, InitIn init, ServerOptions? options = null)
    {
        using var kernel = new FakeKernel(fileSystem, options);
        ulong unique = kernel.Send(Opcode.Init, 0, Bytes.Of(init));
        Assert.Equal(Errno.None, kernel.Server.Initialize());
        Answer answer = kernel.Receive();
        Assert.Equal(unique, answer.Unique);
        return answer.As<InitOut>();
    }

    [Fact]
    public void The_server_speaks_the_newest_protocol_that_both_know()
    {
        Assert.Equal((7u, 45u), Version(Negotiate(new(), FakeKernel.Init(Everything, 45))));
        Assert.Equal((7u, 45u), Version(Negotiate(new(), FakeKernel.Init(Everything, 99))));
        Assert.Equal((7u, 38u), Version(Negotiate(new(), FakeKernel.Init(Everything, 38))));
        Assert.Equal((7u, 31u), Version(Negotiate(new(), FakeKernel.Init(Everything, 31))));

        static (uint, uint) Version(InitOut output) => (output.Major, output.Minor);
    }

    [Fact]
    public void A_newer_major_is_answered_with_ours_and_asked_again()
    {
        var fileSystem = new TestFileSystem();
        using var kernel = new FakeKernel(fileSystem);
        InitIn newer = FakeKernel.Init(Everything, 3);
        newer.Major = 8;
        ulong first = kernel.Send(Opcode.Init, 0, Bytes.Of(newer));
        ulong second = kernel.Send(Opcode.Init, 0, Bytes.Of(FakeKernel.Init(Everything)));

        Assert.Equal(Errno.None, kernel.Server.Initialize());

        Answer answer = kernel.Receive();
        Assert.Equal(first, answer.Unique);
        Assert.Equal((7u, 45u, 0u), (answer.As<InitOut>().Major, answer.As<InitOut>().Minor, answer.As<InitOut>().Flags));
        answer = kernel.Receive();
        Assert.Equal(second, answer.Unique);
        Assert.NotEqual(0u, answer.As<InitOut>().MaxWrite);
    }

    [Theory]
    [InlineData(7, 30)]
    [InlineData(6, 99)]
    public void An_older_protocol_is_refused(uint major, uint minor)
    {
        var fileSystem = new TestFileSystem();
        using var kernel = new FakeKernel(fileSystem);
        InitIn init = FakeKernel.Init(Everything, minor);
        init.Major = major;
        kernel.Send(Opcode.Init, 0, Bytes.Of(init));

        Assert.Equal(Errno.EPROTO, kernel.Server.Initialize());
        Assert.Equal(Errno.EPROTO, kernel.Receive().Error);
        Assert.Null(fileSystem.Connection);
    }

    [Fact]
    public void Another_request_first_is_another_protocol()
    {
        using var kernel = new FakeKernel(new TestFileSystem());
        kernel.SendRaw(Requests.Of(Opcode.GetAttr).Packet(2));

        Assert.Equal(Errno.EPROTO, kernel.Server.Initialize());
    }

    [Fact]
    public void A_request_of_before_7_36_is_16_bytes_long()
    {
        var fileSystem = new TestFileSystem();
        using var kernel = new FakeKernel(fileSystem);
        kernel.Send(Opcode.Init, 0, Bytes.Of(FakeKernel.Init(InitFlags.AsyncRead | InitFlags.MaxPages, 31))[..16]);

        Assert.Equal(Errno.None, kernel.Server.Initialize());
        Assert.Equal(InitFlags.AsyncRead | InitFlags.MaxPages, fileSystem.Offered);
        Assert.Equal((uint)fileSystem.Offered, kernel.Receive().As<InitOut>().Flags);
    }

    [Fact]
    public void A_request_that_is_too_short_is_another_protocol()
    {
        byte[] packet = FakeKernel.Packet(2, Opcode.Init, 0, Bytes.Of(FakeKernel.Init(Everything)));
        for (int length = 1; length < 40 + 16; length++)
        {
            using var kernel = new FakeKernel(new TestFileSystem());
            kernel.SendRaw(packet.AsSpan(0, length));
            Assert.Equal(Errno.EPROTO, kernel.Server.Initialize());
        }
    }

    [Fact]
    public void A_connection_that_ends_before_it_began_is_an_error()
    {
        var fileSystem = new TestFileSystem();
        using var kernel = new FakeKernel(fileSystem);
        kernel.Disconnect();

        Assert.True(kernel.Server.Initialize().IsError);
        Assert.Null(fileSystem.Connection);
    }

    [Fact]
    public void Flags_in_force_are_those_that_both_sides_want()
    {
        const InitFlags offered =
            InitFlags.AsyncRead | InitFlags.InitExt | InitFlags.DontMask | InitFlags.Passthrough | InitFlags.HasResend;
        const InitFlags wanted = InitFlags.AsyncRead | InitFlags.PosixAcl | InitFlags.Passthrough | InitFlags.NoExportSupport;
        var fileSystem = new TestFileSystem { Wanted = wanted };

        InitOut output = Negotiate(fileSystem, FakeKernel.Init(offered));

        Assert.Equal(offered, fileSystem.Offered);
        Assert.Equal((uint)(InitFlags.AsyncRead | InitFlags.InitExt), output.Flags);
        Assert.Equal((uint)((ulong)InitFlags.Passthrough >> 32), output.Flags2);
        Assert.Equal(InitFlags.AsyncRead | InitFlags.InitExt | InitFlags.Passthrough, fileSystem.Connection!.Flags);
    }

    [Fact]
    public void Without_the_extension_there_are_no_flags_above_the_first_32()
    {
        InitIn init = FakeKernel.Init(InitFlags.AsyncRead);
        init.Flags2 = uint.MaxValue; // not to be read
        var fileSystem = new TestFileSystem();

        InitOut output = Negotiate(fileSystem, init);

        Assert.Equal(InitFlags.AsyncRead, fileSystem.Offered);
        Assert.Equal(((uint)InitFlags.AsyncRead, 0u), (output.Flags, output.Flags2));
        Assert.Equal(0u, output.MaxStackDepth);
    }

    [Fact]
    public void Sizes_and_limits_are_told()
    {
        InitOut output = Negotiate(new(), FakeKernel.Init(Everything), new ServerOptions { MaxWrite = 1 << 20 });

        Assert.Equal(1u << 20, output.MaxWrite);
        Assert.Equal((1 << 20) / Environment.SystemPageSize, output.MaxPages);
        Assert.Equal(0x20000u, output.MaxReadAhead);
        Assert.Equal(1u, output.TimeGranularity);
        Assert.InRange(output.CongestionThreshold, 1, output.MaxBackground);
        Assert.Equal(0, output.RequestTimeout);
        Assert.Equal(0, output.MapAlignment);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(4095)]
    [InlineData(4096 + 512)]
    [InlineData(-4096)]
    public void A_size_that_is_no_number_of_pages_is_refused(int maxWrite)
    {
        Assert.Throws<ArgumentOutOfRangeException>(
            () => new Server(new Device(new Fd(-1)), new TestFileSystem(), new ServerOptions { MaxWrite = maxWrite }));
    }

    [Fact]
    public void A_server_without_threads_is_refused()
    {
        Assert.Throws<ArgumentOutOfRangeException>(
            () => new Server(new Device(new Fd(-1)), new TestFileSystem(), new ServerOptions { Threads = 0 }));
    }

    [Fact]
    public void The_stack_depth_is_told_only_with_passthrough()
    {
        var fileSystem = new TestFileSystem();
        Assert.Equal(2u, Negotiate(fileSystem, FakeKernel.Init(Everything), new ServerOptions { MaxStackDepth = 2 }).MaxStackDepth);
        Assert.Equal(2u, fileSystem.Connection!.MaxStackDepth);

        fileSystem = new TestFileSystem { Wanted = ~InitFlags.Passthrough };
        Assert.Equal(0u, Negotiate(fileSystem, FakeKernel.Init(Everything), new ServerOptions { MaxStackDepth = 2 }).MaxStackDepth);
        Assert.Equal(0u, fileSystem.Connection!.MaxStackDepth);
    }

    [Fact]
    public void The_filesystem_is_started_before_the_kernel_has_its_answer()
    {
        // What waits for the mount goes on with the answer.
        FakeKernel? kernel = null;
        bool answered = true;
        var fileSystem = new TestFileSystem { Starting = () => answered = kernel!.TryReceive(0) is not null };
        using (kernel = new FakeKernel(fileSystem))
        {
            kernel.Send(Opcode.Init, 0, Bytes.Of(FakeKernel.Init(Everything)));
            Assert.Equal(Errno.None, kernel.Server.Initialize());
            Assert.False(answered);
            Assert.NotNull(kernel.TryReceive(0));
        }
    }

    [Fact]
    public void A_filesystem_whose_kernel_left_during_the_start_is_stopped()
    {
        FakeKernel? kernel = null;
        var fileSystem = new TestFileSystem { Starting = () => kernel!.Disconnect() };
        using (kernel = new FakeKernel(fileSystem))
        {
            kernel.Send(Opcode.Init, 0, Bytes.Of(FakeKernel.Init(Everything)));

            Assert.True(kernel.Server.Initialize().IsError);

            Assert.Equal(1, fileSystem.Stops);
        }
    }
}
