using Veneer.Linux;

namespace Veneer.Overlay.Usage;

/// <summary>An overlay of Veneer on this machine, as far as it can be seen without asking its server.</summary>
public sealed record VeneerOverlay
{
    /// <summary>The device number of its mount, <c>MAJOR:MINOR</c>, which all copies of the mount share.</summary>
    public required string Device { get; init; }

    /// <summary>
    /// Its mounts, each with a process that sees it (or <c>self</c>; empty where there is no process) and the inode number
    /// of the mount namespace.
    /// </summary>
    public required IReadOnlyList<(string Process, ulong Namespace, MountEntry Mount)> Mounts { get; init; }

    /// <summary>The server's pid; 0 when the server is not seen.</summary>
    public int Pid { get; init; }

    /// <summary>The server's command line, or its beginning; null when the server is not seen.</summary>
    public string? Command { get; init; }

    /// <summary>The time of mounting, in whole seconds; null when unknown.</summary>
    public DateTimeOffset? Since { get; init; }

    /// <summary>
    /// The layers with their roles, <c>upper</c>, <c>work</c> and <c>lower</c>, and the paths by which the server has them.
    /// </summary>
    public IReadOnlyList<(string Role, string Path)> Layers { get; init; } = [];

    /// <summary>The state of upper's filesystem; null without an upper, or when it is unknown.</summary>
    public StatFs? UpperFileSystem { get; init; }
}
