using System.CommandLine;
using System.Globalization;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary>
/// Completes command lines for shells. They ask by the directive of System.CommandLine, <c>veneer [suggest:POSITION] LINE</c>, and
/// get a candidate on each line.
/// </summary>
internal static class Completion
{
    /// <summary>Whether the first word of a command line is the directive.</summary>
    public static bool IsAsked(string first) => first.StartsWith("[suggest", StringComparison.Ordinal);

    /// <summary>Prints the candidates.</summary>
    /// <param name="arguments">The directive, and the line as one word.</param>
    /// <returns>The exit status.</returns>
    public static int Run(string[] arguments)
    {
        string position = arguments[0].TrimStart('[').TrimEnd(']')["suggest".Length..];
        if (position.Length > 0 && !uint.TryParse(position.TrimStart(':'), NumberStyles.None, CultureInfo.InvariantCulture, out _))
        {
            Terminal.Complain($"{arguments[0]} is not understood: give the position of the cursor in the line.");
            return ExitCode.Usage;
        }
        MountCommand.OptionLists.Arity = ArgumentArity.ExactlyOne; // a word after the list is none
        MountCommand.OptionLists.CompletionSources.Add(context => OptionTable.Complete(context.WordToComplete));
        var root = new RootCommand();
        root.Options.Clear(); // its own have further names, such as /?
        AddTo(root, Commands.Mount.Options()); // veneer -o OPTIONS MOUNTPOINT
        foreach (CommandEntry entry in Commands.All)
        {
            var command = new Command(entry.Name);
            if (entry.OtherName is { } name) { command.Aliases.Add(name); }
            AddTo(command, entry.Options());
            root.Add(command);
        }
        var pages = new Argument<string>("page");
        pages.CompletionSources.Add(_ => Commands.Names);
        root.Add(new Command("help") { pages });

        using var output = new StringWriter(CultureInfo.InvariantCulture);
        int exitCode = root.Parse(arguments, new ParserConfiguration { ResponseFileTokenReplacer = null })
            .Invoke(new InvocationConfiguration { Output = output });
        _ = Terminal.Print(output.ToString());
        return exitCode;
    }

    private static void AddTo(Command command, IEnumerable<Option> options)
    {
        foreach (Option option in options) { command.Add(option); }
        command.Add(new Option<bool>("-h", "--help"));
        command.Add(new Option<bool>("-V", "--version"));
        command.Add(new Argument<string[]>("places") { Arity = ArgumentArity.ZeroOrMore });
    }
}
