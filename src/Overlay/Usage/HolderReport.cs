using System.Text.Json;
using System.Text.Json.Serialization;
using Veneer.Overlay.Documents;

namespace Veneer.Overlay.Usage;

/// <summary>Who holds a directory or a mount, so that it cannot be unmounted, removed or used by another overlay.</summary>
/// <remarks>It is its own document, see docs/lifecycle.md.</remarks>
public sealed record HolderReport
{
    /// <summary>The directory or mount point, in full.</summary>
    public required string Target { get; init; }

    [JsonInclude]
    internal byte[]? TargetBase64 { get => DocumentPath.BytesOf(Target); init => Target = DocumentPath.TextOf(value, Target); }

    /// <summary>Whether anything is found that holds it.</summary>
    [JsonPropertyName("held")]
    public bool IsHeld => Overlays.Count + Uses.Namespaces.Count + Uses.Processes.Count + LoopDevices.Count + SwapFiles.Count > 0;

    /// <summary>
    /// Whether the kernel says that the mount is in use, so that umount(2) would fail; null when it was not asked, since the holders
    /// are found, or cannot be asked.
    /// </summary>
    [JsonPropertyName("busy")]
    public bool? IsBusy { get; init; }

    /// <summary>The type of the filesystem that is mounted there, or null when it is a directory and no mount point.</summary>
    [JsonPropertyName("type")]
    public string? MountType { get; init; }

    /// <summary>The server of the mount, as <c>veneer (123)</c>, when it is one of Veneer and its server is seen; it is no holder.</summary>
    public ProcessName? Server { get; init; }

    /// <summary>The overlays whose layer it is, or that have layers below it.</summary>
    public required IReadOnlyList<OverlayHolder> Overlays { get; init; }

    /// <summary>What holds it beside them.</summary>
    [JsonIgnore]
    public Uses Uses { get; init; } = Uses.None;

    [JsonInclude, JsonRequired]
    internal IReadOnlyList<NamespaceUse> Namespaces { get => Uses.Namespaces; init => Uses = Uses with { Namespaces = value }; }

    [JsonInclude, JsonRequired]
    internal IReadOnlyList<ProcessUse> Processes { get => Uses.Processes; init => Uses = Uses with { Processes = value }; }

    /// <summary>The loop devices whose backing file lies below it.</summary>
    public required IReadOnlyList<FileHolder> LoopDevices { get; init; }

    /// <summary>The swap files below it.</summary>
    public required IReadOnlyList<FileHolder> SwapFiles { get; init; }

    /// <summary>What could not be looked at, one sentence each.</summary>
    public required IReadOnlyList<string> Gaps { get; init; }

    /// <summary>Whether something is found that keeps a mount from being unmounted, as other mounts of the same files do not, nor the private ones of kernel overlays.</summary>
    internal bool IsHeldByUsers =>
        Overlays.Any(overlay => !overlay.IsKernel && !overlay.IsShutDown) || Uses.Processes.Count + LoopDevices.Count + SwapFiles.Count > 0 || Uses.Namespaces.Any(space => space.Mounts.Any(mount => mount.Relation is MountRelation.Nested or MountRelation.Image));

    /// <summary>Writes the report as docs/lifecycle.md describes it.</summary>
    public void Write(Utf8JsonWriter json) => JsonSerializer.Serialize(json, this, DocumentJson.Default.HolderReport);
}

/// <summary>A process and what it is called.</summary>
/// <param name="Pid">Its id in this pid namespace.</param>
/// <param name="Name">The name that it has now, at most 15 bytes.</param>
public sealed record ProcessName(int Pid, string Name)
{
    [JsonInclude] internal byte[]? NameBase64 { get => DocumentPath.BytesOf(Name); init => Name = DocumentPath.TextOf(value, Name); }
}

/// <summary>Mounts and processes that hold something.</summary>
/// <param name="Namespaces">The mount namespaces with mounts of it, or in it; this process's own first.</param>
/// <param name="Processes">The processes that use files in it.</param>
public sealed record Uses(IReadOnlyList<NamespaceUse> Namespaces, IReadOnlyList<ProcessUse> Processes)
{
    /// <summary>Nothing holds it.</summary>
    public static Uses None { get; } = new([], []);
}

/// <summary>An overlay that has a directory as a layer.</summary>
public sealed record OverlayHolder
{
    /// <summary>Whether the kernel's overlayfs serves it, and not Veneer.</summary>
    [JsonPropertyName("kind"), JsonConverter(typeof(OverlayKindWord))]
    public required bool IsKernel { get; init; }

    /// <summary>What the directory is to it: <c>upper</c>, <c>work</c>, <c>lower</c>, or <c>layer</c> where that cannot be told; several with commas.</summary>
    public required string Role { get; init; }

