using System.Reflection;
using System.Text.RegularExpressions;
using Veneer.Fuse.Locking;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tests;

/// <summary>The chart of locks in ARCHITECTURE.md, the classes of the locks, and the methods that need one.</summary>
public sealed partial class LockChartTests
{
    private static LockClass[] Classes(Type owner) =>
        [.. owner.GetFields(BindingFlags.Static | BindingFlags.Public).Select(field => (LockClass)field.GetValue(null)!)];

    [Fact]
    public void The_chart_says_what_is_checked()
    {
        LockClass[] classes = [.. Classes(typeof(OverlayLocks)).Concat(Classes(typeof(FuseLocks))).OrderBy(one => one.Rank)];
        string[] chart =
        [
            .. File.ReadLines(Path.Combine(Repository.Root, "ARCHITECTURE.md"))
                .SkipWhile(line => !line.StartsWith("| lock | ", StringComparison.Ordinal)).Skip(2).TakeWhile(line => line.StartsWith('|'))
                .Select(line => line.Split('|', StringSplitOptions.TrimEntries)).Select(cells => $"{cells[1]}: {cells[3]}"),
        ];

        Assert.Equal(classes.Select(one => $"{one.Name}: {WhatMayBeTakenUnder(one)}"), chart);
        Assert.Equal(classes.Length, classes.Select(one => one.Rank).Distinct().Count());
        Assert.All(classes, one => Assert.InRange(one.Rank, 0, LockClass.MaxRank - 1));
    }

    private static string WhatMayBeTakenUnder(LockClass held) =>
        !held.IsLeaf ? "all below" : held.Inner.Count == 0 ? "nothing" : string.Join(", ", held.Inner);

    /// <summary>By the text, since a release build has no checks.</summary>
    [Fact]
    public void A_method_that_needs_a_lock_looks_whether_it_is_held()
    {
        var unchecks = new List<string>();
        int seen = 0;
        foreach (string file in Repository.SourcesIn("src/Fuse").Concat(Repository.SourcesIn("src/Overlay")))
        {
            string[] lines = File.ReadAllLines(Path.Combine(Repository.Root, file));
            for (int i = 0; i < lines.Length - 1; i++)
            {
                if (Declaration().Match(lines[i]) is not { Success: true } match) { continue; }
                seen++;
                int body = Array.FindIndex(lines, i, line => line == "    {");
                if (body < 0 || body > i + 3 || !Check().IsMatch(lines[body + 1]))
                {
                    unchecks.Add($"{Path.GetFileName(file)}: {match.Groups["name"].Value}");
                }
            }
        }

        Assert.True(seen > 40, $"only {seen} methods were seen");
        Assert.True(unchecks.Count == 0, string.Join("\n", unchecks));
    }

    [GeneratedRegex(@"^    (?:public|internal|private) .*\b(?<name>(?!Assert)\w+Locked)\(",
        RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Declaration();

    [GeneratedRegex(@"^        ([\w.]+\.)?Assert\w+\(",
        RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Check();
}
