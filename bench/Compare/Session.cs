using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Veneer.Compare;

/// <summary>One run: every row with every contender in turn, again and again.</summary>
internal static class Session
{
    public static int Run(Settings settings)
    {
        // Mounts and servers live in our namespaces and go with us; what is switched for io_uring is put back on exit.
        using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Leave);
        using PosixSignalRegistration terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Leave);
        using PosixSignalRegistration hangUp = PosixSignalRegistration.Create(PosixSignal.SIGHUP, Leave);

        Row[] rows = [.. Row.All(settings.Sizes).Where(row => IsChosen(settings.Rows, row.Name, row.Group) && (row.Program is null || Contender.IsThere(row.Program)))];
        Contender[] asked = [.. Contender.All.Where(contender => IsChosen(settings.Contenders, contender.Name))];
        Contender[] contenders = [.. asked.Where(contender => contender.IsInstalled)];
        if (rows.Length == 0 || contenders.Length == 0)
        {
            Console.Error.WriteLine($"Rows: {string.Join(' ', Row.All(settings.Sizes).Select(row => row.Name))}");
            Console.Error.WriteLine($"Contenders: {string.Join(", ", Contender.All.Select(contender => contender.Name))}");
            return 2;
        }
        foreach (Contender missing in asked.Except(contenders)) { Console.Error.WriteLine($"{missing.Name} is not installed."); }
        if (IoUringSwitch.TurnOn() is { } obstacle) { Console.Error.WriteLine($"Without io_uring: {obstacle}"); }

        var results = new Results(rows, contenders);
        using (var stand = new Stand(settings.Filesystem, settings.Sizes))
        {
            Measure(settings, stand, results);
        }
        Describe(settings, results);
        Write(settings.Output, results);
        return 0;

        static void Leave(PosixSignalContext context)
        {
            context.Cancel = true;
            Environment.Exit(130);
        }
    }

    private static bool IsChosen(string[] chosen, params ReadOnlySpan<string> names)
    {
        foreach (string name in names)
        {
            if (chosen.Length == 0 || chosen.Contains(name, StringComparer.Ordinal)) { return true; }
        }
        return false;
    }

    private static void Measure(Settings settings, Stand stand, Results results)
    {
        var clock = Stopwatch.StartNew();
        for (int round = 0; round < settings.Rounds; round++)
        {
            foreach (Row row in results.Rows)
            {
                Console.Error.WriteLine($"{clock.Elapsed:mm\\:ss} round {round + 1} of {settings.Rounds}: {row.Name}");
                for (int i = 0; i < results.Contenders.Count; i++)
                {
                    // Nobody always comes first.
                    Contender contender = results.Contenders[(i + round) % results.Contenders.Count];
                    if (!contender.CanDo(row)) { continue; }
                    if (clock.Elapsed > settings.Time)
                    {
                        Console.Error.WriteLine($"The time is over: stopped in round {round + 1}.");
                        return;
                    }
                    Measure(settings, stand, results, row, contender);
                }
            }
        }
    }

    private static void Measure(Settings settings, Stand stand, Results results, Row row, Contender contender)
    {
        try
        {
            IReadOnlyList<FilePath> lowers = stand.Layers(row.Layers);
            stand.Settle();
            _ = IoUringSwitch.TurnOn(); // somebody else may have put it back since
            using var bed = new Bed(stand, contender, lowers, row.Parts, settings.Limit);
            double? before = bed.ServerTime;
            double value = row.Measure(bed);
            results.Add(row, contender, value, bed.ServerTime - before);
        }
        catch (Exception problem) when (problem is SysException or InvalidOperationException or TimeoutException or IOException)
        {
            string why = problem.Message.ReplaceLineEndings(" ");
            if (why.Length > 300) { why = $"{why[..150]} [...] {why[^150..]}"; }
            if (results.Fail(row, contender, why)) { Console.Error.WriteLine($"{row.Name}, {contender.Name}: {why}"); }
        }
    }

    private static void Describe(Settings settings, Results results)
    {
        results.Circumstances["date"] = DateTime.UtcNow.ToString("u");
        results.Circumstances["kernel"] = File.ReadAllText("/proc/sys/kernel/osrelease").Trim();
        results.Circumstances["processors"] = $"{Environment.ProcessorCount}";
        results.Circumstances["filesystem"] = $"{settings.Filesystem} in memory";
        results.Circumstances["rounds"] = $"{settings.Rounds}";
        results.Circumstances["sizes"] = settings.Sizes.ToString();
        foreach (string program in results.Contenders.Select(contender => contender.Program).OfType<string>().Distinct(StringComparer.Ordinal))
        {
            string name = Path.GetFileName(program);
            string[] lines = Command.Run([program, "--version"]).Text.Split('\n');
            results.Circumstances[name] = Array.Find(lines, line => line.StartsWith(name, StringComparison.Ordinal)) ?? lines[0];
        }
    }

    private static void Write(DirectoryInfo output, Results results)
    {
        Console.WriteLine(results.ToMarkdown());
        output.Create();
        Save("table.md", results.ToMarkdown());
        Save("results.json", results.ToJson());
        // Those of other rows as well: what an earlier run has left must not pass for this one's.
        IReadOnlyList<Row> all = Row.All(new Sizes());
        foreach (string group in all.Select(row => row.Group).Distinct(StringComparer.Ordinal)) { Save($"{group}.svg", Plot.Bars(results, group)); }
        foreach (string line in all.Select(row => row.Point?.Line).OfType<string>().Distinct(StringComparer.Ordinal))
        {
            Save($"{line.Replace(",", "", StringComparison.Ordinal).Replace(' ', '-').ToLowerInvariant()}.svg", Plot.Lines(results, line));
        }

        void Save(string name, string text)
        {
            string path = Path.Combine(output.FullName, name);
            if (text.Length > 0) { File.WriteAllText(path, text); }
            else { File.Delete(path); }
        }
    }
}
