using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Host;

namespace Veneer.Overlay.Layers;

/// <summary>Keeps layers from being removed or renamed while they are mounted: rmdir(2) and rename(2) give EBUSY.</summary>
/// <remarks>
/// The kernel refuses both for a directory on which something is mounted in the caller's mount namespace, through any mount
/// that leads to it. So each layer is bind-mounted in a place of our own,
/// <c>/run/veneer/NAMESPACE-NAMESPACE-PID</c> (the mount namespace, the pid namespace), and a mount with the source
/// <c>veneer</c> is put on it there. Where users see the layer nothing changes: mounts below it stay visible, and a new mount
/// there is on the real directory. Other namespaces see none of it, since the place is private. See docs/adr/0016.
/// </remarks>
public sealed class Pin : IDisposable
{
    private const string Home = "/run/veneer";

    private const string NoRight = "The option pin needs the right to mount (CAP_SYS_ADMIN): become root, or mount without pin.";

    /// <summary>How long to wait for another process that makes or removes pins, in milliseconds.</summary>
    private const int Patience = 1000;

    private readonly Fd directory;
    private readonly Fd mounted;

    /// <param name="place">The path of the place.</param>
    /// <param name="directory">The place itself, locked. A namespace without the mount sees only this directory.</param>
    /// <param name="mounted">The root of the filesystem that is mounted there, locked.</param>
    private Pin(string place, Fd directory, Fd mounted)
    {
        Directory = place;
        this.directory = directory;
        this.mounted = mounted;
    }

    /// <summary>The path of the place, for <see cref="Release"/> after this process has ended.</summary>
    public string Directory { get; }

    /// <summary>Pins layers.</summary>
    /// <exception cref="OverlayMountException">The layers cannot be pinned.</exception>
    internal static Pin Hold(IReadOnlyList<Place> layers)
    {
        _ = Libc.MakeDirectoryAt(Libc.AtCwd, PathText.Encode(Home), 0x1C0); // best effort: it may exist; if not, the next call fails
        using Fd? turn = TakeTurn();
        if (turn is not null) { ReleaseAllLeft(); }
        // Containers may share a mount namespace and have the same process ids.
        string place = string.Create(CultureInfo.InvariantCulture,
            $"{Home}/{Host.Processes.NamespaceOf("self", "mnt")}-{Host.Processes.NamespaceOf("self", "pid")}-{Libc.ProcessId}");
        Errno error = Libc.MakeDirectoryAt(Libc.AtCwd, PathText.Encode(place), 0x1C0);
        if (error.IsError && error != Errno.EEXIST)
        {
            throw new OverlayMountException(!Privilege.IsAdministrator((uint)Libc.ProcessId)
                ? NoRight
                : $"The option pin needs the directory {place}, which cannot be made ({error}): mount without pin, or see to {Home}.");
        }
        // The place, and the root of the mount on it, stay locked as long as we live. Otherwise they would be taken for leftovers
        // of a process that was killed.
        error = OpenAndLock(place, out Fd below);
        if (!error.IsError)
        {
            error = Libc.Mount("veneer\0"u8, PathText.Encode(place), "tmpfs\0"u8,
                MountFlags.NoSetUid | MountFlags.NoDevices | MountFlags.NoExecute, "mode=700\0"u8);
        }
        if (error.IsError)
        {
            _ = Libc.RemoveDirectoryAt(Libc.AtCwd, PathText.Encode(place)); // best effort: the next mount removes it
            below.Dispose();
            throw new OverlayMountException(error == Errno.EPERM
                ? NoRight
                : error.Explain($"The option pin cannot mount on {place} ({error}): mount without pin, or see dmesg."));
        }
        error = OpenAndLock(place, out Fd opened);
        try
        {
            if (!error.IsError) { error = Libc.Mount("none\0"u8, PathText.Encode(place), "none\0"u8, MountFlags.Private, "\0"u8); }
            if (!error.IsError) { error = Libc.MakeDirectoryAt(Libc.AtCwd, PathText.Encode(place + "/pin"), 0x1C0); }
            for (int i = 0; i < layers.Count && !error.IsError; i++)
            {
                byte[] target = PathText.Encode(string.Create(CultureInfo.InvariantCulture,
                    $"{place}/{layers[i].Role}{(layers[i].Role == "lower" ? $"{i}" : "")}"));
                error = Libc.MakeDirectoryAt(Libc.AtCwd, target, 0x1C0);
                if (!error.IsError)
                {
                    error = Libc.Mount(PathText.Encode($"/proc/self/fd/{layers[i].Descriptor}"), target, "none\0"u8, MountFlags.Bind,
                        "\0"u8);
                }
                if (!error.IsError) { error = Libc.Mount("none\0"u8, target, "none\0"u8, MountFlags.Private, "\0"u8); }
                // The pin is mounted on the layer's own directory, through a path that leads only there.
                if (!error.IsError) { error = Libc.Mount(PathText.Encode(place + "/pin"), target, "none\0"u8, MountFlags.Bind, "\0"u8); }
                if (error.IsError)
                {
                    throw new OverlayMountException($"The {layers[i]} cannot be pinned ({error}): mount without pin, or see dmesg.");
                }
            }
            if (error.IsError)
            {
                throw new OverlayMountException(error.Explain(
                    $"The option pin cannot use {place} ({error}): mount without pin, or see dmesg."));
            }
            return new Pin(place, below, opened);
        }
        catch
        {
            opened.Dispose();
            Release(place);
            below.Dispose();
            throw;
        }
    }

