using System.Text.Json;
using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;

namespace Veneer.Overlay;

/// <summary>What tools ask of a live mount; docs/control.md has the form of each answer.</summary>
internal sealed partial class OverlayFileSystem
{
    private Errno Answer(in Request request, Query query, ReadOnlySpan<byte> argument, Utf8JsonWriter document)
    {
        switch (query)
        {
            case Query.Stats:
                if (!argument.IsEmpty) { return Errno.EINVAL; }
                JsonSerializer.Serialize(document, ReadStats(), DocumentJson.Default.Stats);
                return Errno.None;
            case Query.Layers:
                return AnswerLayers(request, argument, document);
            case Query.Changes:
                return AnswerChanges(argument, document);
            case Query.Durability:
                if (!argument.IsEmpty) { return Errno.EINVAL; }
                WriteDurability(document);
                return Errno.None;
            case Query.Sync:
                return StartSync(argument, document);
            case Query.Remounted:
                return FollowRemount(argument, document);
            default:
                return Errno.EOPNOTSUPP;
        }
    }

    private Stats ReadStats()
    {
        (int open, long hits, long opened, long evicted) = volume.Directories.Counts;
        Statistics served = connection!.Statistics;
        return new Stats
        {
            UptimeSeconds = served.Uptime.TotalSeconds,
            Requests = [.. served.Requests.Select(StatsOf)],
            OverDevice = served.CameOver(ring: false),
            OverIoUring = served.CameOver(ring: true),
            InProgress = connection.Workers.Busy,
            Opens = new OpenStats
            {
                PassedThrough = served.Opened(OpenWay.PassedThrough),
                MapsPassedThrough = served.Opened(OpenWay.Mapped),
                CacheKept = served.Opened(OpenWay.Kept),
                Cached = served.Opened(OpenWay.Cached),
                Direct = served.Opened(OpenWay.Direct),
            },
            OpenFiles = files.Count,
            MaxOpenFiles = volume.MaxOpenFiles,
            BackingIds = backings?.Held ?? 0,
            BackingIdsRefused = backings?.Failures ?? 0,
            Inodes = volume.Inodes.Count,
            Directories = new DirectoryStats { Open = open, Capacity = volume.Directories.Capacity, Hits = hits, Misses = opened, Evictions = evicted },
            CopyUps = new CopyUpStats { Count = copyUp.Copies, Bytes = copyUp.CopiedBytes },
            Notifications = connection.Notifier.Sent,
            Process = ReadProcess(connection.Workers.Count),
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
            Latency = [.. totals.Counts.Index().Where(bucket => bucket.Item > 0).Select(bucket => (long[])[Latencies.BoundOf(bucket.Index), bucket.Item])],
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
        if (Libc.OpenAt(Libc.AtCwd, "/proc/self/fd\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int descriptor).IsError) { return 0; }
        using var directory = new Fd(descriptor);
        using var reader = new DirectoryReader(descriptor);
        int count = -1; // the one for looking
        while (reader.MoveNext()) { count++; }
        return count;
    }
}
