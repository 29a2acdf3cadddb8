using System.Text.Json.Serialization;

namespace Veneer.Overlay.Documents;

/// <summary>The overlays of Veneer on this machine, as <c>veneer list --json</c> prints them. See docs/lifecycle.md.</summary>
public sealed record OverlayList
{
    /// <summary>The overlays.</summary>
    public required IReadOnlyList<ListedOverlay> Overlays { get; init; }

    /// <summary>What could not be examined, one sentence each.</summary>
    public required IReadOnlyList<string> Gaps { get; init; }
}

/// <summary>An overlay in a list.</summary>
public sealed record ListedOverlay
{
    /// <summary>The device number of the mount, <c>MAJOR:MINOR</c>, which all copies of the mount share.</summary>
    public required string Device { get; init; }

    /// <summary>The mounts of the overlay.</summary>
    public required IReadOnlyList<ListedMount> Mounts { get; init; }

    /// <summary>The server's process id; null when it is not seen.</summary>
    public int? Pid { get; init; }

    /// <summary>The server's command line, or its beginning; null when it is not seen.</summary>
    public string? Command { get; init; }

    [JsonInclude]
    internal byte[]? CommandBase64 { get => DocumentPath.BytesOf(Command); init => Command = DocumentPath.TextOf(value, Command); }

    /// <summary>The time of mounting, to the second; null when it is not known.</summary>
    public DateTimeOffset? Since { get; init; }

    /// <summary>The layers.</summary>
    public required IReadOnlyList<ListedLayer> Layers { get; init; }

    /// <summary>How full upper's filesystem is; null without upper, or when it is not known.</summary>
    public FileSystemUsage? UpperFilesystem { get; init; }

    /// <summary>
    /// The options of the overlay, without the layers and without general mount options; null when the server did not tell
    /// them.
    /// </summary>
    public IReadOnlyList<string>? Options { get; init; }

    /// <summary>Whether the server has answered.</summary>
    public required bool Answers { get; init; }

    /// <summary>The number of requests that the server has served; null when it did not tell.</summary>
    public long? Requests { get; init; }

    /// <summary>How long the server has served, in seconds; null when it did not tell.</summary>
    public double? UptimeSeconds { get; init; }
}

/// <summary>A mount of an overlay in a list.</summary>
/// <param name="Id">The mount id, as in mountinfo.</param>
/// <param name="MountNamespace">The inode number of the mount's namespace.</param>
/// <param name="MountPoint">The mount point in that namespace.</param>
/// <param name="Options">The flags of the mount.</param>
public sealed record ListedMount(int Id, ulong MountNamespace, string MountPoint, [property: JsonPropertyOrder(1)] string Options)
{
    [JsonInclude]
    internal byte[]? MountPointBase64
    {
        get => DocumentPath.BytesOf(MountPoint);
        init => MountPoint = DocumentPath.TextOf(value, MountPoint);
    }
}

/// <summary>A layer of an overlay in a list.</summary>
/// <param name="Role"><c>upper</c>, <c>work</c> or <c>lower</c>.</param>
/// <param name="Path">The layer's path.</param>
public sealed record ListedLayer(string Role, string Path)
{
    [JsonInclude] internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }
}

/// <summary>How full a filesystem is.</summary>
/// <param name="Bytes">The size in bytes.</param>
/// <param name="UsedBytes">The used bytes.</param>
/// <param name="Inodes">The number of inodes that the filesystem has room for.</param>
/// <param name="UsedInodes">The number of used inodes.</param>
public sealed record FileSystemUsage(ulong Bytes, ulong UsedBytes, ulong Inodes, ulong UsedInodes);
