using Veneer.Linux;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary>The layers of an overlay that is mounted, by paths that lead there from here.</summary>
internal sealed record MountedLayers(string? UpperDirectory, IReadOnlyList<string> LowerDirectories, bool UserXattr)
{
    /// <summary>Finds them.</summary>
    /// <exception cref="LayerException">It is no overlay, or its layers cannot be told.</exception>
    public static MountedLayers Of(string place)
    {
        Errno error = Target.Find(place, out string path, out MountEntry? mount);
        if (error.IsError)
        {
            throw new LayerException(error switch
            {
                Errno.ENOENT or Errno.ENOTDIR => $"{place} does not exist: name a mount point.",
                Errno.EACCES => $"{place} cannot be reached: ask as the user who mounted it, or as root.",
                _ => $"{place} cannot be looked at ({error}): see whether /proc is mounted.",
            }, error == Errno.EACCES ? ExitCode.Denied : ExitCode.NotAnOverlay);
        }
        if (mount is null) { throw new LayerException($"{path} is not a mount point: name the mount point of an overlay, or its layers with --upper and --lower.", ExitCode.NotAnOverlay); }
        if (KernelOverlay.Of(mount) is { } overlay) { return OfKernel(path, overlay); }
        throw new LayerException($"{path} is a mount of type {mount.Type}, not an overlay: name one, or layers with --upper and --lower.", ExitCode.NotAnOverlay);
    }

    private static MountedLayers OfKernel(string path, KernelOverlay overlay)
    {
        if (overlay.DataDirectories.Count > 0)
        {
            throw new LayerException($"{path} has data-only layers, which Veneer does not support yet: use a mount without.", ExitCode.Failure);
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
