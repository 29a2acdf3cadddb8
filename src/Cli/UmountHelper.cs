using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>Makes umount(8) call our helper, which returns when the layers are free.</summary>
/// <remarks>
/// umount(8) finds the helper of a mount by its type. For an absolute path it gets the type from statfs(2), which says
/// "fuse" only: so the mount is registered with libmount. Without an installed helper, nothing is registered.
/// </remarks>
internal static class UmountHelper
{
    private const string Type = "fuse.veneer";

    /// <summary>Registers a mount, if this process is root's and the helper is installed.</summary>
    /// <param name="path">The mount point's full name.</param>
    public static void Register(string path)
    {
        if (Libc.EffectiveUid != 0 || !IsInstalled()) { return; }
        if (Target.Find(path, out _, out MountEntry? mount).IsError || mount is not { Type: Type }) { return; }
        // best effort: otherwise umount(8) returns a moment before the layers are free
        _ = LibMount.Remember(mount.Source, mount.MountPoint, Type);
    }

    /// <summary>Removes the registration, for a mount that was not unmounted by umount(8).</summary>
    /// <param name="path">The mount point's full name.</param>
    public static void Withdraw(string path)
    {
        if (Libc.EffectiveUid == 0) { LibMount.Forget(path); }
    }

    private static bool IsInstalled() =>
        !Libc.StatAt(Libc.AtCwd, "/sbin/umount.fuse.veneer\0"u8, StatxMask.Basic, out _).IsError;
}
