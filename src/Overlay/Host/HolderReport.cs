using System.Text.Json;
using Veneer.Overlay.Changes;

namespace Veneer.Overlay.Host;

/// <summary>Who holds a directory or a mount, so that it cannot be unmounted, removed or used by another overlay.</summary>
public sealed record HolderReport
{
    /// <summary>The directory or mount point, in full.</summary>
    public required string Target { get; init; }

    /// <summary>The type of the filesystem that is mounted there, or null when it is a directory and no mount point.</summary>
    public string? MountType { get; init; }

    /// <summary>The server of the mount, as <c>veneer (123)</c>, when it is one of Veneer and its server is seen; it is no holder.</summary>
    public ProcessName? Server { get; init; }

    /// <summary>The overlays whose layer it is, or that have layers below it.</summary>
    public required IReadOnlyList<OverlayHolder> Overlays { get; init; }

    /// <summary>What holds it beside them.</summary>
    public required Uses Uses { get; init; }

    /// <summary>The loop devices whose backing file lies below it.</summary>
    public required IReadOnlyList<FileHolder> LoopDevices { get; init; }

    /// <summary>The swap files below it.</summary>
    public required IReadOnlyList<FileHolder> SwapFiles { get; init; }

    /// <summary>What could not be looked at, one sentence each.</summary>
    public required IReadOnlyList<string> Gaps { get; init; }

    /// <summary>Whether the kernel says that the mount is in use, so that umount(2) would fail; null when it was not asked, since the holders are found, or cannot be asked.</summary>
    public bool? IsBusy { get; init; }

    /// <summary>Whether something is found that keeps a mount from being unmounted, as other mounts of the same files do not, nor the private ones of kernel overlays.</summary>
    internal bool IsHeldByUsers =>
        Overlays.Any(overlay => !overlay.IsKernel && !overlay.IsShutDown) || Uses.Processes.Count + LoopDevices.Count + SwapFiles.Count > 0 || Uses.Namespaces.Any(space => space.Mounts.Any(mount => mount.Relation is MountRelation.Nested or MountRelation.Image));

    /// <summary>Whether anything is found that holds it.</summary>
    public bool IsHeld => Overlays.Count + Uses.Namespaces.Count + Uses.Processes.Count + LoopDevices.Count + SwapFiles.Count > 0;

    /// <summary>Writes the report as docs/lifecycle.md describes it.</summary>
    public void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        ChangeJson.WritePath(json, "target", Target);
        json.WriteBoolean("held", IsHeld);
        if (IsBusy is { } busy) { json.WriteBoolean("busy", busy); }
        if (MountType is not null) { json.WriteString("type", MountType); }
        if (Server is not null)
        {
            json.WritePropertyName("server");
            Server.Write(json);
        }
        json.WriteStartArray("overlays");
        foreach (OverlayHolder overlay in Overlays) { overlay.Write(json); }
        json.WriteEndArray();
        Uses.Write(json);
        FileHolder.Write(json, "loop_devices", LoopDevices);
        FileHolder.Write(json, "swap_files", SwapFiles);
        json.WriteStartArray("gaps");
        foreach (string gap in Gaps) { json.WriteStringValue(gap); }
        json.WriteEndArray();
        json.WriteEndObject();
    }
}

/// <summary>A process and what it is called.</summary>
/// <param name="Pid">Its id in this pid namespace.</param>
/// <param name="Name">The name that it has now, at most 15 bytes.</param>
public sealed record ProcessName(int Pid, string Name)
{
    internal void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteNumber("pid", Pid);
        ChangeJson.WritePath(json, "name", Name);
        json.WriteEndObject();
    }
}

/// <summary>Mounts and processes that hold something.</summary>
/// <param name="Namespaces">The mount namespaces with mounts of it, or in it; this process's own first.</param>
/// <param name="Processes">The processes that use files in it.</param>
public sealed record Uses(IReadOnlyList<NamespaceUse> Namespaces, IReadOnlyList<ProcessUse> Processes)
{
    internal void Write(Utf8JsonWriter json)
    {
        json.WriteStartArray("namespaces");
        foreach (NamespaceUse space in Namespaces) { space.Write(json); }
        json.WriteEndArray();
        json.WriteStartArray("processes");
        foreach (ProcessUse process in Processes) { process.Write(json); }
        json.WriteEndArray();
    }
}

/// <summary>An overlay that has a directory as a layer.</summary>
public sealed record OverlayHolder
{
    /// <summary>Whether the kernel's overlayfs serves it, and not Veneer.</summary>
    public required bool IsKernel { get; init; }

    /// <summary>What the directory is to it: <c>upper</c>, <c>work</c>, <c>lower</c>, or <c>layer</c> where that cannot be told; several with commas.</summary>
    public required string Role { get; init; }

    /// <summary>The server's process id: in this pid namespace, or else in <see cref="PidNamespace"/>. 0 when it is not known.</summary>
    public int Pid { get; init; }

    /// <summary>The inode number of the server's pid namespace when that is another one, else 0.</summary>
    public ulong PidNamespace { get; init; }

    /// <summary>The server's command line, or its beginning.</summary>
    public string? Command { get; init; }

    /// <summary>Since when it is mounted, to the second; null when that is not known.</summary>
    public DateTimeOffset? Since { get; init; }

