using System.Text.Json;
using System.Text.Json.Serialization;
using Veneer.Linux;
using Veneer.Overlay.Changes;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Topology;

/// <summary>Describes what an overlay is made of and, if asked, what its layers contribute to one object.</summary>
public sealed record OverlayTopology
{
    /// <summary>The layers, upper first, the work directory last.</summary>
    public required IReadOnlyList<LayerDescription> Layers { get; init; }

    /// <summary>Whether the overlay's attributes in the lowers are <c>user.overlay.*</c>.</summary>
    [JsonRequired, JsonPropertyName("userxattr")]
    public bool UserXattr { get; init; }

    /// <summary>
    /// Whether the overlay's attributes in upper are <c>user.overlay.*</c>, asked for or because its filesystem takes no
    /// others.
    /// </summary>
    [JsonIgnore]
    public bool UpperUserXattr { get; init; }

    [JsonInclude, JsonPropertyName("upper_userxattr")]
    internal bool? ToldUpperUserXattr { get => UpperUserXattr; init => UpperUserXattr = value ?? UserXattr; }

    /// <summary>The options of the overlay, without layers and flags of the mount, one each in the spelling of mount(8).</summary>
    [JsonRequired]
    public IReadOnlyList<string> Options { get; init; } = [];

    /// <summary>The path of the object from the root of the overlay, empty for the root; null when no object was asked for.</summary>
    [JsonIgnore]
    public string? Path { get; init; }

    /// <summary>
    /// What the layers contribute to the object, topmost first: a whiteout when the object is gone, nothing when no layer ever
    /// had it.
    /// </summary>
    [JsonIgnore]
    public IReadOnlyList<ObjectPart> Parts { get; init; } = [];

    [JsonInclude]
    internal AskedObject? Object
    {
        get => Path is null ? null : new AskedObject { Path = Path, Parts = Parts };
        init => (Path, Parts) = (value?.Path, value?.Parts ?? []);
    }

    /// <summary>Describes an overlay by its directories.</summary>
    /// <param name="upper">The upper directory, or null.</param>
    /// <param name="lowers">The lower directories, topmost first.</param>
    /// <param name="work">The work directory, or null.</param>
    /// <param name="userXattr">Whether the overlay was mounted with <c>userxattr</c>.</param>
    /// <param name="path">The object to describe, from the root of the overlay, or null.</param>
    /// <param name="data">Data-only layers, topmost first.</param>
    /// <exception cref="OverlayMountException">A layer cannot be examined; the message is a sentence for the user.</exception>
    public static OverlayTopology Of(string? upper, IReadOnlyList<string> lowers, string? work, bool userXattr, string? path,
        IReadOnlyList<string>? data = null)
    {
        var opened = new List<Fd>();
        try
        {
            (int, string)? top = upper is null ? null : (Open(upper, "upper"), upper);
            var below = new List<(int, string)>();
            foreach (string lower in lowers) { below.Add((Open(lower, "lower"), lower)); }
            OverlayTopology topology = Of(top, below, work is null ? null : (Open(work, "work"), work), userXattr, path);
            if (data is not { Count: > 0 }) { return topology; }
            List<LayerDescription> all = [.. topology.Layers];
            int at = lowers.Count + (upper is null ? 0 : 1);
            foreach (string directory in data)
            {
                all.Insert(
                    at++,
                    LayerDescription.Of(at - (upper is null ? 0 : 1), directory, Open(directory, "data-only")) with { IsDataOnly = true });
            }
            return topology with { Layers = all };
        }
        finally
        {
            foreach (Fd one in opened) { one.Dispose(); }
        }

        int Open(string directory, string role)
        {
            opened.Add(new Fd(OverlayDiff.OpenLayer(directory, role)));
            return opened[^1].Value;
        }
    }

    /// <summary>Describes an overlay by O_PATH descriptors of its directories.</summary>
    internal static OverlayTopology Of((int Descriptor, string Path)? upper, IReadOnlyList<(int Descriptor, string Path)> lowers,
        (int Descriptor, string Path)? work, bool userXattr, string? path)
    {
        var described = new List<LayerDescription>();
        if (upper is { } top) { described.Add(LayerDescription.Of(Layer.UpperIndex, top.Path, top.Descriptor)); }
        for (int i = 0; i < lowers.Count; i++)
        {
            described.Add(LayerDescription.Of(Layer.UpperIndex + 1 + i, lowers[i].Path, lowers[i].Descriptor));
        }
        if (work is { } place) { described.Add(LayerDescription.Of(-1, place.Path, place.Descriptor)); }
        if (path is null) { return new OverlayTopology { Layers = described, UserXattr = userXattr, UpperUserXattr = userXattr }; }
        using var set = LayerSet.Hold(upper, lowers, userXattr);
        return new OverlayTopology
        {
            Layers = described, UserXattr = userXattr, UpperUserXattr = userXattr, Path = path, Parts = PartsOf(set, path)
        };
    }

    private static IReadOnlyList<ObjectPart> PartsOf(LayerSet layers, string path)
    {
        Errno error = new ObjectParts(layers).Find(PathText.Encode(path).AsSpan()[..^1], out IReadOnlyList<ObjectPart> parts);
        return error switch
        {
            Errno.None => parts,
            Errno.ENOENT or Errno.ENOTDIR => [],
            _ => throw new OverlayMountException($"{path} cannot be looked up in the layers ({error}): see what the layers have there."),
        };
    }

    /// <summary>Writes the description as docs/control.md has it.</summary>
    public void Write(Utf8JsonWriter json) => JsonSerializer.Serialize(json, this, DocumentJson.Default.OverlayTopology);

    /// <summary>Reads a description that <see cref="Write"/> wrote.</summary>
    /// <exception cref="FormatException">The document is not such a description.</exception>
    public static OverlayTopology Read(JsonElement document) => Document.Read(document, DocumentJson.Default.OverlayTopology);

    /// <summary>The words for roles in documents.</summary>
    public static IEnumerable<string> Words(PartRoles roles) => PartRolesWords.AllOf(roles);
}

/// <summary>An object that was asked for, in the document of an overlay.</summary>
public sealed record AskedObject
{
    /// <summary>The path of the object, as <see cref="OverlayTopology.Path"/>.</summary>
    public required string Path { get; init; }

    [JsonInclude] internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }

    /// <summary>The parts of the object, as <see cref="OverlayTopology.Parts"/>.</summary>
    public required IReadOnlyList<ObjectPart> Parts { get; init; }
}
