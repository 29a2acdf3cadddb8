using System.Globalization;
using System.Text;
using Veneer.Overlay.Control;

namespace Veneer.Cli;

/// <summary>
/// Formats the statistics of a mount as OpenMetrics text. See https://prometheus.io/docs/specs/om/open_metrics_spec/.
/// </summary>
internal sealed class OpenMetrics
{
    /// <summary>
    /// The histogram's first and last bound and the step between bounds, as powers of two in nanoseconds: from a
    /// microsecond to 17 seconds, every second doubling.
    /// </summary>
    private const int FirstBound = 10, LastBound = 34, BoundStep = 2;

    private readonly StringBuilder text = new();
    private readonly string mount;

    private OpenMetrics(string mount) => this.mount = mount;

    /// <param name="stats">The statistics.</param>
    /// <param name="mount">The mount point: a label of every sample, so that several mounts can be collected.</param>
    public static string Of(Stats stats, string mount)
    {
        var metrics = new OpenMetrics(Escape(mount));
        metrics.AddRequests(stats);
        metrics.AddOverlay(stats);
        metrics.AddProcess(stats.Process);
        return metrics.text.Append("# EOF\n").ToString();
    }

    private void AddRequests(Stats stats)
    {
        Family("veneer_requests", "counter", "Requests served, by kind.");
        foreach (RequestStats one in stats.Requests) { Sample("veneer_requests_total", one.Count, "opcode", one.Opcode); }
        Family("veneer_request_errors", "counter", "Requests answered with an error, by kind.");
        foreach (RequestStats one in stats.Requests) { Sample("veneer_request_errors_total", one.Errors, "opcode", one.Opcode); }
        Family("veneer_request_content_bytes", "counter", "Content read or written, by kind of request.", "bytes");
        foreach (RequestStats one in stats.Requests.Where(one => one.Bytes > 0))
        {
            Sample("veneer_request_content_bytes_total", one.Bytes, "opcode", one.Opcode);
        }
        Family("veneer_request_duration_seconds", "histogram",
            "Time from the arrival of a request at the server until its reply, by kind.", "seconds");
        foreach (RequestStats one in stats.Requests) { AddHistogram(one); }
        Family("veneer_requests_received", "counter", "Requests served, by how they came.");
        Sample("veneer_requests_received_total", stats.OverDevice, "way", "device");
        Sample("veneer_requests_received_total", stats.OverIoUring, "way", "io_uring");
        Gauge("veneer_requests_in_progress", "Requests being served.", stats.InProgress);
    }

    private void AddHistogram(RequestStats one)
    {
        for (int bound = FirstBound; bound <= LastBound; bound += BoundStep)
        {
            long below = one.Latency.Where(pair => pair[0] <= 1L << bound).Sum(pair => pair[1]);
            Sample("veneer_request_duration_seconds_bucket", below, "opcode", one.Opcode, Text((1L << bound) / 1e9));
        }
        Sample("veneer_request_duration_seconds_bucket", one.Count, "opcode", one.Opcode, "+Inf");
        Sample("veneer_request_duration_seconds_sum", one.Seconds, "opcode", one.Opcode);
        Sample("veneer_request_duration_seconds_count", one.Count, "opcode", one.Opcode);
    }

