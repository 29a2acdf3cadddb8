using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Host;

namespace Veneer.Overlay.Layers;

/// <summary>Keeps layers from being removed or renamed while they are mounted: rmdir(2) and rename(2) give EBUSY.</summary>
/// <remarks>
/// The kernel refuses both for a directory on which something is mounted in the caller's mount namespace, through
/// whatever mount it is reached. So each layer is bind-mounted in a place of our own, <c>/run/veneer/NAMESPACE-NAMESPACE-PID</c> (of mounts, of pids), and
/// a mount with the source <c>veneer</c> is put on it there. Where users see the layer nothing is different: what is mounted
/// below it stays visible, and whoever mounts something there has it on the real directory. Other namespaces get none of
/// it: the place is private. See docs/adr/0016.
/// </remarks>
public sealed class Pin : IDisposable
{
    private const string Home = "/run/veneer";

    /// <summary>How long to wait for another process that makes or removes pins, in milliseconds.</summary>
    private const int Patience = 1000;

    private readonly Fd directory;
    private readonly Fd mounted;

    /// <param name="place">The path of both.</param>
    /// <param name="directory">The place itself, locked: a namespace without the mount shows only this.</param>
    /// <param name="mounted">What is mounted there, locked.</param>
    private Pin(string place, Fd directory, Fd mounted)
    {
        Directory = place;
        this.directory = directory;
        this.mounted = mounted;
    }

    /// <summary>The place, to be given to <see cref="Release"/> when this process is gone.</summary>
    public string Directory { get; }

    /// <summary>Pins layers.</summary>
    /// <exception cref="OverlayMountException">They cannot be pinned.</exception>
    internal static Pin Hold(IReadOnlyList<Place> layers)
    {
        _ = Libc.MakeDirectoryAt(Libc.AtCwd, PathText.Encode(Home), 0x1C0); // there already, or the next one says why not
        using Fd? turn = TakeTurn();
        if (turn is not null) { ReleaseAllLeft(); }
        // Containers may share a mount namespace and have the same process ids.
        string place = string.Create(CultureInfo.InvariantCulture, $"{Home}/{Host.Processes.NamespaceOf("self", "mnt")}-{Host.Processes.NamespaceOf("self", "pid")}-{Libc.ProcessId}");
        Errno error = Libc.MakeDirectoryAt(Libc.AtCwd, PathText.Encode(place), 0x1C0);
        if (error.IsError && error != Errno.EEXIST) { throw new OverlayMountException($"The option pin needs the directory {place}, which cannot be made ({error}): mount without pin, or see to {Home}."); }
        // Both locked as long as we live, or they would be taken for what a process has left that was killed.
        error = OpenAndLock(place, out Fd below);
        if (!error.IsError) { error = Libc.Mount("veneer\0"u8, PathText.Encode(place), "tmpfs\0"u8, MountFlags.NoSetUid | MountFlags.NoDevices | MountFlags.NoExecute, "mode=700\0"u8); }
        if (error.IsError)
        {
            _ = Libc.RemoveDirectoryAt(Libc.AtCwd, PathText.Encode(place)); // best effort: the next one does
            below.Dispose();
            throw new OverlayMountException(error == Errno.EPERM
                ? "The option pin needs the right to mount (CAP_SYS_ADMIN): become root, or mount without pin."
                : $"The option pin cannot mount on {place} ({error}): mount without pin, or see dmesg.");
        }
        error = OpenAndLock(place, out Fd opened);
        try
        {
            if (!error.IsError) { error = Libc.Mount("none\0"u8, PathText.Encode(place), "none\0"u8, MountFlags.Private, "\0"u8); }
            if (!error.IsError) { error = Libc.MakeDirectoryAt(Libc.AtCwd, PathText.Encode(place + "/pin"), 0x1C0); }
            for (int i = 0; i < layers.Count && !error.IsError; i++)
            {
                byte[] target = PathText.Encode(string.Create(CultureInfo.InvariantCulture, $"{place}/{layers[i].Role}{(layers[i].Role == "lower" ? $"{i}" : "")}"));
                error = Libc.MakeDirectoryAt(Libc.AtCwd, target, 0x1C0);
                if (!error.IsError) { error = Libc.Mount(PathText.Encode($"/proc/self/fd/{layers[i].Descriptor}"), target, "none\0"u8, MountFlags.Bind, "\0"u8); }
                if (!error.IsError) { error = Libc.Mount("none\0"u8, target, "none\0"u8, MountFlags.Private, "\0"u8); }
                // On the layer's own directory, by the way that only leads there.
                if (!error.IsError) { error = Libc.Mount(PathText.Encode(place + "/pin"), target, "none\0"u8, MountFlags.Bind, "\0"u8); }
                if (error.IsError) { throw new OverlayMountException($"The {layers[i]} cannot be pinned ({error}): mount without pin, or see dmesg."); }
            }
            if (error.IsError) { throw new OverlayMountException($"The option pin cannot use {place} ({error}): mount without pin, or see dmesg."); }
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
    /// <returns><see cref="Errno.EAGAIN"/> when somebody else has it locked.</returns>
    private static Errno OpenAndLock(string path, out Fd directory)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int descriptor);
        directory = new Fd(error.IsError ? -1 : descriptor);
        if (!error.IsError) { error = Libc.TryLockExclusive(descriptor); }
        if (error.IsError) { directory.Dispose(); }
        return error;
    }

