using System.Globalization;
using System.Text;

namespace Veneer.Compare;

/// <summary>What Veneer wants to reach, beside what was measured.</summary>
internal static class Goals
{
    /// <summary>How many times the kernel's a row may take.</summary>
    /// <param name="Row">The row.</param>
    /// <param name="WithRing">As it is, where the kernel offers io_uring.</param>
    /// <param name="Without">Without io_uring.</param>
    /// <param name="Volatile">With volatile, where that differs.</param>
    private sealed record Limit(string Row, double WithRing, double Without, double? Volatile = null)
    {
        public Limit(string row, double always) : this(row, always, always) { }
    }

    private const string Unknown = "-";

    private static readonly Limit[] limits =
    [
        new("walk-cold", 1.0), new("walk-warm", 1.0), new("stat-warm", 1.0), new("missing-warm", 1.0),
        new("stat-cold", 3.5, 6), new("missing-cold", 3.5, 6),
        new("open-warm", 4, 8), new("read-cold", 4, 8), new("read-warm", 4, 8),
        new("getxattr", 5, 9),
        new("readdir-10k", 0.4),
        new("create", 2.5, 5), new("unlink-upper", 2.5, 5), new("unlink-lower", 2.5, 5), new("rename-upper", 2.5, 5),
        new("copyup-append", 1.1, 1.1, 0.4), new("copyup-chmod", 1.1, 1.1, 0.4), new("copyup-big", 1.0, 1.0, 0.15),
        new("seqread", 1.5), new("seqread-cold", 2.5), new("randread", 1.2), new("mmapread", 1.0),
        new("seqwrite", 1.1), new("randwrite", 1.1),
    ];

    /// <summary>One line of the second table.</summary>
    /// <param name="Goal">In words.</param>
    /// <param name="Measured">In words.</param>
    /// <param name="IsMet">Null: not measured.</param>
    private sealed record Line(string Goal, string Measured, bool? IsMet);

    /// <summary>Two tables: the ratios to the kernel's overlayfs, and everything else.</summary>
    public static string ToMarkdown(Results results)
    {
        var text = new StringBuilder(
            "| row | at most, with io_uring | measured | at most, without | measured | met? |\n|---|---|---|---|---|---|\n");
        foreach (Limit limit in limits)
        {
            Finding? row = results.Find(limit.Row);
            double? ring = row?.Ratio(Contender.Veneer), without = row?.Ratio(Contender.WithoutRing);
            text.Append(
                CultureInfo.InvariantCulture,
                $"| {limit.Row} | {limit.WithRing} | {Text(ring)} | {limit.Without} | {Text(without)} | "
                + $"{Verdict(IsMet(ring, limit.WithRing), IsMet(without, limit.Without))} |\n");
            if (limit.Volatile is not { } relaxed) { continue; }
            double? measured = row?.Ratio(Contender.Volatile);
            text.Append(CultureInfo.InvariantCulture,
                $"| {limit.Row}, `volatile` | {relaxed} | {Text(measured)} | | | {Verdict(IsMet(measured, relaxed))} |\n");
        }
        double? threads = OfManyThreads(results, Contender.Veneer), threadsWithout = OfManyThreads(results, Contender.WithoutRing);
        text.Append(
            CultureInfo.InvariantCulture,
            $"| mixed-16t, to its own mixed-1t (the kernel's: {Text(OfManyThreads(results, Contender.Base))}) | 1.3 | {Text(threads)} | "
            + $"1.3 | {Text(threadsWithout)} | {Verdict(IsMet(threads, 1.3), IsMet(threadsWithout, 1.3))} |\n");

        text.Append("\n| goal | measured | met? |\n|---|---|---|\n");
        foreach (Line line in (Line[])[.. ServerLines(results), .. GrowthLines(results), .. RootlessLines(results)])
        {
            text.Append(CultureInfo.InvariantCulture, $"| {line.Goal} | {line.Measured} | {Verdict(line.IsMet)} |\n");
        }
        return text.ToString();
    }

    /// <summary>What an operation costs with 16 threads, to what it costs with one.</summary>
    private static double? OfManyThreads(Results results, string contender) =>
        results.Find("mixed-16t")?.Median(contender) / results.Find("mixed-1t")?.Median(contender);

