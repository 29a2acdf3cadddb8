using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>A gate lets requests end that were begun, and keeps others from the filesystem.</summary>
public sealed class GateTests
{
    private static readonly ServerOptions oneThread = new() { Threads = 1, MaxWrite = 1 << 16 };
    private static readonly ServerOptions twoThreads = new() { Threads = 2, MaxWrite = 1 << 16 };

    private static readonly Opcode[] changing =
    [
        Opcode.SetAttr, Opcode.SymLink, Opcode.MkNod, Opcode.MkDir, Opcode.Unlink, Opcode.RmDir, Opcode.Rename, Opcode.Rename2, Opcode.Link,
        Opcode.Open, Opcode.Create, Opcode.TmpFile, Opcode.Write, Opcode.SetXattr, Opcode.RemoveXattr, Opcode.FAllocate,
        Opcode.CopyFileRange, Opcode.CopyFileRange64,
    ];

    public static TheoryData<Opcode> Opcodes =>
    [
        .. Requests.All.Select(sample => sample.Opcode)
            .Where(opcode => opcode is not (Opcode.Forget or Opcode.BatchForget or Opcode.Interrupt)),
    ];

    private static (Answer Answer, int Calls) Ask(Service rest, Opcode opcode)
    {
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, oneThread);
        fileSystem.Connection!.Gate.Close(rest);
        kernel.SendRaw(Requests.Of(opcode).Packet(kernel.NextUnique()));
        return (kernel.Receive(), fileSystem.Calls.Count);
    }

    [Theory, MemberData(nameof(Opcodes))]
    public void Of_a_shut_gate_the_filesystem_hears_nothing(Opcode opcode)
    {
        (Answer answer, int calls) = Ask(Service.Nothing, opcode);

        Assert.Equal(opcode is Opcode.Release or Opcode.ReleaseDir or Opcode.Destroy ? Errno.None : Errno.EIO, answer.Error);
        Assert.Empty(answer.Body);
        Assert.Equal(0, calls);
    }

    [Theory, MemberData(nameof(Opcodes))]
    public void What_ends_may_pass_a_gate_that_is_closing(Opcode opcode)
    {
        (Answer answer, _) = Ask(Service.Ending, opcode);

        // The sample of WRITE is one of pages that a map has changed.
        Assert.Equal(opcode is Opcode.Release or Opcode.ReleaseDir or Opcode.Destroy or Opcode.Write ? Errno.None : Errno.EIO,
            answer.Error);
    }

    [Theory, MemberData(nameof(Opcodes))]
    public void Of_what_changes_something_a_gate_for_readers_keeps_all_away(Opcode opcode)
    {
        (Answer answer, int calls) = Ask(Service.Reading, opcode);

        Assert.Equal(changing.Contains(opcode) ? Errno.EROFS : Errno.None, answer.Error);
        if (changing.Contains(opcode)) { Assert.Equal(0, calls); }
    }

    [Theory]
    [InlineData(OpenFlags.ReadOnly, Errno.None)]
    [InlineData(OpenFlags.WriteOnly, Errno.EROFS)]
    [InlineData(OpenFlags.ReadOnly | OpenFlags.Truncate, Errno.EROFS)]
    public void Readers_may_open(OpenFlags flags, Errno expected)
    {
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, oneThread);
        fileSystem.Connection!.Gate.Close(Service.Reading);

        Assert.Equal(expected, kernel.Call(Opcode.Open, 5, Bytes.Of(new OpenIn { Flags = flags })).Error);
    }

    [Theory]
    [InlineData(4, 0, Errno.EROFS)] // FS_IOC_SETFLAGS
    [InlineData(0, 4, Errno.None)] // FS_IOC_GETFLAGS
    [InlineData(8, 8, Errno.None)] // a question of a tool, such as veneer status
    public void Readers_may_ask(uint inSize, uint outSize, Errno expected)
    {
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, oneThread);
        fileSystem.Connection!.Gate.Close(Service.Reading);

        Assert.Equal(expected,
            kernel.Call(Opcode.Ioctl, 5, [.. Bytes.Of(new IoctlIn { InSize = inSize, OutSize = outSize }), .. new byte[inSize]]).Error);
    }

    [Fact]
    public void A_gate_never_opens_again()
    {
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, oneThread);
        Gate gate = fileSystem.Connection!.Gate;
        gate.Close(Service.Nothing);

        gate.Close(Service.Reading);

        Assert.Equal(Service.Nothing, gate.Service);
    }

    [Fact]
    public void What_was_begun_is_waited_for()
    {
        using var begun = new ManualResetEventSlim();
        using var goOn = new ManualResetEventSlim();
        var fileSystem = new TestFileSystem { Script = _ => { begun.Set(); goOn.Wait(); return Errno.None; } };
        using var kernel = FakeKernel.Start(fileSystem, twoThreads);
        ulong unique = kernel.Send(Opcode.StatFs, 1);
        begun.Wait();
        var closing = new Thread(() => fileSystem.Connection!.Gate.Close(Service.Nothing));
        closing.Start();

        Assert.False(closing.Join(100));
        Assert.Equal(Errno.EIO, kernel.Call(Opcode.StatFs, 1).Error);
        Assert.False(closing.Join(0));
        goOn.Set();

        Assert.True(closing.Join(10_000));
        Assert.Equal(Errno.None, kernel.Receive(unique).Error);
    }

    [Fact]
    public void Requests_that_close_the_gate_do_not_wait_for_each_other()
    {
        using var both = new Barrier(2);
        TestFileSystem? fileSystem = null;
        fileSystem = new TestFileSystem
        {
            Script = _ =>
            {
                Gate.ExpectClosing();
                both.SignalAndWait();
                fileSystem!.Connection!.Gate.Close(Service.Nothing);
                return Errno.None;
            },
        };
        using var kernel = FakeKernel.Start(fileSystem, twoThreads);

        ulong one = kernel.Send(Opcode.StatFs, 1), other = kernel.Send(Opcode.StatFs, 1);

        Assert.Equal(Errno.None, kernel.Receive(one).Error);
        Assert.Equal(Errno.None, kernel.Receive(other).Error);
    }

    [Fact]
    public void A_revoked_inode_is_of_another_generation()
    {
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, oneThread);
        fileSystem.Connection!.Gate.Close(Service.Ending);
        fileSystem.Connection.Gate.Revoke([50, 60]);
        Answer Look(ulong directory, string name) => kernel.Call(Opcode.Lookup, directory, Requests.Name(name));

        EntryOut entry = Look(1, "#veneer-revoke-1").As<EntryOut>();

        Assert.Equal((60ul, 1ul), (entry.NodeId, entry.Generation));
        Assert.Equal(50ul, Look(1, "#veneer-revoke-0").As<EntryOut>().NodeId);
        Assert.All(
            [
                (1ul, "#veneer-revoke-2"), (1ul, "#veneer-revoke--1"), (1ul, "#veneer-revoke-1x"), (1ul, "#veneer-revoke-"),
                (2ul, "#veneer-revoke-1"),
            ],
            at => Assert.Equal(Errno.EIO, Look(at.Item1, at.Item2).Error));
        fileSystem.Connection.Gate.Close(Service.Nothing);
        Assert.Equal(Errno.EIO, Look(1, "#veneer-revoke-1").Error);
        Assert.Empty(fileSystem.Calls);
    }
}
