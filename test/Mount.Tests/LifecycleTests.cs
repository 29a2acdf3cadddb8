using System.Text;
using System.Text.RegularExpressions;

namespace Veneer.Mount.Tests;

/// <summary>The examples of docs/lifecycle.md, run as they are written.</summary>
/// <remarks>
/// The blocks marked <c>console</c> of a section (<c>##</c>) are run one after the other in one shell, in an empty /mnt.
/// What stands after a line with <c>$</c>, and further lines of the command with <c>&gt;</c>, must be what it prints, to both
/// outputs; a number stands for any number.
/// </remarks>
[Collection<Alone>] // it has the kernel offer io_uring to all
public sealed partial class LifecycleTests
{
    private const string Separator = "\u0001";

    [GeneratedRegex("[0-9]+", RegexOptions.None, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Number();

    private static string Document()
    {
        for (DirectoryInfo? directory = new(AppContext.BaseDirectory); directory is not null; directory = directory.Parent)
        {
            string path = Path.Combine(directory.FullName, "docs/lifecycle.md");
            if (File.Exists(path)) { return File.ReadAllText(path); }
        }
        throw new FileNotFoundException("docs/lifecycle.md is not above the tests.");
    }

    /// <summary>The commands of a section, each with what it is to print.</summary>
    private static List<(string Command, string Output)> Examples(string title)
    {
        var examples = new List<(string, string)>();
        bool isHere = false, isConsole = false;
        foreach (string line in Document().Split('\n'))
        {
            if (line.StartsWith("## ", StringComparison.Ordinal)) { isHere = line[3..] == title; }
            else if (line.StartsWith("```", StringComparison.Ordinal)) { isConsole = isHere && line == "```console"; }
            else if (isConsole && line.StartsWith("$ ", StringComparison.Ordinal)) { examples.Add((line[2..], "")); }
            else if (isConsole && line.StartsWith("> ", StringComparison.Ordinal))
            {
                examples[^1] = ($"{examples[^1].Item1}\n{line[2..]}", "");
            }
            else if (isConsole) { examples[^1] = (examples[^1].Item1, $"{examples[^1].Item2}{line}\n"); }
        }
        return examples;
    }

    public static TheoryData<string> Titles() =>
        [.. Document().Split('\n').Where(line => line.StartsWith("## ", StringComparison.Ordinal)).Select(line => line[3..])];

    [MountTheory]
    [MemberData(nameof(Titles))]
    public void The_examples_do_what_they_show(string title)
    {
        using IDisposable offer = IoUringSwitch.OnForNow(out _); // where it is off, status has one more line
        using var sandbox = new CliSandbox();
        List<(string Command, string Output)> examples = Examples(title);
        Assert.NotEmpty(examples);
        var script = new StringBuilder("exec 2>&1; mount -t tmpfs -o mode=755 tmpfs /mnt; cd /mnt\n");
        foreach ((string command, _) in examples) { script.Append($"status=$?; printf '{Separator}'; (exit $status)\n{command}\n"); }

        Outcome outcome = sandbox.Run(script.ToString());

        string[] outputs = outcome.Output.Split(Separator);
        Assert.Equal("", outputs[0]);
        var expected = new StringBuilder();
        var actual = new StringBuilder();
        for (int i = 0; i < examples.Count; i++)
        {
            expected.Append($"$ {examples[i].Command}\n{examples[i].Output}");
            actual.Append($"$ {examples[i].Command}\n{(i + 1 < outputs.Length ? outputs[i + 1] : "it was not run\n")}");
        }
        Assert.Equal(Number().Replace(expected.ToString(), "N"), Number().Replace(actual.ToString(), "N"));
    }
}