    private void AddOverlay(Stats stats)
    {
        Family("veneer_opens", "counter", "Files opened, by how their data is reached.");
        Sample("veneer_opens_total", stats.Opens.PassedThrough, "way", "passed_through");
        Sample("veneer_opens_total", stats.Opens.MapsPassedThrough, "way", "maps_passed_through");
        Sample("veneer_opens_total", stats.Opens.CacheKept, "way", "cache_kept");
        Sample("veneer_opens_total", stats.Opens.Cached, "way", "cached");
        Sample("veneer_opens_total", stats.Opens.Direct, "way", "direct");
        Gauge("veneer_open_files", "Files that are open.", stats.OpenFiles);
        Gauge("veneer_open_files_max", "Files that may be open at once.", stats.MaxOpenFiles);
        Gauge("veneer_backing_ids", "Files registered with the kernel for passthrough.", stats.BackingIds);
        Counter("veneer_backing_ids_refused", "Files that the kernel refused to pass through.", stats.BackingIdsRefused);
        Gauge("veneer_inodes", "Inodes that the kernel knows, or that lie above such.", stats.Inodes);
        Gauge("veneer_directories_open", "Directories of the layers that are kept open.", stats.Directories.Open);
        Gauge("veneer_directories_open_max", "Directories of the layers that may be kept open.", stats.Directories.Capacity);
        Counter("veneer_directory_hits", "Times that a directory was open that was needed.", stats.Directories.Hits);
        Counter("veneer_directory_misses", "Times that a directory had to be opened.", stats.Directories.Misses);
        Counter("veneer_directory_evictions", "Times that a directory was closed to make room.", stats.Directories.Evictions);
        Counter("veneer_copy_ups", "Objects copied up.", stats.CopyUps.Count);
        Counter("veneer_copy_up_bytes", "Data of files copied up.", stats.CopyUps.Bytes, "bytes");
        Counter("veneer_notifications", "Invalidations sent to the kernel.", stats.Notifications);
        Gauge("veneer_uptime_seconds", "Time since the mount was made.", stats.UptimeSeconds, "seconds");
    }

    private void AddProcess(ProcessStats process)
    {
        Gauge("veneer_threads", "Threads that serve.", process.Threads);
        Gauge("veneer_descriptors", "Descriptors that the server uses.", process.Descriptors);
        Gauge("veneer_descriptors_max", "Descriptors that the server may use.", process.MaxDescriptors);
        Gauge("veneer_resident_bytes", "Memory of the server in RAM.", process.ResidentBytes, "bytes");
        Gauge("veneer_heap_bytes", "The server's managed heap.", process.HeapBytes, "bytes");
        Counter("veneer_allocated_bytes", "Managed memory that the server ever allocated.", process.AllocatedBytes, "bytes");
        Counter("veneer_collections", "Garbage collections of the server.", process.Collections);
        Family("veneer_cpu_seconds", "counter", "CPU time of the server.", "seconds");
        Sample("veneer_cpu_seconds_total", process.UserSeconds, "mode", "user");
        Sample("veneer_cpu_seconds_total", process.SystemSeconds, "mode", "system");
    }

    private void Counter(string name, string help, double value, string? unit = null)
    {
        Family(name, "counter", help, unit);
        Sample(name + "_total", value);
    }

    private void Gauge(string name, string help, double value, string? unit = null)
    {
        Family(name, "gauge", help, unit);
        Sample(name, value);
    }

    private void Family(string name, string type, string help, string? unit = null)
    {
        text.Append(CultureInfo.InvariantCulture, $"# TYPE {name} {type}\n");
        if (unit is not null) { text.Append(CultureInfo.InvariantCulture, $"# UNIT {name} {unit}\n"); }
        text.Append(CultureInfo.InvariantCulture, $"# HELP {name} {help}\n");
    }

    private void Sample(string name, double value, string? label = null, string labelValue = "", string? bound = null)
    {
        text.Append(CultureInfo.InvariantCulture, $"{name}{{mount=\"{mount}\"");
        if (label is not null) { text.Append(CultureInfo.InvariantCulture, $",{label}=\"{Escape(labelValue)}\""); }
        if (bound is not null) { text.Append(CultureInfo.InvariantCulture, $",le=\"{bound}\""); }
        text.Append(CultureInfo.InvariantCulture, $"}} {Text(value)}\n");
    }

    /// <summary>Formats a number. The specification allows integers, and numbers with a point or an exponent.</summary>
    private static string Text(double value) => value.ToString("R", CultureInfo.InvariantCulture);

    /// <summary>Escapes the value of a label. The format needs UTF-8, which a path need not be.</summary>
    private static string Escape(string value)
    {
        var escaped = new StringBuilder();
        foreach (Rune rune in value.EnumerateRunes()) // a lone surrogate becomes U+FFFD
        {
            escaped.Append(rune.Value switch { '\\' => "\\\\", '"' => "\\\"", '\n' => "\\n", _ => rune.ToString() });
        }
        return escaped.ToString();
    }
}
