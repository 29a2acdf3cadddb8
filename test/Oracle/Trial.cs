using System.Text;

namespace Veneer.Oracle;

/// <summary>Where two overlays differed.</summary>
/// <param name="Signature">What kind of difference it is, without the paths: two trials that fail alike have the same.</param>
/// <param name="Step">Position of the operation, or the number of operations when it was found after the last.</param>
/// <param name="Detail">The difference in words.</param>
public sealed record Difference(string Signature, int Step, string Detail);

/// <summary>The same operations on the same layers in two overlays, in step.</summary>
/// <remarks>
/// Compared are the errno and result of every step; the merged tree, now and then, after every remount and at the end; the
/// upper directories after unmounting; and what each shows of the layers that the other has written.
/// </remarks>
internal sealed class Trial
{
    private const Facets Seen = Facets.Visible | Facets.RecentTimesAreNow | Facets.EntryMatchesStat;
    private const Facets Written = Facets.Content | Facets.Mode | Facets.Owner | Facets.Xattrs;

    private readonly Settings settings;
    private readonly int seed;

    private Trial(Settings settings, int seed)
    {
        this.settings = settings;
        this.seed = seed;
    }

    /// <returns>Null when nothing differed.</returns>
    public static Difference? Run(Settings settings, int seed, IReadOnlyList<Operation> operations)
    {
        try
        {
            return new Trial(settings, seed).Run(operations);
        }
        catch (BrokenPromiseException broken)
        {
            return new Difference($"promise {broken.Message.Split(' ', '\n') switch { var words => string.Join(' ', words.Take(5)) }}",
                operations.Count, broken.Message);
        }
        catch (Exception problem) when (problem is InvalidOperationException or TimeoutException or SysException)
        {
            return new Difference("not mounted", operations.Count, problem.Message);
        }
    }

    private Difference? Run(IReadOnlyList<Operation> operations)
    {
        Tree[] layers = LayerMaker.Make(settings, seed);
        Tree upper = Tree.Of((".", Node.Directory().Mode(Octal.Oct(777)).At(LayerMaker.At(7, 0))));
        string testedOptions = string.Join(',', ((string[])[settings.Options, settings.TestedOptions]).Where(o => o.Length > 0));
        using var tested = Overlay.With(lowers: layers, upper: upper, on: settings.Filesystem, options: testedOptions,
            mounter: settings.Tested, seconds: 120);
        using var reference = Overlay.With(lowers: layers, upper: upper, on: settings.Filesystem, options: settings.Options,
            mounter: settings.Reference, seconds: 120);
        using var one = new Performer(tested.Merged);
        using var other = new Performer(reference.Merged);

        Difference? difference = CompareTrees(tested, reference, 0, "at first");
        bool leavesMarks = false;
        for (int i = 0; difference is null && i < operations.Count; i++)
        {
            difference = operations[i].Name switch
            {
                Operation.Look => CompareTrees(tested, reference, i, "meanwhile"),
                Operation.Remount => Remount(i),
                _ => Step(i),
            };
        }
        difference ??= CompareTrees(tested, reference, operations.Count, "at the end");
        if (difference is not null)
        {
            one.CloseAll();
            other.CloseAll();
            Unmount(tested);
            Unmount(reference);
            return difference;
        }

        TreeImage shownByTested = Look(tested), shownByReference = Look(reference);
        one.CloseAll();
        other.CloseAll();
        Unmount(tested);
        Unmount(reference);
        return CompareUppers(tested, reference, leavesMarks, operations.Count)
            ?? CompareAfterSwap(tested, settings.Reference, settings.Options, shownByTested,
                "written by the tested, shown by the reference", operations.Count)
            ?? CompareAfterSwap(reference, settings.Tested, testedOptions, shownByReference,
                "written by the reference, shown by the tested", operations.Count);

        Difference? Remount(int step)
        {
            one.CloseAll();
            other.CloseAll();
            foreach ((Overlay overlay, Mounter mounter) in ((Overlay, Mounter)[])[(tested, settings.Tested),
                (reference, settings.Reference)])
            {
                Unmount(overlay);
                Sys.DropCaches();
                overlay.Mount(mounter);
            }
            return CompareTrees(tested, reference, step, "after a remount");
        }

        Difference? Step(int step)
        {
            Operation operation = operations[step];
            string a = Comparable(one.Perform(operation)), b = Comparable(other.Perform(operation));
            leavesMarks |= operation.Name is "rename" or "rename2" && b is "ENOTEMPTY" or "EEXIST";
            if (a == b) { return null; }
            if (KnownDifferences.Allow(operation, a, b, out int slot))
            {
                if (slot >= 0)
                {
                    one.Close(slot);
                    other.Close(slot);
                    leavesMarks = true;
                }
                return null;
            }
            return new Difference(
                $"step {operation.Name}{(operation.User == 0 ? "" : " (user)")}: {Outline(a, b)}",
                step,
                $"{operation}\n    tested:    {a}\n    reference: {b}");
        }
    }

