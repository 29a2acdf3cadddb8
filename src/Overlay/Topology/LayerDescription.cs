using System.Text.Json.Serialization;
using Veneer.Linux;
using Veneer.Overlay.Documents;

namespace Veneer.Overlay.Topology;

/// <summary>Describes one directory that an overlay is made of, with everything by which it can be found again.</summary>
public sealed record LayerDescription
{
    /// <summary>The layer's index: 0 is upper, the lowers follow, topmost first. The work directory has -1.</summary>
    public required int Index { get; init; }

    [JsonInclude, JsonRequired, JsonPropertyName("role")]
    internal string ToldRole { get => Role; init => IsDataOnly = value == "data"; }

    /// <summary>The path that was given when the overlay was mounted; null when it is not known.</summary>
    public string? Given { get; init; }

    [JsonInclude] internal byte[]? GivenBase64 { get => DocumentPath.BytesOf(Given); init => Given = DocumentPath.TextOf(value, Given); }

    /// <summary>The present path; null when no path leads there from here, or the caller may not be told.</summary>
    public string? Path { get; init; }

    [JsonInclude] internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }

    /// <summary>The device number of the filesystem, <c>MAJOR:MINOR</c>, as in mountinfo.</summary>
    public required string Device { get; init; }

    /// <summary>The type of the filesystem, such as <c>ext4</c>; empty when the mount is not in the mount table.</summary>
    [JsonRequired, JsonPropertyName("filesystem")]
    public string FileSystem { get; init; } = "";

    /// <summary>The UUID of the filesystem, 16 bytes in hexadecimal; zeros where it has none or does not tell.</summary>
    public required string Uuid { get; init; }

    /// <summary>The id of the mount through which the layer was named, never reused (Linux 6.8); 0 when it is not known.</summary>
    [JsonRequired]
    public ulong MountId { get; init; }

    /// <summary>The inode number.</summary>
    public required ulong Ino { get; init; }

    /// <summary>The type of the file handle; 0 where the filesystem has none.</summary>
    [JsonRequired]
    public int HandleType { get; init; }

    /// <summary>The file handle in hexadecimal; empty where the filesystem has none. See name_to_handle_at(2).</summary>
    [JsonRequired, JsonConverter(typeof(HandleText))]
    public string Handle { get; init; } = "";

    /// <summary>Whether this is a data-only lower, which shows nothing by itself and only holds the data of metacopies.</summary>
    [JsonIgnore]
    public bool IsDataOnly { get; init; }

    /// <summary>The layer's role: <c>upper</c>, <c>lower</c>, <c>data</c> or <c>work</c>.</summary>
    [JsonIgnore]
    public string Role => Index switch { 0 => "upper", < 0 => "work", _ => IsDataOnly ? "data" : "lower" };

    /// <summary>Describes an open directory.</summary>
    /// <param name="index">The value of <see cref="Index"/>.</param>
    /// <param name="given">The value of <see cref="Given"/>.</param>
    /// <param name="descriptor">A descriptor of the directory; O_PATH suffices.</param>
    /// <exception cref="OverlayMountException">The directory cannot be examined.</exception>
    internal static LayerDescription Of(int index, string? given, int descriptor)
    {
        Errno error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic | StatxMask.MountId, out Statx stat);
        if (error.IsError)
        {
            throw new OverlayMountException($"The layer {given} cannot be examined ({error}): see whether its filesystem still answers.");
        }
        _ = MountTable.Read(out List<MountEntry> table); // best effort: without it st_dev stands in
        MountEntry? mount = table.Find(entry => (ulong)entry.Id == stat.MountId);
        ulong mountId = Libc.StatAt(descriptor, Libc.Self, StatxMask.UniqueMountId, out Statx unique).IsError
            || (unique.Mask & StatxMask.UniqueMountId) == 0
            ? 0
            : unique.MountId;
        bool hasHandle = !FileHandle.Of(descriptor, Libc.Self, out FileHandle handle).IsError;
        return new LayerDescription
        {
            Index = index,
            Given = given,
            Path = LayerFinder.PathOf(descriptor),
            Device = mount?.Device ?? $"{stat.DevMajor}:{stat.DevMinor}",
            FileSystem = mount?.Type ?? "",
            Uuid = Convert.ToHexString(FileSystemUuid.OfPath(descriptor)),
            MountId = mountId,
            Ino = stat.Ino,
            HandleType = hasHandle ? handle.Type : 0,
            Handle = hasHandle ? Convert.ToHexString(handle.Content) : "",
        };
    }
}

/// <summary>What one layer contributes to one object of the overlay.</summary>
public sealed record ObjectPart
{
    /// <summary>The layer, as <see cref="LayerDescription.Index"/>.</summary>
    public required int Layer { get; init; }

    /// <summary>
    /// The part's path from the layer's root, without a leading slash; empty for the root itself. Null when the part is known
    /// only by its handle.
    /// </summary>
    public string? Path { get; init; }

    [JsonInclude] internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }

    /// <summary>The roles of the part.</summary>
    public required PartRoles Roles { get; init; }

    /// <summary>The type of the part.</summary>
    public required Changes.ObjectType Type { get; init; }

    /// <summary>The inode number.</summary>
    public required ulong Ino { get; init; }

    /// <summary>The type of the file handle; 0 where the filesystem has none.</summary>
    [JsonRequired]
    public int HandleType { get; init; }

    /// <summary>The file handle in hexadecimal; empty where the filesystem has none.</summary>
    [JsonRequired, JsonConverter(typeof(HandleText))]
    public string Handle { get; init; } = "";
}

/// <summary>The roles of a part of an object.</summary>
[Flags]
[JsonConverter(typeof(PartRolesWords))]
public enum PartRoles
{
    /// <summary>No role.</summary>
    None = 0,
    /// <summary>The part is in upper, and users see its attributes.</summary>
    Upper = 1,
    /// <summary>The part is in a lower with nothing above it, and users see its attributes.</summary>
    Lower = 2,
    /// <summary>The part is a directory whose entries show through the one above it.</summary>
    Merged = 4,
    /// <summary>The part is a directory below which nothing shows through.</summary>
    Opaque = 8,
    /// <summary>The part is a whiteout: there is no object, in this layer and below.</summary>
    Whiteout = 16,
    /// <summary>The part has attributes only; its data is in a layer below.</summary>
    Metacopy = 32,
    /// <summary>The part has the data of a metacopy.</summary>
    Data = 64,
    /// <summary>The object in upper was copied from this part, which gives it its inode number.</summary>
    Origin = 128,
    /// <summary>The part has another path in its layer than in the overlay, since it or a directory above it was renamed.</summary>
    Redirected = 256,
}
