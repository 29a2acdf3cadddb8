using System.Text.Json;
using Veneer.Linux;
using Veneer.Overlay;
using Veneer.Overlay.Control;
using Veneer.Overlay.Topology;

namespace Veneer.Cli;

/// <summary>The layers of an overlay that is mounted, by paths that lead there from here.</summary>
internal sealed record MountedLayers(string? UpperDirectory, IReadOnlyList<string> LowerDirectories, bool UserXattr)
{
    /// <summary>The layers of a mount of Veneer.</summary>
    /// <returns>Null when no path leads to one of them from here.</returns>
    /// <exception cref="LayerException">The server does not answer, or the answer is not understood.</exception>
    public static MountedLayers? TryOfVeneer(string mountPoint)
    {
        OverlayTopology topology = Ask(mountPoint, "");
        string? upper = null;
        var lowers = new List<string>();
        foreach (LayerDescription layer in topology.Layers)
        {
            if (layer.Index < 0) { continue; }
            if (LayerFinder.Find(layer) is not { } path) { return null; }
            if (layer.Index == 0) { upper = path; }
            else { lowers.Add(path); }
        }
        return new MountedLayers(upper, lowers, topology.UserXattr);
    }

    /// <summary>Asks the server of a Veneer mount what it is made of.</summary>
    /// <param name="mountPoint">The mount.</param>
    /// <param name="path">The object to tell of: "" for none, "/" for the root.</param>
    public static OverlayTopology Ask(string mountPoint, string path)
    {
        try
        {
            using JsonDocument answer = JsonDocument.Parse(LiveMount.Ask(mountPoint, Query.Layers, path));
            return OverlayTopology.Read(answer.RootElement);
        }
        catch (Exception problem) when (problem is JsonException or FormatException)
        {
            throw new LayerException($"The answer of the server of {mountPoint} is not understood: use the veneer that it was mounted with.", ExitCode.Failure);
        }
    }

    /// <summary>The overlay whose mount point a path names.</summary>
    public static MountEntry FindMount(string place)
    {
        MountEntry mount = FindAround(place, out string path);
        return mount.MountPoint == path ? mount : throw NotAMount(path);
    }

    /// <summary>The overlay that a path leads into.</summary>
    /// <param name="place">The path.</param>
    /// <param name="path">The same without symbolic links.</param>
    public static MountEntry FindAround(string place, out string path)
    {
        Errno error = Target.FindAround(place, out path, out MountEntry? mount, out int descriptor);
        if (error.IsError)
        {
            throw new LayerException(error switch
            {
                Errno.ENOENT or Errno.ENOTDIR => $"{place} does not exist: name a mount point.",
                Errno.EACCES => $"{place} cannot be reached: ask as the user who mounted it, or as root.",
                _ => $"{place} cannot be looked at ({error}): see whether /proc is mounted.",
            }, error == Errno.EACCES ? ExitCode.Denied : ExitCode.NotAMount);
        }
        Libc.Close(descriptor);
        return mount?.Type is "overlay" or "fuse.veneer" ? mount
            : mount is null || mount.MountPoint != path ? throw NotAMount(path)
            : throw new LayerException($"{path} is a mount of type {mount.Type}, not an overlay: name the mount point of an overlay.", ExitCode.NotAnOverlay);
    }

    /// <summary>What is said of a path that names no mount.</summary>
    public static LayerException NotAMount(string path) => new($"{path} is not a mount point: name the mount point of an overlay.", ExitCode.NotAMount);

    /// <summary>The layers of an overlay of the kernel.</summary>
    public static MountedLayers OfKernel(string path, KernelOverlay overlay)
    {
        if (overlay.DataDirectories.Count > 0)
        {
            throw new LayerException($"{path} has data-only layers, which Veneer does not support yet: ask about a mount without.", ExitCode.Failure);
        }
        foreach (string layer in (IEnumerable<string>)[.. overlay.LowerDirectories, .. overlay.UpperDirectory is { } upper ? [upper] : Array.Empty<string>()])
        {
            if (layer.StartsWith('/')) { continue; }
            throw new LayerException($"{path} was mounted with the relative path {layer}, which the kernel does not keep the start of: name the layers with --upper and --lower.", ExitCode.Failure);
        }
        // The paths may lead elsewhere by now, or may be those of another mount namespace.
        if (overlay.UpperDirectory is { } directory && !IsUpperOf(directory, path))
        {
            throw new LayerException($"The mount {path} names {directory} as its upper, but that is not what it has mounted: name the layers with --upper and --lower.", ExitCode.Failure);
        }
        return new MountedLayers(overlay.UpperDirectory, overlay.LowerDirectories, overlay.UserXattr);
    }

    /// <summary>Whether a directory has the inode number that the root of a kernel overlay shows, which is its upper's. The highest bits may tell the layer (xino).</summary>
    private static bool IsUpperOf(string directory, string mountPoint)
    {
        const ulong withoutLayer = (1UL << 48) - 1;
        return !Libc.StatAt(Libc.AtCwd, PathText.Encode(mountPoint), StatxMask.Basic, out Statx root).IsError
            && !Libc.StatAt(Libc.AtCwd, PathText.Encode(directory + "/."), StatxMask.Basic, out Statx upper).IsError
            && (root.Ino & withoutLayer) == (upper.Ino & withoutLayer);
    }
}
