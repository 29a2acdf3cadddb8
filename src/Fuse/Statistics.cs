using System.Diagnostics;
using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>How an open file reaches its data, as the kernel was told.</summary>
public enum OpenWay
{
    /// <summary>Nothing was opened.</summary>
    None,
    /// <summary>Through the kernel's pages, which are read anew.</summary>
    Cached,
    /// <summary>Through the kernel's pages, and those that there are stay.</summary>
    Kept,
    /// <summary>Maps by the kernel on the real file; what is read and written comes to us each time.</summary>
    Mapped,
    /// <summary>Each time from us.</summary>
    Direct,
    /// <summary>By the kernel on the real file: we never hear of it.</summary>
    PassedThrough,
}

/// <summary>How a request ended, as far as it is counted.</summary>
internal struct Outcome
{
    /// <summary>What was answered.</summary>
    public Errno Error;
    /// <summary>Bytes of content read or written.</summary>
    public long Bytes;
    /// <summary>For what opens a file.</summary>
    public OpenWay Way;
}

/// <summary>What one thread has served. Only that thread writes; others read at any time.</summary>
/// <remarks>
/// Plain additions to memory of its own: nothing is locked, nothing is shared with another thread's. A reader may see a
/// request counted in one number and not yet in another.
/// </remarks>
/// <param name="overRing">Whether its requests come over io_uring.</param>
internal sealed class ThreadCounts(bool overRing)
{
    /// <summary>Opcodes that are told apart. Others, which are not served, are opcode 0.</summary>
    public const int Opcodes = (int)Opcode.CopyFileRange64 + 1;

    /// <summary>Where the numbers of an opcode are, before its latencies.</summary>
    public const int Errors = 0, Bytes = 1, Time = 2, Longest = 3, Latency = 4;

    /// <summary>A line of the processor's cache at each end of an array, lest it be shared with another thread's.</summary>
    private const int Margin = 8;

    private readonly long[]?[] opcodes = new long[Opcodes][]; // made when the first comes: most never do
    private readonly long[] ways = new long[Margin + (int)OpenWay.PassedThrough + 1 + Margin];

    public bool OverRing { get; } = overRing;

    /// <summary>One request more.</summary>
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

    /// <summary>One of the numbers of an opcode.</summary>
    public long Read(Opcode opcode, int number) => Volatile.Read(ref opcodes[(int)opcode]) is { } one ? Volatile.Read(ref one[Margin + number]) : 0;

    /// <summary>How many files were opened this way.</summary>
    public long Read(OpenWay way) => Volatile.Read(ref ways[Margin + (int)way]);
}

/// <summary>What was served of one opcode. Times are nanoseconds, from the request's arrival until the server is done with it.</summary>
/// <param name="Opcode">The opcode; 0 for those that are not known.</param>
/// <param name="Errors">How many were answered with an error.</param>
/// <param name="Bytes">Bytes of content read or written.</param>
/// <param name="Time">Of all together.</param>
/// <param name="Longest">Of the one that took longest.</param>
/// <param name="Counts">How many took how long: see <see cref="Latencies"/>.</param>
public sealed record RequestTotals(Opcode Opcode, long Errors, long Bytes, long Time, long Longest, long[] Counts);

/// <summary>What a server has served since it started: summed over its threads when somebody asks.</summary>
public sealed class Statistics
{
    private readonly OrderedLock gate = new(FuseLocks.Statistics);
    private readonly long started = Stopwatch.GetTimestamp();
    private volatile ThreadCounts[] threads = [];

    /// <summary>The clock of all times: nanoseconds, on Linux.</summary>
    internal static long Now => Stopwatch.GetTimestamp();

    /// <summary>Since the server was made.</summary>
    public TimeSpan Uptime => Stopwatch.GetElapsedTime(started);

    /// <summary>Numbers for one more thread, which are kept when it ends.</summary>
    internal ThreadCounts Add(bool overRing)
    {
        var counts = new ThreadCounts(overRing);
        using (gate.Enter()) { threads = [.. threads, counts]; }
        return counts;
    }

    /// <summary>Of each opcode that was served.</summary>
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
        return new RequestTotals(opcode, sums[ThreadCounts.Errors], sums[ThreadCounts.Bytes], sums[ThreadCounts.Time], sums[ThreadCounts.Longest], counts);
    }

    /// <summary>How many requests came over io_uring, or by reading /dev/fuse.</summary>
    public long CameOver(bool ring)
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

    /// <summary>How many files were opened this way.</summary>
    public long Opened(OpenWay way) => threads.Sum(thread => thread.Read(way));
}
