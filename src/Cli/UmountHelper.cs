using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>Sees to it that umount(8) calls our helper, which returns when the layers are free.</summary>
/// <remarks>
/// It finds the helper of a mount by the mount's type. Of an absolute path it learns the type from statfs(2), which says
/// "fuse": so the mount is registered with its library. Where no helper is installed there is nothing to find.
/// </remarks>
internal static class UmountHelper
{
    private const string Type = "fuse.veneer";

    /// <summary>Registers a mount, if it is root's.</summary>
    /// <param name="path">The mount point's full name.</param>
    public static void Register(string path)
    {
        if (Libc.EffectiveUid != 0 || !IsInstalled()) { return; }
        if (Target.Find(path, out _, out MountEntry? mount).IsError || mount is not { Type: Type }) { return; }
        _ = LibMount.Remember(mount.Source, mount.MountPoint, Type); // best effort: umount(8) then returns a moment before the layers are free
    }

    /// <summary>Takes a registration back, for those who unmount without umount(8).</summary>
    /// <param name="path">The mount point's full name.</param>
    public static void Withdraw(string path)
    {
        if (Libc.EffectiveUid == 0) { LibMount.Forget(path); }
    }

    private static bool IsInstalled() =>
        !Libc.StatAt(Libc.AtCwd, "/sbin/umount.fuse.veneer\0"u8, StatxMask.Basic, out _).IsError;
}
