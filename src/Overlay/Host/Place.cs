using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Host;

/// <summary>A directory and its place in its filesystem, whatever mount it is seen through.</summary>
/// <param name="Role">The role in the overlay: <c>lower</c>, <c>upper</c> or <c>work</c>.</param>
/// <param name="Path">The path as the user wrote it.</param>
/// <param name="Descriptor">A descriptor of the directory, borrowed; O_PATH will do.</param>
/// <param name="Status">The attributes of the directory.</param>
/// <param name="Device">The device number of the filesystem, as in mountinfo; null when it is unknown.</param>
/// <param name="Inside">The path from the filesystem's root; null when it is unknown.</param>
internal sealed record Place(string Role, string Path, int Descriptor, Statx Status, string? Device, string? Inside)
{
    /// <summary>The full path of the directory when it was examined, as /proc shows it.</summary>
    public string FullPath { get; init; } = "";

    /// <summary>The owner record of the overlay that has locked the directory, if it was asked for.</summary>
    public OwnerRecord? Owner { get; init; }

    /// <summary>Whether two places are the same directory.</summary>
    public bool IsSame(Place other) => Status.Ino == other.Status.Ino && Status.Dev == other.Status.Dev;

    /// <summary>Whether this directory lies below the other one.</summary>
    public bool IsInside(Place other) =>
        Inside is not null && other.Inside is not null && Device == other.Device && IsBelow(Inside, other.Inside);

    /// <summary>Whether a path lies below another one and is not the same.</summary>
    public static bool IsBelow(string path, string directory) =>
        path.Length > directory.Length
        && path.StartsWith(directory, StringComparison.Ordinal)
        && (directory is "/" || path[directory.Length] == '/');

    /// <summary>Finds the place of a directory.</summary>
    /// <param name="mounts">The mounts of this process, by id.</param>
    public static Place Of(string role, string path, int descriptor, IReadOnlyDictionary<ulong, MountEntry> mounts)
    {
        Errno error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic | StatxMask.MountId, out Statx status);
        if (error.IsError)
        {
            throw new OverlayMountException(
                $"The {role} directory {path} cannot be examined ({error}): see whether its filesystem still answers.");
        }
        string name = Processes.Link(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{descriptor}")) ?? "";
        MountEntry? mount = mounts.GetValueOrDefault(status.MountId);
        string? inside = mount is null || name.Length == 0 ? null : InsideOf(mount, name);
        return new Place(role, path, descriptor, status, mount?.Device, inside) { FullPath = name };
    }

    /// <summary>
    /// Translates a path through a mount into a path from the root of its filesystem; null when the path is not below the
    /// mount point.
    /// </summary>
    public static string? InsideOf(MountEntry mount, string path)
    {
        // The part below the mount point, appended to the mount's root.
        string point = mount.MountPoint == "/" ? "" : mount.MountPoint;
        string? below = path == point ? "" : path.StartsWith(point + "/", StringComparison.Ordinal) ? path[point.Length..] : null;
        if (below is null) { return null; }
        string inside = (mount.Root == "/" ? "" : mount.Root) + (below == "/" ? "" : below);
        return inside.Length == 0 ? "/" : inside;
    }

    public override string ToString() => $"{Role} directory {Path}";
}