    /// <summary>With <c>volatile</c> nobody mounts the layers again before the mark is gone.</summary>
    private void Unmount(Overlay overlay)
    {
        overlay.Unmount();
        if ((settings.Options + settings.TestedOptions).Contains("volatile", StringComparison.Ordinal)) { overlay.ForgetVolatile(); }
    }

    private TreeImage Look(Overlay overlay) => TreeImage.Of(overlay.Merged, Seen).Map(Comparable);

    private string Comparable(string line) =>
        settings.Options.Contains("metacopy=on", StringComparison.Ordinal) ? KnownDifferences.WithoutTime(line) : line;

    private Difference? CompareTrees(Overlay tested, Overlay reference, int step, string when) =>
        Compare($"tree {when}", Look(reference).Map(KnownDifferences.AsExpected), Look(tested), step);

    /// <param name="tested">What Veneer wrote.</param>
    /// <param name="reference">What the kernel wrote.</param>
    /// <param name="leavesMarks">Whether the kernel may have prepared something that failed then, and left the marks.</param>
    /// <param name="step">After which operation.</param>
    private Difference? CompareUppers(Overlay tested, Overlay reference, bool leavesMarks, int step)
    {
        return Compare("upper", Of(reference), Of(tested), step);

        TreeImage Of(Overlay overlay)
        {
            TreeImage written = TreeImage.Of(overlay.Upper, Written)
                .Map(KnownDifferences.AsWritten)
                .Map(KnownDifferences.WithoutOwnName)
                .Map(Comparable);
            return leavesMarks ? written.Map(KnownDifferences.WithoutMarks) : written;
        }
    }

    /// <summary>Mounts the layers that one has written with the other: it must show what was seen.</summary>
    private Difference? CompareAfterSwap(Overlay overlay, Mounter by, string options, TreeImage seen, string what, int step)
    {
        overlay.Mount(by, options);
        Difference? difference = Compare(what, seen.Map(KnownDifferences.AsExpected), Look(overlay).Map(KnownDifferences.AsExpected), step);
        Unmount(overlay);
        return difference;
    }

    private static Difference? Compare(string what, TreeImage expected, TreeImage actual, int step)
    {
        string text = TreeImage.Difference(expected, actual);
        if (text.Length == 0) { return null; }
        string path = expected.Lines.Keys.Union(actual.Lines.Keys)
            .Order(StringComparer.Ordinal)
            .First(p => expected.Lines.GetValueOrDefault(p) != actual.Lines.GetValueOrDefault(p));
        return new Difference(
            $"{what}: {Outline(actual.Lines.GetValueOrDefault(path) ?? "nothing", expected.Lines.GetValueOrDefault(path) ?? "nothing")}",
            step,
            $"{what}\n{text}");
    }

    /// <summary>The words in which two lines differ, values with digits left out: what is common to differences of one kind.</summary>
    private static string Outline(string tested, string reference)
    {
        return $"{Kept(tested, reference)} for {Kept(reference, tested)}";

        static string Kept(string line, string than)
        {
            var words = new StringBuilder();
            foreach (string word in line.Split(' ').Except(than.Split(' ')).Take(3))
            {
                int value = word.IndexOf('=', StringComparison.Ordinal);
                words.Append(words.Length > 0 ? " " : "").Append(value > 0 ? word[..value] : word.Any(char.IsAsciiDigit) ? "#" : word);
            }
            return words.Length > 0 ? words.ToString() : "nothing";
        }
    }
}
