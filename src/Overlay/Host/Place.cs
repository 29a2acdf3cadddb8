using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Host;

/// <summary>A directory and where it lies in its filesystem, whatever mount it is seen through.</summary>
/// <param name="Role">What it is to the overlay: <c>lower</c>, <c>upper</c> or <c>work</c>.</param>
/// <param name="Path">As the user wrote it.</param>
/// <param name="Descriptor">A descriptor of it, which is not owned; O_PATH will do.</param>
/// <param name="Status">Its attributes.</param>
/// <param name="Device">The number of the filesystem's device as mountinfo has it, or null when it is not known.</param>
/// <param name="Inside">Its path from the filesystem's root, or null when that is not known.</param>
internal sealed record Place(string Role, string Path, int Descriptor, Statx Status, string? Device, string? Inside)
{
    /// <summary>Its full path when it was looked at, as /proc has it.</summary>
    public string FullPath { get; init; } = "";

    /// <summary>What the overlay that has locked it says of itself, if it was asked for.</summary>
    public OwnerRecord? Owner { get; init; }

    /// <summary>Whether both are the same directory.</summary>
    public bool IsSame(Place other) => Status.Ino == other.Status.Ino && Status.Dev == other.Status.Dev;

    /// <summary>Whether this directory lies below the other one.</summary>
    public bool IsInside(Place other) =>
        Inside is not null && other.Inside is not null && Device == other.Device && IsBelow(Inside, other.Inside);

    /// <summary>Whether a path lies below another one and is not the same.</summary>
    public static bool IsBelow(string path, string directory) =>
        path.Length > directory.Length
        && path.StartsWith(directory, StringComparison.Ordinal)
        && (directory is "/" || path[directory.Length] == '/');

    /// <summary>Finds out where a directory lies.</summary>
    /// <param name="mounts">This process's mounts by their ids.</param>
    public static Place Of(string role, string path, int descriptor, IReadOnlyDictionary<ulong, MountEntry> mounts)
    {
        Errno error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic | StatxMask.MountId, out Statx status);
        if (error.IsError)
        {
            throw new OverlayMountException($"The {role} directory {path} cannot be examined ({error}): see whether its filesystem still answers.");
        }
        string name = Processes.Link(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{descriptor}")) ?? "";
        MountEntry? mount = mounts.GetValueOrDefault(status.MountId);
        return new Place(role, path, descriptor, status, mount?.Device, mount is null || name.Length == 0 ? null : InsideOf(mount, name)) { FullPath = name };
    }

    /// <summary>The path from the root of the filesystem of what is seen at a path through a mount, or null when it is not below its mount point.</summary>
    public static string? InsideOf(MountEntry mount, string path)
    {
        // The part below the mount point, put below what is mounted there.
        string point = mount.MountPoint == "/" ? "" : mount.MountPoint;
        string? below = path == point ? "" : path.StartsWith(point + "/", StringComparison.Ordinal) ? path[point.Length..] : null;
        if (below is null) { return null; }
        string inside = (mount.Root == "/" ? "" : mount.Root) + (below == "/" ? "" : below);
        return inside.Length == 0 ? "/" : inside;
    }

    public override string ToString() => $"{Role} directory {Path}";
}
