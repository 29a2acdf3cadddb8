using BenchmarkDotNet.Attributes;
using Veneer.Fuse;
using Veneer.Fuse.Wire;

namespace Veneer.Micro;

/// <summary>What it costs to count a request: two looks at the clock, and the numbers of one thread.</summary>
[MemoryDiagnoser]
public class StatisticsBenchmarks
{
    private static readonly Opcode[] kinds =
        [Opcode.Lookup, Opcode.GetAttr, Opcode.Open, Opcode.Release, Opcode.Read, Opcode.GetXattr, Opcode.Create, Opcode.Unlink];

    private readonly ThreadCounts counts = new Statistics().Add(overRing: false);
    private int next;

    [Benchmark]
    public void Count_a_request()
    {
        long began = Statistics.Now;
        counts.Add(kinds[next++ & 7], default, Statistics.Now - began + (next & 0xFFFF));
    }

    [Benchmark]
    public long Look_at_the_clock_twice() => Statistics.Now - Statistics.Now;
}
