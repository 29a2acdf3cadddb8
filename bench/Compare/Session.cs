using System.ComponentModel;
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

        Row[] rows = [.. Row.All(settings.Sizes, settings.ChurnSeconds).Where(row => IsChosen(settings.Rows, row.Name, row.Group))];
        Contender[] known = [.. Contender.All, .. settings.Also.Select(Contender.Parse)];
        Contender[] asked = [.. known.Where(contender => IsChosen(settings.Contenders, contender.Name))];
        Contender[] contenders = [.. asked.Where(contender => contender.IsInstalled)];
        // Of the rows of a smoke run some are not there with other sizes.
        Row[] all = [.. Row.All(settings.Sizes)];
        if (Unknown([.. settings.Rows.Except(Row.OfSmoke)],
            [.. all.SelectMany(row => (string[])[row.Name, row.Group]).Distinct(StringComparer.Ordinal)]) is { } absent)
        {
            Console.Error.WriteLine(
                $"--rows {absent}: there is none; name some of "
                + $"{string.Join(' ', all.Select(row => row.Group).Distinct(StringComparer.Ordinal))}, which are groups, "
                + $"and {string.Join(' ', all.Select(row => row.Name))}.");
            return 2;
        }
        if (Unknown(settings.Contenders, [.. known.Select(contender => contender.Name)]) is { } name)
        {
            Console.Error.WriteLine(
                $"--contenders {name}: there is none; name some of {string.Join(' ', known.Select(contender => contender.Name))}.");
            return 2;
        }
        if (contenders.Length == 0)
        {
            Console.Error.WriteLine(
                $"None of {string.Join(' ', asked.Select(contender => contender.Name))} is installed: install one, or name another.");
            return 2;
        }
        foreach (Contender missing in asked.Except(contenders)) { Console.Error.WriteLine($"{missing.Name} is not installed."); }
        if (IoUringSwitch.TurnOn() is { } obstacle) { Console.Error.WriteLine($"Without io_uring: {obstacle}"); }

        var results = new Results
        {
            Contenders = [.. contenders.Select(contender => contender.Name)],
            Rows = [.. rows.Select(row => new Finding
            {
                Name = row.Name,
                Group = row.Group,
                Unit = row.Unit,
                Line = row.Point?.Line,
                X = row.Point?.X ?? 0,
                Date = DateTime.UtcNow.ToString("u"),
            })],
        };
        foreach (Row row in rows.Where(row => row.Program is not null && !Contender.IsThere(row.Program)))
        {
            results.Find(row.Name)!.LeftOut = $"{row.Program} is not installed.";
        }
        using (var stand = new Stand(settings.Filesystem, settings.Sizes))
        {
            Measure(settings, stand, rows, contenders, results);
        }
        // What was not begun, for want of time or of anyone who can, says nothing.
        results.Rows.RemoveAll(row => row.LeftOut is null && row.Contenders.Count == 0);
        Describe(settings, contenders, results);
        Report.Write(settings, results);
        return 0;

        static void Leave(PosixSignalContext context)
        {
            context.Cancel = true;
            Environment.Exit(130);
        }
    }

    private static string? Unknown(string[] chosen, string[] names) =>
        Array.Find(chosen, name => !names.Contains(name, StringComparer.Ordinal));

    private static bool IsChosen(string[] chosen, params ReadOnlySpan<string> names)
    {
        foreach (string name in names)
        {
            if (chosen.Length == 0 || chosen.Contains(name, StringComparer.Ordinal)) { return true; }
        }
        return false;
    }

    private static void Measure(Settings settings, Stand stand, Row[] rows, Contender[] contenders, Results results)
    {
        var clock = Stopwatch.StartNew();
        for (int round = 0; round < settings.Rounds; round++)
        {
            foreach (Row row in rows)
            {
                Finding finding = results.Find(row.Name)!;
                if (finding.LeftOut is not null || round >= row.Rounds) { continue; }
                Console.Error.WriteLine($"{clock.Elapsed:mm\\:ss} round {round + 1} of {settings.Rounds}: {row.Name}");
                for (int i = 0; i < contenders.Length && finding.LeftOut is null; i++)
                {
                    // Nobody always comes first.
                    Contender contender = contenders[(i + round) % contenders.Length];
                    if (!contender.CanDo(row)) { continue; }
                    if (clock.Elapsed > settings.Time)
                    {
                        Console.Error.WriteLine($"The time is over: stopped in round {round + 1}.");
                        return;
                    }
                    Measure(settings, stand, row, contender, finding);
                }
            }
        }
    }

    private static void Measure(Settings settings, Stand stand, Row row, Contender contender, Finding finding)
    {
        try
        {
            _ = stand.Layers(row.Layers);
            stand.Settle();
            _ = IoUringSwitch.TurnOn(); // somebody else may have put it back since
            using var bed = new Bed(stand, contender, row, settings.Limit + row.Seconds);
            double? before = bed.ServerTime;
            double value = row.Measure(bed);
            Cell cell = finding.CellOf(contender.Name);
            cell.Values.Add(value);
            if (bed.ServerTime - before is { } time) { cell.ServerMilliseconds.Add(time); }
            if (bed.Samples.Count > 0) { cell.Samples = bed.Samples; }
        }
        catch (LeftOutException problem)
        {
            finding.LeftOut = problem.Message;
            Console.Error.WriteLine($"{row.Name} is left out: {problem.Message}");
        }
        catch (Exception problem) when (
            problem is SysException or InvalidOperationException or TimeoutException or IOException or Win32Exception)
        {
            string why = problem.Message.ReplaceLineEndings(" ");
            if (why.Length > 300) { why = $"{why[..150]} [...] {why[^150..]}"; }
            Cell cell = finding.CellOf(contender.Name);
            if (cell.Problem is null) { Console.Error.WriteLine($"{row.Name}, {contender.Name}: {why}"); }
            cell.Problem ??= why;
        }
    }

    private static void Describe(Settings settings, Contender[] contenders, Results results)
    {
        results.Circumstances["date"] = DateTime.UtcNow.ToString("u");
        results.Circumstances["kernel"] = File.ReadAllText("/proc/sys/kernel/osrelease").Trim();
        results.Circumstances["processors"] = $"{Environment.ProcessorCount}";
        results.Circumstances["filesystem"] = $"{settings.Filesystem} in memory";
        results.Circumstances["rounds"] = $"{settings.Rounds}";
        results.Circumstances["idle seconds"] = $"{settings.Sizes.IdleSeconds}";
        results.Circumstances["sizes"] = settings.Sizes.ToString();
        foreach (string program in contenders.Select(contender => contender.Program).OfType<string>().Distinct(StringComparer.Ordinal))
        {
            string name = Path.GetFileName(program);
            string[] lines = Command.Run([program, "--version"]).Text.Split('\n');
            results.Circumstances[name] = Array.Find(lines, line => line.StartsWith(name, StringComparison.Ordinal)) ?? lines[0];
        }
    }
}
