extern alias overlay;

using System.Diagnostics;
using System.Text.RegularExpressions;
using overlay::Veneer.Overlay;
using Veneer.Cli;

namespace Veneer.Mount.Tests;

/// <summary>The pages that <c>make man</c> makes for man(1) from the texts of <c>--help</c>.</summary>
public sealed partial class CliManualTests
{
    private const string NotInstalled = "Pages need man and groff to be formatted.";

    private static readonly IReadOnlyDictionary<string, string> pages =
        Manual.Pages().ToDictionary(page => $"{page.Name}.{page.Section}", page => Roff.PageOf(page.Name, page.Section, page.Text));

    /// <summary>Whether the tests that format pages are skipped. With CI set they fail instead.</summary>
    public static bool LacksFormatter { get; } =
        Environment.GetEnvironmentVariable("CI") is null
        && !(File.Exists("/usr/bin/man") && File.Exists("/usr/bin/groff"));

    public static TheoryData<string> Names => [.. pages.Keys];

    [Fact]
    public void Each_command_has_a_page() =>
        Assert.Equal(
            (string[])["veneer.1", .. Commands.All.Select(command => $"veneer-{command.Name}.1"),
                "veneer.options.5", "mount.fuse.veneer.8"],
            pages.Keys);

    [Theory(Skip = NotInstalled, SkipWhen = nameof(LacksFormatter))]
    [MemberData(nameof(Names))]
    public void Man_and_groff_have_nothing_to_warn_of(string page)
    {
        Assert.Equal("", Format(page, "man --warnings -l \"$1\" >/dev/null"));
        Assert.Equal("", Format(page, "groff -man -ww -K utf8 -T utf8 \"$1\" >/dev/null"));
    }

    /// <summary>Nothing is lost on the way, or taken for a request.</summary>
    [Theory(Skip = NotInstalled, SkipWhen = nameof(LacksFormatter))]
    [MemberData(nameof(Names))]
    public void A_page_has_the_words_of_its_text(string page)
    {
        (string name, _, string text) = Manual.Pages().Single(one => $"{one.Name}.{one.Section}" == page);
        text = HelpOfCommand().Replace(text, match => match.Index > text.IndexOf("\nSEE ALSO\n", StringComparison.Ordinal)
            ? $"veneer-{match.Groups["command"].Value}(1)"
            : match.Value);
        text = text.Replace($"NAME\n    {name.Replace('-', ' ')} - ", $"NAME\n    {name} - ", StringComparison.Ordinal);

        string[] words = Words(Format(page, "groff -man -K utf8 -T utf8 -P -cbou -rLL=90n \"$1\""));

        Assert.Equal(Words(text), words[(Array.IndexOf(words, "NAME"))..^FooterOf(words)]);
    }

    [Fact]
    public void The_page_of_the_options_has_each_of_the_table()
    {
        string[] words = Words(pages["veneer.options.5"].Replace("\\-", "-", StringComparison.Ordinal));

        Assert.All(OptionTable.All, option =>
            Assert.Contains(words, word => word.Replace("\\fB", "", StringComparison.Ordinal).Replace("\\fR", "", StringComparison.Ordinal)
                .TrimEnd(',') == option.Name + option.Value));
    }

    [Fact]
    public void What_means_something_to_roff_is_escaped()
    {
        string page = Roff.PageOf("x", 1, "NAME\n    x - y\n\nDESCRIPTION\n    .TH 'a' \\n~ -b\n    'c\n");

        Assert.EndsWith(".SH DESCRIPTION\n\\&.TH \\(aqa\\(aq \\(rsn\\(ti \\-b\n\\&\\(aqc\n", page, StringComparison.Ordinal);
    }

    [MountFact]
    public void The_program_prints_each_page_by_its_name()
    {
        using var sandbox = new CliSandbox();

        Assert.Equal(string.Concat(pages.Keys.Select(name => name + "\n")), sandbox.Succeeds("veneer --roff"));
        Assert.Equal(pages["veneer-mount.1"], sandbox.Succeeds("veneer --roff veneer-mount.1"));
        Assert.Equal(
            new Outcome(1, "", "veneer: frob.1 is not a page of the manual: see veneer --roff for those that there are.\n"),
            sandbox.Run("veneer --roff frob.1"));
    }

    private static string[] Words(string text) => text.Split((char[])[' ', '\n'], StringSplitOptions.RemoveEmptyEntries);

    /// <summary>How many words are at the foot of a page: the version, and the name of the page.</summary>
    private static int FooterOf(string[] words) => words.Length - Array.FindLastIndex(words, word => word == "veneer");

    /// <summary>Runs a shell command on the file of a page, and gives all that it writes.</summary>
    private static string Format(string page, string command)
    {
        string file = Path.Combine(Directory.CreateTempSubdirectory("veneer-man-").FullName, page);
        File.WriteAllText(file, pages[page]);
        try
        {
            var start = new ProcessStartInfo("bash", ["-c", command + " 2>&1", "bash", file]) { RedirectStandardOutput = true };
            start.Environment["LC_ALL"] = "C.UTF-8";
            using Process process = Programs.Start(start);
            string output = process.StandardOutput.ReadToEnd();
            process.WaitForExit();
            return process.ExitCode == 0 ? output : $"exit status {process.ExitCode}: {output}";
        }
        finally
        {
            Directory.Delete(Path.GetDirectoryName(file)!, recursive: true);
        }
    }

    [GeneratedRegex("veneer (?<command>[a-z]+) --help", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex HelpOfCommand();
}
