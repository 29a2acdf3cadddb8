using System.Text.Json;
using Veneer.Linux;
using Veneer.Overlay.Changes;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Live;

/// <summary>Answers the question changes: what upper of a live mount changes in the lowers.</summary>
/// <param name="tree">The tree of the overlay.</param>
internal sealed class LiveChanges(ObjectTree tree)
{
    /// <summary>The most changes in one answer, so that no worker is away for long and no document too large.</summary>
    private const int MaxChanges = 20_000;

    /// <summary>Answers one question.</summary>
    /// <param name="argument">Empty, or <c>next</c> of the previous answer.</param>
    /// <param name="document">Takes the answer.</param>
    public Errno Answer(ReadOnlySpan<byte> argument, Utf8JsonWriter document)
    {
        if (!DiffPosition.TryParse(argument, out DiffPosition position)) { return Errno.EINVAL; }
        var changes = new List<Change>();
        string? next = null;
        IReadOnlyList<Disturbance> disturbances = [];
        if (tree.Layers.Upper is { } upper)
        {
            var lowers = new List<(int, string)>();
            foreach (Layer lower in tree.Layers.Lowers) { lowers.Add((lower.Root.Descriptor, lower.Path)); }
            using OverlayDiff diff = OverlayDiff.Open((upper.Root.Descriptor, upper.Path), lowers, tree.Xattr.IsUser,
                tree.LowerXattr.IsUser);
            int bytes = 0;
            foreach (Change change in diff.Changes(position))
            {
                changes.Add(change);
                bytes += ChangesPart.MostBytesOf(change);
                if (changes.Count < MaxChanges && bytes < ControlChannel.MaxBytes / 2) { continue; }
                next = new DiffPosition(position.Since, PathText.Encode(change.Path)[..^1]).ToString();
                break;
            }
            disturbances = diff.Disturbances;
        }
        var part = new ChangesPart { Changes = changes, Disturbances = disturbances, Next = next };
        JsonSerializer.Serialize(document, part, DocumentJson.Default.ChangesPart);
        return Errno.None;
    }
}
