using System.CommandLine;
using System.CommandLine.Parsing;
using Veneer.Fuse;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary>What the commands have in common: how their words are read, and how they fail.</summary>
internal static class CommandLine
{
    /// <summary>No response files: a mount point may be called <c>@name</c>.</summary>
    public static ParserConfiguration Configuration { get; } = new() { ResponseFileTokenReplacer = null };

    /// <summary>Takes <c>-oOPTIONS</c> apart, which holds the characters that the parser would split it at.</summary>
    public static List<string> Prepare(ReadOnlySpan<string> arguments)
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

    /// <summary>The words that are not options, with one sentence about the first that was not understood.</summary>
    /// <exception cref="OverlayMountException">There is one.</exception>
    public static string[] Places(ParseResult parsed, Argument<string[]> argument, ReadOnlySpan<string> words, string command)
    {
        foreach (ParseError error in parsed.Errors)
        {
            throw new OverlayMountException($"{error.Message.TrimEnd('.')}: see veneer {command} --help.");
        }
        string[] places = parsed.GetValue(argument) ?? [];
        foreach (string place in places)
        {
            // The parser takes an option that it does not know for a place. After "--" it may be one.
            if (place.Length > 1 && place[0] == '-' && !words.Contains("--"))
            {
                throw new OverlayMountException($"{place} is not an option of veneer {command}: see veneer {command} --help.");
            }
            if (place.Length == 0) { throw new OverlayMountException("The mount point is an empty word: name a directory."); }
        }
        return places;
    }
}
