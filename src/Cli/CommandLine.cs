using System.CommandLine;
using System.CommandLine.Parsing;
using Veneer.Fuse;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary>Parses the words of a command, and turns its failures into messages and exit statuses.</summary>
internal static class CommandLine
{
    /// <summary>Splits each <c>-oOPTIONS</c> in two words: it holds characters at which the parser would split it.</summary>
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

    /// <summary>Runs a command. An exception becomes one sentence on standard error and an exit status.</summary>
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

    /// <summary>Parses the words after a command. Each command has <c>--help</c> and <c>--version</c>.</summary>
    /// <param name="name">The name of the command.</param>
    /// <param name="arguments">The words after the command.</param>
    /// <param name="options">The options of the command.</param>
    /// <param name="parsed">Receives the values of the options.</param>
    /// <param name="words">The words that are not options.</param>
    /// <param name="page">The page of <c>--help</c>; null for that of the command.</param>
    /// <returns>False when the page or the version was asked for, which has been shown.</returns>
    /// <exception cref="OverlayMountException">An option is not one of the command's, or a word is empty.</exception>
    public static bool Parse(string name, string[] arguments, IEnumerable<Option> options, out ParseResult parsed, out string[] words,
        string? page = null)
    {
        var help = new Option<bool>("-h", "--help");
        var version = new Option<bool>("-V", "--version");
        var places = new Argument<string[]>("places") { Arity = ArgumentArity.ZeroOrMore };
        var command = new Command(name) { help, version, places };
        foreach (Option option in options) { command.Add(option); }

        words = [];
        // a mount point may be called @name
        parsed = command.Parse(Prepare(arguments), new ParserConfiguration { ResponseFileTokenReplacer = null });
        if (parsed.GetValue(help) || parsed.GetValue(version))
        {
            // best effort: the reader may have closed the pipe
            _ = Terminal.Print(parsed.GetValue(help) ? Manual.Of(page ?? name)! : Program.Version);
            return false;
        }
        foreach (ParseError error in parsed.Errors)
        {
            throw new OverlayMountException($"{error.Message.TrimEnd('.')}: see veneer {name} --help.");
        }
        words = parsed.GetValue(places) ?? [];
        foreach (string word in words)
        {
            // The parser takes an unknown option for a word. After "--" it may be one.
            if (word.Length > 1 && word[0] == '-' && !arguments.Contains("--"))
            {
                throw new OverlayMountException($"{word} is not an option of veneer {name}: see veneer {name} --help.");
            }
            if (word.Length == 0) { throw new OverlayMountException("A word is empty: name a file or a directory."); }
        }
        return true;
    }

    /// <summary>Makes options that other programs pass and that have no effect.</summary>
    /// <param name="flags">The options without a value.</param>
    /// <param name="others">The options with a value.</param>
    public static IEnumerable<Option> WithoutEffect(string[] flags, string[] others) =>
        [.. flags.Select(flag => new Option<bool>(flag)), .. others.Select(other => new Option<string>(other))];
}
