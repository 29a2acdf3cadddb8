using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>Asks the kernel whether a mount is in use, as umount(2) would find it, and unmounts nothing.</summary>
/// <remarks>
/// MNT_EXPIRE marks a mount that is not in use, and unmounts it when it has the mark already. Opening the mount takes the
/// mark away, which is done before and after. Two who ask at once would unmount it between them: so who asks holds a
/// lock on the mount namespace's file, without which the mount is in nobody's reach.
/// </remarks>
internal static class BusyProbe
{
    /// <summary>How often a mount that is in use is looked at again: somebody may have been passing by.</summary>
    private const int Attempts = 10;

    /// <summary>How long to wait before that, and for another one who asks, in milliseconds.</summary>
    private const int Pause = 20, Patience = 2000;

    /// <summary>Asks.</summary>
    /// <param name="mountPoint">Where the mount is seen in this process's namespace; nothing of it may be open here.</param>
    /// <returns>Null when that cannot be told: without the right to unmount, or for the root of this process.</returns>
    public static bool? IsBusy(string mountPoint)
    {
        if (Libc.OpenAt(Libc.AtCwd, "/proc/self/ns/mnt\0"u8, OpenFlags.ReadOnly, 0, ResolveFlags.None, out int opened).IsError) { return null; }
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
            _ = TakeMark(path); // cannot fail: it has been opened just now
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
