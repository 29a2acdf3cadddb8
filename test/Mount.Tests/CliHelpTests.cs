using System.Globalization;
using Veneer.Cli;

namespace Veneer.Mount.Tests;

public sealed class CliHelpTests : IDisposable
{
    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    [MountFact]
    public void Help_reads_like_a_manual_page()
    {
        string[] sections = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "EXIT STATUS", "SEE ALSO"];
        foreach (string command in (string[])[
            "veneer --help", "veneer -h", "veneer help", "veneer mount --help", "veneer mount -h", "veneer help mount",
            "veneer umount --help", "veneer diff --help", "veneer layers --help", "veneer checkpoint --help", "veneer restore --help",
            "veneer stats --help", "veneer help stats", "veneer sync --help", "veneer status --help", "veneer shutdown --help",
            "veneer list --help", "veneer holders --help"])
        {
            Outcome outcome = sandbox.Run(command);

            Assert.Equal((0, ""), (outcome.ExitCode, outcome.Error));
            string[] lines = outcome.Output.Split('\n');
            Assert.Equal<string[]>(sections, [.. lines.Where(line => sections.Contains(line, StringComparer.Ordinal))]);
            Assert.All(lines, line => Assert.InRange(line.Length, 0, 80));
        }
    }

    [MountFact]
    public void Every_command_has_a_page_and_the_one_of_mount_has_the_options()
    {
        Assert.All(Commands.All, command =>
            Assert.StartsWith($"NAME\n    veneer {command.Name} - ", Manual.Of(command.Name), StringComparison.Ordinal));
        Assert.Equal(Manual.Of("umount"), Manual.Of("unmount"));
        Assert.Contains("\n    redirect_dir=on|follow|nofollow|off\n", sandbox.Run("veneer mount --help").Output, StringComparison.Ordinal);
    }

    [Fact]
    public void The_first_page_names_the_commands_of_the_table_and_no_other()
    {
        string[] names = [.. Commands.All.Select(command => command.Name)];
        string[] lines = Manual.Veneer.Split('\n');

        Assert.Equal(names, Section("COMMANDS").TakeWhile(line => line.Length > 0).Select(line => line.Trim().Split(' ')[0]));
        Assert.Equal(names.Order(), NamesIn(Section("SYNOPSIS")).Order());
        Assert.Subset(names.ToHashSet(), NamesIn(Manual.Synopsis.Split('\n')).ToHashSet());

        IEnumerable<string> Section(string heading) =>
            lines.SkipWhile(line => line != heading).Skip(1).TakeWhile(line => line.Length == 0 || line[0] == ' ');

        // "veneer list [--json]", but not "veneer COMMAND --help"
        static IEnumerable<string> NamesIn(IEnumerable<string> lines) =>
            lines.Select(line => line.Trim().Split(' '))
                .Where(words => words[0] == "veneer" && char.IsAsciiLetterLower(words[1][0]))
                .Select(words => words[1]);
    }

    [MountFact]
    public void The_first_page_has_every_exit_status_and_all_pages_the_options_that_all_have()
    {
        int[] all = [.. typeof(ExitCode).GetFields().Select(field => (int)field.GetRawConstantValue()!).Order()];

        Assert.Equal(all, StatusesOf(Manual.Veneer));
        Assert.All(Commands.Names, command => Assert.Subset(all.ToHashSet(), StatusesOf(Manual.Of(command)!).ToHashSet()));
        Assert.All(Commands.Names, command => Assert.Contains("\n    -V, --version ", Manual.Of(command)!, StringComparison.Ordinal));

        // "    32   it failed": what continues a line begins further to the right.
        static int[] StatusesOf(string page) =>
            [
                .. page[page.IndexOf("EXIT STATUS", StringComparison.Ordinal)..]
                    .Split('\n')
                    .Where(line => line.Length > 4 && char.IsAsciiDigit(line[4]))
                    .Select(line => int.Parse(line.AsSpan(4, 3), CultureInfo.InvariantCulture))];
    }

    [MountFact]
    public void The_version_names_the_protocol_too()
    {
        foreach (string command in (string[])["veneer --version", "veneer -V", "veneer mount -V", "veneer umount --version",
            "veneer layers -V", "veneer diff --version"])
        {
            Outcome outcome = sandbox.Run(command);

            Assert.Equal(0, outcome.ExitCode);
            Assert.Matches(@"^veneer \d+\.\d+\.\d+\nFUSE kernel interface version 7\.45\n$", outcome.Output);
        }
    }

    [MountTheory]
    [InlineData("veneer --version")]
    [InlineData("veneer --help")]
    [InlineData("veneer list --help")]
    public void What_cannot_be_written_is_no_success(string command) =>
        Assert.Equal(new Outcome(2, "", "veneer: The output cannot be written (ENOSPC): see where it goes.\n"),
            sandbox.Run($"{command} >/dev/full"));

    [MountFact]
    public void Without_words_it_says_how_it_is_used()
    {
        Outcome outcome = sandbox.Run("veneer");

        Assert.Equal((1, ""), (outcome.ExitCode, outcome.Output));
        Assert.Contains("veneer mount -o OPTIONS MOUNTPOINT", outcome.Error, StringComparison.Ordinal);
    }
}
