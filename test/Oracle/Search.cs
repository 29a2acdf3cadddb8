using System.Diagnostics;
using System.Runtime.ExceptionServices;

namespace Veneer.Oracle;

/// <summary>A difference with the shortest operations that were found to show it.</summary>
public sealed record Finding(int Seed, Difference Difference, IReadOnlyList<Operation> Operations);

/// <summary>What a search found.</summary>
public sealed record Report(int Seeds, int Steps, IReadOnlyList<Finding> Findings);

/// <summary>Runs trials over many seeds, and makes what it finds small enough to read.</summary>
public static class Search
{
    /// <param name="settings">What to compare.</param>
    /// <param name="say">Told what happens as it happens.</param>
    public static Report Run(Settings settings, Action<string> say)
    {
        Report? report = null;
        ExceptionDispatchInfo? failure = null;
        // A thread that can change its user, umask and groups without harm to others.
        var thread = new Thread(() =>
        {
            Identity.PrepareThread();
            try { report = RunHere(settings, say); }
#pragma warning disable CA1031 // thrown again by whoever waits for this thread
            catch (Exception problem) { failure = ExceptionDispatchInfo.Capture(problem); }
#pragma warning restore CA1031
        });
        thread.Start();
        thread.Join();
        failure?.Throw();
        return report!;
    }

    private static Report RunHere(Settings settings, Action<string> say)
    {
        var watch = Stopwatch.StartNew();
        var findings = new List<Finding>();
        var signatures = new Dictionary<string, int>();
        int seeds = 0, steps = 0;
        for (int seed = settings.FirstSeed; seed <= settings.LastSeed && watch.Elapsed < settings.Time; seed++)
        {
            List<Operation> operations = OperationMaker.Make(settings, seed);
            Difference? difference = Trial.Run(settings, seed, operations);
            seeds++;
            steps += operations.Count;
            if (difference is null) { continue; }
            signatures[difference.Signature] = signatures.GetValueOrDefault(difference.Signature) + 1;
            if (signatures[difference.Signature] > 1) { continue; }
            say($"seed {seed}: {difference.Signature}");
            Finding finding = Minimise(settings, seed, operations[..Math.Min(operations.Count, difference.Step + 1)], difference);
            findings.Add(finding);
            say(Text(settings, finding));
        }
        foreach ((string signature, int times) in signatures) { say($"{times} times {signature}"); }
        return new Report(seeds, steps, findings);
    }

    /// <summary>Runs one list of operations over the layers of a seed.</summary>
    public static Difference? Replay(Settings settings, int seed, IReadOnlyList<Operation> operations)
    {
        Difference? difference = null;
        var thread = new Thread(() =>
        {
            Identity.PrepareThread();
            difference = Trial.Run(settings, seed, operations);
        });
        thread.Start();
        thread.Join();
        return difference;
    }

    /// <summary>A finding for people, with how to see it again.</summary>
    public static string Text(Settings settings, Finding finding) =>
        $"  {finding.Difference.Detail.Trim().Replace("\n", "\n  ", StringComparison.Ordinal)}\n"
        + $"  on {settings.Filesystem}, {settings.LayersFor(finding.Seed)} lower layers of seed {finding.Seed}, after:\n"
        + string.Concat(finding.Operations.Select(o => $"    {o}\n"));

    /// <summary>Leaves out operations for as long as the same difference is found without them (ddmin).</summary>
    private static Finding Minimise(Settings settings, int seed, List<Operation> operations, Difference difference)
    {
        var watch = Stopwatch.StartNew();
        int parts = 2;
        while (operations.Count > 1 && watch.Elapsed < settings.MinimiseTime)
        {
            int size = Math.Max(1, operations.Count / parts);
            bool shorter = false;
            for (int start = 0; start < operations.Count && watch.Elapsed < settings.MinimiseTime; start += size)
            {
                List<Operation> rest = [.. operations[..start], .. operations[Math.Min(operations.Count, start + size)..]];
                if (Trial.Run(settings, seed, rest) is not { } found || found.Signature != difference.Signature) { continue; }
                (operations, difference, shorter) = (rest, found, true);
                break;
            }
            if (shorter) { parts = Math.Max(parts - 1, 2); }
            else if (size == 1) { break; }
            else { parts = Math.Min(parts * 2, operations.Count); }
        }
        return new Finding(seed, difference, operations);
    }
}
