using System.Text.Json;
using System.Text.Json.Serialization;
using Veneer.Overlay.Documents;

namespace Veneer.Overlay.Usage;

/// <summary>The holders of a directory or a mount, which keep it from being unmounted, removed or used by another overlay.</summary>
/// <remarks>The report is a document as it is, see docs/lifecycle.md.</remarks>
public sealed record HolderReport
{
    /// <summary>The directory or mount point, in full.</summary>
    public required string Target { get; init; }

    [JsonInclude]
    internal byte[]? TargetBase64 { get => DocumentPath.BytesOf(Target); init => Target = DocumentPath.TextOf(value, Target); }

    /// <summary>Whether any holder was found.</summary>
    [JsonPropertyName("held")]
    public bool IsHeld => Overlays.Count + Uses.Namespaces.Count + Uses.Processes.Count + LoopDevices.Count + SwapFiles.Count > 0;

    /// <summary>
    /// Whether the kernel says that the mount is in use, so that umount(2) would fail. Null when the kernel was not asked, since
    /// holders were found, or cannot be asked.
    /// </summary>
    [JsonPropertyName("busy")]
    public bool? IsBusy { get; init; }

    /// <summary>The type of the filesystem that is mounted there; null for a directory that is no mount point.</summary>
    [JsonPropertyName("type")]
    public string? MountType { get; init; }

    /// <summary>
    /// The process that serves the mount; null if the mount is not one of Veneer, or its server is not seen. The server is no
    /// holder.
    /// </summary>
    public ProcessName? Server { get; init; }

    /// <summary>The overlays that have the directory, or directories below it, as layers.</summary>
    public required IReadOnlyList<OverlayHolder> Overlays { get; init; }

    /// <summary>The holders other than overlays.</summary>
    [JsonIgnore]
    public Uses Uses { get; init; } = Uses.None;

    [JsonInclude, JsonRequired]
    internal IReadOnlyList<NamespaceUse> Namespaces { get => Uses.Namespaces; init => Uses = Uses with { Namespaces = value }; }

    [JsonInclude, JsonRequired]
    internal IReadOnlyList<ProcessUse> Processes { get => Uses.Processes; init => Uses = Uses with { Processes = value }; }

    /// <summary>The loop devices whose backing file lies below the directory.</summary>
    public required IReadOnlyList<FileHolder> LoopDevices { get; init; }

    /// <summary>The swap files below the directory.</summary>
    public required IReadOnlyList<FileHolder> SwapFiles { get; init; }

    /// <summary>What could not be examined, one sentence each.</summary>
    public required IReadOnlyList<string> Gaps { get; init; }

    /// <summary>
    /// Whether a holder was found that keeps the mount from being unmounted. Other mounts of the same files do not, nor do the
    /// private mounts of kernel overlays.
    /// </summary>
    internal bool IsHeldByUsers =>
        Overlays.Any(overlay => !overlay.IsKernel && !overlay.IsShutDown)
        || Uses.Processes.Count + LoopDevices.Count + SwapFiles.Count > 0
        || Uses.Namespaces.Any(space => space.Mounts.Any(mount => mount.Relation is MountRelation.Nested or MountRelation.Image));

    /// <summary>Writes the report as docs/lifecycle.md describes it.</summary>
    public void Write(Utf8JsonWriter json) => JsonSerializer.Serialize(json, this, DocumentJson.Default.HolderReport);
}

/// <summary>A process and its name.</summary>
/// <param name="Pid">The process id in this pid namespace.</param>
/// <param name="Name">The present name of the process, at most 15 bytes.</param>
public sealed record ProcessName(int Pid, string Name)
{
    [JsonInclude] internal byte[]? NameBase64 { get => DocumentPath.BytesOf(Name); init => Name = DocumentPath.TextOf(value, Name); }
}

/// <summary>Mounts and processes that hold something.</summary>
/// <param name="Namespaces">The mount namespaces with mounts of the held object, or in it; this process's own first.</param>
/// <param name="Processes">The processes that use files in the held object.</param>
public sealed record Uses(IReadOnlyList<NamespaceUse> Namespaces, IReadOnlyList<ProcessUse> Processes)
{
    /// <summary>No holders.</summary>
    public static Uses None { get; } = new([], []);
}

/// <summary>An overlay that has a directory as a layer.</summary>
public sealed record OverlayHolder
{
    /// <summary>Whether the kernel's overlayfs serves it, and not Veneer.</summary>
    [JsonPropertyName("kind"), JsonConverter(typeof(OverlayKindWord))]
    public required bool IsKernel { get; init; }

    /// <summary>
    /// The directory's role in the overlay: <c>upper</c>, <c>work</c>, <c>lower</c>, or <c>layer</c> where that is not known;
    /// several with commas.
    /// </summary>
    public required string Role { get; init; }

