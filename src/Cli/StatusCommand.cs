using System.CommandLine;
using System.Globalization;
using System.Text;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;

namespace Veneer.Cli;

/// <summary><c>veneer status</c>: tells whether what was written to a mount is safe.</summary>
internal static class StatusCommand
{
    private static readonly Option<bool> json = new("--json");

    /// <summary>The options of the command.</summary>
    public static IEnumerable<Option> Options() => [json];

    /// <summary>Prints the status of a mount.</summary>
    /// <returns>The exit status.</returns>
    public static int Run(ParseResult parsed, string[] words)
    {
        byte[] answer = LiveMount.Ask(words[0], Query.Durability);
        string text = parsed.GetValue(json)
            ? Encoding.UTF8.GetString(answer) + "\n"
            : Describe(LiveMount.Read(answer, words[0], DocumentJson.Default.OverlayStatus));
        Terminal.Print(text);
        return ExitCode.Success;
    }

    private static string Describe(OverlayStatus status)
    {
        string watch = status.Watch switch
        {
            OverlayStatus.WatchNothing => "none, the upper is in memory or there is none",
            OverlayStatus.WatchFileSystem => "all of the upper's filesystem",
            _ => "of files that are open; others may be missed",
        };
        string reuse = status.Reusable switch
        {
            null => "with any options",
            true when status.SyncOnUnmount => "with any options, the unmount syncs it",
            true => "with volatile, until the filesystem is mounted anew; otherwise after veneer sync",
            _ when status.Failure is not null => "no, something may be lost",
            _ => "after veneer sync",
        };
        var text = new StringBuilder();
        AppendLack("passthrough      ", status.Passthrough);
        AppendLack("io_uring         ", status.IoUring);
        text.Append("fsync            ").Append(status.Fsync).Append('\n');
        text.Append("failed writes    ").Append(status.Failure ?? "none").Append('\n');
        text.Append("which are found  ").Append(watch).Append('\n');
        text.Append("after one        ").Append(status.Errors).Append('\n');
        text.Append("can be reused    ").Append(reuse).Append('\n');
        foreach (LackingFeature lack in status.Lacks)
        {
            text.Append("upper lacks      ").Append(lack.What).Append(": ").Append(lack.Instead).Append('\n');
        }
        if (status.Sync is { } sync)
        {
            text.Append(CultureInfo.InvariantCulture, $"sync             {sync.Done} of {sync.Total}{(sync.Over ? ", over" : "")}\n");
        }
        return text.ToString();

        // A feature that is on, or off because the user asked for that, gets no line. An older server tells nothing of it.
        void AppendLack(string title, string state)
        {
            if (state is OverlayStatus.On or OverlayStatus.Off or "") { return; }
            text.Append(title).Append("none: ").Append(state).Append('\n');
        }
    }
}
