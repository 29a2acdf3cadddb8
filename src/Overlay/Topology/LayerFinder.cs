using System.Globalization;
using Veneer.Linux;

namespace Veneer.Overlay.Topology;

/// <summary>Finds a layer again, wherever it has been moved or mounted meanwhile.</summary>
public static class LayerFinder
{
    /// <summary>The path of an open directory, if it leads there from here.</summary>
    internal static string? PathOf(int descriptor)
    {
        Span<byte> name = stackalloc byte[4096];
        if (Libc.ReadLinkAt(Libc.AtCwd, PathText.Encode($"/proc/self/fd/{descriptor}"), name, out int length).IsError || length == name.Length || name[0] != '/') { return null; }
        string path = PathText.Decode(name[..length]);
        // Of what was removed or unmounted the kernel says a path that leads elsewhere, or nowhere.
        return !Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx one).IsError
            && !Libc.StatAt(Libc.AtCwd, PathText.Encode(path), StatxMask.Basic, out Statx other).IsError
            && one.Ino == other.Ino && one.Dev == other.Dev ? path : null;
    }

    /// <summary>A path from here to the same directory: that of the description if it still leads there, else by its handle through a mount of its filesystem.</summary>
    /// <returns>Null when there is none, or when this user may not open handles (CAP_DAC_READ_SEARCH).</returns>
    public static string? Find(LayerDescription layer)
    {
        string? known = layer.Path is { } path && IsAt(layer, path) ? path : null;
        // A descriptor of the server's leads there while the server lives: a path of the tree is better.
        bool isDescriptor = known?.StartsWith("/proc/", StringComparison.Ordinal) == true;
        return known is null || isDescriptor ? FindByHandle(layer) ?? known : known;
    }

    private static string? FindByHandle(LayerDescription layer)
    {
        if (layer.Handle.Length == 0 || MountTable.Read(out List<MountEntry> table).IsError) { return null; }
        foreach (MountEntry mount in table)
        {
            // After a reboot a device may have another number: then the UUID tells.
            if (mount.Device != layer.Device && IsZero(layer.Uuid)) { continue; }
            if (FindBelow(layer, mount) is { } found) { return found; }
        }
        return null;
    }

    private static string? FindBelow(LayerDescription layer, MountEntry mount)
    {
        if (mount.Type == "autofs" || mount.Type.StartsWith("fuse", StringComparison.Ordinal)) { return null; } // whose server might not answer
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(mount.MountPoint), OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NonBlock, 0, ResolveFlags.None, out int descriptor);
        if (error.IsError) { return null; }
        using var root = new Fd(descriptor);
        var handle = new FileHandle(layer.HandleType, Convert.FromHexString(layer.Handle));
        if (Libc.OpenByHandle(root.Value, ref handle, OpenFlags.Path, out descriptor).IsError) { return null; }
        using var found = new Fd(descriptor);
        return PathOf(found.Value) is { } path && IsAt(layer, path) ? path : null;
    }

    /// <summary>Whether a path leads to the directory that is described: the same handle on the same filesystem.</summary>
    internal static bool IsAt(LayerDescription layer, string path)
    {
        if (Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out int descriptor).IsError) { return false; }
        using var directory = new Fd(descriptor);
        return WhyNot(layer, directory.Value) is null;
    }

    /// <summary>What tells the directory at a path from the one that is described, for a sentence; null when there is none, or when they are the same.</summary>
    public static string? Difference(LayerDescription layer, string path)
    {
        if (Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out int descriptor).IsError) { return null; }
        using var directory = new Fd(descriptor);
        return WhyNot(layer, directory.Value);
    }

    /// <summary>What tells an open directory from the one that is described, or null when they are the same.</summary>
    internal static string? WhyNot(LayerDescription layer, int descriptor)
    {
        LayerDescription here = LayerDescription.Of(layer.Index, null, descriptor);
        bool hasUuids = !IsZero(here.Uuid) && !IsZero(layer.Uuid);
        if (hasUuids && here.Uuid != layer.Uuid) { return $"it is on the filesystem {here.Uuid}, not {layer.Uuid}"; }
        if (!hasUuids && here.Device != layer.Device) { return $"it is on the device {here.Device}, not {layer.Device}"; }
        if (here.Ino != layer.Ino) { return string.Create(CultureInfo.InvariantCulture, $"its inode number is {here.Ino}, not {layer.Ino}"); }
        return here.Handle == layer.Handle && here.HandleType == layer.HandleType ? null : "its inode number has been given to another directory since";
    }

    private static bool IsZero(string uuid) => !uuid.AsSpan().ContainsAnyExcept('0');
}
