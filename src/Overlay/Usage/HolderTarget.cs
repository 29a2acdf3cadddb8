using Veneer.Linux;
using Veneer.Overlay.Host;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Usage;

/// <summary>The directory or mount whose holders a user asks for.</summary>
/// <param name="Path">Its full path.</param>
/// <param name="Mount">The mount, if the path is a mount point; otherwise null.</param>
/// <param name="Locked">The directory, if somebody has locked it as overlays lock upper and work; otherwise null.</param>
/// <param name="Held">What its users use.</param>
internal sealed record HolderTarget(string Path, MountEntry? Mount, Place? Locked, HeldObject Held)
{
    /// <summary>Finds the directory or mount at a path, without entering a mount whose server may hang.</summary>
    /// <returns>An error when the path cannot be examined; <see cref="Errno.ENOTDIR"/> when it is not a directory.</returns>
    public static Errno Find(string path, HostMounts mounts, out HolderTarget target)
    {
        target = null!;
        string full = path.StartsWith('/') ? path : $"{Processes.Link("/proc/self/cwd")}/{path}";
        if (full.Length > 1) { full = full.TrimEnd('/'); }
        string plain = Plain(full);
        if (mounts.Spaces[0].Covering(plain) is { } outer && HostMounts.MayHang(outer) && outer.MountPoint != plain)
        {
            target = new HolderTarget(plain, null, null, new HeldObject(outer.Device, Place.InsideOf(outer, plain) ?? "/", -1));
            return Errno.None;
        }
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(full), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None,
            out int opened);
        if (error.IsError) { return error; }
        using var directory = new Fd(opened);
        full = Processes.Link($"/proc/self/fd/{opened}") ?? full;
        error = Libc.StatPlace(opened, Libc.Self, out Statx stat);
        if (error.IsError) { return error; }
        if (mounts.Find(stat.MountId) is not { } entry) { return Errno.ENOENT; }
        target = entry.MountPoint == full
            ? new HolderTarget(full, entry, null, new HeldObject(entry.Device, entry.Root, entry.Id))
            : new HolderTarget(full, null, null, new HeldObject(entry.Device, Place.InsideOf(entry, full) ?? "/", -1));
        if (!HostMounts.MayHang(entry) && !Libc.Reopen(opened, OpenFlags.ReadOnly | OpenFlags.Directory, out int readable).IsError)
        {
            using var lockable = new Fd(readable);
            if (Libc.StatAt(opened, Libc.Self, StatxMask.Basic, out Statx status).IsError || !Libc.TryLockShared(readable).IsError)
            {
                return Errno.None;
            }
            var locked = new Place("", full, -1, status, entry.Device, target.Held.Inside) { Owner = InUseLock.ReadOwner(opened) };
            target = target with { Locked = locked };
        }
        return Errno.None;
    }

    /// <summary>Removes <c>.</c> and <c>..</c> from a path, without following symbolic links.</summary>
    private static string Plain(string path)
    {
        var names = new List<string>();
        foreach (string name in path.Split('/'))
        {
            if (name is "" or ".") { continue; }
            if (name != "..") { names.Add(name); }
            else if (names.Count > 0) { names.RemoveAt(names.Count - 1); }
        }
        return "/" + string.Join('/', names);
    }
}
