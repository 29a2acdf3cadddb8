using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Veneer.Overlay.Documents;

namespace Veneer.Overlay.Topology;

/// <summary>Everything that is needed to mount an overlay again, as <c>veneer checkpoint</c> writes it.</summary>
public sealed record Checkpoint
{
    /// <summary>The only version of the document so far.</summary>
    public const int CurrentVersion = 1;

    [JsonInclude, JsonPropertyName("veneer_checkpoint")]
    internal int Version { get => CurrentVersion; init { } } // Read has checked the version

    /// <summary>The type of the mount: <c>fuse.veneer</c>, or <c>overlay</c> for a kernel overlay.</summary>
    public required string Type { get; init; }

    /// <summary>The path where the overlay was mounted.</summary>
    public required string MountPoint { get; init; }

    [JsonInclude]
    internal byte[]? MountPointBase64
    {
        get => DocumentPath.BytesOf(MountPoint);
        init => MountPoint = DocumentPath.TextOf(value, MountPoint);
    }

    /// <summary>The source that mount tables show.</summary>
    public required string Source { get; init; }

    [JsonInclude]
    internal byte[]? SourceBase64 { get => DocumentPath.BytesOf(Source); init => Source = DocumentPath.TextOf(value, Source); }

    /// <summary>The mount's own flags, such as <c>rw,nosuid</c>.</summary>
    public required string Flags { get; init; }

    /// <summary>The flags of the filesystem, such as <c>sync</c>; null in a document without them.</summary>
    [JsonPropertyName("filesystem_flags")]
    public IReadOnlyList<string>? FileSystemFlags { get; init; }

    /// <summary>
    /// How mounts inside the mount propagate, as <see cref="Linux.MountEntry.Propagation"/>; null in a document without it.
    /// </summary>
    public IReadOnlyList<string>? Propagation { get; init; }

    /// <summary>The directory of the overlay that the mount shows: the root, or another directory for a bind mount of a part.</summary>
    public string Root { get; init => field = value ?? "/"; } = "/";

    [JsonInclude] internal byte[]? RootBase64 { get => DocumentPath.BytesOf(Root); init => Root = DocumentPath.TextOf(value, Root); }

    /// <summary>
    /// The boot in which the checkpoint was made, during which device numbers keep their meaning; empty in a document without
    /// it.
    /// </summary>
    public string Boot { get; init => field = value ?? ""; } = "";

    /// <summary>The inode number of the root of the mount.</summary>
    public required ulong RootIno { get; init; }

    /// <summary>The layers. Each must be found again, and be the same directory.</summary>
    [JsonPropertyName("overlay")]
    public required OverlayTopology Topology { get; init; }

    /// <summary>Writes the checkpoint as docs/checkpoint.md describes it.</summary>
    public void Write(Utf8JsonWriter json) => JsonSerializer.Serialize(json, this, DocumentJson.Default.Checkpoint);

    /// <summary>Reads a checkpoint that <see cref="Write"/> wrote.</summary>
    /// <exception cref="OtherVersionException">
    /// The checkpoint is of another version; the message is the end of a sentence: "is a checkpoint of version 2, ...".
    /// </exception>
    /// <exception cref="FormatException">
    /// The document is not a checkpoint, or is damaged; the message is the end of a sentence: "is not a checkpoint of veneer".
    /// </exception>
    public static Checkpoint Read(ReadOnlyMemory<byte> document)
    {
        JsonDocument parsed;
        try
        {
            parsed = JsonDocument.Parse(document);
        }
        catch (JsonException problem)
        {
            throw new FormatException("is not a checkpoint of veneer", problem);
        }
        using (parsed)
        {
            JsonElement root = parsed.RootElement;
            if (root.ValueKind != JsonValueKind.Object || !root.TryGetProperty("veneer_checkpoint"u8, out JsonElement version))
            {
                throw new FormatException("is not a checkpoint of veneer");
            }
            if (version.ValueKind != JsonValueKind.Number || version.GetRawText().Length > 32)
            {
                throw new FormatException("is not a checkpoint of veneer");
            }
            if (version.GetRawText() is var number && number != CurrentVersion.ToString(CultureInfo.InvariantCulture))
            {
                throw new OtherVersionException($"is a checkpoint of version {number}, and this veneer reads version {CurrentVersion}");
            }
            try
            {
                Checkpoint checkpoint = Document.Read(root, DocumentJson.Default.Checkpoint);
                if (checkpoint.Type is not ("fuse.veneer" or "overlay")) { throw new FormatException("The type is none of an overlay."); }
                if (checkpoint.Texts.Any(text => text is null)) { throw new FormatException("A word is missing in a list."); }
                int lowers = checkpoint.Topology.Layers.Count(layer => layer.Index > 0);
                int[] indices = [.. checkpoint.Topology.Layers.Select(layer => layer.Index)];
                bool isWhole = lowers > 0
                    && (indices.SequenceEqual(Enumerable.Range(1, lowers))
                        || indices.SequenceEqual([.. Enumerable.Range(0, lowers + 1), -1]));
                // A text with a NUL is no path: the kernel would cut it off.
                isWhole &= !checkpoint.Texts.Any(text => text!.Contains('\0', StringComparison.Ordinal));
                isWhole &= checkpoint.MountPoint.StartsWith('/') && checkpoint.Root.StartsWith('/');
                return isWhole ? checkpoint : throw new FormatException("The layers are not those of an overlay.");
            }
            catch (FormatException problem)
            {
                throw new FormatException("is damaged: something in it is missing, or is not what it should be", problem);
            }
        }
    }

    /// <summary>All texts that are given to the kernel; null for a null in a list of the document.</summary>
    private IEnumerable<string?> Texts =>
    [
        MountPoint, Source, Flags, Root, .. FileSystemFlags ?? [], .. Propagation ?? [], .. Topology.Options,
        .. Topology.Layers.SelectMany(layer => (string[])[layer.Path ?? "", layer.Given ?? "", layer.Device]),
    ];
}

/// <summary>Thrown for a document that seems whole but is of an unknown version.</summary>
public sealed class OtherVersionException : FormatException
{
    /// <summary>Makes an exception without a message.</summary>
    public OtherVersionException() { }

    /// <inheritdoc/>
    public OtherVersionException(string message) : base(message) { }

    /// <inheritdoc/>
    public OtherVersionException(string message, Exception innerException) : base(message, innerException) { }
}
