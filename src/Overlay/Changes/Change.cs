using System.Text.Json.Serialization;
using Veneer.Linux;
using Veneer.Overlay.Documents;

namespace Veneer.Overlay.Changes;

/// <summary>What happened to a name since the baseline, which is what the lower layers show without upper.</summary>
[JsonConverter(typeof(ChangeKindWord))]
public enum ChangeKind
{
    /// <summary>The baseline has nothing under the name.</summary>
    Added,
    /// <summary>The name has the same object, with other content or other attributes.</summary>
    Modified,
    /// <summary>The name is gone. Nothing below a deleted directory is listed.</summary>
    Deleted,
    /// <summary>Another object of the same type has the name: the old one was deleted, or another was renamed over it.</summary>
    Replaced,
    /// <summary>
    /// The object had another name in the baseline, <see cref="Change.From"/>. Changes below a renamed directory are relative
    /// to its old place.
    /// </summary>
    Renamed,
    /// <summary>An object of another type has the name.</summary>
    TypeChanged,
    /// <summary>
    /// A directory has taken the place of another one in the baseline, of which nothing shows through. Everything in it is
    /// added.
    /// </summary>
    Opaque,
}

/// <summary>The type of an object. See inode(7).</summary>
[JsonConverter(typeof(ObjectTypeWord))]
public enum ObjectType
{
    /// <summary>A regular file.</summary>
    File,
    /// <summary>A directory.</summary>
    Directory,
    /// <summary>A symbolic link.</summary>
    SymbolicLink,
    /// <summary>A FIFO.</summary>
    Fifo,
    /// <summary>A socket.</summary>
    Socket,
    /// <summary>A character device.</summary>
    CharacterDevice,
    /// <summary>A block device.</summary>
    BlockDevice,
}

/// <summary>One change since the baseline, and its document (docs/changes.md).</summary>
public sealed record Change
{
    /// <summary>What happened.</summary>
    [JsonPropertyName("change")]
    public required ChangeKind Kind { get; init; }

    /// <summary>
    /// The path of the name from the root of the overlay, without a leading slash; bytes that are not UTF-8 as in
    /// <see cref="PathText"/>.
    /// </summary>
    /// <remarks>A deleted name in a renamed directory has the path that it would have now.</remarks>
    public required string Path { get; init; }

    [JsonInclude] internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }

    /// <summary>
    /// The object's path in the baseline if it differs from <see cref="Path"/>, which includes objects below a renamed
    /// directory. Otherwise null, as for a new object.
    /// </summary>
    public string? From { get; init; }

    [JsonInclude] internal byte[]? FromBase64 { get => DocumentPath.BytesOf(From); init => From = DocumentPath.TextOf(value, From); }

    /// <summary>The type of the present object; for a deleted name, the type of the old object.</summary>
    public required ObjectType Type { get; init; }

    /// <summary>The type of the object that the baseline has under the name; null when it has none.</summary>
    public ObjectType? Was { get; init; }

    /// <summary>
    /// Whether the content differs: the bytes of a file, the target of a link, the number of a device. Always true for a new
    /// object, never for a directory.
    /// </summary>
    [JsonIgnore]
    public bool ContentChanged { get; init; }

    /// <summary>
    /// Whether permissions, owner or extended attributes differ, or the time of modification although the content is the same.
    /// The times of a directory do not count.
    /// </summary>
    [JsonIgnore]
    public bool AttributesChanged { get; init; }

    /// <summary>The present size of a regular file in bytes; otherwise 0.</summary>
    [JsonIgnore]
    public long Size { get; init; }

    /// <summary>
    /// Whether this object was compared with one of the baseline. For other changes it goes without saying what differs.
    /// </summary>
    private bool IsCompared => Kind is ChangeKind.Modified or ChangeKind.Renamed or ChangeKind.Replaced;

    [JsonInclude, JsonPropertyName("content")]
    internal bool? ToldContent
    {
        get => IsCompared ? ContentChanged : null;
        init => ContentChanged = value ?? Type != ObjectType.Directory;
    }

    [JsonInclude, JsonPropertyName("attributes")]
    internal bool? ToldAttributes
    {
        get => IsCompared ? AttributesChanged : null;
        init => AttributesChanged = value ?? true;
    }

    [JsonInclude, JsonPropertyName("size"), JsonPropertyOrder(1)]
    internal long? ToldSize
    {
        get => Type == ObjectType.File && Kind != ChangeKind.Deleted ? Size : null;
        init => Size = value ?? 0;
    }
}

/// <summary>The kind of a disturbance.</summary>
[JsonConverter(typeof(DisturbanceKindWord))]
public enum DisturbanceKind
{
    /// <summary>The object changed while it was read.</summary>
    Moved,
    /// <summary>The object, or a part of it, cannot be read.</summary>
    Unreadable,
    /// <summary>The object cannot be expressed in the form that was asked for, and is missing.</summary>
    Unexpressed,
    /// <summary>Something that nobody will miss was left out on purpose, such as a socket in a tar.</summary>
    LeftOut,
}

/// <summary>An object that a diff could not report exactly. Apart from the disturbances the answer is complete.</summary>
/// <param name="Path">The path, as <see cref="Change.Path"/>.</param>
/// <param name="Kind">The kind of the disturbance.</param>
/// <param name="Reason">The reason for people: the words that follow the path in a sentence.</param>
public sealed record Disturbance(
    [property: JsonPropertyName("disturbed")] string Path,
    [property: JsonPropertyOrder(1)] DisturbanceKind Kind,
    [property: JsonPropertyOrder(1)] string Reason)
{
    [JsonInclude, JsonPropertyName("disturbed_base64")]
    internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }
}
