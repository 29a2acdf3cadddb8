using System.CommandLine;
using Veneer.Fuse;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary>What all commands share: their words are prepared, and their failures become messages and exit statuses.</summary>
internal static class CommandLine
{
    /// <summary>Splits each <c>-oOPTIONS</c> in two words: it holds characters at which the parser would split it.</summary>
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

    /// <summary>Makes options that other programs pass and that have no effect; completions do not offer them.</summary>
    /// <param name="flags">The options without a value.</param>
    /// <param name="others">The options with a value.</param>
    public static IEnumerable<Option> WithoutEffect(string[] flags, string[] others) =>
        [
            .. flags.Select(flag => new Option<bool>(flag) { Hidden = true }),
            .. others.Select(other => new Option<string>(other) { Hidden = true }),
        ];
}