    /// <summary>Opens and locks a directory; the descriptor is -1 when that fails.</summary>
    /// <returns><see cref="Errno.EAGAIN"/> when another process has locked it.</returns>
    private static Errno OpenAndLock(string path, out Fd directory)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None,
            out int descriptor);
        directory = new Fd(error.IsError ? -1 : descriptor);
        if (!error.IsError) { error = Libc.TryLockExclusive(descriptor); }
        if (error.IsError) { directory.Dispose(); }
        return error;
    }

    /// <summary>Removes the pins that killed processes have left in this mount namespace.</summary>
    public static void ReleaseLeftovers()
    {
        using Fd? turn = TakeTurn();
        if (turn is not null) { ReleaseAllLeft(); } // otherwise the next mount removes them
    }

    /// <summary>
    /// Locks the home of all pins. Between the mount of a place and the lock on it, no process may take it for a leftover.
    /// </summary>
    /// <returns>Null when there is no such directory, or another process has held the lock for too long.</returns>
    private static Fd? TakeTurn()
    {
        if (Libc.OpenAt(Libc.AtCwd, PathText.Encode(Home), OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None,
            out int descriptor).IsError)
        {
            return null;
        }
        var home = new Fd(descriptor);
        long deadline = Environment.TickCount64 + Patience;
        while (Libc.TryLockExclusive(descriptor).IsError)
        {
            if (Environment.TickCount64 >= deadline)
            {
                home.Dispose();
                return null;
            }
            Thread.Sleep(5);
        }
        return home;
    }

    /// <summary>Removes all leftover pins. Caller has locked <see cref="Home"/>.</summary>
    private static void ReleaseAllLeft()
    {
        if (MountTable.Read(out List<MountEntry> table).IsError) { return; }
        foreach (MountEntry entry in table)
        {
            if (entry.Source != "veneer" || entry.Type != "tmpfs" || entry.Root != "/" || !IsPlace(entry.MountPoint)) { continue; }
            bool isFree = !OpenAndLock(entry.MountPoint, out Fd place).IsError;
            place.Dispose();
            if (isFree) { Release(entry.MountPoint); }
        }
        // Directories may remain whose mount namespace is gone. Removing a directory whose namespace still exists would remove
        // the pins there.
        if (Libc.OpenAt(Libc.AtCwd, PathText.Encode(Home), OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None,
            out int home).IsError)
        {
            return;
        }
        using var opened = new Fd(home);
        using var reader = new DirectoryReader(home);
        var names = new List<string>();
        while (reader.MoveNext()) { names.Add(PathText.Decode(reader.Name)); }
        foreach (string name in names)
        {
            string path = $"{Home}/{name}";
            if (name is "." or ".." || table.Exists(entry => entry.MountPoint == path) || OpenAndLock(path, out Fd place).IsError)
            {
                continue;
            }
            _ = Libc.RemoveDirectoryAt(Libc.AtCwd, PathText.Encode(path)); // best effort: an empty directory is in nobody's way
            place.Dispose();
        }
    }

    /// <summary>Whether a mount point lies in a place of ours.</summary>
    internal static bool IsIn(string mountPoint) => mountPoint.StartsWith(Home + "/", StringComparison.Ordinal);

    private static bool IsPlace(string path) =>
        path.StartsWith(Home + "/", StringComparison.Ordinal) && path.LastIndexOf('/') == Home.Length;

    /// <summary>Removes the pins of a process, with everything that is mounted in its place.</summary>
    /// <param name="place">The value of <see cref="Directory"/>. Any other path is left alone.</param>
    public static void Release(string place)
    {
        if (!IsPlace(place)) { return; }
        // The directory is removed only after the unmount, since its removal unmounts whatever is mounted on it in other namespaces.
        if (!Libc.Unmount(PathText.Encode(place), lazy: true).IsError)
        {
            _ = Libc.RemoveDirectoryAt(Libc.AtCwd, PathText.Encode(place)); // best effort: an empty directory is in nobody's way
        }
    }

    /// <summary>Removes the pins of this process.</summary>
    public void Dispose()
    {
        if (mounted.Value < 0) { return; }
        Release(Directory);
        mounted.Dispose();
        directory.Dispose();
    }
}
