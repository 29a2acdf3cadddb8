using System.CommandLine;
using System.Globalization;
using System.Text;
using Veneer.Linux;
using Veneer.Overlay;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Topology;

namespace Veneer.Cli;

/// <summary><c>veneer layers</c>: shows the layers of an overlay, and which of them contribute to an object in it.</summary>
internal static class LayersCommand
{
    private static readonly Option<bool> json = new("--json");

    /// <summary>The options of the command.</summary>
    public static IEnumerable<Option> Options() => [json];

    /// <summary>Prints the layers.</summary>
    /// <returns>The exit status.</returns>
    public static int Run(ParseResult parsed, string[] words)
    {
        OverlayTopology topology = Describe(words[0], words.Length == 2 ? words[1] : null, out string mountPoint);
        if (topology.Path is { } path && topology.Parts.Count == 0)
        {
            throw new LayerException($"No layer has {path}: name something in {mountPoint}, or something that was deleted there.",
                ExitCode.Outside);
        }
        if (parsed.GetValue(json)) { Terminal.WriteJson(topology, DocumentJson.Default.OverlayTopology); }
        else { Terminal.Print(Tree(topology, mountPoint)); }
        return ExitCode.Success;
    }

    private static OverlayTopology Describe(string place, string? path, out string mountPoint)
    {
        MountedOverlay overlay = MountedOverlay.Around(place, out string resolved, LiveMount.AskFor);
        mountPoint = overlay.MountPoint;
        string prefix = mountPoint == "/" ? "/" : mountPoint + "/";
        if (resolved != mountPoint)
        {
            if (path is not null)
            {
                throw new LayerException($"{resolved} is not a mount point: name the mount point of an overlay.", ExitCode.NotAMount);
            }
            path = resolved;
        }
        if (path is not null)
        {
            if (path.Split('/').Contains(".."))
            {
                throw new LayerException($"{path} has .. in it, which may lead out of {mountPoint}: name the path without.",
                    ExitCode.Outside);
            }
            if (path.Trim('/').Length > 0 && path.StartsWith('/') && path != mountPoint
                && !path.StartsWith(prefix, StringComparison.Ordinal))
            {
                throw new LayerException($"{path} is not in {mountPoint}: name something below it, or a path that starts there.",
                    ExitCode.Outside);
            }
            path = path == mountPoint || path.Trim('/').Length == 0 ? "" : path.StartsWith('/') ? path[prefix.Length..] : path;
            path = string.Join('/', path.Split('/').Where(name => name is not ("" or ".")));
        }
        return overlay.Layers(path);
    }

    private static string Tree(OverlayTopology topology, string mountPoint)
    {
        var text = new StringBuilder($"{PathText.Printable(mountPoint)}\n");
        Branches(text, topology.Layers, static layer => string.Create(CultureInfo.InvariantCulture,
            $"{Name(layer.Index)}  {Where(layer)}  "
            + $"{layer.FileSystem}{(layer.FileSystem.Length > 0 ? " " : "")}{layer.Device}  "
            + $"{Numbers(layer.MountId, layer.Ino, layer.HandleType, layer.Handle)}"));
        if (topology.Path is not { } path) { return text.ToString(); }
        text.Append(CultureInfo.InvariantCulture, $"{(path.Length == 0 ? "." : PathText.Printable(path))}\n");
        Branches(text, topology.Parts, static part => string.Create(CultureInfo.InvariantCulture,
            $"{Name(part.Layer)}  {string.Join(", ", OverlayTopology.Words(part.Roles))}  "
            + $"{(part.Path is { } where ? where.Length == 0 ? "." : PathText.Printable(where) : "?")}  "
            + $"{Numbers(0, part.Ino, part.HandleType, part.Handle)}"));
        return text.ToString();
    }

    private static void Branches<T>(StringBuilder text, IReadOnlyList<T> items, Func<T, string> line)
    {
        for (int i = 0; i < items.Count; i++)
        {
            text.Append(i == items.Count - 1 ? "└── " : "├── ").Append(line(items[i])).Append('\n');
        }
    }

    private static string Name(int layer) =>
        layer switch { 0 => "upper  ", < 0 => "work   ", _ => string.Create(CultureInfo.InvariantCulture, $"lower {layer}") };

    private static string Where(LayerDescription layer) =>
        layer.Path is { } path
            ? PathText.Printable(path)
            : layer.Given is { } given
            ? $"{PathText.Printable(given)} (not reached from here)"
            : "(not reached from here)";

    private static string Numbers(ulong mountId, ulong ino, int type, string handle) => string.Create(CultureInfo.InvariantCulture,
        $"{(mountId == 0 ? "" : $"mount {mountId}, ")}inode "
        + $"{ino}{(handle.Length == 0 ? "" : $", handle {type}:{handle.ToLowerInvariant()}")}");
}
