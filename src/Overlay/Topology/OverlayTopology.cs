using System.Text.Json;
using Veneer.Linux;
using Veneer.Overlay.Changes;

namespace Veneer.Overlay.Topology;

/// <summary>What an overlay is made of, and, if asked, what its layers contribute to one object.</summary>
public sealed record OverlayTopology
{
    /// <summary>The layers, upper first, the work directory last.</summary>
    public required IReadOnlyList<LayerDescription> Layers { get; init; }

    /// <summary>Whether the overlay's attributes are <c>user.overlay.*</c>.</summary>
    public bool UserXattr { get; init; }

    /// <summary>Whether upper's are <c>user.overlay.*</c>, be it that its filesystem takes no others.</summary>
    public bool UpperUserXattr { get; init; }

    /// <summary>The options that it was mounted with, but for layers and flags of the mount, one each in the spelling of mount(8).</summary>
    public IReadOnlyList<string> Options { get; init; } = [];

    /// <summary>The path of the object from the root of the overlay, empty for the root; null when none was asked for.</summary>
    public string? Path { get; init; }

    /// <summary>What the layers contribute to the object, topmost first; a whiteout when it is gone, nothing when no layer ever had it.</summary>
    public IReadOnlyList<ObjectPart> Parts { get; init; } = [];

