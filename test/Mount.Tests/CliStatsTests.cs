using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace Veneer.Mount.Tests;

/// <summary>What <c>veneer stats</c> says of a live mount, and what it says when there is none.</summary>
public sealed partial class CliStatsTests : IDisposable
{
    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    private string Succeeds(string script) => sandbox.Succeeds(script);

    private void Refuses(string script, string sentence, int exitCode = 32)
    {
        Outcome outcome = sandbox.Run(script);

        Assert.Equal($"veneer: {sentence}\n", sandbox.Relative(outcome.Error));
        Assert.Equal(("", exitCode), (outcome.Output, outcome.ExitCode));
    }

    private static JsonElement[] Documents(string lines) =>
        [.. lines.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => JsonDocument.Parse(line).RootElement)];

    private static long Number(JsonElement stats, string path) =>
        path.Split('.').Aggregate(stats, (element, name) => element.GetProperty(name)).GetInt64();

    private static long OfOpcode(JsonElement stats, string opcode, string what = "count") =>
        stats.GetProperty("requests")
            .EnumerateArray()
            .Where(one => one.GetProperty("opcode").GetString() == opcode)
            .Select(one => one.GetProperty(what).GetInt64())
            .SingleOrDefault();

    /// <summary>The content of small files goes to the kernel when they are opened, once it is seen that they are read.</summary>
    [MountFact]
    public void Small_files_need_no_request_for_their_content()
    {
        JsonElement[] stats = Documents(Succeeds(
            "for i in $(seq 100); do echo $i >l/f$i; done; veneer mount -o $LAYERS m; veneer stats --json m; "
            + "cat m/f[0-9]* | cmp - <(cat l/f[0-9]*); veneer stats --json m; veneer umount m"));

        long Served(string opcode) => OfOpcode(stats[1], opcode) - OfOpcode(stats[0], opcode);
        Assert.InRange(Served("open"), 100, 110);
        Assert.InRange(Served("read"), 1, 30);
    }

    /// <summary>Else the kernel may keep what the first reader has got for what the second one has: see ListingReaders.</summary>
    [MountFact(DisableParallelization = true)] // other tests have the kernel drop its caches
    public void A_listing_is_not_kept_while_others_may_have_begun_before_the_last_change()
    {
        JsonElement[] stats = Documents(Succeeds(
            "mkdir l/d; veneer mount -o $LAYERS m; veneer stats --json m; for i in $(seq 20); do >m/d/$i; ls m/d >all; ls m/d >all; done; "
            + "veneer stats --json m; "
            + "sleep 0.3; >m/d/x; ls m/d >all; veneer stats --json m; for i in $(seq 20); do ls m/d >all; done; veneer stats --json m; "
            + "veneer umount m"));

        long Read(int from) => new[] { "readdir", "readdirplus" }.Sum(
            opcode => OfOpcode(stats[from + 1], opcode) - OfOpcode(stats[from], opcode));
        // Two requests a listing, 42 if all were kept and 82 if none; on a busy machine more than a tenth of a second may lie
        // between two changes. Other tests may have the kernel drop its caches now and then.
        Assert.True(Read(0) > 50, $"{Read(0)}");
        Assert.InRange(Read(1), 1, 4);
        Assert.InRange(Read(2), 0, 20);
    }

    [MountFact]
    public void Numbers_move_as_things_are_done()
    {
        JsonElement[] stats = Documents(Succeeds(
            "head -c 5000 /dev/zero >l/g; ln -s f l/s; veneer mount -o $LAYERS,passthrough=off m; veneer stats --json m; "
            + "cat m/f >/dev/null; printf 1234567 >m/new; printf x >>m/g; mv m/new m/newer; rm m/newer; mkdir m/d; rmdir m/d; "
            + "ls m >/dev/null; readlink m/s; "
            + "getfattr -n user.none m/f 2>/dev/null || true; exec 5<m/g; exec 6<m/f; veneer stats --json m; exec 5<&- 6<&-; "
            + "veneer umount m").Replace("f\n", "", StringComparison.Ordinal));

        Assert.Equal(2, stats.Length);
        long Moved(string path) => Number(stats[1], path) - Number(stats[0], path);
        long Served(string opcode, string what = "count") => OfOpcode(stats[1], opcode, what) - OfOpcode(stats[0], opcode, what);

        Assert.Equal((1, 1, 1, 1, 1),
            (Served("create"), Served("mkdir"), Served("rmdir"), Served("unlink"), Served("rename2") + Served("rename")));
        Assert.Equal((0, 0), (Served("create", "errors"), Served("mkdir", "errors")));
        Assert.InRange(Served("lookup"), 4, 100);
        Assert.True(Served("getxattr", "errors") >= 1);
        Assert.Equal(1, Served("readlink"));
        Assert.Equal(8, Served("write", "bytes"));
        Assert.InRange(Served("read", "bytes"), 4, 5000);
        Assert.True(Served("readdir", "bytes") + Served("readdirplus", "bytes") > 0);
        Assert.Equal((1, 5000), (Moved("copy_ups.count"), Moved("copy_ups.bytes")));
        Assert.Equal(2, Moved("open_files"));
        Assert.InRange(Moved("process.descriptors"), 2, 20); // and directories
        Assert.Equal(Served("open") + Served("create"), Moved("opens.cached") + Moved("opens.cache_kept"));
        Assert.Equal((0, 0), (Number(stats[1], "opens.passed_through"), Number(stats[1], "backing_ids")));
        Assert.InRange(Number(stats[1], "inodes"), 3, 10);
        Assert.True(Moved("directories.hits") > 0);
        Assert.True(Moved("notifications") > 0);
        Assert.True(Number(stats[1], "process.resident_bytes") > Number(stats[1], "process.heap_bytes"));
        Assert.True(Number(stats[1], "process.threads") >= 1);
        Assert.Equal(1, Number(stats[1], "in_progress"));
        Assert.True(stats[1].GetProperty("uptime_seconds").GetDouble() > stats[0].GetProperty("uptime_seconds").GetDouble());

        foreach (JsonElement one in stats[1].GetProperty("requests").EnumerateArray())
        {
            long[][] latency =
                [.. one.GetProperty("latency").EnumerateArray().Select(pair => (long[])[pair[0].GetInt64(), pair[1].GetInt64()])];
            Assert.Equal(one.GetProperty("count").GetInt64(), latency.Sum(pair => pair[1]));
            Assert.Equal(latency.Select(pair => pair[0]).Order(), latency.Select(pair => pair[0]));
            string[] inOrder = ["p50_seconds", "p90_seconds", "p99_seconds", "max_seconds", "seconds"];
            double[] times = [.. inOrder.Select(name => one.GetProperty(name).GetDouble())];
            Assert.Equal(times.Order(), times);
            Assert.True(times[0] > 0);
        }
        long all = stats[1].GetProperty("requests").EnumerateArray().Sum(one => one.GetProperty("count").GetInt64());
        Assert.InRange(Number(stats[1], "over_device") + Number(stats[1], "over_io_uring"), all, all + 10); // counted one after the other
    }

    [MountFact]
    public void How_files_are_opened_is_told_apart()
    {
        JsonElement[] stats = Documents(Succeeds(
            "head -c 2000000 /dev/zero >l/large; cp /bin/true l/program; veneer mount -o $LAYERS,passthrough=lower m; m/program; "
            + "exec 4<m/large; exec 5<m/large; exec 6<m/f; cat m/f m/f >/dev/null; "
            + "exec 7>m/new; veneer stats --json m; exec 4<&- 5<&- 6<&- 7>&-; veneer umount m"));
        Needs.That(Number(stats[0], "opens.passed_through") > 0, "a kernel that passes files through (Linux 6.9)");
        Assert.Equal(3, Number(stats[0], "opens.passed_through")); // large twice, new
        Assert.True(Number(stats[0], "opens.maps_passed_through") >= 1);
        Assert.Equal((1, 2), (Number(stats[0], "opens.cached"), Number(stats[0], "opens.cache_kept")));
        Assert.Equal(0, Number(stats[0], "opens.direct"));
        Assert.Equal((2, 0), (Number(stats[0], "backing_ids"), Number(stats[0], "backing_ids_refused")));
    }

    [MountFact(DisableParallelization = true)] // it has the kernel offer io_uring to all
    public void How_requests_come_is_told_apart()
    {
        using IDisposable offer = IoUringSwitch.OnForNow(out string? missing);
        Needs.That(missing is null, $"FUSE over io_uring: {missing}");

        JsonElement ring = Documents(
            Succeeds("veneer mount -o $LAYERS,io_uring m; cat m/f >/dev/null; veneer stats --json m; veneer umount m"))[0];
        JsonElement device = Documents(
            Succeeds("veneer mount -o $LAYERS,io_uring=off m; cat m/f >/dev/null; veneer stats --json m; veneer umount m"))[0];

        Assert.InRange(Number(ring, "over_io_uring"), 3, 100);
        Assert.Equal(0, Number(device, "over_io_uring"));
        Assert.InRange(Number(device, "over_device"), 3, 100);
    }

    [MountFact]
    public void The_table_is_sorted_and_fits_a_terminal()
    {
        string output = Succeeds(
            "mkdir l/d; touch l/d/{1..40}; veneer mount -o $LAYERS m; stat m/d/* >/dev/null; cat m/d/* m/f >/dev/null; veneer stats m; "
            + "veneer umount m");
        string[] lines = output.Split('\n');

        Assert.All(lines, line => Assert.InRange(line.Length, 0, 80));
        Assert.StartsWith($"mount     {sandbox.Root}/m, up ", lines[0], StringComparison.Ordinal);
        int header = Array.FindIndex(lines, line => line.StartsWith("request ", StringComparison.Ordinal));
        Assert.Equal<string[]>(["request", "count", "errors", "bytes", "p50", "p90", "p99", "max"],
            lines[header].Split(' ', StringSplitOptions.RemoveEmptyEntries));
        string[][] rows = [
            .. lines[(header + 1)..].Where(line => line.Length > 0).Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries))];
        long[] counts = [.. rows.Select(row => long.Parse(row[1], CultureInfo.InvariantCulture))];
        Assert.Equal(counts.OrderDescending(), counts);
        Assert.Contains(rows, row => row[0] == "lookup");
        Assert.DoesNotContain('\e', output);
    }

    [MountFact]
    public void Watching_shows_rates_and_ends_with_its_reader_or_the_mount()
    {
        string output = Succeeds(
            "veneer mount -o $LAYERS m; veneer stats --json --watch 0.1 m | head -n 3 | wc -l; "
            + "for i in {1..200}; do stat m/none$i; done >/dev/null 2>&1 & "
            + "veneer stats m --watch=0.2 | head -n 60 | grep -c '^request .* /s '; wait; "
            + "(until_that test -s shown; umount m) & veneer stats --watch m >shown 2>/dev/null || echo $?; wait");

        string[] lines = output.Split('\n');
        Assert.Equal("3", lines[0]);
        Assert.InRange(int.Parse(lines[1], CultureInfo.InvariantCulture), 1, 10);
        Assert.Equal("3", lines[2]);
    }

    [MountFact]
    public void Any_file_or_directory_of_the_mount_will_do()
    {
        string output = Succeeds(
            "mkdir l/d b; echo >l/d/g; veneer mount -o $LAYERS m; mount --bind m/d b; for p in m m/f m/d m/d/g b b/g; do "
            + "veneer stats --json $p >j; cut -c-18 j; done; (cd m/d; veneer stats --json . >../../j); cut -c-18 j; umount b; "
            + "veneer umount m; rm j; rmdir b");

        Assert.Equal(string.Concat(Enumerable.Repeat("{\"uptime_seconds\":\n", 7)), output);
    }

    [MountFact]
    public void Numbers_are_there_for_a_read_only_overlay_too()
    {
        JsonElement stats = Documents(
            Succeeds("veneer mount -o lowerdir=l m; cat m/f >/dev/null; veneer stats --json m; veneer umount m"))[0];

        Assert.Equal(0, Number(stats, "copy_ups.count"));
        Assert.True(OfOpcode(stats, "open") >= 1);
    }

    [MountFact]
    public void OpenMetrics_text_is_valid()
    {
        string text = Succeeds(
            "mkdir 'a\"b\\'; veneer mount -o $LAYERS 'a\"b\\'; cat a*/f; ls a* >/dev/null; echo x >>a*/f; veneer stats --openmetrics a*; "
            + "veneer umount a*; rmdir a*")["old\n".Length..];

        var metrics = Metrics.Parse(text);
        Assert.Equal($"{sandbox.Root}/a\"b\\", metrics.Samples.Select(sample => sample.Labels["mount"]).Distinct().Single());
        Assert.Equal("counter", metrics.Types["veneer_requests"]);
        Assert.Equal("histogram", metrics.Types["veneer_request_duration_seconds"]);
        Assert.True(metrics.Value("veneer_requests_total", "opcode", "lookup") >= 1);
        Assert.Equal(1, metrics.Value("veneer_copy_ups_total"));
        Assert.Equal(4, metrics.Value("veneer_copy_up_bytes_total"));
        Assert.True(metrics.Value("veneer_resident_bytes") > 1_000_000);
        foreach (Sample one in metrics.Samples.Where(sample => sample.Name == "veneer_requests_total"))
        {
            Assert.Equal(one.Value, metrics.Value("veneer_request_duration_seconds_count", "opcode", one.Labels["opcode"]));
        }
    }

    [MountFact]
    public void What_is_no_mount_of_ours_is_said_to_be_none()
    {
        Refuses("veneer stats none", "none does not exist: name a mount point.", 11);
        Refuses("mount -t tmpfs t m; veneer stats m",
            "m is not in a mount of Veneer, but in one of type tmpfs: name the mount point of one, see findmnt -t fuse.veneer.", 3);
        Refuses("mount -t tmpfs t w; mkdir w/u w/w; mount -t overlay o -o lowerdir=l,upperdir=w/u,workdir=w/w m; veneer stats m/f",
            "m/f is not in a mount of Veneer, but in one of type overlay: name the mount point of one, see findmnt -t fuse.veneer.", 3);
        Refuses("mkfifo l/p; veneer mount -o $LAYERS m; veneer stats m/p",
            "m/p is neither a file nor a directory: name the mount point.", 11);
    }

    [MountFact]
    public void Only_root_and_the_mounter_may_ask()
    {
        Refuses(
            CliSandbox.AsNobody + "veneer mount -o $LAYERS m; as veneer stats m",
            "Only root, or the user who mounted it, may ask the server of m: become one of them.", 4);
        Refuses(
            CliSandbox.AsNobody + "chmod 700 u; veneer mount -o $LAYERS m; as veneer stats m",
            "m cannot be opened by this user: ask as the user who mounted it, or as root.", 4);
        Refuses(
            CliSandbox.AsNobody + "mkdir l/d; chmod 700 l/d; touch l/d/f; veneer mount -o $LAYERS m; as veneer stats m/d/f",
            "m/d/f cannot be reached by this user: ask as the user who mounted it, or as root.", 4);
    }

    [MountFact]
    public void A_server_that_hangs_or_is_gone_is_said_to_be_so()
    {
        long began = Environment.TickCount64;
        Refuses("veneer mount -o $LAYERS m; kill -STOP $(pgrep -x veneer); veneer stats m",
            "The server of m has not answered for 5 seconds: see what it waits for, or unmount with veneer umount -l.");
        Assert.InRange(Environment.TickCount64 - began, 5_000, 15_000);
        Refuses("veneer mount -o $LAYERS m; kill -KILL $(pgrep -x veneer); ended; veneer stats m",
            "The server of m is gone: unmount it with veneer umount -l.");
    }

    [MountTheory]
    [InlineData("stats m")]
    [InlineData("stats m --json")]
    [InlineData("status m")]
    [InlineData("status m --json")]
    [InlineData("layers m")]
    [InlineData("layers m --json")]
    [InlineData("diff m")]
    [InlineData("diff m --json")]
    [InlineData("diff m --stat")]
    [InlineData("list")]
    [InlineData("list --json")]
    [InlineData("holders m")]
    [InlineData("holders m --json")]
    public void What_finds_no_room_is_not_said_to_be_told(string command)
    {
        Refuses($"veneer mount -o $LAYERS m; touch m/new; veneer {command} >/dev/full",
            "The output cannot be written (ENOSPC): see where it goes.", 2);
        Assert.Equal("", sandbox.Run($"veneer mount -o $LAYERS m; veneer {command} | true").Error);
    }

    private sealed record Sample(string Name, Dictionary<string, string> Labels, double Value);

    /// <summary>A reader of OpenMetrics text that takes nothing but what the specification has.</summary>
    private sealed partial class Metrics
    {
        public Dictionary<string, string> Types { get; } = [];

        public List<Sample> Samples { get; } = [];

        public double Value(string name, string? label = null, string value = "") =>
            Samples.Single(sample => sample.Name == name && (label is null || sample.Labels[label] == value)).Value;

        [GeneratedRegex(@"^(?<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?<labels>.*)\})? (?<value>[^ ]+)$", RegexOptions.ExplicitCapture,
            matchTimeoutMilliseconds: 1000)]
        private static partial Regex Line();

        [GeneratedRegex(@"\G(?<name>[a-zA-Z_][a-zA-Z0-9_]*)=""(?<value>([^""\\\n]|\\[\\""n])*)""(,|$)", RegexOptions.ExplicitCapture,
            matchTimeoutMilliseconds: 1000)]
        private static partial Regex Label();

        public static Metrics Parse(string text)
        {
            var metrics = new Metrics();
            string family = "", unit = "";
            Assert.EndsWith("\n# EOF\n", text, StringComparison.Ordinal);
            string[] lines = text.Split('\n')[..^2]; // without the end and what follows its newline
            foreach (string line in lines)
            {
                string[] words = line.Split(' ', 4);
                if (words[0] != "#")
                {
                    metrics.Add(line, family);
                    continue;
                }
                Assert.True(words.Length == 4, line);
                if (words[1] == "TYPE")
                {
                    Assert.Contains(words[3], new[] { "counter", "gauge", "histogram" });
                    family = words[2];
                    unit = "";
                    Assert.True(metrics.Types.TryAdd(family, words[3]), $"{family} comes twice"); // so that its samples are together
                    continue;
                }
                Assert.Equal(family, words[2]);
                if (words[1] == "UNIT")
                {
                    unit = words[3];
                    Assert.EndsWith("_" + unit, family, StringComparison.Ordinal);
                }
                else { Assert.Equal("HELP", words[1]); }
            }
            metrics.CheckHistograms();
            return metrics;
        }

        private void Add(string line, string family)
        {
            Match match = Line().Match(line);
            Assert.True(match.Success, line);
            string name = match.Groups["name"].Value;
            string[] suffixes = Types[family] switch { "counter" => ["_total"], "gauge" => [""], _ => ["_bucket", "_sum", "_count"] };
            Assert.Contains(name, suffixes.Select(suffix => family + suffix));
            var labels = new Dictionary<string, string>(StringComparer.Ordinal);
            string text = match.Groups["labels"].Value;
            int end = 0;
            for (Match label = Label().Match(text); label.Success; label = label.NextMatch())
            {
                string value = Regex.Replace(
                    label.Groups["value"].Value, @"\\(?<one>.)",
                    escape => escape.Groups["one"].Value == "n" ? "\n" : escape.Groups["one"].Value,
                    RegexOptions.ExplicitCapture, TimeSpan.FromSeconds(1));
                Assert.True(labels.TryAdd(label.Groups["name"].Value, value), line);
                end = label.Index + label.Length;
            }
            Assert.Equal(text.Length, end);
            double number = double.Parse(match.Groups["value"].Value, CultureInfo.InvariantCulture);
            Assert.True(number >= 0, line);
            Assert.DoesNotContain(Samples,
                other => other.Name == name && other.Labels.Count == labels.Count && !other.Labels.Except(labels).Any());
            Samples.Add(new Sample(name, labels, number));
        }

        private void CheckHistograms()
        {
            foreach (string family in Types.Where(type => type.Value == "histogram").Select(type => type.Key))
            {
                foreach (var series in Samples
                    .Where(sample => sample.Name == family + "_bucket")
                    .GroupBy(sample => sample.Labels["opcode"]))
                {
                    double[] bounds = [
                        .. series.Select(
                            sample => sample.Labels["le"] == "+Inf"
                                ? double.PositiveInfinity
                                : double.Parse(sample.Labels["le"], CultureInfo.InvariantCulture))];
                    double[] counts = [.. series.Select(sample => sample.Value)];
                    Assert.Equal(bounds.Order().Distinct(), bounds);
                    Assert.Equal(counts.Order(), counts);
                    Assert.Equal(double.PositiveInfinity, bounds[^1]);
                    Assert.Equal(counts[^1], Value(family + "_count", "opcode", series.Key));
                    Assert.True(Value(family + "_sum", "opcode", series.Key) > 0);
                    Assert.True(counts[^2] > 0, "Nothing took less than 17 seconds");
                }
            }
        }
    }
}
