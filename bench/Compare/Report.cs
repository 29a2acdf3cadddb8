using System.Globalization;
using System.Text;

namespace Veneer.Compare;

/// <summary>
/// What a run leaves: files in <c>bench/results</c> and, when asked for, the tables and plots of docs/performance.md.
/// </summary>
internal static class Report
{
    private const string Page = "docs/performance.md",
        Plots = "docs/plots",
        Begin = "<!-- Written by make bench ARGS=--report. -->",
        End = "<!-- So far. -->";

    private static readonly string[] groups = [Row.Operations, Row.Rootless, Row.Growth, Row.RealWork];

    private static string[] Lines =>
        [.. Row.All(new Sizes()).Select(row => row.Point?.Line).OfType<string>().Distinct(StringComparer.Ordinal)];

    /// <summary>Prints the tables, and writes them with all values and plots.</summary>
    public static void Write(Settings settings, Results results)
    {
        string json = Path.Combine(settings.Output.FullName, "results.json");
        if (settings.Keep && File.Exists(json))
        {
            var earlier = Results.Load(json);
            string[] different = [.. ((string[])["sizes", "filesystem", "kernel", "processors"])
                .Where(what => earlier.Circumstances.GetValueOrDefault(what) != results.Circumstances[what])];
            if (different.Length > 0)
            {
                Console.Error.WriteLine($"Nothing is kept of {json}: it was measured with other {string.Join(", ", different)}.");
            }
            else { results.Keep(earlier, [.. Row.All(settings.Sizes).Select(row => row.Name)]); }
        }
        Console.WriteLine(results.ToMarkdown());
        settings.Output.Create();
        File.WriteAllText(Path.Combine(settings.Output.FullName, "table.md"), results.ToMarkdown());
        File.WriteAllText(json, results.ToJson());
        Draw(results, settings.Output.FullName);
    }

    /// <summary>
    /// Writes every plot for which there are results, and removes all others: a plot of an earlier run must not pass for one of
    /// this run.
    /// </summary>
    /// <returns>What has been written, with its title.</returns>
    private static List<(string File, string Title)> Draw(Results results, string directory)
    {
        var written = new List<(string, string)>();
        foreach (string group in groups) { Save(group, Plot.Bars(results, group)); }
        foreach (string line in Lines) { Save(line, Plot.Lines(results, line)); }
        return written;

        void Save(string title, string text)
        {
            string name = $"{title.Replace(",", "", StringComparison.Ordinal).Replace(' ', '-').ToLowerInvariant()}.svg",
                path = Path.Combine(directory, name);
            if (text.Length == 0)
            {
                File.Delete(path);
                return;
            }
            File.WriteAllText(path, text);
            written.Add((name, title));
        }
    }

    /// <summary>Puts the newest results into docs/performance.md, between its two comments, and the plots beside it.</summary>
    /// <returns>The exit code.</returns>
    public static int Publish(DirectoryInfo output)
    {
        string json = Path.Combine(output.FullName, "results.json");
        if (!File.Exists(json) || !File.Exists(Page))
        {
            Console.Error.WriteLine(
                File.Exists(Page)
                    ? $"There is no {json}: measure first, with make bench."
                    : $"There is no {Page} here: run this with make bench.");
            return 2;
        }
        string page = File.ReadAllText(Page);
        int begin = page.IndexOf(Begin, StringComparison.Ordinal), end = page.IndexOf(End, StringComparison.Ordinal);
        if (begin < 0 || end < begin)
        {
            Console.Error.WriteLine($"{Page} lacks the lines {Begin} and {End}: put them where the tables are to be.");
            return 2;
        }
        var results = Results.Load(json);
        if (results.Circumstances["sizes"] == Sizes.Smoke.ToString())
        {
            Console.Error.WriteLine($"{json} is of small trees: measure with make bench, without --smoke.");
            return 2;
        }
        Directory.CreateDirectory(Plots);
        File.WriteAllText(Page, $"{page[..begin]}{Begin}\n\n{TextOf(results, Draw(results, Plots))}\n{page[end..]}");
        Console.WriteLine($"{Page} has the results of {results.Rows.Max(row => row.Date)}.");
        return 0;
    }

    private static string TextOf(Results results, List<(string File, string Title)> plots)
    {
        var text = new StringBuilder();
        SortedDictionary<string, string> facts = results.Circumstances;
        string[] dates = [.. results.Rows.Select(row => row.Date[..10]).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal)];
        text.Append(
            CultureInfo.InvariantCulture,
            $"Measured {string.Join(" to ", ((string[])[dates[0], dates[^1]]).Distinct(StringComparer.Ordinal))}, Linux {facts["kernel"]}, "
            + $"{facts["processors"]} processors, {facts["filesystem"]}, {facts["rounds"]} rounds; "
            + $"fuse-overlayfs {facts.GetValueOrDefault("fuse-overlayfs", "?").Split(' ')[^1]}.\n\n");
        text.Append("### Goals\n\n").Append(Goals.ToMarkdown(results)).Append('\n');
        text.Append("### Everything\n\n").Append(results.ToMarkdown()).Append('\n');
        text.Append("### Plots\n\n");
        foreach ((string file, string title) in plots)
        {
            string words = groups.Contains(title, StringComparer.Ordinal) ? $"{title}: how many times the kernel's" : title;
            text.Append(CultureInfo.InvariantCulture, $"![{words}](plots/{file})\n\n");
        }
        return text.ToString().TrimEnd() + "\n";
    }
}
