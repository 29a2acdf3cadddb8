using System.CommandLine;
using System.Globalization;
using Spectre.Console;
using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Topology;
using Veneer.Overlay.Usage;

namespace Veneer.Cli;

/// <summary><c>veneer list</c>: the overlays of Veneer on this machine.</summary>
internal static class ListCommand
{
    /// <summary>How long each server may take to answer, in milliseconds.</summary>
    private const int AnswerTime = 1_000;

    /// <summary>An overlay with the answers of its server.</summary>
    /// <param name="Overlay">The overlay.</param>
    /// <param name="Requests">The number of requests that it has served; null when the server did not tell.</param>
    /// <param name="UptimeSeconds">How long it has served, in seconds; null when the server did not tell.</param>
    /// <param name="Options">
    /// The options of the overlay, without the layers and without general mount options; null when the server did not tell.
    /// </param>
    /// <param name="Silence">Why the server did not tell; null when it did.</param>
    private sealed record Row(
        VeneerOverlay Overlay, long? Requests, double? UptimeSeconds, IReadOnlyList<string>? Options, string? Silence);

    private static readonly Option<bool> json = new("--json");

    /// <summary>The options of the command.</summary>
    public static IEnumerable<Option> Options() => [json];

    /// <summary>Prints the overlays.</summary>
    /// <returns>The exit status.</returns>
    public static int Run(ParseResult parsed, string[] words)
    {
        List<Row> rows = [.. Holders.Instances(out IReadOnlyList<string> missing).Select(Ask)];
        if (parsed.GetValue(json))
        {
            Terminal.WriteJson(new OverlayList { Overlays = [.. rows.Select(Describe)], Gaps = missing },
                DocumentJson.Default.OverlayList);
        }
        else
        {
            if (rows.Count > 0) { Terminal.Print(Terminal.Render(Tree(rows))); }
            foreach (string sentence in missing) { Terminal.Complain(sentence); }
        }
        return missing.Count > 0 ? ExitCode.Incomplete : ExitCode.Success;
    }

    private static Row Ask(VeneerOverlay instance)
    {
        if (instance.Mounts.Count == 0) { return new Row(instance, null, null, null, "is mounted nowhere that can be seen"); }
        (string process, _, MountEntry mount) = instance.Mounts[0];
        if (process.Length == 0)
        {
            return new Row(instance, null, null, null, "is mounted only in a mount namespace in which no process is");
        }
        try
        {
            string place = process == "self" ? mount.MountPoint : $"/proc/{process}/root{mount.MountPoint}";
            Stats stats = LiveMount.Ask(place, Query.Stats, DocumentJson.Default.Stats, milliseconds: AnswerTime);
            OverlayTopology topology = LiveMount.Ask(place, Query.Layers, DocumentJson.Default.OverlayTopology, milliseconds: AnswerTime);
            // The server knows the paths of the layers best, but does not tell them to every caller.
            List<(string Role, string Path)> told = [];
            foreach (LayerDescription layer in topology.Layers)
            {
                if (layer.Path is { } path) { told.Add((layer.Role, path)); }
            }
            if (told.Count == instance.Layers.Count) { instance = instance with { Layers = told }; }
            return new Row(instance, stats.Requests.Sum(one => one.Count), stats.UptimeSeconds, topology.Options, null);
        }
        catch (MountException problem)
        {
            return new Row(instance, null, null, null, (instance.Pid, (problem as LayerException)?.Problem) switch
            {
                (0, _) => "has no server that can be seen",
                (_, LayerProblem.Hangs) => "does not answer",
                (_, LayerProblem.IsShutDown) => "gives EIO, as after a shutdown",
                _ => "does not tell",
            });
        }
    }

    private static Tree Tree(List<Row> rows)
    {
        var tree = new Tree(new Text("overlays"));
        foreach (Row row in rows)
        {
            VeneerOverlay one = row.Overlay;
            string server = one.Pid > 0 ? $"process {one.Pid}, " : "";
            string state = row.Silence ?? string.Create(CultureInfo.InvariantCulture,
                $"up {TimeSpan.FromSeconds((long)row.UptimeSeconds!):c}, {row.Requests} requests");
            TreeNode node = tree.AddNode(new Text($"{(one.Mounts.Count > 0
                ? PathText.Printable(one.Mounts[0].Mount.MountPoint)
                : $"device {one.Device}")}  {server}{state}"));
            foreach ((string process, ulong space, MountEntry mount) in one.Mounts)
            {
                if (process != "self") { node.AddNode(new Text($"in mount namespace {space} on {PathText.Printable(mount.MountPoint)}")); }
                else if (mount != one.Mounts[0].Mount) { node.AddNode(new Text($"also on {PathText.Printable(mount.MountPoint)}")); }
            }
            if (row.Options is { } options)
            {
                node.AddNode(new Text($"options {PathText.Printable(string.Join(',', [one.Mounts[0].Mount.Options, .. options]))}"));
            }
            foreach ((string role, string path) in one.Layers) { node.AddNode(new Text($"{role} {PathText.Printable(path)}")); }
            if (one.UpperFileSystem is { } usage)
            {
                node.AddNode(new Text(string.Create(CultureInfo.InvariantCulture,
                    $"upper's filesystem: {Size(Used(usage))} of {Size(usage.Blocks * (ulong)usage.BlockSize)} "
                        + $"and {usage.Files - usage.FilesFree} of {usage.Files} inodes used")));
            }
            if (one.Command is { } words) { node.AddNode(new Text(PathText.Printable(words))); }
        }
        return tree;
    }

    private static ulong Used(in StatFs usage) => (usage.Blocks - usage.BlocksFree) * (ulong)usage.BlockSize;

    private static string Size(ulong bytes) =>
        bytes < 10 << 20
            ? string.Create(CultureInfo.InvariantCulture, $"{bytes >> 10} KiB")
            : string.Create(CultureInfo.InvariantCulture, $"{bytes >> 20} MiB");

    private static ListedOverlay Describe(Row row)
    {
        VeneerOverlay one = row.Overlay;
        return new ListedOverlay
        {
            Device = one.Device,
            Mounts = [.. one.Mounts.Select(at => new ListedMount(at.Mount.Id, at.Namespace, at.Mount.MountPoint, at.Mount.Options))],
            Pid = one.Pid > 0 ? one.Pid : null,
            Command = one.Command,
            Since = one.Since,
            Layers = [.. one.Layers.Select(layer => new ListedLayer(layer.Role, layer.Path))],
            UpperFilesystem = one.UpperFileSystem is { } usage ? Describe(usage) : null,
            Options = row.Options,
            Answers = row.Silence is null,
            Requests = row.Requests,
            UptimeSeconds = row.UptimeSeconds,
        };
    }

    private static FileSystemUsage Describe(in StatFs usage) =>
        new(usage.Blocks * (ulong)usage.BlockSize, Used(usage), usage.Files, usage.Files - usage.FilesFree);
}
