using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>Several requests at a time: blocking, interrupting, notifying, ending.</summary>
public sealed class ThreadTests
{
    private const ulong Slow = 0x510;

    private static byte[] GetAttr => Bytes.Of(new GetAttrIn());

    private static byte[] Interrupt(ulong unique) => Bytes.Of(new InterruptIn { Unique = unique });

    private static ServerOptions Threads(int count) => new() { Threads = count, MaxWrite = Environment.SystemPageSize };

    /// <summary>Nothing is mended by the watch, nor is a thread replaced because it did not get a CPU.</summary>
    private static ServerOptions Unwatched(int count) => Threads(count) with { StallInterval = TimeSpan.FromHours(1) };

    /// <summary>Requests to <see cref="Slow"/> announce long work, and then wait for the gate.</summary>
    private static TestFileSystem Blocking(SemaphoreSlim gate, SemaphoreSlim? begun = null, bool announces = true)
    {
        var fileSystem = new TestFileSystem();
        fileSystem.Script = call =>
        {
            if (call.NodeId != Slow) { return Errno.None; }
            if (announces) { fileSystem.Connection!.Workers.BeginBlocking(); }
            begun?.Release();
            try
            {
                return gate.Wait(20_000) ? Errno.None : Errno.EBUSY;
            }
            finally
            {
                if (announces) { fileSystem.Connection!.Workers.EndBlocking(); }
            }
        };
        return fileSystem;
    }

    [Theory]
    [InlineData(1, true)]
    [InlineData(2, true)]
    [InlineData(1, false)]
    [InlineData(2, false)]
    public void A_request_that_blocks_delays_no_other(int threads, bool announces)
    {
        using var gate = new SemaphoreSlim(0);
        using var kernel = FakeKernel.Start(Blocking(gate, announces: announces), Threads(threads));
        ulong[] blocked = [.. Enumerable.Range(0, 8).Select(_ => kernel.Send(Opcode.GetAttr, Slow, GetAttr))];

        for (int i = 0; i < 20; i++) { Assert.Equal(Errno.None, kernel.Call(Opcode.GetAttr, 1, GetAttr).Error); }

        gate.Release(blocked.Length);
        foreach (ulong unique in blocked) { Assert.Equal(Errno.None, kernel.Receive(unique).Error); }
    }

    [Fact]
    public void An_extra_thread_that_cannot_receive_is_done_without()
    {
        var fileSystem = new TestFileSystem();
        FakeKernel? kernel = null;
        fileSystem.Script = call =>
        {
            if (call.NodeId != Slow) { return Errno.None; }
            using (kernel!.Break())
            {
                fileSystem.Connection!.Workers.BeginBlocking();
                Assert.True(SpinWait.SpinUntil(() => !kernel.Logged.IsEmpty, 20_000));
            }
            fileSystem.Connection!.Workers.EndBlocking();
            return Errno.None;
        };
        using (kernel = FakeKernel.Start(fileSystem, Threads(1)))
        {
            // Once: a thread that could receive before, and now begins to read a broken device, rightly ends the mount.
            Assert.Equal(Errno.None, kernel.Call(Opcode.GetAttr, Slow, GetAttr).Error);

            for (int i = 0; i < 3; i++) { Assert.Equal(Errno.None, kernel.Call(Opcode.GetAttr, 1, GetAttr).Error); }
            Assert.Equal(["veneer: one more thread cannot receive requests (EISDIR): they wait for those that there are"], kernel.Logged);
        }
    }

    [Fact]
    public void When_requests_cannot_be_received_nobody_is_left_waiting()
    {
        using var aborted = new ManualResetEventSlim();
        var fileSystem = new TestFileSystem();
        FakeKernel? kernel = null;
        IDisposable? breach = null;
        fileSystem.Script = call =>
        {
            if (call.NodeId == Slow) { breach = kernel!.Break(); }
            return Errno.None;
        };
        using (kernel = FakeKernel.Start(fileSystem, Unwatched(2) with { Abort = () => { kernel!.Disconnect(); aborted.Set(); } }))
        {
            kernel.Send(Opcode.GetAttr, Slow, GetAttr);

            Assert.True(aborted.Wait(20_000));
            kernel.DisconnectAndWait(); // the other thread waited in the kernel
            breach!.Dispose();
        }
        Assert.Contains("veneer: reading requests failed (EISDIR): the mount ends", kernel.Logged);
    }