    /// <summary>Describes an overlay by its directories.</summary>
    /// <param name="upper">The upper directory, or null.</param>
    /// <param name="lowers">The lower directories, topmost first.</param>
    /// <param name="work">The work directory, or null.</param>
    /// <param name="userXattr">Whether the overlay was mounted with <c>userxattr</c>.</param>
    /// <param name="path">The object to tell of, from the root of the overlay, or null.</param>
    /// <param name="data">Data-only layers, topmost first.</param>
    /// <exception cref="OverlayMountException">A layer cannot be examined; the message is a sentence for the user.</exception>
    public static OverlayTopology Of(string? upper, IReadOnlyList<string> lowers, string? work, bool userXattr, string? path, IReadOnlyList<string>? data = null)
    {
        var opened = new List<Fd>();
        try
        {
            var layers = new List<(int, string)>();
            if (upper is not null) { layers.Add((Open(upper, "upper"), upper)); }
            foreach (string lower in lowers) { layers.Add((Open(lower, "lower"), lower)); }
            OverlayTopology topology = Of(layers, upper is not null, work is null ? null : (Open(work, "work"), work), userXattr, path);
            if (data is not { Count: > 0 }) { return topology; }
            List<LayerDescription> all = [.. topology.Layers];
            int at = lowers.Count + (upper is null ? 0 : 1);
            foreach (string directory in data) { all.Insert(at++, LayerDescription.Of(at - (upper is null ? 0 : 1), directory, Open(directory, "data-only")) with { IsDataOnly = true }); }
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

    /// <summary>Describes an overlay by descriptors of its directories, O_PATH.</summary>
    internal static OverlayTopology Of(IReadOnlyList<(int Descriptor, string Path)> layers, bool hasUpper, (int Descriptor, string Path)? work, bool userXattr, string? path)
    {
        var described = new List<LayerDescription>();
        foreach ((int descriptor, string given) in layers) { described.Add(LayerDescription.Of(described.Count + (hasUpper ? 0 : 1), given, descriptor)); }
        if (work is { } place) { described.Add(LayerDescription.Of(-1, place.Path, place.Descriptor)); }
        if (path is null) { return new OverlayTopology { Layers = described, UserXattr = userXattr, UpperUserXattr = userXattr }; }
        using var set = LayerSet.Hold(layers, userXattr, hasUpper);
        return new OverlayTopology { Layers = described, UserXattr = userXattr, UpperUserXattr = userXattr, Path = path, Parts = PartsOf(set, path) };
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

    /// <summary>Writes it as docs/control.md describes it.</summary>
    public void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteStartArray("layers"u8);
        foreach (LayerDescription layer in Layers)
        {
            json.WriteStartObject();
            json.WriteNumber("index"u8, layer.Index);
            json.WriteString("role"u8, layer.Role);
            if (layer.Given is { } given) { ChangeJson.WritePath(json, "given", given); }
            if (layer.Path is { } path) { ChangeJson.WritePath(json, "path", path); }
            json.WriteString("device"u8, layer.Device);
            json.WriteString("filesystem"u8, layer.FileSystem);
            json.WriteString("uuid"u8, layer.Uuid);
            json.WriteNumber("mount_id"u8, layer.MountId);
            json.WriteNumber("ino"u8, layer.Ino);
            json.WriteNumber("handle_type"u8, layer.HandleType);
            json.WriteString("handle"u8, layer.Handle);
            json.WriteEndObject();
        }
        json.WriteEndArray();
        json.WriteBoolean("userxattr"u8, UserXattr);
        json.WriteBoolean("upper_userxattr"u8, UpperUserXattr);
        json.WriteStartArray("options"u8);
        foreach (string option in Options) { json.WriteStringValue(option); }
        json.WriteEndArray();
        if (Path is not null)
        {
            json.WriteStartObject("object"u8);
            ChangeJson.WritePath(json, "path", Path);
            json.WriteStartArray("parts"u8);
            foreach (ObjectPart part in Parts)
            {
                json.WriteStartObject();
                json.WriteNumber("layer"u8, part.Layer);
                if (part.Path is { } where) { ChangeJson.WritePath(json, "path", where); }
                json.WriteStartArray("roles"u8);
                foreach (string word in Words(part.Roles)) { json.WriteStringValue(word); }
                json.WriteEndArray();
                json.WriteString("type"u8, ChangeJson.Word(part.Type));
                json.WriteNumber("ino"u8, part.Ino);
                json.WriteNumber("handle_type"u8, part.HandleType);
                json.WriteString("handle"u8, part.Handle);
                json.WriteEndObject();
            }
            json.WriteEndArray();
            json.WriteEndObject();
        }
        json.WriteEndObject();
    }

    /// <summary>How roles are written.</summary>
    public static IEnumerable<string> Words(PartRoles roles)
    {
        for (int bit = 1; bit <= (int)PartRoles.Redirected; bit <<= 1)
        {
            if (((int)roles & bit) != 0) { yield return Word((PartRoles)bit); }
        }
    }

    private static string Word(PartRoles role) => role switch
    {
        PartRoles.Upper => "upper",
        PartRoles.Lower => "lower",
        PartRoles.Merged => "merged",
        PartRoles.Opaque => "opaque",
        PartRoles.Whiteout => "whiteout",
        PartRoles.Metacopy => "metacopy",
        PartRoles.Data => "data",
        PartRoles.Origin => "origin",
        _ => "redirected",
    };

    /// <summary>Reads what <see cref="Write"/> wrote.</summary>
    /// <exception cref="FormatException">It is something else.</exception>
    public static OverlayTopology Read(JsonElement document)
    {
        try
        {
            var parts = new List<ObjectPart>();
            string? objectPath = null;
            if (document.TryGetProperty("object"u8, out JsonElement described))
            {
                objectPath = ChangeJson.ReadPath(described, "path");
                foreach (JsonElement part in described.GetProperty("parts"u8).EnumerateArray()) { parts.Add(ReadPart(part)); }
            }
            return new OverlayTopology { Layers = [.. document.GetProperty("layers"u8).EnumerateArray().Select(ReadLayer)], UserXattr = document.GetProperty("userxattr"u8).GetBoolean(), UpperUserXattr = document.TryGetProperty("upper_userxattr"u8, out JsonElement upperUser) ? upperUser.GetBoolean() : document.GetProperty("userxattr"u8).GetBoolean(), Options = [.. document.GetProperty("options"u8).EnumerateArray().Select(option => option.GetString() ?? "")], Path = objectPath, Parts = parts };
        }
        catch (Exception problem) when (problem is KeyNotFoundException or InvalidOperationException)
        {
            throw new FormatException("The document does not describe an overlay.", problem);
        }
    }

    private static LayerDescription ReadLayer(JsonElement layer) => new()
    {
        Index = layer.GetProperty("index"u8).GetInt32(),
        IsDataOnly = Text(layer, "role") == "data",
        Given = ChangeJson.ReadPath(layer, "given"),
        Path = ChangeJson.ReadPath(layer, "path"),
        Device = Text(layer, "device"),
        FileSystem = Text(layer, "filesystem"),
        Uuid = Text(layer, "uuid"),
        MountId = layer.GetProperty("mount_id"u8).GetUInt64(),
        Ino = layer.GetProperty("ino"u8).GetUInt64(),
        HandleType = layer.GetProperty("handle_type"u8).GetInt32(),
        Handle = IsHandle(Text(layer, "handle")) ? Text(layer, "handle") : throw new FormatException("A handle is not in hexadecimal."),
    };

    private static ObjectPart ReadPart(JsonElement part)
    {
        PartRoles roles = PartRoles.None;
        foreach (JsonElement word in part.GetProperty("roles"u8).EnumerateArray())
        {
            for (int bit = 1; bit <= (int)PartRoles.Redirected; bit <<= 1) { roles |= Word((PartRoles)bit) == word.GetString() ? (PartRoles)bit : PartRoles.None; }
        }
        return new ObjectPart
        {
            Layer = part.GetProperty("layer"u8).GetInt32(),
            Path = ChangeJson.ReadPath(part, "path"),
            Roles = roles,
            Type = ChangeJson.ReadType(Text(part, "type")),
            Ino = part.GetProperty("ino"u8).GetUInt64(),
            HandleType = part.GetProperty("handle_type"u8).GetInt32(),
            Handle = Text(part, "handle"),
        };
    }

    private static bool IsHandle(string text) => text.Length % 2 == 0 && text.Length <= 2 * FileHandle.MaxLength && text.All(char.IsAsciiHexDigitUpper);

    private static string Text(JsonElement element, string member) => element.GetProperty(member).GetString() ?? throw new FormatException($"{member} is missing.");
}
