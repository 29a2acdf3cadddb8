using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>
/// A caller that was killed is answered although its request hangs. What the thread of that request uses is not forgotten or
/// released before it comes back.
/// </summary>
public sealed class AnsweredRequestTests : IDisposable
{
    private const ulong Slow = 0x510, Other = 0x511;
    private const ulong FileHandle = 5, DirectoryHandle = 6;

    private readonly SemaphoreSlim begun = new(0);
    private readonly SemaphoreSlim answers = new(0);
    private readonly TestFileSystem fileSystem;
    private readonly FakeKernel kernel;

    public AnsweredRequestTests()
    {
        fileSystem = new()
        {
            Script = call =>
            {
                if (call.NodeId != Slow || call.Method is "Forget" or "Release" or "ReleaseDir") { return Errno.None; }
                begun.Release();
                return answers.Wait(20_000) ? Errno.None : Errno.EBUSY;
            },
        };
        kernel = FakeKernel.Start(fileSystem, new ServerOptions { Threads = 1, MaxWrite = Environment.SystemPageSize });
    }

    public void Dispose()
    {
        kernel.Dispose();
        begun.Dispose();
        answers.Dispose();
    }

    /// <summary>Sends a request whose caller is no more, and interrupts it when it hangs.</summary>
    private ulong SendAndKill(Opcode opcode, params ReadOnlySpan<byte[]> body)
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

    private void EndAll(ulong node)
    {
        kernel.Send(Opcode.Forget, node, Bytes.Of(new ForgetIn { Lookups = 3 }));
        var four = new ForgetOne { NodeId = node, Lookups = 4 };
        kernel.Send(Opcode.BatchForget, 0, Bytes.Of(new BatchForgetIn { Count = 1 }), Bytes.Of(four));
        Assert.Equal(Errno.None, kernel.Call(Opcode.Release, node, Bytes.Of(new ReleaseIn { Fh = FileHandle })).Error);
        Assert.Equal(Errno.None, kernel.Call(Opcode.ReleaseDir, node, Bytes.Of(new ReleaseIn { Fh = DirectoryHandle })).Error);
    }

    private string[] EndingsOf(ulong node) =>
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
        SendAndKill(opcode, opcode switch
        {
            Opcode.Lookup => Bytes.Of("name\0"),
            Opcode.GetAttr => Bytes.Of(new GetAttrIn()),
            Opcode.Open => Bytes.Of(new OpenIn()),
            _ => Bytes.Of(new ReadIn { Fh = FileHandle, Size = 512 }),
        });

        EndAll(Slow);
        EndAll(Other);

        Assert.Equal(["Forget 3", "Forget 4", "Release 5", "ReleaseDir 6"], EndingsOf(Other));
        Assert.Equal(atOnce, string.Join(' ', EndingsOf(Slow)));
        fileSystem.Calls.Clear();

        answers.Release();
        Assert.True(SpinWait.SpinUntil(() => EndingsOf(Slow).Length == afterwards.Split(' ').Length / 2, 20_000));
        string[] ended = EndingsOf(Slow);
        Assert.Equal(afterwards.Split(' ').Order(), string.Join(' ', ended).Split(' ').Order());
        Assert.StartsWith("Forget", ended[^1], StringComparison.Ordinal); // an inode goes after what is open of it
        Assert.StartsWith("Forget", ended[^2], StringComparison.Ordinal);

        // Nothing is kept back any more.
        fileSystem.Calls.Clear();
        EndAll(Slow);
        Assert.Equal(4, EndingsOf(Slow).Length);
        Assert.Empty(kernel.Logged);
    }

    [Fact]
    public void The_last_of_several_threads_ends_it()
    {
        ulong[] hung = [.. Enumerable.Range(0, 3).Select(_ => SendAndKill(Opcode.Lookup, Bytes.Of("name\0")))];
        kernel.Send(Opcode.Forget, Slow, Bytes.Of(new ForgetIn { Lookups = 3 }));

        for (int i = 0; i < hung.Length; i++)
        {
            kernel.Settle();
            Assert.Empty(EndingsOf(Slow));
            answers.Release();
            // This kernel takes a second answer. The thread gives it before it carries out what waited for it.
            Answer late = kernel.Receive();
            Assert.Contains(late.Unique, hung);
        }

        Assert.True(SpinWait.SpinUntil(() => EndingsOf(Slow) is ["Forget 3"], 20_000));
    }

    /// <summary>Whoever only asks a thread that hangs, and goes on to wait, keeps everything: the kernel ends nothing of it.</summary>
    [Fact]
    public void A_request_that_is_not_answered_in_its_place_keeps_nothing_back()
    {
        kernel.Send(Opcode.Lookup, Slow, Bytes.Of("name\0"));
        Assert.True(begun.Wait(20_000));

        EndAll(Slow);

        Assert.Equal(4, EndingsOf(Slow).Length);
        answers.Release();
    }
}
