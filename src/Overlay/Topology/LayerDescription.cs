using System.Text.Json.Serialization;
using Veneer.Linux;
using Veneer.Overlay.Documents;

namespace Veneer.Overlay.Topology;

/// <summary>One directory that an overlay is made of, and everything by which it can be found again.</summary>
public sealed record LayerDescription
{
    /// <summary>0 is upper; the lowers follow, topmost first. The work directory has -1.</summary>
    public required int Index { get; init; }

    [JsonInclude, JsonRequired, JsonPropertyName("role")]
    internal string ToldRole { get => Role; init => IsDataOnly = value == "data"; }

    /// <summary>As it was named when the overlay was mounted, or null when that is not known.</summary>
    public string? Given { get; init; }

    [JsonInclude] internal byte[]? GivenBase64 { get => DocumentPath.BytesOf(Given); init => Given = DocumentPath.TextOf(value, Given); }

    /// <summary>Where it is now, or null when no path leads there from here, or none may be told.</summary>
    public string? Path { get; init; }

    [JsonInclude] internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }

    /// <summary>Number of the filesystem's device, <c>MAJOR:MINOR</c>, as mountinfo has it.</summary>
    public required string Device { get; init; }

    /// <summary>Type of the filesystem, such as <c>ext4</c>, or empty when the mount is not in the table.</summary>
    [JsonRequired, JsonPropertyName("filesystem")]
    public string FileSystem { get; init; } = "";

    /// <summary>UUID of the filesystem, 16 bytes in hexadecimal; zeros where it has none or does not tell.</summary>
    public required string Uuid { get; init; }

    /// <summary>Id of the mount through which it was named, never used again (Linux 6.8); 0 when not known.</summary>
    [JsonRequired]
    public ulong MountId { get; init; }

    /// <summary>Inode number.</summary>
    public required ulong Ino { get; init; }

    /// <summary>Type of the file handle; 0 where the filesystem has none.</summary>
    [JsonRequired]
    public int HandleType { get; init; }

    /// <summary>The file handle in hexadecimal, empty where the filesystem has none. See name_to_handle_at(2).</summary>
    [JsonRequired, JsonConverter(typeof(HandleText))]
    public string Handle { get; init; } = "";

    /// <summary>Whether it is a lower that shows nothing by itself, and has only the data of metacopies.</summary>
    [JsonIgnore]
    public bool IsDataOnly { get; init; }

    /// <summary><c>upper</c>, <c>lower</c>, <c>data</c> or <c>work</c>.</summary>
    [JsonIgnore]
    public string Role => Index switch { 0 => "upper", < 0 => "work", _ => IsDataOnly ? "data" : "lower" };

    /// <summary>Describes a directory that is open.</summary>
    /// <param name="index">As <see cref="Index"/>.</param>
    /// <param name="given">As <see cref="Given"/>.</param>
    /// <param name="descriptor">O_PATH will do.</param>
    /// <exception cref="OverlayMountException">It cannot be examined.</exception>
    internal static LayerDescription Of(int index, string? given, int descriptor)
    {
        Errno error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic | StatxMask.MountId, out Statx stat);
        if (error.IsError) { throw new OverlayMountException($"The layer {given} cannot be examined ({error}): see whether its filesystem still answers."); }
        _ = MountTable.Read(out List<MountEntry> table); // best effort: without it st_dev stands in
        MountEntry? mount = table.Find(entry => (ulong)entry.Id == stat.MountId);
        ulong mountId = Libc.StatAt(descriptor, Libc.Self, StatxMask.UniqueMountId, out Statx unique).IsError || (unique.Mask & StatxMask.UniqueMountId) == 0 ? 0 : unique.MountId;
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
    /// <summary>As <see cref="LayerDescription.Index"/>.</summary>
    public required int Layer { get; init; }

    /// <summary>Where it is in that layer, from the layer's root and without a slash before it; empty for the root itself. Null when it is known by its handle alone.</summary>
    public string? Path { get; init; }

    [JsonInclude] internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }

    /// <summary>What it is for.</summary>
    public required PartRoles Roles { get; init; }

    /// <summary>What it is.</summary>
    public required Changes.ObjectType Type { get; init; }

    /// <summary>Inode number.</summary>
    public required ulong Ino { get; init; }

    /// <summary>Type of the file handle; 0 where the filesystem has none.</summary>
    [JsonRequired]
    public int HandleType { get; init; }

    /// <summary>The file handle in hexadecimal, empty where the filesystem has none.</summary>
    [JsonRequired, JsonConverter(typeof(HandleText))]
    public string Handle { get; init; } = "";
}

/// <summary>What a part of an object is for.</summary>
[Flags]
[JsonConverter(typeof(PartRolesWords))]
public enum PartRoles
{
    /// <summary>Nothing.</summary>
    None = 0,
    /// <summary>It is in upper: what users see of the object's attributes.</summary>
    Upper = 1,
    /// <summary>It is in a lower, and nothing is above it: what users see.</summary>
    Lower = 2,
    /// <summary>A directory whose entries show through one above it.</summary>
    Merged = 4,
    /// <summary>A directory below which nothing shows through.</summary>
    Opaque = 8,
    /// <summary>It says that there is nothing, here and below.</summary>
    Whiteout = 16,
    /// <summary>It has attributes only; its data is in a layer below.</summary>
    Metacopy = 32,
    /// <summary>It has the data of a metacopy.</summary>
    Data = 64,
    /// <summary>Upper's object was copied from this one, which gives it its inode number.</summary>
    Origin = 128,
    /// <summary>It has another path here than in the overlay, since it, or a directory above it, was renamed.</summary>
    Redirected = 256,
}
