using System.CommandLine;
using System.CommandLine.Parsing;
using Veneer.Fuse;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary>What the commands have in common: how their words are read, and how they fail.</summary>
internal static class CommandLine
{
    /// <summary>Takes <c>-oOPTIONS</c> apart, which holds the characters that the parser would split it at.</summary>
    private static List<string> Prepare(ReadOnlySpan<string> arguments)
    {
        var words = new List<string>(arguments.Length + 1);
        bool options = true;
        foreach (string argument in arguments)
        {
            options &= argument != "--";
            if (options && argument.Length > 2 && argument.StartsWith("-o", StringComparison.Ordinal))
            {
                words.Add("-o");
                words.Add(argument[2..]);
            }
            else
            {
                words.Add(argument);
            }
        }
        return words;
    }

    /// <summary>Runs a command. What keeps it from its work becomes one sentence and the exit status that stands for it.</summary>
    public static int Guard(Func<int> command)
    {
        int exitCode;
        Exception problem;
        try
        {
            return command();
        }
        catch (OverlayQueryException query) { (problem, exitCode) = (query, LayerException.CodeOf(query)); }
        catch (LayerException layer) { (problem, exitCode) = (layer, layer.ExitCode); }
        catch (OverlayMountException usage) { (problem, exitCode) = (usage, ExitCode.Usage); }
        catch (MountException mount) { (problem, exitCode) = (mount, ExitCode.Failure); }
        Terminal.Complain(problem.Message);
        return exitCode;
    }

    /// <summary>Takes the words after a command apart. Each command has <c>--help</c> and <c>--version</c>.</summary>
    /// <param name="name">The command.</param>
    /// <param name="arguments">The words after it.</param>
    /// <param name="options">Its options.</param>
    /// <param name="parsed">Has their values.</param>
    /// <param name="words">The words that are not options.</param>
    /// <returns>False when the page or the version was asked for, which is shown.</returns>
    /// <exception cref="OverlayMountException">An option is not one of the command's, or a word is empty.</exception>
    public static bool Parse(string name, string[] arguments, IEnumerable<Option> options, out ParseResult parsed, out string[] words)
    {
        var help = new Option<bool>("-h", "--help");
        var version = new Option<bool>("-V", "--version");
        var places = new Argument<string[]>("places") { Arity = ArgumentArity.ZeroOrMore };
        var command = new Command(name) { help, version, places };
        foreach (Option option in options) { command.Add(option); }

        words = [];
        parsed = command.Parse(Prepare(arguments), new ParserConfiguration { ResponseFileTokenReplacer = null }); // a mount point may be called @name
        if (parsed.GetValue(help) || parsed.GetValue(version))
        {
            _ = Terminal.Print(parsed.GetValue(help) ? Manual.Of(name)! : Program.Version); // who reads no more has seen enough
            return false;
        }
        foreach (ParseError error in parsed.Errors)
        {
            throw new OverlayMountException($"{error.Message.TrimEnd('.')}: see veneer {name} --help.");
        }
        words = parsed.GetValue(places) ?? [];
        foreach (string word in words)
        {
            // The parser takes an option that it does not know for a word. After "--" it may be one.
            if (word.Length > 1 && word[0] == '-' && !arguments.Contains("--"))
            {
                throw new OverlayMountException($"{word} is not an option of veneer {name}: see veneer {name} --help.");
            }
            if (word.Length == 0) { throw new OverlayMountException("A word is empty: name a file or a directory."); }
        }
        return true;
    }

    /// <summary>Options that another program passes, and that have no effect.</summary>
    /// <param name="flags">Those without a value.</param>
    /// <param name="others">Those with one.</param>
    public static IEnumerable<Option> WithoutEffect(string[] flags, string[] others) =>
        [.. flags.Select(flag => new Option<bool>(flag)), .. others.Select(other => new Option<string>(other))];
}