    /// <summary>Whether the overlay was shut down, so that only users of passed-through files hold the filesystem of the layer.</summary>
    [JsonPropertyName("shut_down"), JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool IsShutDown { get; init; }

    /// <summary>
    /// The server's process id in this pid namespace, or in <see cref="PidNamespace"/> if that is not 0. 0 when it is not
    /// known.
    /// </summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public int Pid { get; init; }

    /// <summary>The inode number of the server's pid namespace if that is another one, otherwise 0.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public ulong PidNamespace { get; init; }

    /// <summary>The server's command line, or its beginning.</summary>
    public string? Command { get; init; }

    [JsonInclude]
    internal byte[]? CommandBase64 { get => DocumentPath.BytesOf(Command); init => Command = DocumentPath.TextOf(value, Command); }

    /// <summary>The time of mounting, to the second; null when it is not known.</summary>
    public DateTimeOffset? Since { get; init; }

    /// <summary>The mount point in the namespace where the overlay was mounted; null when it is not known.</summary>
    public string? MountPoint { get; init; }

    [JsonInclude]
    internal byte[]? MountPointBase64
    {
        get => DocumentPath.BytesOf(MountPoint);
        init => MountPoint = DocumentPath.TextOf(value, MountPoint);
    }

    /// <summary>The overlay's device number, which all copies of the mount share; empty when it is not known.</summary>
    [JsonIgnore]
    public string Device { get; init; } = "";

    [JsonInclude, JsonPropertyName("device")]
    internal string? ToldDevice { get => Device.Length > 0 ? Device : null; init => Device = value ?? ""; }

    /// <summary>The holders of the overlay itself: its mounts, and the processes that use its files.</summary>
    [JsonIgnore]
    public Uses Uses { get; init; } = Uses.None;

    [JsonInclude, JsonRequired]
    internal IReadOnlyList<NamespaceUse> Namespaces { get => Uses.Namespaces; init => Uses = Uses with { Namespaces = value }; }

    [JsonInclude, JsonRequired]
    internal IReadOnlyList<ProcessUse> Processes { get => Uses.Processes; init => Uses = Uses with { Processes = value }; }
}

/// <summary>A mount namespace with mounts that hold something.</summary>
public sealed record NamespaceUse
{
    /// <summary>The namespace's inode number.</summary>
    public required ulong Id { get; init; }

    /// <summary>Whether this process is in it.</summary>
    [JsonPropertyName("own")]
    public required bool IsOwn { get; init; }

    /// <summary>The mounts.</summary>
    public required IReadOnlyList<MountUse> Mounts { get; init; }

    /// <summary>The processes in the namespace, which keep it alive. Empty for this process's own namespace.</summary>
    public required IReadOnlyList<ProcessName> Processes { get; init; }

    /// <summary>
    /// What else keeps the namespace alive: bind mounts of its file, descriptors of it. Empty for this process's own namespace.
    /// </summary>
    public required IReadOnlyList<string> KeptBy { get; init; }
}

/// <summary>How a mount holds something.</summary>
[JsonConverter(typeof(MountRelationWord))]
public enum MountRelation
{
    /// <summary>The mount shows the same files.</summary>
    Copy,
    /// <summary>The mount is another filesystem, mounted inside.</summary>
    Nested,
    /// <summary>The mount is a pin of Veneer (<c>-o pin</c>), which keeps the directory from being removed or renamed.</summary>
    Pin,
    /// <summary>The mount is another filesystem, whose image is a file in the held object.</summary>
    Image,
}

/// <summary>A mount that holds something.</summary>
/// <param name="Id">The mount id, as in mountinfo.</param>
/// <param name="MountPoint">The mount point in its namespace.</param>
/// <param name="Type">The type of the mounted filesystem.</param>
/// <param name="Relation">The way in which the mount holds the held object.</param>
public sealed record MountUse(
    int Id,
    string MountPoint,
    [property: JsonPropertyOrder(1)] string Type,
    [property: JsonPropertyOrder(1)] MountRelation Relation)
{
    [JsonInclude]
    internal byte[]? MountPointBase64
    {
        get => DocumentPath.BytesOf(MountPoint);
        init => MountPoint = DocumentPath.TextOf(value, MountPoint);
    }
}

/// <summary>A process that uses files of something.</summary>
/// <param name="Process">The process.</param>
/// <param name="MountNamespace">The inode number of the process's mount namespace; 0 when it may not be known.</param>
/// <param name="Files">The files.</param>
public sealed record ProcessUse(
    [property: JsonIgnore] ProcessName Process,
    [property: JsonPropertyOrder(1)] ulong MountNamespace,
    [property: JsonPropertyOrder(1)] IReadOnlyList<FileUse> Files)
{
    /// <summary>Makes the use from the members of the document, in which the process has no object of its own.</summary>
    [JsonConstructor]
    internal ProcessUse(int pid, string name, ulong mountNamespace, IReadOnlyList<FileUse> files)
        : this(new ProcessName(pid, name), mountNamespace, files) { }

    [JsonInclude] internal int Pid => Process.Pid;

    [JsonInclude] internal string Name => Process.Name;

    [JsonInclude]
    internal byte[]? NameBase64 { get => Process.NameBase64; init => Process = Process with { NameBase64 = value }; }
}

/// <summary>A file that a process uses.</summary>
/// <param name="Use">
/// <c>cwd</c>, <c>root</c>, <c>exe</c>, <c>open</c>, <c>map</c>, <c>lock</c>, <c>socket</c> (bound to it) or <c>registered</c>
/// (with an io_uring).
/// </param>
/// <param name="Descriptor">The descriptor of the open file, or of the socket; otherwise -1.</param>
/// <param name="Path">
/// The path that /proc shows: from the root of the process's namespace, or of a mount that was unmounted lazily.
/// </param>
public sealed record FileUse(string Use, [property: JsonIgnore] int Descriptor, [property: JsonPropertyOrder(1)] string Path)
{
    [JsonConstructor]
    internal FileUse(string use, string path, int? toldDescriptor = null) : this(use, toldDescriptor ?? -1, path) { }

    [JsonInclude, JsonPropertyName("descriptor")]
    internal int? ToldDescriptor => Descriptor >= 0 ? Descriptor : null;

    [JsonInclude, JsonPropertyOrder(1)]
    internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }
}

/// <summary>A file that the kernel uses.</summary>
/// <param name="Path">The path of the file.</param>
/// <param name="Device">The loop device; null for a swap file.</param>
public sealed record FileHolder(string Path, [property: JsonPropertyOrder(1)] string? Device = null)
{
    [JsonInclude] internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }
}
