using System.CommandLine;
using System.Text;
using System.Text.Json;
using Veneer.Overlay;
using Veneer.Overlay.Control;

namespace Veneer.Cli;

/// <summary><c>veneer status</c>: whether what was written to a mount is safe.</summary>
internal static class StatusCommand
{
    /// <param name="arguments">The words after <c>status</c>.</param>
    public static int Run(string[] arguments)
    {
        var json = new Option<bool>("--json");
        if (!CommandLine.Parse("status", arguments, [json], out ParseResult parsed, out string[] words)) { return ExitCode.Success; }
        if (words.Length != 1) { throw new OverlayMountException(words.Length == 0 ? "No mount point is given: name the one to look at." : $"{words[1]} is one word too many: give one mount point."); }

        byte[] answer = LiveMount.Ask(words[0], Query.Durability);
        Terminal.Print(parsed.GetValue(json) ? Encoding.UTF8.GetString(answer) + "\n" : Describe(answer));
        return ExitCode.Success;
    }

    private static string Describe(byte[] answer)
    {
        using JsonDocument document = JsonDocument.Parse(answer);
        JsonElement root = document.RootElement;
        string watch = root.GetProperty("watch").GetString() switch
        {
            "nothing" => "none, the upper is in memory or there is none",
            "filesystem" => "all of the upper's filesystem",
            _ => "of files that are open; others may be missed",
        };
        string reuse = root.GetProperty("reusable") switch
        {
            { ValueKind: JsonValueKind.Null } => "with any options",
            { ValueKind: JsonValueKind.True } when root.GetProperty("sync_on_unmount").GetBoolean() => "with any options, the unmount syncs it",
            { ValueKind: JsonValueKind.True } => "with volatile, until the filesystem is mounted anew; otherwise after veneer sync",
            _ when root.GetProperty("failure").ValueKind != JsonValueKind.Null => "no, something may be lost",
            _ => "after veneer sync",
        };
        var text = new StringBuilder();
        AppendLack("passthrough      ", "passthrough");
        AppendLack("io_uring         ", "io_uring");
        text.Append("fsync            ").Append(root.GetProperty("fsync").GetString()).Append('\n');
        text.Append("failed writes    ").Append(root.GetProperty("failure").GetString() ?? "none").Append('\n');
        text.Append("which are found  ").Append(watch).Append('\n');
        text.Append("after one        ").Append(root.GetProperty("errors").GetString()).Append('\n');
        text.Append("can be reused    ").Append(reuse).Append('\n');
        foreach (JsonElement lacking in root.TryGetProperty("lacks", out JsonElement lacks) ? lacks.EnumerateArray() : default)
        {
            text.Append("upper lacks      ").Append(lacking.GetProperty("what").GetString()).Append(": ").Append(lacking.GetProperty("instead").GetString()).Append('\n');
        }
        if (root.GetProperty("sync") is { ValueKind: JsonValueKind.Object } sync)
        {
            text.Append("sync             ").Append(sync.GetProperty("done")).Append(" of ").Append(sync.GetProperty("total")).Append(sync.GetProperty("over").GetBoolean() ? ", over\n" : "\n");
        }
        return text.ToString();

        // As it should be, it is not worth a line.
        void AppendLack(string title, string name)
        {
            if (root.TryGetProperty(name, out JsonElement value) && value.GetString() is { } state and not ("on" or "off")) { text.Append(title).Append("none: ").Append(state).Append('\n'); }
        }
    }
}
