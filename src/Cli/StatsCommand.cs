using System.CommandLine;
using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;

namespace Veneer.Cli;

/// <summary><c>veneer stats</c>: shows what a live mount has served, and what its server holds.</summary>
internal static class StatsCommand
{
    private const double DefaultSeconds = 2, LeastSeconds = 0.1, MostSeconds = 86_400;

    /// <summary>The parsed command line.</summary>
    /// <param name="Place">A mount point, or an object in the mount.</param>
    /// <param name="Interval">The time between two looks, or null for a single look.</param>
    /// <param name="Form">The format of the output.</param>
    private sealed record Request(string Place, TimeSpan? Interval, Form Form);

    private enum Form
    {
        Table,
        Json,
        OpenMetrics,
    }

    private static readonly Option<string?> watch = new("-w", "--watch") { Arity = ArgumentArity.ZeroOrOne };
    private static readonly Option<bool> json = new("--json");
    private static readonly Option<bool> openMetrics = new("--openmetrics");

    /// <summary>The options of the command.</summary>
    public static IEnumerable<Option> Options() => [watch, json, openMetrics];

    /// <summary>Prints the numbers of a mount.</summary>
    /// <returns>The exit status.</returns>
    public static int Run(ParseResult parsed, string[] words)
    {
        Show(Read(parsed, words));
        return ExitCode.Success;
    }

    private static Request Read(ParseResult parsed, string[] words)
    {
        string? place = words.Length == 0 ? null : words[0];
        TimeSpan? interval = null;
        if (parsed.GetResult(watch) is { Implicit: false })
        {
            double seconds = DefaultSeconds;
            if (parsed.GetValue(watch) is { } word)
            {
                bool isNumber = double.TryParse(word, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out seconds);
                if (!isNumber && place is null)
                {
                    // --watch MOUNTPOINT. A mount point whose name is a number can be written ./5.
                    place = word;
                    seconds = DefaultSeconds;
                }
                else if (!isNumber || seconds is not (>= LeastSeconds and <= MostSeconds))
                {
                    throw new OverlayMountException($"--watch {word} is no time to wait: give seconds from 0.1 to 86400.");
                }
            }
            interval = TimeSpan.FromSeconds(seconds);
        }
        Form form = parsed.GetValue(json) ? Form.Json : parsed.GetValue(openMetrics) ? Form.OpenMetrics : Form.Table;
        if (parsed.GetValue(json) && parsed.GetValue(openMetrics))
        {
            throw new OverlayMountException("--json and --openmetrics are two forms of the same: choose one.");
        }
        if (form == Form.OpenMetrics && interval is not null)
        {
            throw new OverlayMountException("--openmetrics is for one look at a time: leave out --watch, and run it as often as needed.");
        }
        return place is null
            ? throw new OverlayMountException("No mount point is given: name the one to look at.")
            : new Request(place, interval, form);
    }

    private static void Show(Request request)
    {
        bool redraws = request.Interval is not null && request.Form == Form.Table && !Console.IsOutputRedirected;
        Stats? last = null;
        while (true)
        {
            byte[] answer = LiveMount.Ask(request.Place, Query.Stats);
            string text = request.Form == Form.Json
                ? PathText.Decode(answer) + "\n"
                : Format(request, LiveMount.Read(answer, request.Place, DocumentJson.Default.Stats), ref last);
            if (request.Interval is not null && request.Form == Form.Table) { text = redraws ? "\e[H\e[2J" + text : text + "\n"; }
            Errno error = Terminal.Write(text);
            if (error == Errno.EPIPE) { return; } // the reader has seen enough
            if (error.IsError) { throw new LayerException($"The output cannot be written ({error}): see where it goes.", ExitCode.System); }
            if (request.Interval is not { } interval) { return; }
            Thread.Sleep(interval);
        }
    }

    private static string Format(Request request, Stats now, ref Stats? last)
    {
        string mount = MountPointOf(request.Place);
        if (request.Form == Form.OpenMetrics) { return OpenMetrics.Of(now, mount); }
        string text = StatsTable.Of(now, last, mount);
        last = now;
        return text;
    }

    /// <summary>Where the mount is that a path leads into. Its server has just answered, so that it is safe to look.</summary>
    private static string MountPointOf(string place)
    {
        if (Target.FindAround(place, out string path, out MountEntry? mount, out int descriptor).IsError) { return place; }
        Libc.Close(descriptor);
        return mount?.MountPoint ?? path;
    }
}