    private static IEnumerable<Line> ServerLines(Results results)
    {
        double? walked = Median("memory-walked-1000000"), forgotten = Median("memory-forgotten-1000000"), idle = Median("memory-idle");
        yield return new("after a walk of 1,000,000 files the server has at most 250 MB", InMegabytes(walked),
            walked is null ? null : Mebi(walked) <= 250);
        yield return new("memory falls again when the kernel forgets", $"from {InMegabytes(walked)} to {InMegabytes(forgotten)}",
            walked is null || forgotten is null ? null : forgotten < walked * 0.5);
        yield return new("idle after mount at most 12 MB", InMegabytes(idle), idle is null ? null : Mebi(idle) <= 12);
        Finding? churn = results.Find("churn");
        double time = churn is not null && churn.Contenders.TryGetValue(Contender.Veneer, out Cell? cell) && cell.Samples is [.., var last]
            ? last[0]
            : 0;
        yield return new(
            "no growth while files come and go (at most 1 MB)",
            churn?.Median(Contender.Veneer) is { } growth ? $"{InMegabytes(growth)} in {time / 60:0.#} minutes" : Unknown,
            churn?.Median(Contender.Veneer) is { } grown ? Mebi(grown) <= 1 : null);
        foreach (int lowers in (int[])[1, 128])
        {
            double? start = Median($"start-{lowers}-lowers");
            yield return new($"`veneer mount` to the first stat in at most 25 ms, {lowers} lower{(lowers == 1 ? "" : "s")}",
                InMilliseconds(start), start is null ? null : start <= 25);
        }
        double? many = Median("start-500-lowers");
        yield return new("500 lowers work", many is null ? Unknown : $"yes, in {InMilliseconds(many)}", many is null ? null : true);
        double? deep = Deep(Contender.Veneer);
        yield return new(
            "a lookup with 64 lowers costs at most 3 times that with 1",
            $"{Text(deep)} (the kernel: {Text(Deep(Contender.Base))})",
            IsMet(deep, 3));
        double? switches = Median("idle-switches");
        yield return new(
            "idle: no wake-ups",
            switches is { } count ? $"{count:0.#} in {results.Circumstances.GetValueOrDefault("idle seconds")} seconds" : Unknown,
            switches is null ? null : switches == 0);
        yield return new("no managed bytes for each request", "counted by AllocationTests, in Fuse.Tests and Overlay.Tests", true);

        double? Median(string row) => results.Find(row)?.Median(Contender.Veneer);

        double? Deep(string contender) =>
            results.Find("stat-cold-64-lowers")?.Median(contender) / results.Find("stat-cold-1-lowers")?.Median(contender);
    }

    /// <summary>The cost of each piece at the end of a line, to that at its beginning.</summary>
    private static IEnumerable<Line> GrowthLines(Results results)
    {
        IEnumerable<Finding> growing = results.Rows
            .Where(row => row.Group == Row.Growth && row.Median(Contender.Veneer) > 0)
            .Where(row => !row.Name.EndsWith("-lowers", StringComparison.Ordinal));
        foreach (IGrouping<string?, Finding> line in growing.GroupBy(row => row.Line).Where(line => line.Count() > 1))
        {
            Finding first = line.MinBy(row => row.X)!, last = line.MaxBy(row => row.X)!;
            double? slope = last.Median(Contender.Veneer) / first.Median(Contender.Veneer),
                kernel = last.Median(Contender.Base) / first.Median(Contender.Base);
            // A file at depth 100 has a hundred directories above it: its work is theirs.
            bool isDepth = first.Name.StartsWith("copyup-depth", StringComparison.Ordinal);
            string work = isDepth
                ? $"{first.X:0} to {last.X:0} directories deep: at most {last.X / first.X:0} times"
                : $"{first.X:0} to {last.X:0}: each at most 2 times";
            yield return new($"linear: {line.Key!.ToLowerInvariant()}, {work}", $"{Text(slope)} (the kernel: {Text(kernel)})",
                IsMet(slope, isDepth ? last.X / first.X : 2));
        }
    }

    private static IEnumerable<Line> RootlessLines(Results results)
    {
        foreach (Finding row in results.Rows.Where(row => row.Group == Row.Rootless))
        {
            double? ring = ToPeer(Contender.Veneer), without = ToPeer(Contender.WithoutRing);
            if (row.Name.StartsWith("copyup", StringComparison.Ordinal))
            {
                // It never syncs a copy.
                double? measured = ToPeer(Contender.Volatile);
                yield return new($"{row.Name}, `volatile`: as fast as Debian's fuse-overlayfs",
                    $"{Text(measured)} times its time, {Text(ring)} with a synced copy", IsMet(measured, 1));
                continue;
            }
            yield return new(
                $"{row.Name}: as fast as Debian's fuse-overlayfs",
                $"{Text(ring)} times its time, {Text(without)} without io_uring",
                (IsMet(ring, 1), IsMet(without, 1)) switch { (null, null) => null, (false, _) or (_, false) => false, _ => true });

            double? ToPeer(string contender) => row.Ratio(contender + Contender.Rootless, Contender.Peer + Contender.Rootless);
        }
    }

    /// <summary>A goal is met when the figure that is printed says so.</summary>
    private static bool? IsMet(double? measured, double limit) => measured is { } value ? Math.Round(value, 2) <= limit : null;

    private static string Verdict(params ReadOnlySpan<bool?> verdicts)
    {
        var words = new List<string>();
        foreach (bool? verdict in verdicts) { words.Add(verdict switch { true => "yes", false => "**no**", null => "not measured" }); }
        return words.Distinct(StringComparer.Ordinal).Count() == 1 ? words[0] : string.Join(", ", words);
    }

    private static string Text(double? ratio) => ratio is { } value ? Results.Short(value) : Unknown;

    /// <summary>Millions of bytes.</summary>
    private static double? Mebi(double? mebibytes) => mebibytes * 1.048576;

    private static string InMegabytes(double? mebibytes) => Mebi(mebibytes) is { } value ? $"{Results.Short(value)} MB" : Unknown;

    private static string InMilliseconds(double? value) => value is { } time ? $"{Results.Short(time)} ms" : Unknown;
}
