using System.Text.Json.Serialization;

namespace Veneer.Overlay.Documents;

/// <summary>The overlays of Veneer on this machine, as <c>veneer list --json</c> tells them. See docs/lifecycle.md.</summary>
public sealed record OverlayList
{
    /// <summary>The overlays.</summary>
    public required IReadOnlyList<ListedOverlay> Overlays { get; init; }

    /// <summary>What could not be looked at, one sentence each.</summary>
    public required IReadOnlyList<string> Gaps { get; init; }
}

/// <summary>An overlay in a list.</summary>
public sealed record ListedOverlay
{
    /// <summary>The number of its mount's device, <c>MAJOR:MINOR</c>, which all copies of the mount have.</summary>
    public required string Device { get; init; }

    /// <summary>Where it is mounted.</summary>
    public required IReadOnlyList<ListedMount> Mounts { get; init; }

    /// <summary>The server's process id; null when it is not seen.</summary>
    public int? Pid { get; init; }

    /// <summary>The server's command line, or its beginning; null when it is not seen.</summary>
    public string? Command { get; init; }

    [JsonInclude]
    internal byte[]? CommandBase64 { get => DocumentPath.BytesOf(Command); init => Command = DocumentPath.TextOf(value, Command); }

    /// <summary>Since when it is mounted, to the second; null when that is not known.</summary>
    public DateTimeOffset? Since { get; init; }

    /// <summary>The layers.</summary>
    public required IReadOnlyList<ListedLayer> Layers { get; init; }

    /// <summary>How full upper's filesystem is; null without upper, or when it is not known.</summary>
    public FileSystemUsage? UpperFilesystem { get; init; }

    /// <summary>The options of the overlay, but for layers and those of any mount; null when they were not told.</summary>
    public IReadOnlyList<string>? Options { get; init; }

    /// <summary>Whether its server has answered.</summary>
    public required bool Answers { get; init; }

    /// <summary>How many requests it has served; null when that was not told.</summary>
    public long? Requests { get; init; }

    /// <summary>For how long it has served; null when that was not told.</summary>
    public double? UptimeSeconds { get; init; }
}

/// <summary>A mount of an overlay in a list.</summary>
/// <param name="Id">Its id, as mountinfo has it.</param>
/// <param name="MountNamespace">The inode number of the mount namespace that it is in.</param>
/// <param name="MountPoint">Where it is, in its namespace.</param>
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
/// <param name="Path">Where it is.</param>
public sealed record ListedLayer(string Role, string Path)
{
    [JsonInclude] internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }
}

/// <summary>How full a filesystem is.</summary>
/// <param name="Bytes">Its size.</param>
/// <param name="UsedBytes">What of it is used.</param>
/// <param name="Inodes">How many inodes it has room for.</param>
/// <param name="UsedInodes">How many of these are used.</param>
public sealed record FileSystemUsage(ulong Bytes, ulong UsedBytes, ulong Inodes, ulong UsedInodes);