    [Fact]
    public void Threads_are_used_again_and_do_not_become_more_with_every_request()
    {
        using var gate = new SemaphoreSlim(0);
        using var begun = new SemaphoreSlim(0);
        TestFileSystem fileSystem = Blocking(gate, begun);
        using var kernel = FakeKernel.Start(fileSystem, Unwatched(2));
        Workers workers = fileSystem.Connection!.Workers;
        Assert.Equal(2, workers.Count);

        for (int round = 0; round < 50; round++)
        {
            ulong[] blocked = [.. Enumerable.Range(0, 5).Select(_ => kernel.Send(Opcode.GetAttr, Slow, GetAttr))];
            for (int i = 0; i < 5; i++) { Assert.True(begun.Wait(10_000)); }
            Assert.Equal(Errno.None, kernel.Call(Opcode.GetAttr, 1, GetAttr).Error);
            gate.Release(5);
            foreach (ulong unique in blocked) { Assert.Equal(Errno.None, kernel.Receive(unique).Error); }
        }

        Assert.Equal(7, workers.Count); // five block, and two are ready
    }

    [Fact]
    public void The_watch_sleeps_while_nothing_is_asked_and_wakes_for_the_next_request()
    {
        using var gate = new SemaphoreSlim(0);
        TestFileSystem fileSystem = Blocking(gate, announces: false);
        using var kernel = FakeKernel.Start(fileSystem, Threads(1));
        for (int round = 0; round < 3; round++)
        {
            ulong blocked = kernel.Send(Opcode.GetAttr, Slow, GetAttr);
            Assert.Equal(Errno.None, kernel.Call(Opcode.GetAttr, 1, GetAttr).Error);
            gate.Release();
            Assert.Equal(Errno.None, kernel.Receive(blocked).Error);

            int rests = Volatile.Read(ref fileSystem.Rests);
            Assert.Equal(Errno.None, kernel.Call(Opcode.GetAttr, 1, GetAttr).Error); // it is awake, whether it slept meanwhile or not
            // the last that it does before it sleeps
            Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref fileSystem.Rests) > rests, 10_000));
        }
    }

    [Fact]
    public void The_filesystem_may_rest_once_each_time_that_requests_cease()
    {
        using var gate = new SemaphoreSlim(0);
        TestFileSystem fileSystem = Blocking(gate);
        using var kernel = FakeKernel.Start(fileSystem, Threads(1) with { StallInterval = TimeSpan.FromMilliseconds(5) });
        for (int round = 1; round <= 3; round++)
        {
            Assert.Equal(Errno.None, kernel.Call(Opcode.GetAttr, 1, GetAttr).Error);
            Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref fileSystem.Rests) == round, 10_000));
            // The watch sleeps until a request wakes it: it waits for a futex, without a time.
            Assert.True(SpinWait.SpinUntil(
                () => File.ReadAllText($"/proc/{fileSystem.Resting}/syscall").Split(' ') is ["202", _, _, _, "0x0", ..], 10_000));
            Assert.Equal(round, Volatile.Read(ref fileSystem.Rests));
        }
    }

    [Fact]
    public void Threads_have_a_bound_and_requests_beyond_it_wait()
    {
        const int bound = WorkerPool.MaxThreads, requests = bound + 50;
        using var gate = new SemaphoreSlim(0);
        using var begun = new SemaphoreSlim(0);
        TestFileSystem fileSystem = Blocking(gate, begun);
        using var kernel = FakeKernel.Start(fileSystem, Threads(1));
        ulong[] blocked = new ulong[requests];
        for (int i = 0; i < requests; i++) { blocked[i] = kernel.Send(Opcode.GetAttr, Slow, GetAttr); }
        for (int i = 0; i < bound; i++) { Assert.True(begun.Wait(20_000), $"Only {i} have begun"); }

        Assert.False(begun.Wait(50));
        Assert.Equal(bound, fileSystem.Connection!.Workers.Count);

        gate.Release(requests);
        foreach (ulong unique in blocked) { Assert.Equal(Errno.None, kernel.Receive(unique).Error); }
        Assert.Equal(bound, fileSystem.Connection!.Workers.Count);
    }

    [Fact]
    public void An_interrupt_reaches_the_request_that_it_names()
    {
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, Threads(3));
        ulong first = kernel.Send(Opcode.GetAttr, TestFileSystem.WaitsForInterrupt, GetAttr);
        ulong second = kernel.Send(Opcode.GetAttr, TestFileSystem.WaitsForInterrupt, GetAttr);
        Assert.True(fileSystem.Waiting.Wait(10_000) && fileSystem.Waiting.Wait(10_000));

        kernel.SendAs(second | 1, Opcode.Interrupt, 0, Interrupt(second));

        Answer answer = kernel.Receive();
        Assert.Equal((second, Errno.EINTR), (answer.Unique, answer.Error));
        Assert.Null(kernel.TryReceive(20)); // the first waits on, and an interrupt that was understood has no answer
        kernel.SendAs(first | 1, Opcode.Interrupt, 0, Interrupt(first));
        answer = kernel.Receive();
        Assert.Equal((first, Errno.EINTR), (answer.Unique, answer.Error));
    }

    [Fact]
    public void An_interrupt_of_an_unknown_request_is_to_be_sent_again()
    {
        using var kernel = FakeKernel.Start(new TestFileSystem(), Threads(1));
        kernel.SendAs(101, Opcode.Interrupt, 0, Interrupt(100));

        Answer answer = kernel.Receive();
        Assert.Equal((101UL, Errno.EAGAIN), (answer.Unique, answer.Error));
        Assert.Empty(answer.Body);
    }

    [Fact]
    public void Interrupts_that_overtake_their_requests_are_not_lost()
    {
        // One thread has read the request and another the interrupt, and the other is faster. With cloned devices the
        // kernel does not find the request of an EAGAIN that comes from another clone, and would not ask again.
        var fileSystem = new TestFileSystem { InterruptPatience = 5_000 };
        using var kernel = FakeKernel.Start(fileSystem, Threads(1));
        for (ulong unique = 100; unique < 120; unique += 2)
        {
            kernel.SendAs(unique | 1, Opcode.Interrupt, 0, Interrupt(unique));
            kernel.Receive();
        }
        for (ulong unique = 100; unique < 120; unique += 2)
        {
            kernel.SendAs(unique, Opcode.GetAttr, TestFileSystem.WaitsForInterrupt, GetAttr);
            Assert.Equal((unique, Errno.EINTR), kernel.Receive() is var answer ? (answer.Unique, answer.Error) : default);
        }
    }

    [Fact]
    public void An_interrupt_that_comes_too_late_does_not_hit_the_next_request()
    {
        var fileSystem = new TestFileSystem { InterruptPatience = 30 };
        using var kernel = FakeKernel.Start(fileSystem, Threads(1));
        ulong served = kernel.Send(Opcode.GetAttr, 1, GetAttr);
        kernel.Receive();
        kernel.SendAs(served | 1, Opcode.Interrupt, 0, Interrupt(served));
        Assert.Equal(Errno.EAGAIN, kernel.Receive().Error);

        Assert.Equal(Errno.EBUSY, kernel.Call(Opcode.GetAttr, TestFileSystem.WaitsForInterrupt, GetAttr).Error);
    }

    [Fact]
    public void Many_interrupts_hit_only_what_they_name()
    {
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, Threads(4));
        var random = new Random(7);
        var interrupted = new HashSet<ulong>();
        var sent = new List<ulong>();
        for (int i = 0; i < 60; i++)
        {
            ulong unique = kernel.Send(Opcode.GetAttr, TestFileSystem.WaitsForInterrupt, GetAttr);
            sent.Add(unique);
            if (random.Next(2) == 0)
            {
                interrupted.Add(unique);
                kernel.SendAs(unique | 1, Opcode.Interrupt, 0, Interrupt(unique));
            }
        }
        ulong[] others = [.. sent.Except(interrupted)];
        AwaitAll(interrupted);
        while (kernel.TryReceive(20) is { } late) { Check(late); }

        foreach (ulong unique in others)
        {
            interrupted.Add(unique);
            kernel.SendAs(unique | 1, Opcode.Interrupt, 0, Interrupt(unique));
        }
        AwaitAll(others);

        void AwaitAll(IEnumerable<ulong> requests)
        {
            var waiting = new HashSet<ulong>(requests);
            while (waiting.Count > 0)
            {
                Answer answer = kernel.Receive();
                Check(answer);
                waiting.Remove(answer.Unique);
                // An interrupt that came before its request: as long as that waits, the kernel sends it again as well.
                if (waiting.Contains(answer.Unique - 1))
                {
                    kernel.SendAs(answer.Unique, Opcode.Interrupt, 0, Interrupt(answer.Unique - 1));
                }
            }
        }

        // Some are answered twice, since their caller seems to be killed: nobody has its number.
        void Check(Answer answer)
        {
            Assert.Contains(answer.Unique & ~1UL, interrupted);
            Assert.Equal((answer.Unique & 1) == 0 ? Errno.EINTR : Errno.EAGAIN, answer.Error);
        }
    }

    [Fact]
    public void Requests_are_served_side_by_side()
    {
        using var barrier = new Barrier(2);
        var fileSystem =
            new TestFileSystem { Script = call => call.NodeId == Slow && !barrier.SignalAndWait(10_000) ? Errno.EBUSY : Errno.None };
        using var kernel = FakeKernel.Start(fileSystem, Threads(2));

        ulong one = kernel.Send(Opcode.GetAttr, Slow, GetAttr), two = kernel.Send(Opcode.GetAttr, Slow, GetAttr);

        Assert.Equal((Errno.None, Errno.None), (kernel.Receive(one).Error, kernel.Receive(two).Error));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    public void At_the_end_of_the_connection_all_threads_leave_and_the_filesystem_is_stopped_once(int threads)
    {
        var fileSystem = new TestFileSystem();
        using (var kernel = FakeKernel.Start(fileSystem, Threads(threads)))
        {
            kernel.Call(Opcode.GetAttr, 1, GetAttr);
            Assert.Equal(0, fileSystem.Stops);
            kernel.DisconnectAndWait();
            Assert.Equal(1, fileSystem.Stops);
            kernel.Server.WaitForEnd();
        }
        Assert.Equal(1, fileSystem.Stops);
    }

    [Fact]
    public void Threads_that_sleep_and_threads_that_block_leave_too()
    {
        using var gate = new SemaphoreSlim(0);
        using var begun = new SemaphoreSlim(0);
        TestFileSystem fileSystem = Blocking(gate, begun);
        using var kernel = FakeKernel.Start(fileSystem, Threads(1));
        ulong[] blocked = [.. Enumerable.Range(0, 10).Select(_ => kernel.Send(Opcode.GetAttr, Slow, GetAttr))];
        for (int i = 0; i < 10; i++) { Assert.True(begun.Wait(10_000)); }
        gate.Release(8); // these answer, and sleep afterwards
        for (int i = 0; i < 8; i++) { kernel.Receive(); }

        kernel.Disconnect();
        Assert.Equal(0, fileSystem.Stops); // two are at work
        gate.Release(2);
        kernel.DisconnectAndWait();

        Assert.Equal(1, fileSystem.Stops);
        Assert.Equal(11, fileSystem.Connection!.Workers.Count);
    }

    [Fact]
    public void The_end_comes_at_any_moment()
    {
        for (int i = 1; i < 60; i++)
        {
            using var gate = new SemaphoreSlim(0);
            TestFileSystem fileSystem = Blocking(gate);
            using (var kernel = FakeKernel.Start(fileSystem, Threads(1 + i % 3)))
            {
                for (int request = 0; request < i; request++) { kernel.Send(Opcode.GetAttr, request % 2 == 0 ? Slow : 1UL, GetAttr); }
                gate.Release(i);
            }
            Assert.Equal(1, fileSystem.Stops);
        }
    }

    [Theory]
    [InlineData(Opcode.Lookup, "Forget")]
    [InlineData(Opcode.MkDir, "Forget")]
    [InlineData(Opcode.MkNod, "Forget")]
    [InlineData(Opcode.SymLink, "Forget")]
    [InlineData(Opcode.Link, "Forget")]
    [InlineData(Opcode.Create, "Release Forget")]
    [InlineData(Opcode.TmpFile, "Release Forget")]
    [InlineData(Opcode.Open, "Release")]
    [InlineData(Opcode.OpenDir, "ReleaseDir")]
    public void What_an_answer_gave_that_nobody_got_is_taken_back(Opcode opcode, string expected)
    {
        FakeKernel? kernel = null;
        var fileSystem = new TestFileSystem();
        fileSystem.Script = call =>
        {
            if (call.NodeId == Sample.Node && call.Input is not ulong fh || call.Method == "Link") { kernel!.Disconnect(); }
            return Errno.None;
        };
        using (kernel = FakeKernel.Start(fileSystem, Threads(1)))
        {
            kernel.SendRaw(Requests.Of(opcode).Packet(2));
            Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref fileSystem.Stops) == 1, 10_000));
        }
        Call[] after = [.. fileSystem.Calls.Skip(1)];
        Assert.Equal(expected, string.Join(' ', after.Select(call => call.Method)));
        Assert.All(after, call => Assert.Equal(
            call.Method == "Forget"
                ? (TestFileSystem.Entry.NodeId, 1UL)
                : (opcode is Opcode.Open or Opcode.OpenDir ? Sample.Node : TestFileSystem.Entry.NodeId, TestFileSystem.Opened.Fh),
            (call.NodeId, (ulong)call.Input!)));
    }

    [Fact]
    public void A_failed_request_gave_nothing_that_could_be_taken_back()
    {
        FakeKernel? kernel = null;
        var fileSystem = new TestFileSystem();
        fileSystem.Script = _ =>
        {
            kernel!.Disconnect();
            return Errno.ENOENT;
        };
        using (kernel = FakeKernel.Start(fileSystem, Threads(1)))
        {
            kernel.SendRaw(Requests.Of(Opcode.Lookup).Packet(2));
            Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref fileSystem.Stops) == 1, 10_000));
        }
        Assert.Equal("Lookup", fileSystem.Last().Method);
    }

    [Fact]
    public void A_notification_is_with_the_kernel_before_it_returns()
    {
        var fileSystem = new TestFileSystem();
        using var kernel = FakeKernel.Start(fileSystem, Threads(1));

        fileSystem.Connection!.Notifier.InvalidateAttributes(5);

        var message = System.Runtime.InteropServices.MemoryMarshal.Read<NotifyInvalidateInodeOut>(kernel.ReceiveRaw(milliseconds: 0));
        Assert.Equal((40u, (int)NotifyCode.InvalidateInode, 0UL), (message.Header.Length, message.Header.Error, message.Header.Unique));
        Assert.Equal((5UL, -1L, 0L), (message.NodeId, message.Offset, message.Length));
    }

    [Fact]
    public void A_notification_after_the_end_is_of_no_consequence()
    {
        var fileSystem = new TestFileSystem();
        var kernel = FakeKernel.Start(fileSystem, Threads(1));
        kernel.Dispose();

        fileSystem.Connection!.Notifier.InvalidateAttributes(5);
    }

    [Fact]
    public void A_server_that_was_never_started_is_disposed_of()
    {
        var kernel = new FakeKernel(new TestFileSystem());
        kernel.Dispose();
        kernel.Server.Dispose();
    }

    [Fact]
    public void Nobody_waits_for_long()
    {
        // A thousand requests to two threads: one lost wake-up, and there would be no answer, since nothing mends it.
        using var kernel = FakeKernel.Start(new TestFileSystem(), Unwatched(2));
        for (int i = 0; i < 1000; i++) { Assert.Equal(Errno.None, kernel.Call(Opcode.GetAttr, 1, GetAttr).Error); }
    }
}
