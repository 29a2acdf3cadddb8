using System.Text.Json.Serialization;
using Veneer.Linux;
using Veneer.Overlay.Documents;

namespace Veneer.Overlay.Changes;

/// <summary>What happened to a name since the baseline, which is what the lower layers show without the upper.</summary>
[JsonConverter(typeof(ChangeKindWord))]
public enum ChangeKind
{
    /// <summary>The baseline has nothing under the name.</summary>
    Added,
    /// <summary>The same object, with other content or other attributes.</summary>
    Modified,
    /// <summary>Nothing is there any more. Of a directory, nothing below it is listed.</summary>
    Deleted,
    /// <summary>Another object of the same type has the name: the old one was deleted, or something was renamed over it.</summary>
    Replaced,
    /// <summary>The object had another name in the baseline, <see cref="Change.From"/>. Of a directory, what is listed below it is relative to that.</summary>
    Renamed,
    /// <summary>An object of another type has the name.</summary>
    TypeChanged,
    /// <summary>A directory has the place of one in the baseline, of which nothing shows through. Everything in it is added.</summary>
    Opaque,
}

/// <summary>What an object is. See inode(7).</summary>
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

    /// <summary>The name, from the root of the overlay and without a slash before it; bytes that are not UTF-8 as <see cref="PathText"/> has them.</summary>
    /// <remarks>Of what was deleted in a directory that was renamed: where it would be now.</remarks>
    public required string Path { get; init; }

    [JsonInclude] internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }

    /// <summary>Where the baseline has the object, if elsewhere: below a directory that was renamed, too. Null when it is <see cref="Path"/>, and of what is new.</summary>
    public string? From { get; init; }

    [JsonInclude] internal byte[]? FromBase64 { get => DocumentPath.BytesOf(From); init => From = DocumentPath.TextOf(value, From); }

    /// <summary>What is there now; of what was deleted, what was there.</summary>
    public required ObjectType Type { get; init; }

    /// <summary>What the baseline has under the name, or null when it has nothing.</summary>
    public ObjectType? Was { get; init; }

    /// <summary>Whether the content differs: the bytes of a file, the target of a link, the number of a device. Always so of what is new, never of a directory.</summary>
    [JsonIgnore]
    public bool ContentChanged { get; init; }

    /// <summary>Whether permissions, owner or attributes differ, or the time of modification though the content does not. Of a directory, times do not count.</summary>
    [JsonIgnore]
    public bool AttributesChanged { get; init; }

    /// <summary>Size of a regular file in bytes, as it is now; otherwise 0.</summary>
    [JsonIgnore]
    public long Size { get; init; }

    /// <summary>Whether the baseline has an object that this one is compared with. Of others it goes without saying what differs.</summary>
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

/// <summary>What kind of thing disturbed a diff.</summary>
[JsonConverter(typeof(DisturbanceKindWord))]
public enum DisturbanceKind
{
    /// <summary>The object changed while it was read.</summary>
    Moved,
    /// <summary>The object, or a part of it, cannot be read.</summary>
    Unreadable,
    /// <summary>The object cannot be said in the form that was asked for, and is missing.</summary>
    Unexpressed,
    /// <summary>Something was left out on purpose that nobody will miss, such as a socket in a tar.</summary>
    LeftOut,
}

/// <summary>Something that a diff met and could not put right: the answer is whole but for that.</summary>
/// <param name="Path">As <see cref="Change.Path"/>.</param>
/// <param name="Kind">What it is.</param>
/// <param name="Reason">The same for people: what follows the path in a sentence.</param>
public sealed record Disturbance(
    [property: JsonPropertyName("disturbed")] string Path,
    [property: JsonPropertyOrder(1)] DisturbanceKind Kind,
    [property: JsonPropertyOrder(1)] string Reason)
{
    [JsonInclude, JsonPropertyName("disturbed_base64")]
    internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }
}
