using System.Globalization;
using Veneer.Linux;

namespace Veneer.Overlay.Topology;

/// <summary>Finds a layer again, wherever it has been moved or mounted since.</summary>
public static class LayerFinder
{
    /// <summary>The path of an open directory; null when no path leads there from here.</summary>
    internal static string? PathOf(int descriptor)
    {
        Span<byte> name = stackalloc byte[4096];
        if (Libc.ReadLinkAt(Libc.AtCwd, PathText.Encode($"/proc/self/fd/{descriptor}"), name, out int length).IsError
            || length == name.Length
            || name[0] != '/')
        {
            return null;
        }
        string path = PathText.Decode(name[..length]);
        // For a directory that was removed or unmounted the kernel gives a path that leads elsewhere, or nowhere.
        return !Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx one).IsError
            && !Libc.StatAt(Libc.AtCwd, PathText.Encode(path), StatxMask.Basic, out Statx other).IsError
            && one.Ino == other.Ino && one.Dev == other.Dev ? path : null;
    }

    /// <summary>
    /// Finds a path to the directory of a mounted overlay: the path of the description if it still leads there, otherwise by
    /// the handle through a mount of its filesystem.
    /// </summary>
    /// <returns>Null when there is no path, or when this user may not open handles (CAP_DAC_READ_SEARCH).</returns>
    public static string? Find(LayerDescription layer)
    {
        // While the overlay is mounted, its device number means that filesystem and no copy of it.
        foreach ((string path, string device) in Candidates(layer))
        {
            if (device == layer.Device || layer.FileSystem.Length == 0) { return path; }
        }
        return null;
    }

    /// <summary>
    /// Finds a path to the directory of an overlay that was mounted at another time. Copies of its filesystem may have the same
    /// UUID, inode numbers and handles.
    /// </summary>
    /// <param name="layer">The description.</param>
    /// <param name="isSameBoot">Whether the description is of this boot, so that a device that stayed has kept its number.</param>
    /// <param name="doubt">
    /// Why none of the paths that were found can be trusted, as the end of a sentence; null when one can, or none was found.
    /// </param>
    /// <returns>Null when no path was found, or none can be trusted.</returns>
    public static string? Locate(LayerDescription layer, bool isSameBoot, out string? doubt)
    {
        doubt = null;
        List<(string Path, string Device)> found = [.. Candidates(layer)];
        if (found.Count == 0) { return null; }
        if (isSameBoot && found.FindIndex(one => one.Device == layer.Device) is var own and >= 0) { return found[own].Path; }
        if (found.Exists(one => one.Device != found[0].Device))
        {
            (string Path, string Device) other = found.Find(one => one.Device != found[0].Device);
            doubt = $"is at {found[0].Path} (device {found[0].Device}) and at {other.Path} (device {other.Device}), on copies of one "
                + "filesystem: unmount the one that is not meant";
        }
        else if (isSameBoot && IsAttached(layer.Device))
        {
            doubt = $"is at {found[0].Path}, on a copy (device {found[0].Device}) of its filesystem, which was on the device "
                + $"{layer.Device}, and that is still there: mount that one";
        }
        return doubt is null ? found[0].Path : null;
    }

    /// <summary>Whether a block device exists and has a size.</summary>
    private static bool IsAttached(string device) =>
        device.All(c => char.IsAsciiDigit(c) || c == ':')
        && !Libc.ReadWhole(PathText.Encode($"/sys/dev/block/{device}/size"), out byte[] size).IsError
        && !size.AsSpan().SequenceEqual("0\n"u8);

    /// <summary>Every path by which the directory is found, the known path first, and the device that it is on.</summary>
    private static IEnumerable<(string Path, string Device)> Candidates(LayerDescription layer)
    {
        // The path of a server's descriptor is valid only while the server lives: a path of the tree is better.
        bool isDescriptor = layer.Path?.StartsWith("/proc/", StringComparison.Ordinal) == true;
        if (!isDescriptor && Known() is { } known) { yield return known; }
        if (layer.Handle.Length > 0 && !MountTable.Read(out List<MountEntry> table).IsError)
        {
            foreach (MountEntry mount in table)
            {
                // After a reboot a device may have another number: then the UUID identifies the filesystem.
                if (mount.Device != layer.Device && IsZero(layer.Uuid)) { continue; }
                if (FindBelow(layer, mount) is { } found) { yield return (found, mount.Device); }
            }
        }
        if (isDescriptor && Known() is { } last) { yield return last; }

        (string, string)? Known() => layer.Path is { } path && DeviceAt(layer, path) is { } device ? (path, device) : null;
    }

    private static string? FindBelow(LayerDescription layer, MountEntry mount)
    {
        if (mount.Type == "autofs" || mount.Type.StartsWith("fuse", StringComparison.Ordinal))
        {
            return null; // its server might not answer
        }
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(mount.MountPoint),
            OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NonBlock, 0, ResolveFlags.None, out int descriptor);
        if (error.IsError) { return null; }
        using var root = new Fd(descriptor);
        var handle = new FileHandle(layer.HandleType, Convert.FromHexString(layer.Handle));
        if (Libc.OpenByHandle(root.Value, ref handle, OpenFlags.Path, out descriptor).IsError) { return null; }
        using var found = new Fd(descriptor);
        return PathOf(found.Value) is { } path && IsAt(layer, path) ? path : null;
    }

    /// <summary>Whether a path leads to the described directory: the same handle on the same filesystem, or on a copy.</summary>
    internal static bool IsAt(LayerDescription layer, string path) => DeviceAt(layer, path) is not null;

    /// <summary>The device of the described directory, if a path leads to it; otherwise null.</summary>
    private static string? DeviceAt(LayerDescription layer, string path)
    {
        if (Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None,
            out int descriptor).IsError)
        {
            return null;
        }
        using var directory = new Fd(descriptor);
        return Difference(layer, directory.Value) is null ? LayerDescription.Of(layer.Index, null, directory.Value).Device : null;
    }

    /// <summary>
    /// How the directory at a path differs from the described one, for a sentence; null when they are the same, or there is no
    /// directory.
    /// </summary>
    public static string? Difference(LayerDescription layer, string path)
    {
        if (Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None,
            out int descriptor).IsError)
        {
            return null;
        }
        using var directory = new Fd(descriptor);
        return Difference(layer, directory.Value);
    }

    /// <summary>How an open directory differs from the described one, for a sentence; null when they are the same.</summary>
    public static string? Difference(LayerDescription layer, int descriptor)
    {
        LayerDescription here = LayerDescription.Of(layer.Index, null, descriptor);
        bool hasUuids = !IsZero(here.Uuid) && !IsZero(layer.Uuid);
        if (hasUuids && here.Uuid != layer.Uuid) { return $"it is on the filesystem {here.Uuid}, not {layer.Uuid}"; }
        if (!hasUuids && here.Device != layer.Device) { return $"it is on the device {here.Device}, not {layer.Device}"; }
        if (here.Ino != layer.Ino)
        {
            return string.Create(CultureInfo.InvariantCulture, $"its inode number is {here.Ino}, not {layer.Ino}");
        }
        return here.Handle == layer.Handle && here.HandleType == layer.HandleType
            ? null
            : "its inode number has been given to another directory since";
    }

    private static bool IsZero(string uuid) => !uuid.AsSpan().ContainsAnyExcept('0');
}
