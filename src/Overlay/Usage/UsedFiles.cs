using Veneer.Linux;
using Veneer.Overlay.Host;

namespace Veneer.Overlay.Usage;

/// <summary>A file that a process uses, and its place.</summary>
/// <param name="Use">The file, and how the process uses it.</param>
/// <param name="Device">The device number of its filesystem, as in mountinfo.</param>
/// <param name="Inside">Its path from the filesystem's root, or null when it is unknown.</param>
internal readonly record struct UsedFile(FileUse Use, string Device, string? Inside);

/// <summary>The files that a process uses, each once.</summary>
/// <param name="mounts">The mounts of the machine.</param>
internal sealed class UsedFiles(HostMounts mounts)
{
    private readonly List<UsedFile> files = [];
    private readonly HashSet<FileUse> seen = [];
    private readonly List<(FileUse Use, int MountId)> revoked = [];

    /// <summary>The files whose filesystem is known.</summary>
    public IReadOnlyList<UsedFile> All => files;

    /// <summary>Whether a file is among them already.</summary>
    public bool Has(FileUse use) => seen.Contains(use);

    /// <summary>Adds the file to which a link in /proc leads, if it is one.</summary>
    /// <param name="use">How the process uses the file.</param>
    /// <param name="descriptor">The process's descriptor of it, or -1.</param>
    /// <param name="path">The path of the link.</param>
    public void AddLink(string use, int descriptor, string path)
    {
        if (Processes.Link(path) is not { } target || !target.StartsWith('/')) { return; }
        if (Libc.StatPlace(Libc.AtCwd, PathText.Encode(path), out Statx stat).IsError)
        {
            // The file may be of an overlay that was shut down.
            if (descriptor >= 0 && Processes.MountIdOf(path.Replace("/fd/", "/fdinfo/", StringComparison.Ordinal)) is { } id)
            {
                revoked.Add((new FileUse(use, descriptor, target), id));
            }
            return;
        }
        (string device, string? inside) = mounts.PlaceOf(stat, target);
        Add(new UsedFile(new FileUse(use, descriptor, target), device, inside));
    }

    /// <summary>Adds a file of which only the path is known, if it is on any mount.</summary>
    /// <param name="use">The file, and how the process uses it.</param>
    /// <param name="space">The mount namespace of the process.</param>
    public void AddPath(FileUse use, ulong space)
    {
        (string? device, string? inside) = PlaceOf(use.Path, space);
        if (device is not null) { Add(new UsedFile(use, device, inside)); }
    }

    /// <summary>Adds a file of a known filesystem. The path counts only if it leads to that filesystem.</summary>
    /// <param name="use">The file, and how the process uses it.</param>
    /// <param name="path">The file's path in the mount namespace.</param>
    /// <param name="device">The device number of its filesystem, as in mountinfo.</param>
    /// <param name="space">The mount namespace of the process.</param>
    public void AddOnDevice(FileUse use, string path, string device, ulong space)
    {
        (string? there, string? inside) = PlaceOf(path, space);
        Add(new UsedFile(use, device, there == device ? inside : null));
    }

    /// <summary>Adds the files of which the kernel tells nothing but their mount id.</summary>
    /// <param name="devices">The devices of mounts that may be in no table any more, by mount id.</param>
    public void AddRevoked(IReadOnlyDictionary<int, string> devices)
    {
        foreach ((FileUse use, int id) in revoked)
        {
            if (mounts.Find((ulong)id) is { } mount) { Add(new UsedFile(use, mount.Device, Place.InsideOf(mount, use.Path))); }
            else if (devices.TryGetValue(id, out string? device)) { Add(new UsedFile(use, device, null)); }
        }
    }

    private void Add(UsedFile file)
    {
        if (seen.Add(file.Use)) { files.Add(file); }
    }

    /// <summary>Finds where a path of a mount namespace leads, by the mount table alone.</summary>
    private (string? Device, string? Inside) PlaceOf(string path, ulong space) =>
        mounts.Space(space)?.Covering(path) is { } covering ? (covering.Device, Place.InsideOf(covering, path)) : (null, null);
}
