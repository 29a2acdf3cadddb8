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

    /// <param name="arguments">The words after <c>stats</c>.</param>
    public static int Run(string[] arguments)
    {
        Request? request = Parse(arguments);
        if (request is not null) { Show(request); }
        return ExitCode.Success;
    }

    private static Request? Parse(string[] arguments)
    {
        var watch = new Option<string?>("-w", "--watch") { Arity = ArgumentArity.ZeroOrOne };
        var json = new Option<bool>("--json");
        var openMetrics = new Option<bool>("--openmetrics");
        if (!CommandLine.Parse("stats", arguments, [watch, json, openMetrics], out ParseResult parsed, out string[] places))
        {
            return null;
        }
        List<string> words = [.. places];
        TimeSpan? interval = null;
        if (parsed.GetResult(watch) is { Implicit: false })
        {
            double seconds = DefaultSeconds;
            if (parsed.GetValue(watch) is { } word)
            {
                bool isNumber = double.TryParse(word, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out seconds);
                if (!isNumber && words.Count == 0)
                {
                    // --watch MOUNTPOINT. A mount point whose name is a number can be written ./5.
                    words.Add(word);
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
        if (words.Count != 1)
        {
            throw new OverlayMountException(words.Count == 0
                ? "No mount point is given: name the one to look at."
                : $"{words[1]} is one word too many: give one mount point.");
        }
        return new Request(words[0], interval, form);
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