    /// <summary>Whether it was shut down, so that only users of files that are passed through hold the filesystem of the layer.</summary>
    [JsonPropertyName("shut_down"), JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool IsShutDown { get; init; }

    /// <summary>The server's process id: in this pid namespace, or else in <see cref="PidNamespace"/>. 0 when it is not known.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public int Pid { get; init; }

    /// <summary>The inode number of the server's pid namespace when that is another one, else 0.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public ulong PidNamespace { get; init; }

    /// <summary>The server's command line, or its beginning.</summary>
    public string? Command { get; init; }

    [JsonInclude]
    internal byte[]? CommandBase64 { get => DocumentPath.BytesOf(Command); init => Command = DocumentPath.TextOf(value, Command); }

    /// <summary>Since when it is mounted, to the second; null when that is not known.</summary>
    public DateTimeOffset? Since { get; init; }

    /// <summary>Where it was mounted, in the namespace where that was; null when that is not known.</summary>
    public string? MountPoint { get; init; }

    [JsonInclude]
    internal byte[]? MountPointBase64
    {
        get => DocumentPath.BytesOf(MountPoint);
        init => MountPoint = DocumentPath.TextOf(value, MountPoint);
    }

    /// <summary>The number of its device, which all copies of the mount have; empty when it is not known.</summary>
    [JsonIgnore]
    public string Device { get; init; } = "";

    [JsonInclude, JsonPropertyName("device")]
    internal string? ToldDevice { get => Device.Length > 0 ? Device : null; init => Device = value ?? ""; }

    /// <summary>What keeps the overlay itself alive: where it is mounted, and who uses its files.</summary>
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

    /// <summary>The processes in it, which keep it alive. Not told of this process's own.</summary>
    public required IReadOnlyList<ProcessName> Processes { get; init; }

    /// <summary>What else keeps it alive: bind mounts of the namespace's file, descriptors of it.</summary>
    public required IReadOnlyList<string> KeptBy { get; init; }
}

/// <summary>How a mount holds something.</summary>
[JsonConverter(typeof(MountRelationWord))]
public enum MountRelation
{
    /// <summary>It shows the same files.</summary>
    Copy,
    /// <summary>It is another filesystem, mounted inside.</summary>
    Nested,
    /// <summary>It is a pin of Veneer's (<c>-o pin</c>), which keeps the directory from being removed or renamed.</summary>
    Pin,
    /// <summary>It is another filesystem, whose image is a file in it.</summary>
    Image,
}

/// <summary>A mount that holds something.</summary>
/// <param name="Id">Its id, as mountinfo has it.</param>
/// <param name="MountPoint">Where it is, in its namespace.</param>
/// <param name="Type">The type of its filesystem.</param>
/// <param name="Relation">How it holds it.</param>
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
/// <param name="MountNamespace">The inode number of its mount namespace; 0 when that may not be known.</param>
/// <param name="Files">The files.</param>
public sealed record ProcessUse(
    [property: JsonIgnore] ProcessName Process,
    [property: JsonPropertyOrder(1)] ulong MountNamespace,
    [property: JsonPropertyOrder(1)] IReadOnlyList<FileUse> Files)
{
    /// <summary>In the document the process has no object of its own.</summary>
    [JsonConstructor]
    internal ProcessUse(int pid, string name, ulong mountNamespace, IReadOnlyList<FileUse> files)
        : this(new ProcessName(pid, name), mountNamespace, files) { }

    [JsonInclude] internal int Pid => Process.Pid;

    [JsonInclude] internal string Name => Process.Name;

    [JsonInclude]
    internal byte[]? NameBase64 { get => Process.NameBase64; init => Process = Process with { NameBase64 = value }; }
}

/// <summary>A file that a process uses.</summary>
/// <param name="Use"><c>cwd</c>, <c>root</c>, <c>exe</c>, <c>open</c>, <c>map</c>, <c>lock</c>, <c>socket</c> (bound to it) or <c>registered</c> (with an io_uring).</param>
/// <param name="Descriptor">The descriptor when it is open, or of the socket, else -1.</param>
/// <param name="Path">The path as /proc has it: from the root of the process's namespace, or of a mount that is unmounted lazily.</param>
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
/// <param name="Path">The file.</param>
/// <param name="Device">The loop device; null of a swap file.</param>
public sealed record FileHolder(string Path, [property: JsonPropertyOrder(1)] string? Device = null)
{
    [JsonInclude] internal byte[]? PathBase64 { get => DocumentPath.BytesOf(Path); init => Path = DocumentPath.TextOf(value, Path); }
}
