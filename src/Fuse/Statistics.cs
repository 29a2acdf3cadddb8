using System.Diagnostics;
using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>How an open file reaches its data.</summary>
public enum OpenWay
{
    /// <summary>No file was opened.</summary>
    None,
    /// <summary>Through the kernel's page cache, whose pages of the file are dropped at the open.</summary>
    Cached,
    /// <summary>Through the kernel's page cache, which keeps its pages of the file.</summary>
    Kept,
    /// <summary>Maps use the real file; each read and write comes to us.</summary>
    Mapped,
    /// <summary>Each read and write comes to us.</summary>
    Direct,
    /// <summary>Passed through: the kernel uses the real file, and nothing comes to us.</summary>
    PassedThrough,
}

/// <summary>The result of a request, for the statistics.</summary>
internal struct Outcome
{
    /// <summary>The error that was answered.</summary>
    public Errno Error;
    /// <summary>Bytes of content read or written.</summary>
    public long Bytes;
    /// <summary>How the file is reached, if the request opened one.</summary>
    public OpenWay Way;
}

/// <summary>The counts of one thread. Only that thread writes them; others read them at any time.</summary>
/// <remarks>
/// They are plain additions to the thread's own memory: without locks, and sharing no cache line with another thread. A
/// reader may see a request counted in one number and not yet in another.
/// </remarks>
/// <param name="overRing">Whether the thread's requests come over io_uring.</param>
internal sealed class ThreadCounts(bool overRing)
{
    /// <summary>The number of opcodes that are counted one by one. Unknown ones are counted as opcode 0.</summary>
    public const int Opcodes = (int)Opcode.CopyFileRange64 + 1;

    /// <summary>The indices of an opcode's numbers, which precede its latencies.</summary>
    public const int Errors = 0, Bytes = 1, Time = 2, Longest = 3, Latency = 4;

    /// <summary>One cache line at each end of an array, so that it shares none with another thread.</summary>
    private const int Margin = 8;

    private readonly long[]?[] opcodes = new long[Opcodes][]; // made at the first request of an opcode: most opcodes never come
    private readonly long[] ways = new long[Margin + (int)OpenWay.PassedThrough + 1 + Margin];

    public bool OverRing { get; } = overRing;

    /// <summary>Counts one request.</summary>
    public void Add(Opcode opcode, in Outcome outcome, long nanoseconds)
    {
        uint index = (uint)opcode < Opcodes ? (uint)opcode : 0;
        Span<long> one = (opcodes[index] ?? Make(index)).AsSpan(Margin);
        if (outcome.Error.IsError) { one[Errors]++; }
        one[Bytes] += outcome.Bytes;
        one[Time] += nanoseconds;
        if (nanoseconds > one[Longest]) { one[Longest] = nanoseconds; }
        one[Latency + Latencies.BucketOf(nanoseconds)]++;
        if (outcome.Way != OpenWay.None) { ways[Margin + (int)outcome.Way]++; }
    }

    private long[] Make(uint index)
    {
        long[] made = new long[Margin + Latency + Latencies.Buckets + Margin];
        Volatile.Write(ref opcodes[index], made);
        return made;
    }

    /// <summary>Reads one of the numbers of an opcode.</summary>
    public long Read(Opcode opcode, int number) =>
        Volatile.Read(ref opcodes[(int)opcode]) is { } one ? Volatile.Read(ref one[Margin + number]) : 0;

    /// <summary>The number of files that were opened this way.</summary>
    public long Read(OpenWay way) => Volatile.Read(ref ways[Margin + (int)way]);
}

/// <summary>
/// The totals of one opcode. Times are in nanoseconds, from the request's arrival until the server is done with it.
/// </summary>
/// <param name="Opcode">The opcode; 0 for unknown ones.</param>
/// <param name="Errors">The number of requests that were answered with an error.</param>
/// <param name="Bytes">Bytes of content read or written.</param>
/// <param name="Time">The time of all requests together.</param>
/// <param name="Longest">The time of the longest request.</param>
/// <param name="Counts">The number of requests in each bucket of <see cref="Latencies"/>.</param>
public sealed record RequestTotals(Opcode Opcode, long Errors, long Bytes, long Time, long Longest, long[] Counts);

/// <summary>What a server has served since it started. The sum over its threads is taken when somebody asks.</summary>
public sealed class Statistics
{
    private readonly OrderedLock gate = new(FuseLocks.Statistics);
    private readonly long started = Stopwatch.GetTimestamp();
    private volatile ThreadCounts[] threads = [];

    /// <summary>The clock of all times, in nanoseconds on Linux.</summary>
    internal static long Now => Stopwatch.GetTimestamp();

    /// <summary>The time since the server was made.</summary>
    public TimeSpan Uptime => Stopwatch.GetElapsedTime(started);

    /// <summary>Adds the counts of one more thread, which are kept when it ends.</summary>
    internal ThreadCounts Add(bool overRing)
    {
        var counts = new ThreadCounts(overRing);
        using (gate.Enter()) { threads = [.. threads, counts]; }
        return counts;
    }

    /// <summary>The totals of each opcode that was served.</summary>
    public IReadOnlyList<RequestTotals> Requests
    {
        get
        {
            var served = new List<RequestTotals>();
            for (Opcode opcode = 0; opcode < (Opcode)ThreadCounts.Opcodes; opcode++)
            {
                RequestTotals totals = Sum(opcode);
                if (totals.Counts.Any(count => count > 0)) { served.Add(totals); }
            }
            return served;
        }
    }

    private RequestTotals Sum(Opcode opcode)
    {
        long[] sums = new long[ThreadCounts.Latency];
        long[] counts = new long[Latencies.Buckets];
        foreach (ThreadCounts thread in threads)
        {
            for (int i = 0; i < sums.Length; i++)
            {
                long value = thread.Read(opcode, i);
                sums[i] = i == ThreadCounts.Longest ? Math.Max(sums[i], value) : sums[i] + value;
            }
            for (int i = 0; i < counts.Length; i++) { counts[i] += thread.Read(opcode, ThreadCounts.Latency + i); }
        }
        return new RequestTotals(opcode, sums[ThreadCounts.Errors], sums[ThreadCounts.Bytes], sums[ThreadCounts.Time],
            sums[ThreadCounts.Longest], counts);
    }

    /// <summary>The number of requests that came over io_uring, or by reading /dev/fuse.</summary>
    public long CountOver(bool ring)
    {
        long sum = 0;
        foreach (ThreadCounts thread in threads.Where(thread => thread.OverRing == ring))
        {
            for (Opcode opcode = 0; opcode < (Opcode)ThreadCounts.Opcodes; opcode++)
            {
                for (int i = 0; i < Latencies.Buckets; i++) { sum += thread.Read(opcode, ThreadCounts.Latency + i); }
            }
        }
        return sum;
    }

    /// <summary>The number of files that were opened this way.</summary>
    public long Opened(OpenWay way) => threads.Sum(thread => thread.Read(way));
}
