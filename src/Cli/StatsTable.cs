using System.Globalization;
using Spectre.Console;
using Veneer.Fuse;
using Veneer.Overlay.Control;

namespace Veneer.Cli;

/// <summary>
/// Formats the statistics of a mount for people: a block of the most important numbers, then a table of the requests, in at
/// most 80 columns.
/// </summary>
internal static class StatsTable
{
    private const int Width = 80;

    /// <param name="now">The statistics.</param>
    /// <param name="before">The statistics of an earlier look, for rates and for the times since then; or null.</param>
    /// <param name="mount">The mount point.</param>
    public static string Of(Stats now, Stats? before, string mount)
    {
        if (before?.UptimeSeconds >= now.UptimeSeconds) { before = null; } // the server is another one by now
        using var text = new StringWriter(CultureInfo.InvariantCulture);
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings
        {
            Ansi = AnsiSupport.No,
            ColorSystem = ColorSystemSupport.NoColors,
            Out = new AnsiConsoleOutput(text),
        });
        console.Profile.Width = Width;
        console.Profile.Capabilities.Unicode = false;
        console.Write(Summary(now, before, mount));
        console.WriteLine();
        console.Write(Requests(now, before));
        // Spectre pads lines with blanks.
        return string.Join('\n', text.ToString().Split('\n').Select(line => line.TrimEnd()));
    }

    private static Grid Summary(Stats now, Stats? before, string mount)
    {
        long all = now.Requests.Sum(one => one.Count);
        long errors = now.Requests.Sum(one => one.Errors);
        double cpu = now.Process.UserSeconds + now.Process.SystemSeconds;
        OpenStats opens = now.Opens;
        long opened = opens.PassedThrough + opens.MapsPassedThrough + opens.CacheKept + opens.Cached + opens.Direct;
        DirectoryStats directories = now.Directories;
        double cpuPart = before is null
            ? cpu / Math.Max(now.UptimeSeconds, 1e-9)
            : (cpu - before.Process.UserSeconds - before.Process.SystemSeconds) / (now.UptimeSeconds - before.UptimeSeconds);

        var grid = new Grid()
            .AddColumn(new GridColumn { NoWrap = true, Padding = new Padding(0, 0, 2, 0) })
            .AddColumn(new GridColumn { Padding = new Padding(0) });
        Add("mount", $"{mount}, up {Duration(now.UptimeSeconds)}");
        Add("requests",
            $"{Count(all)}{Rate(now, before, all, before?.Requests.Sum(one => one.Count))}, {Count(errors)} with an "
            + $"error; {Part(now.OverIoUring, all)} over io_uring; {now.InProgress} in progress");
        Add("opens",
            $"{Count(opened)}: {Count(opens.PassedThrough)} passed through, {Count(opens.MapsPassedThrough)} for maps "
            + $"alone, {Count(opens.CacheKept + opens.Cached)} cached ({Count(opens.CacheKept)} keep their pages), "
            + $"{Count(opens.Direct)} direct");
        Add("open now",
            $"{Count(now.OpenFiles)} of at most {Count(now.MaxOpenFiles)} files, {Count(now.BackingIds)} registered for "
            + $"passthrough{(now.BackingIdsRefused > 0 ? $", {Count(now.BackingIdsRefused)} refused" : "")}");
        Add("known",
            $"{Count(now.Inodes)} inodes; {Count(directories.Open)} of {Count(directories.Capacity)} directories kept "
            + $"open, {Part(directories.Hits, directories.Hits + directories.Misses)} hits");
        Add("copy-ups", $"{Count(now.CopyUps.Count)}, {Bytes(now.CopyUps.Bytes)}; {Count(now.Notifications)} notifications");
        Add("server", string.Create(CultureInfo.InvariantCulture,
            $"process {now.Process.Pid}, {now.Process.Threads} threads, {Bytes(now.Process.ResidentBytes)} resident, "
            + $"{Bytes(now.Process.HeapBytes)} heap, {now.Process.Descriptors} descriptors, {Seconds(cpu)} of CPU "
            + $"({cpuPart * 100:F1} %)"));
        return grid;

        void Add(string name, string value) => grid.AddRow(new Text(name), new Text(value));
    }

    private static Table Requests(Stats now, Stats? before)
    {
        Table table = new Table().NoBorder().Collapse();
        table.ShowHeaders = true;
        AddColumn("request", isText: true);
        AddColumn("count");
        if (before is not null) { AddColumn("/s"); }
        foreach (string name in (ReadOnlySpan<string>)["errors", "bytes", "p50", "p90", "p99", "max"]) { AddColumn(name); }

        foreach (RequestStats one in now.Requests.OrderByDescending(one => one.Count).ThenBy(one => one.Opcode, StringComparer.Ordinal))
        {
            RequestStats? earlier = before?.Requests.FirstOrDefault(other => other.Opcode == one.Opcode);
            var cells = new List<string> { one.Opcode, Count(one.Count) };
            if (before is not null) { cells.Add(Number((one.Count - (earlier?.Count ?? 0)) / (now.UptimeSeconds - before.UptimeSeconds))); }
            cells.Add(one.Errors == 0 ? "" : Count(one.Errors));
            cells.Add(one.Bytes == 0 ? "" : Bytes(one.Bytes));
            cells.AddRange(before is null
                ? [Seconds(one.P50Seconds), Seconds(one.P90Seconds), Seconds(one.P99Seconds), Seconds(one.MaxSeconds)]
                : TimesSince(one, earlier));
            table.AddRow(cells.Select(cell => new Text(cell)));
        }
        return table;

        void AddColumn(string name, bool isText = false) =>
            table.AddColumn(new TableColumn(new Text(name))
            {
                NoWrap = true,
                Padding = new Padding(0, 0, 2, 0),
                Alignment = isText ? Justify.Left : Justify.Right,
            });
    }

    /// <summary>The percentiles of the requests between two looks.</summary>
    private static string[] TimesSince(RequestStats now, RequestStats? before)
    {
        long[] counts = new long[Latencies.Buckets];
        Add(now.Latency, 1);
        Add(before?.Latency ?? [], -1);
        int longest = Array.FindLastIndex(counts, count => count > 0);
        if (longest < 0) { return ["", "", "", ""]; }
        double max = Math.Min(Latencies.BoundOf(longest) / 1e9, now.MaxSeconds);
        return [.. ((double[])[0.5, 0.9, 0.99]).Select(part => Seconds(Math.Min(Latencies.Percentile(counts, part) / 1e9, max))),
            Seconds(max)];

        void Add(IReadOnlyList<long[]> pairs, int sign)
        {
            foreach (long[] pair in pairs)
            {
                if (pair.Length == 2) { counts[Latencies.BucketOf(pair[0] - 1)] += sign * pair[1]; }
            }
        }
    }

    private static string Rate(Stats now, Stats? before, long count, long? earlier) =>
        before is null || earlier is null ? "" : $" ({Number((count - earlier.Value) / (now.UptimeSeconds - before.UptimeSeconds))}/s)";

    private static string Part(long some, long all) =>
        all == 0 ? "0 %" : string.Create(CultureInfo.InvariantCulture, $"{some * 100.0 / all:0.#} %");

    /// <summary>Formats a count in at most seven characters.</summary>
    private static string Count(long count) =>
        count < 1_000_000 ? count.ToString(CultureInfo.InvariantCulture) : Scaled(count, 1000, ["", "k", "M", "G", "T", "P", "E"]);

    private static string Number(double number) =>
        number < 10 ? number.ToString("0.#", CultureInfo.InvariantCulture) : Count((long)Math.Round(number));

    private static string Bytes(long bytes) => Scaled(bytes, 1024, [" B", " K", " M", " G", " T", " P", " E"]);

    private static string Scaled(double number, int step, ReadOnlySpan<string> units)
    {
        int unit = 0;
        for (; number >= step && unit < units.Length - 1; unit++) { number /= step; }
        return number.ToString(unit == 0 || number >= 100 ? "F0" : "F1", CultureInfo.InvariantCulture) + units[unit];
    }

    private static string Seconds(double seconds) => seconds switch
    {
        0 => "0",
        < 1e-6 => string.Create(CultureInfo.InvariantCulture, $"{seconds * 1e9:F0}ns"),
        < 1e-5 => string.Create(CultureInfo.InvariantCulture, $"{seconds * 1e6:F1}us"),
        < 1e-3 => string.Create(CultureInfo.InvariantCulture, $"{seconds * 1e6:F0}us"),
        < 1e-2 => string.Create(CultureInfo.InvariantCulture, $"{seconds * 1e3:F1}ms"),
        < 1 => string.Create(CultureInfo.InvariantCulture, $"{seconds * 1e3:F0}ms"),
        < 100 => string.Create(CultureInfo.InvariantCulture, $"{seconds:F1}s"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{seconds:F0}s"),
    };

    private static string Duration(double seconds)
    {
        var time = TimeSpan.FromSeconds(seconds);
        return time.TotalMinutes < 1 ? $"{time.Seconds} s"
            : time.TotalHours < 1 ? $"{time.Minutes} min {time.Seconds} s"
            : time.TotalDays < 1 ? $"{time.Hours} h {time.Minutes} min"
            : $"{time.Days} d {time.Hours} h";
    }
}
