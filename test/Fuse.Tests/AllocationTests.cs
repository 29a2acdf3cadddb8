using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>The steady path allocates nothing.</summary>
public sealed class AllocationTests
{
    private const int Rounds = 2_000;

    /// <summary>The one thread serves all requests, also those that take long because the machine is busy.</summary>
    private static ServerOptions Unwatched => new() { Threads = 1, MaxWrite = 1 << 16, StallInterval = TimeSpan.FromHours(1) };

    [Fact]
    public void Serving_allocates_no_memory_once_it_is_warm()
    {
        var fileSystem = new TestFileSystem { IsRecording = false, Names = [Bytes.Of("one"), Bytes.Of("two")] };
        using var kernel = FakeKernel.Start(fileSystem, Unwatched);
        Sample[] answered = [.. Requests.All.Where(sample => sample.Reply is not null)];
        byte[][] packets = [.. answered.Select(sample => sample.Packet(kernel.NextUnique()))];
        byte[][] forgets = [.. Requests.All.Where(sample => sample.Opcode is Opcode.Forget or Opcode.BatchForget)
            .Select(sample => sample.Packet(kernel.NextUnique()))];
        byte[] measure = Requests.Of(Opcode.GetAttr).Packet(kernel.NextUnique());

        ServeAll(100);
        long before = Measure();
        ServeAll(Rounds);
        long after = Measure();

        // One server thread: the bytes are all its own, whatever other tests do meanwhile.
        Assert.Equal(0, after - before);
        Assert.Empty(kernel.Logged);

        void ServeAll(int rounds)
        {
            for (int i = 0; i < rounds; i++)
            {
                foreach (byte[] packet in packets) { Assert.Equal(0, kernel.Exchange(packet)); }
                foreach (byte[] packet in forgets) { kernel.SendRaw(packet); }
            }
        }

        long Measure()
        {
            Assert.Equal(0, kernel.Exchange(measure));
            return fileSystem.AllocatedBytes;
        }
    }

    [Fact]
    public void Errors_and_interrupts_allocate_nothing_either()
    {
        var fileSystem = new TestFileSystem { IsRecording = false };
        using var kernel = FakeKernel.Start(fileSystem, Unwatched);
        byte[] unknown = FakeKernel.Packet(2, Opcode.Poll, 1, new byte[24]);
        byte[] invalid = FakeKernel.Packet(4, Opcode.Lookup, 1, Bytes.Of("no end"));
        byte[] interrupt = Requests.Of(Opcode.Interrupt).Packet(7);
        byte[] measure = Requests.Of(Opcode.GetAttr).Packet(8);

        Measure(); // so that its kind has been counted as well
        Fail(100);
        long before = Measure();
        Fail(Rounds);
        Assert.Equal(0, Measure() - before);

        void Fail(int rounds)
        {
            for (int i = 0; i < rounds; i++)
            {
                Assert.Equal(-(int)Errno.ENOSYS, kernel.Exchange(unknown));
                Assert.Equal(-(int)Errno.EINVAL, kernel.Exchange(invalid));
                Assert.Equal(-(int)Errno.EAGAIN, kernel.Exchange(interrupt));
            }
        }

        long Measure()
        {
            Assert.Equal(0, kernel.Exchange(measure));
            return fileSystem.AllocatedBytes;
        }
    }
}