    /// <summary>Where it was mounted, in the namespace where that was; null when that is not known.</summary>
    public string? MountPoint { get; init; }

    /// <summary>The number of its device, which all copies of the mount have; empty when it is not known.</summary>
    public string Device { get; init; } = "";

    /// <summary>Whether it was shut down, so that only users of files that are passed through hold the filesystem of the layer.</summary>
    public bool IsShutDown { get; init; }

    /// <summary>What keeps the overlay itself alive: where it is mounted, and who uses its files.</summary>
    public required Uses Uses { get; init; }

    internal void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("kind", IsKernel ? "kernel" : "veneer");
        json.WriteString("role", Role);
        if (IsShutDown) { json.WriteBoolean("shut_down", true); }
        if (Pid > 0) { json.WriteNumber("pid", Pid); }
        if (PidNamespace > 0) { json.WriteNumber("pid_namespace", PidNamespace); }
        if (Command is not null) { ChangeJson.WritePath(json, "command", Command); }
        if (Since is { } since) { json.WriteString("since", since); }
        if (MountPoint is not null) { ChangeJson.WritePath(json, "mount_point", MountPoint); }
        if (Device.Length > 0) { json.WriteString("device", Device); }
        Uses.Write(json);
        json.WriteEndObject();
    }
}

/// <summary>A mount namespace with mounts that hold something.</summary>
public sealed record NamespaceUse
{
    /// <summary>The namespace's inode number.</summary>
    public required ulong Id { get; init; }

    /// <summary>Whether this process is in it.</summary>
    public required bool IsOwn { get; init; }

    /// <summary>The mounts.</summary>
    public required IReadOnlyList<MountUse> Mounts { get; init; }

    /// <summary>The processes in it, which keep it alive. Not told of this process's own.</summary>
    public required IReadOnlyList<ProcessName> Processes { get; init; }

    /// <summary>What else keeps it alive: bind mounts of the namespace's file, descriptors of it.</summary>
    public required IReadOnlyList<string> KeptBy { get; init; }

    internal void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteNumber("id", Id);
        json.WriteBoolean("own", IsOwn);
        json.WriteStartArray("mounts");
        foreach (MountUse mount in Mounts) { mount.Write(json); }
        json.WriteEndArray();
        json.WriteStartArray("processes");
        foreach (ProcessName process in Processes) { process.Write(json); }
        json.WriteEndArray();
        json.WriteStartArray("kept_by");
        foreach (string keeper in KeptBy) { json.WriteStringValue(keeper); }
        json.WriteEndArray();
        json.WriteEndObject();
    }
}

/// <summary>How a mount holds something.</summary>
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
public sealed record MountUse(int Id, string MountPoint, string Type, MountRelation Relation)
{
    internal void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteNumber("id", Id);
        ChangeJson.WritePath(json, "mount_point", MountPoint);
        json.WriteString("type", Type);
        json.WriteString("relation", Relation switch { MountRelation.Nested => "nested", MountRelation.Pin => "pin", MountRelation.Image => "image", _ => "copy" });
        json.WriteEndObject();
    }
}

/// <summary>A process that uses files of something.</summary>
/// <param name="Process">The process.</param>
/// <param name="MountNamespace">The inode number of its mount namespace; 0 when that may not be known.</param>
/// <param name="Files">The files.</param>
public sealed record ProcessUse(ProcessName Process, ulong MountNamespace, IReadOnlyList<FileUse> Files)
{
    internal void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteNumber("pid", Process.Pid);
        ChangeJson.WritePath(json, "name", Process.Name);
        json.WriteNumber("mount_namespace", MountNamespace);
        json.WriteStartArray("files");
        foreach (FileUse file in Files)
        {
            json.WriteStartObject();
            json.WriteString("use", file.Use);
            if (file.Descriptor >= 0) { json.WriteNumber("descriptor", file.Descriptor); }
            ChangeJson.WritePath(json, "path", file.Path);
            json.WriteEndObject();
        }
        json.WriteEndArray();
        json.WriteEndObject();
    }
}

/// <summary>A file that a process uses.</summary>
/// <param name="Use"><c>cwd</c>, <c>root</c>, <c>exe</c>, <c>open</c>, <c>map</c>, <c>lock</c>, <c>socket</c> (bound to it) or <c>registered</c> (with an io_uring).</param>
/// <param name="Descriptor">The descriptor when it is open, or of the socket, else -1.</param>
/// <param name="Path">The path as /proc has it: from the root of the process's namespace, or of a mount that is unmounted lazily.</param>
public sealed record FileUse(string Use, int Descriptor, string Path);

/// <summary>A file that the kernel uses.</summary>
/// <param name="Path">The file.</param>
/// <param name="Device">The loop device, or nothing.</param>
public sealed record FileHolder(string Path, string Device)
{
    internal static void Write(Utf8JsonWriter json, string member, IReadOnlyList<FileHolder> files)
    {
        json.WriteStartArray(member);
        foreach (FileHolder file in files)
        {
            json.WriteStartObject();
            ChangeJson.WritePath(json, "path", file.Path);
            if (file.Device.Length > 0) { json.WriteString("device", file.Device); }
            json.WriteEndObject();
        }
        json.WriteEndArray();
    }
}
