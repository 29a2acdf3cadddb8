using BenchmarkDotNet.Attributes;
using Veneer.Fuse;
using Veneer.Fuse.Tests;
using Veneer.Fuse.Wire;

namespace Veneer.Micro;

/// <summary>From a request's bytes to those of its answer, over a pair of sockets: mostly the way to another thread and back.</summary>
[MemoryDiagnoser]
public class DispatchBenchmarks
{
    private FakeKernel kernel = null!;
    private byte[] lookup = [], getAttr = [], read = [];

    [GlobalSetup]
    public void Start()
    {
        kernel = FakeKernel.Start(new TestFileSystem { IsRecording = false }, new ServerOptions { Threads = 1, MaxWrite = 1 << 16 });
        lookup = PacketOf(Opcode.Lookup);
        getAttr = PacketOf(Opcode.GetAttr);
        read = PacketOf(Opcode.Read);
    }

    private byte[] PacketOf(Opcode opcode) => Requests.Of(opcode).Packet(kernel.NextUnique());

    [GlobalCleanup]
    public void Stop() => kernel.Dispose();

    [Benchmark]
    public int Lookup() => kernel.Exchange(lookup);

    [Benchmark]
    public int GetAttr() => kernel.Exchange(getAttr);

    [Benchmark]
    public int Read() => kernel.Exchange(read);
}