    /// <summary>Takes away what a process that was killed has left in this mount namespace.</summary>
    public static void ReleaseLeftovers()
    {
        using Fd? turn = TakeTurn();
        if (turn is not null) { ReleaseAllLeft(); } // else the next one does
    }

    /// <summary>Locks the home of all pins: between the mount of a place and the lock on it, nobody must take it for a leftover.</summary>
    /// <returns>Null when there is none, or when somebody has had the lock for too long.</returns>
    private static Fd? TakeTurn()
    {
        if (Libc.OpenAt(Libc.AtCwd, PathText.Encode(Home), OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int descriptor).IsError) { return null; }
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

    /// <summary>Caller has the turn.</summary>
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
        // What is left of those whose mount namespace is gone. To remove one of a namespace that lives would take the pins from it.
        if (Libc.OpenAt(Libc.AtCwd, PathText.Encode(Home), OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int home).IsError) { return; }
        using var opened = new Fd(home);
        using var reader = new DirectoryReader(home);
        var names = new List<string>();
        while (reader.MoveNext()) { names.Add(PathText.Decode(reader.Name)); }
        foreach (string name in names)
        {
            string path = $"{Home}/{name}";
            if (name is "." or ".." || table.Exists(entry => entry.MountPoint == path) || OpenAndLock(path, out Fd place).IsError) { continue; }
            _ = Libc.RemoveDirectoryAt(Libc.AtCwd, PathText.Encode(path)); // best effort: an empty directory is in nobody's way
            place.Dispose();
        }
    }

    /// <summary>Whether a mount point lies in a place of ours.</summary>
    internal static bool IsIn(string mountPoint) => mountPoint.StartsWith(Home + "/", StringComparison.Ordinal);

    private static bool IsPlace(string path) => path.StartsWith(Home + "/", StringComparison.Ordinal) && path.LastIndexOf('/') == Home.Length;

    /// <summary>Takes away the pins of a process, with all that is mounted in their place.</summary>
    /// <param name="place">As <see cref="Directory"/> has it; anything else is left alone.</param>
    public static void Release(string place)
    {
        if (!IsPlace(place)) { return; }
        // Only after the unmount: to remove a directory unmounts what is mounted on it in other namespaces.
        if (!Libc.Unmount(PathText.Encode(place), lazy: true).IsError) { _ = Libc.RemoveDirectoryAt(Libc.AtCwd, PathText.Encode(place)); } // best effort: an empty directory is in nobody's way
    }

    /// <summary>Lets the layers go.</summary>
    public void Dispose()
    {
        if (mounted.Value < 0) { return; }
        Release(Directory);
        mounted.Dispose();
        directory.Dispose();
    }
}
