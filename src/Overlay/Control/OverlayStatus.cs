using System.Text.Json.Serialization;
using Veneer.Overlay.Documents;

namespace Veneer.Overlay.Control;

/// <summary>
/// The answer to <see cref="Query.Durability"/>: whether what was written is safe. The record is an interface, see
/// docs/control.md.
/// </summary>
public sealed record OverlayStatus
{
    /// <summary>The state of a feature that is in force, as of <see cref="Passthrough"/>.</summary>
    public const string On = "on";

    /// <summary>The state of a feature that the user did not want.</summary>
    public const string Off = "off";

    /// <summary>The value of <see cref="Watch"/> where no write can fail.</summary>
    public const string WatchNothing = "nothing";

    /// <summary>The value of <see cref="Watch"/> where all failed writes of upper's filesystem are noticed.</summary>
    public const string WatchFileSystem = "filesystem";

    /// <summary>The value of <see cref="Watch"/> where only failed writes of open files are noticed.</summary>
    public const string WatchOpenFiles = "open files";

    /// <summary>How fsync(2) is served: <c>auto</c>, <c>strict</c> or <c>volatile</c>.</summary>
    public required string Fsync { get; init; }

    /// <summary>Whether upper is volatile: fsync(2) writes nothing.</summary>
    [JsonIgnore]
    public bool IsVolatile => Fsync == OptionTable.WordOf(Overlay.Sync.Volatile);

    /// <summary>What is done after a failed write: <c>continue</c>, <c>remount-ro</c> or <c>shutdown</c>.</summary>
    public required string Errors { get; init; }

    /// <summary>Whether upper is synced when the overlay is unmounted.</summary>
    public bool SyncOnUnmount { get; init; }

    /// <summary>Whether a shutdown can revoke open files.</summary>
    public bool Revocable { get; init; }

    /// <summary>
    /// Whether the kernel reads and writes files without the server: <c>on</c>, <c>off</c> if the user asked for that, or why
    /// it cannot.
    /// </summary>
    public string Passthrough { get; init => field = value ?? ""; } = "";

    /// <summary>Whether requests come over io_uring: <c>on</c>, <c>off</c> if the user asked for that, or why they cannot.</summary>
    public string IoUring { get; init => field = value ?? ""; } = "";

    /// <summary>
    /// Which failed writes are noticed: those of the whole <c>filesystem</c>, of <c>open files</c>, or <c>nothing</c>, since no
    /// write can fail.
    /// </summary>
    public required string Watch { get; init; }

    /// <summary>The error of the first failed write since the mount, such as <c>EIO</c>, or null.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public string? Failure { get; init; }

    /// <summary>Whether the volatile upper can be mounted with <c>volatile</c> again; null when it is not volatile.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public bool? Reusable { get; init; }

    /// <summary>
    /// The namespace of the overlay's attributes in upper: <c>trusted</c>, <c>user</c> or <c>none</c>; null without upper.
    /// </summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public string? Attributes { get; init; }

    /// <summary>What upper's filesystem cannot do, and what replaces it.</summary>
    public IReadOnlyList<LackingFeature> Lacks { get; init => field = value ?? []; } = [];

    /// <summary>The last sync that was asked for, or null.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public SyncStatus? Sync { get; init; }
}

/// <summary>A feature that upper's filesystem lacks.</summary>
/// <param name="What">The feature, such as <c>RENAME_EXCHANGE</c>.</param>
/// <param name="Instead">What is done instead, in a few words.</param>
public sealed record LackingFeature(string What, string Instead);

/// <summary>The progress of a sync of upper.</summary>
public sealed record SyncStatus
{
    /// <summary>Whether the sync has ended.</summary>
    public bool Over { get; init; }

    /// <summary>The number of files and directories that are done.</summary>
    public long Done { get; init; }

    /// <summary>The number of files and directories found so far.</summary>
    public long Total { get; init; }

    /// <summary>The number of files and directories that could not be synced.</summary>
    public long Failed { get; init; }

    /// <summary>The first thousand files and directories that could not be synced; empty until the sync has ended.</summary>
    public IReadOnlyList<UnsyncedFile> Failures { get; init => field = value ?? []; } = [];
}

/// <summary>A file or directory that could not be synced.</summary>
/// <param name="Path">The path from upper, empty for upper itself; bytes that are not UTF-8 as in <see cref="Linux.PathText"/>.</param>
/// <param name="Error">The error, such as <c>EIO</c>.</param>
public sealed record UnsyncedFile(string Path, [property: JsonPropertyOrder(1)] string Error)
{
    [JsonInclude] internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }
}
