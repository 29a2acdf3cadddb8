using System.CommandLine;
using System.CommandLine.Parsing;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary>A command of the program: its words and options, and what runs it. <see cref="Commands"/> lists all.</summary>
/// <param name="Name">The name.</param>
/// <param name="Fewest">The fewest words that it takes beside its options.</param>
/// <param name="Most">The most words that it takes.</param>
/// <param name="Missing">The sentence for too few words.</param>
/// <param name="Taken">What the command takes, as the end of the sentence for too many words.</param>
/// <param name="Options">Makes its options, but for those that each command has.</param>
/// <param name="Run">Runs it: gets the command line, and the words after the command.</param>
internal sealed record CommandEntry(string Name, int Fewest, int Most, string Missing, string Taken, Func<IEnumerable<Option>> Options,
    Func<Invocation, string[], int> Run)
{
    /// <summary>Makes a command that needs the values of its options and its words alone.</summary>
    public CommandEntry(string name, int fewest, int most, string missing, string taken, Func<IEnumerable<Option>> options,
        Func<ParseResult, string[], int> run)
        : this(name, fewest, most, missing, taken, options, (Invocation _, string[] _) => ExitCode.Success) =>
        Run = (_, arguments) => Parse(arguments, out ParseResult parsed, out string[] words) ? run(parsed, words) : ExitCode.Success;

    /// <summary>Another name of the command; null for most.</summary>
    public string? OtherName { get; init; }

    /// <summary>Parses the words after the command. Each command has <c>--help</c> and <c>--version</c>.</summary>
    /// <param name="arguments">The words after the command.</param>
    /// <param name="parsed">Receives the values of the options.</param>
    /// <param name="words">The words that are not options.</param>
    /// <param name="page">The page of <c>--help</c>; null for that of the command.</param>
    /// <returns>False when the page or the version was asked for, which has been shown.</returns>
    /// <exception cref="OverlayMountException">
    /// An option is not one of the command's, a word is empty, or there are too few or too many words.
    /// </exception>
    public bool Parse(string[] arguments, out ParseResult parsed, out string[] words, string? page = null)
    {
        var help = new Option<bool>("-h", "--help");
        var version = new Option<bool>("-V", "--version");
        var places = new Argument<string[]>("places") { Arity = ArgumentArity.ZeroOrMore };
        var command = new Command(Name) { help, version, places };
        foreach (Option option in Options()) { command.Add(option); }
        foreach (Option flag in command.Options.Where(option => option.ValueType == typeof(bool)))
        {
            flag.Arity = ArgumentArity.Zero; // otherwise the next word is its value if it is "true"
            RefuseValue(flag, arguments);
        }

        words = [];
        // a mount point may be called @name
        parsed = command.Parse(CommandLine.Prepare(arguments), new ParserConfiguration { ResponseFileTokenReplacer = null });
        if (parsed.GetValue(help) || parsed.GetValue(version))
        {
            // best effort: the reader may have closed the pipe
            _ = Terminal.Print(parsed.GetValue(help) ? Manual.Of(page ?? Name)! : Program.Version);
            return false;
        }
        foreach (ParseError error in parsed.Errors)
        {
            throw new OverlayMountException(
                (error.SymbolResult is OptionResult { Tokens.Count: 0, IdentifierToken.Value: var option }
                    ? option is "-o" or "--options"
                        ? "-o needs options, such as -o lowerdir=DIR,upperdir=DIR,workdir=DIR"
                        : $"{option} needs a value"
                    : error.Message.TrimEnd('.'))
                + $": see veneer {Name} --help.");
        }
        words = parsed.GetValue(places) ?? [];
        foreach (string word in words)
        {
            // The parser takes an unknown option for a word. After "--" it may be one.
            if (word.Length > 1 && word[0] == '-' && !arguments.Contains("--"))
            {
                throw new OverlayMountException($"{word} is not an option of veneer {Name}: see veneer {Name} --help.");
            }
            if (word.Length == 0) { throw new OverlayMountException("A word is empty: name a file or a directory."); }
        }
        if (words.Length < Fewest) { throw new OverlayMountException(Missing); }
        return words.Length <= Most ? true : throw new OverlayMountException($"{words[Most]} is one word too many: {Taken}");
    }

    /// <summary>Refuses <c>--json=no</c>, which the parser takes for <c>--json</c> and a word.</summary>
    private static void RefuseValue(Option flag, string[] arguments)
    {
        foreach (string argument in arguments.TakeWhile(word => word != "--"))
        {
            int end = argument.IndexOf('=', StringComparison.Ordinal);
            if (end > 0 && (argument[..end] == flag.Name || flag.Aliases.Contains(argument[..end])))
            {
                throw new OverlayMountException($"{argument[..end]} takes no value: leave out {argument[end..]}.");
            }
        }
    }
}
