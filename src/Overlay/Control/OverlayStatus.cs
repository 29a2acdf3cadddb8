using System.Text.Json.Serialization;
using Veneer.Overlay.Documents;

namespace Veneer.Overlay.Control;

/// <summary>The answer to <see cref="Query.Durability"/>: whether what was written is safe. An interface, see docs/control.md.</summary>
public sealed record OverlayStatus
{
    /// <summary>What fsync(2) does: <c>auto</c>, <c>strict</c> or <c>volatile</c>.</summary>
    public required string Fsync { get; init; }

    /// <summary>What follows after a failed write: <c>continue</c>, <c>remount-ro</c> or <c>shutdown</c>.</summary>
    public required string Errors { get; init; }

    /// <summary>Whether upper is synced when the overlay is unmounted.</summary>
    public bool SyncOnUnmount { get; init; }

    /// <summary>Whether files that are open can be taken away by a shutdown.</summary>
    public bool Revocable { get; init; }

    /// <summary>Whether the kernel reads and writes files without the server: <c>on</c>, <c>off</c> where that was asked for, or why it cannot.</summary>
    public string Passthrough { get; init => field = value ?? ""; } = "";

    /// <summary>Whether requests come over io_uring: <c>on</c>, <c>off</c> where that was asked for, or why they cannot.</summary>
    public string IoUring { get; init => field = value ?? ""; } = "";

    /// <summary>Which failed writes are found: of the whole <c>filesystem</c>, of <c>open files</c>, or <c>nothing</c>, since nothing can fail.</summary>
    public required string Watch { get; init; }

    /// <summary>The error of the first failed write since the mount, such as <c>EIO</c>, or null.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public string? Failure { get; init; }

    /// <summary>Whether the volatile upper can be mounted with <c>volatile</c> again; null when it is not volatile.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public bool? Reusable { get; init; }

    /// <summary>Where upper has the overlay's attributes: <c>trusted</c>, <c>user</c> or <c>none</c>; null without upper.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public string? Attributes { get; init; }

    /// <summary>What the upper's filesystem cannot do, and what stands in its place.</summary>
    public IReadOnlyList<LackingFeature> Lacks { get; init => field = value ?? []; } = [];

    /// <summary>The last sync that was asked for, or null.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public SyncStatus? Sync { get; init; }
}

/// <summary>Something that the upper's filesystem cannot do.</summary>
/// <param name="What">Such as <c>RENAME_EXCHANGE</c>.</param>
/// <param name="Instead">What is done instead, in a few words.</param>
public sealed record LackingFeature(string What, string Instead);

/// <summary>How far a sync of upper is.</summary>
public sealed record SyncStatus
{
    /// <summary>Whether it has ended.</summary>
    public bool Over { get; init; }

    /// <summary>Files and directories that it is done with.</summary>
    public long Done { get; init; }

    /// <summary>Files and directories that it has found so far.</summary>
    public long Total { get; init; }

    /// <summary>Files and directories that could not be synced.</summary>
    public long Failed { get; init; }

    /// <summary>The first thousand of these, when it has ended.</summary>
    public IReadOnlyList<UnsyncedFile> Failures { get; init => field = value ?? []; } = [];
}

/// <summary>A file or directory that could not be synced.</summary>
/// <param name="Path">From upper, empty for upper itself; bytes that are not UTF-8 as <see cref="Linux.PathText"/> has them.</param>
/// <param name="Error">Such as <c>EIO</c>.</param>
public sealed record UnsyncedFile(string Path, [property: JsonPropertyOrder(1)] string Error)
{
    [JsonInclude] internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }
}
