using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>An overlay of Veneer on this machine, as far as it can be seen without asking its server.</summary>
public sealed record Instance
{
    /// <summary>The number of its mount's device, <c>MAJOR:MINOR</c>, which all copies of the mount have.</summary>
    public required string Device { get; init; }

    /// <summary>Where it is mounted: each with a process that sees it there (or <c>self</c>; empty where no process is), and the mount namespace's inode number.</summary>
    public required IReadOnlyList<(string Process, ulong Namespace, MountEntry Mount)> Mounts { get; init; }

    /// <summary>The server's process id; 0 when it is not seen.</summary>
    public int Pid { get; init; }

    /// <summary>The server's command line, or its beginning; null when it is not seen.</summary>
    public string? Command { get; init; }

    /// <summary>Since when it is mounted, to the second; null when that is not known.</summary>
    public DateTimeOffset? Since { get; init; }

    /// <summary>The layers, <c>upper</c>, <c>work</c> and <c>lower</c>, with the paths that the server has them by.</summary>
    public IReadOnlyList<(string Role, string Path)> Layers { get; init; } = [];

    /// <summary>The state of upper's filesystem; null without upper, or when it is not known.</summary>
    public StatFs? UpperFileSystem { get; init; }
}
