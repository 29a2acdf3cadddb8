using Veneer.Linux;

namespace Veneer.Overlay.Usage;

/// <summary>Asks the kernel whether a mount is in use, as umount(2) would find, without unmounting it.</summary>
/// <remarks>
/// MNT_EXPIRE marks a mount that is not in use, and unmounts it if it is marked already. Opening the mount removes the
/// mark, which is done before and after. Two probes at once would unmount the mount between them. So a probe holds a lock
/// on the file of its mount namespace; the mount is not reachable from any other namespace.
/// </remarks>
internal static class BusyProbe
{
    /// <summary>How often a mount that is in use is probed again: a process may only be passing by.</summary>
    private const int Attempts = 10;

    /// <summary>How long to wait before that, and at most for another probe, in milliseconds.</summary>
    private const int Pause = 20, Patience = 2000;

    /// <summary>Probes a mount.</summary>
    /// <param name="mountPoint">The mount point in this process's namespace. Nothing in it may be open here.</param>
    /// <returns>Null when it cannot be determined: without the right to unmount, or for the root of this process.</returns>
    public static bool? IsBusy(string mountPoint)
    {
        if (Libc.OpenAt(Libc.AtCwd, "/proc/self/ns/mnt\0"u8, OpenFlags.ReadOnly, 0, ResolveFlags.None, out int opened).IsError)
        {
            return null;
        }
        using var space = new Fd(opened);
        for (long end = Environment.TickCount64 + Patience; Libc.TryLockExclusive(opened).IsError;)
        {
            if (Environment.TickCount64 > end) { return null; }
            Thread.Sleep(1);
        }
        byte[] path = PathText.Encode(mountPoint);
        for (int attempt = 0; ; attempt++)
        {
            if (!TakeMark(path)) { return null; }
            Errno error = Libc.MarkExpired(path);
            if (error == Errno.EBUSY)
            {
                if (attempt == Attempts) { return true; }
                Thread.Sleep(Pause);
                continue;
            }
            _ = TakeMark(path); // cannot fail: the mount has been opened just now
            return error == Errno.EAGAIN ? false : null;
        }
    }

    private static bool TakeMark(byte[] path)
    {
        if (Libc.OpenAt(Libc.AtCwd, path, OpenFlags.Path, 0, ResolveFlags.None, out int mount).IsError) { return false; }
        Libc.Close(mount);
        return true;
    }
}
