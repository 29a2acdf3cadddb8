using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Control;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Live;

/// <summary>Answers the question stats: what a live mount has done.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="files">The open files.</param>
/// <param name="copyUp">Brings objects to upper.</param>
/// <param name="maxOpenFiles">The most files that users may have open at once.</param>
internal sealed class LiveStats(ObjectTree tree, KernelSession session, OpenFiles files, CopyUp copyUp, int maxOpenFiles)
{
    /// <summary>Reads all counts.</summary>
    public Stats Read()
    {
        (int open, long hits, long opened, long evicted) = tree.Directories.Counts;
        Statistics served = session.Connection!.Statistics;
        return new Stats
        {
            UptimeSeconds = served.Uptime.TotalSeconds,
            Requests = [.. served.Requests.Select(StatsOf)],
            OverDevice = served.CountOver(ring: false),
            OverIoUring = served.CountOver(ring: true),
            InProgress = session.Connection!.Workers.Busy,
            Opens = new OpenStats
            {
                PassedThrough = served.Opened(OpenWay.PassedThrough),
                MapsPassedThrough = served.Opened(OpenWay.Mapped),
                CacheKept = served.Opened(OpenWay.Kept),
                Cached = served.Opened(OpenWay.Cached),
                Direct = served.Opened(OpenWay.Direct),
            },
            OpenFiles = files.Count,
            MaxOpenFiles = maxOpenFiles,
            BackingIds = session.Backings?.Held ?? 0,
            BackingIdsRefused = session.Backings?.Failures ?? 0,
            Inodes = tree.Inodes.Count,
            Directories = new DirectoryStats
            {
                Open = open, Capacity = tree.Directories.Capacity, Hits = hits, Misses = opened, Evictions = evicted
            },
            CopyUps = new CopyUpStats { Count = copyUp.Copies, Bytes = copyUp.CopiedBytes },
            Notifications = session.Connection!.Notifier.Sent,
            Process = ReadProcess(session.Connection!.Workers.Count),
        };
    }

    private static RequestStats StatsOf(RequestTotals totals)
    {
        return new RequestStats
        {
            Opcode = NameOf(totals.Opcode),
            Count = totals.Counts.Sum(),
            Errors = totals.Errors,
            Bytes = totals.Bytes,
            Seconds = totals.Time / 1e9,
            P50Seconds = Percentile(0.5),
            P90Seconds = Percentile(0.9),
            P99Seconds = Percentile(0.99),
            MaxSeconds = totals.Longest / 1e9,
            Latency =
            [
                .. totals.Counts.Index().Where(bucket => bucket.Item > 0)
                    .Select(bucket => (long[])[Latencies.BoundOf(bucket.Index), bucket.Item])
            ],
        };

        double Percentile(double part) => Math.Min(Latencies.Percentile(totals.Counts, part), totals.Longest) / 1e9;
    }

    private static string NameOf(Opcode opcode) => opcode switch
    {
        0 => "other",
        Opcode.BatchForget => "batch_forget",
        Opcode.CopyFileRange => "copy_file_range",
        Opcode.CopyFileRange64 => "copy_file_range_64",
        _ => opcode.ToString().ToLowerInvariant(),
    };

    private static ProcessStats ReadProcess(int threads)
    {
        Environment.ProcessCpuUsage used = Environment.CpuUsage;
        return new ProcessStats
        {
            Pid = Libc.ProcessId,
            Threads = threads,
            Descriptors = CountDescriptors(),
            MaxDescriptors = Libc.OpenFileLimit(out ulong limit).IsError ? 0 : (long)Math.Min(limit, long.MaxValue),
            ResidentBytes = Environment.WorkingSet,
            HeapBytes = GC.GetTotalMemory(forceFullCollection: false),
            AllocatedBytes = GC.GetTotalAllocatedBytes(),
            Collections = GC.CollectionCount(0),
            UserSeconds = used.UserTime.TotalSeconds,
            SystemSeconds = used.PrivilegedTime.TotalSeconds,
        };
    }

    private static int CountDescriptors()
    {
        if (Libc.OpenAt(Libc.AtCwd, "/proc/self/fd\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None,
            out int descriptor).IsError)
        {
            return 0;
        }
        using var directory = new Fd(descriptor);
        using var reader = new DirectoryReader(descriptor);
        int count = -1; // without the descriptor that reads the directory
        while (reader.MoveNext()) { count++; }
        return count;
    }
}
