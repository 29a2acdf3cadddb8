using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>
/// A caller that was killed is answered although its request hangs. What the thread of that request uses is not forgotten or
/// released before it comes back.
/// </summary>
public sealed class AnsweredRequestTests
{
    private const ulong Slow = 0x510, Other = 0x511;
    private const ulong FileHandle = 5, DirectoryHandle = 6;

    private static ServerOptions Options => new() { Threads = 1, MaxWrite = Environment.SystemPageSize };

    private static TestFileSystem Hanging(SemaphoreSlim begun, SemaphoreSlim answers) => new()
    {
        Script = call =>
        {
            if (call.NodeId != Slow || call.Method is "Forget" or "Release" or "ReleaseDir") { return Errno.None; }
            begun.Release();
            return answers.Wait(20_000) ? Errno.None : Errno.EBUSY;
        },
    };

    /// <summary>Sends a request whose caller is no more, and interrupts it when it hangs.</summary>
    private static ulong SendAndKill(FakeKernel kernel, Opcode opcode, SemaphoreSlim begun, params ReadOnlySpan<byte[]> body)
    {
        ulong unique = kernel.NextUnique();
        byte[] packet = FakeKernel.Packet(unique, opcode, Slow, body);
        MemoryMarshal.AsRef<InHeader>(packet.AsSpan()).Pid = int.MaxValue;
        kernel.SendRaw(packet);
        Assert.True(begun.Wait(20_000));
        kernel.SendAs(unique | 1, Opcode.Interrupt, 0, Bytes.Of(new InterruptIn { Unique = unique }));
        while (true)
        {
            Answer answer = kernel.Receive();
            if (answer.Unique != unique) { continue; } // EAGAIN for an INTERRUPT that came too early
            Assert.Equal(Errno.EINTR, answer.Error);
            return unique;
        }
    }

    private static void EndAll(FakeKernel kernel, ulong node)
    {
        kernel.Send(Opcode.Forget, node, Bytes.Of(new ForgetIn { Lookups = 3 }));
        var four = new ForgetOne { NodeId = node, Lookups = 4 };
        kernel.Send(Opcode.BatchForget, 0, Bytes.Of(new BatchForgetIn { Count = 1 }), Bytes.Of(four));
        Assert.Equal(Errno.None, kernel.Call(Opcode.Release, node, Bytes.Of(new ReleaseIn { Fh = FileHandle })).Error);
        Assert.Equal(Errno.None, kernel.Call(Opcode.ReleaseDir, node, Bytes.Of(new ReleaseIn { Fh = DirectoryHandle })).Error);
    }

    private static string[] EndingsOf(TestFileSystem fileSystem, ulong node) =>
    [
        .. fileSystem.Calls.Where(call => call.NodeId == node && call.Method is "Forget" or "Release" or "ReleaseDir")
            .Select(call => $"{call.Method} {call.Input}"),
    ];

    [Theory]
    [InlineData(Opcode.Lookup, "ReleaseDir 6", "Release 5 Forget 3 Forget 4")]
    [InlineData(Opcode.GetAttr, "ReleaseDir 6", "Release 5 Forget 3 Forget 4")]
    [InlineData(Opcode.Read, "ReleaseDir 6", "Release 5 Forget 3 Forget 4")]
    [InlineData(Opcode.Open, "Release 5 ReleaseDir 6", "Forget 3 Forget 4")]
    [InlineData(Opcode.ReadDir, "", "Release 5 ReleaseDir 6 Forget 3 Forget 4")]
    [InlineData(Opcode.ReadDirPlus, "", "Release 5 ReleaseDir 6 Forget 3 Forget 4")]
    public void What_a_thread_still_uses_ends_when_the_thread_is_done(Opcode opcode, string atOnce, string afterwards)
    {
        using var begun = new SemaphoreSlim(0);
        using var answers = new SemaphoreSlim(0);
        TestFileSystem fileSystem = Hanging(begun, answers);
        using var kernel = FakeKernel.Start(fileSystem, Options);
        SendAndKill(kernel, opcode, begun, opcode switch
        {
            Opcode.Lookup => Bytes.Of("name\0"),
            Opcode.GetAttr => Bytes.Of(new GetAttrIn()),
            Opcode.Open => Bytes.Of(new OpenIn()),
            _ => Bytes.Of(new ReadIn { Fh = FileHandle, Size = 512 }),
        });

        EndAll(kernel, Slow);
        EndAll(kernel, Other);

        Assert.Equal(["Forget 3", "Forget 4", "Release 5", "ReleaseDir 6"], EndingsOf(fileSystem, Other));
        Assert.Equal(atOnce, string.Join(' ', EndingsOf(fileSystem, Slow)));
        fileSystem.Calls.Clear();

        answers.Release();
        Assert.True(SpinWait.SpinUntil(() => EndingsOf(fileSystem, Slow).Length == afterwards.Split(' ').Length / 2, 20_000));
        string[] ended = EndingsOf(fileSystem, Slow);
        Assert.Equal(afterwards.Split(' ').Order(), string.Join(' ', ended).Split(' ').Order());
        Assert.StartsWith("Forget", ended[^1], StringComparison.Ordinal); // an inode goes after what is open of it
        Assert.StartsWith("Forget", ended[^2], StringComparison.Ordinal);

        // Nothing is kept back any more.
        fileSystem.Calls.Clear();
        EndAll(kernel, Slow);
        Assert.Equal(4, EndingsOf(fileSystem, Slow).Length);
        Assert.Empty(kernel.Logged);
    }

    [Fact]
    public void The_last_of_several_threads_ends_it()
    {
        using var begun = new SemaphoreSlim(0);
        using var answers = new SemaphoreSlim(0);
        TestFileSystem fileSystem = Hanging(begun, answers);
        using var kernel = FakeKernel.Start(fileSystem, Options);
        ulong[] hung = [.. Enumerable.Range(0, 3).Select(_ => SendAndKill(kernel, Opcode.Lookup, begun, Bytes.Of("name\0")))];
        kernel.Send(Opcode.Forget, Slow, Bytes.Of(new ForgetIn { Lookups = 3 }));

        for (int i = 0; i < hung.Length; i++)
        {
            kernel.Settle();
            Assert.Empty(EndingsOf(fileSystem, Slow));
            answers.Release();
            // This kernel takes a second answer. The thread gives it before it carries out what waited for it.
            Answer late = kernel.Receive();
            Assert.Contains(late.Unique, hung);
        }

        Assert.True(SpinWait.SpinUntil(() => EndingsOf(fileSystem, Slow) is ["Forget 3"], 20_000));
    }

    /// <summary>Whoever only asks a thread that hangs, and goes on to wait, keeps everything: the kernel ends nothing of it.</summary>
    [Fact]
    public void A_request_that_is_not_answered_in_its_place_keeps_nothing_back()
    {
        using var begun = new SemaphoreSlim(0);
        using var answers = new SemaphoreSlim(0);
        TestFileSystem fileSystem = Hanging(begun, answers);
        using var kernel = FakeKernel.Start(fileSystem, Options);
        kernel.Send(Opcode.Lookup, Slow, Bytes.Of("name\0"));
        Assert.True(begun.Wait(20_000));

        EndAll(kernel, Slow);

        Assert.Equal(4, EndingsOf(fileSystem, Slow).Length);
        answers.Release();
    }
}
