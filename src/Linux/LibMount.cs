using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>
/// Registers mounts in /run/mount/utab, where mount(8) and umount(8) of util-linux keep what the kernel does not.
/// </summary>
/// <remarks>
/// Given an absolute path, umount(8) asks statfs(2) for the filesystem's type. That is "fuse" whatever follows the dot, so
/// umount(8) does not find the helper of a subtype. For a mount that is registered with <c>uhelper=</c>, umount(8) always
/// calls that helper. See mount(8), "uhelper".
/// </remarks>
public static partial class LibMount
{
    private const string Library = "libmount.so.1";

    [LibraryImport(Library)]
    private static partial nint mnt_new_fs();

    [LibraryImport(Library)]
    private static partial void mnt_unref_fs(nint entry);

    [LibraryImport(Library)]
    private static unsafe partial int mnt_fs_set_source(nint entry, byte* source);

    [LibraryImport(Library)]
    private static unsafe partial int mnt_fs_set_target(nint entry, byte* target);

    [LibraryImport(Library)]
    private static unsafe partial int mnt_fs_set_root(nint entry, byte* root);

    [LibraryImport(Library)]
    private static unsafe partial int mnt_fs_set_options(nint entry, byte* options);

    [LibraryImport(Library)]
    private static partial nint mnt_new_update();

    [LibraryImport(Library)]
    private static partial void mnt_free_update(nint update);

    [LibraryImport(Library)]
    private static unsafe partial int mnt_update_set_fs(nint update, ulong flags, byte* target, nint entry);

    [LibraryImport(Library)]
    private static partial int mnt_update_table(nint update, nint locked);

    /// <summary>Registers a mount, so that umount(8) calls the helper of its type.</summary>
    /// <param name="source">The source of the mount, as mount tables show it.</param>
    /// <param name="target">The mount point, an absolute path.</param>
    /// <param name="type">The filesystem type whose helper to call.</param>
    /// <returns>Whether the mount was registered. False without libmount, and for a user who may not write to /run/mount.</returns>
    public static unsafe bool Remember(string source, string target, string type)
    {
        if (!IsThere) { return false; }
        nint entry = mnt_new_fs();
        nint update = mnt_new_update();
        fixed (byte* s = PathText.Encode(source), t = PathText.Encode(target), r = "/\0"u8, o = PathText.Encode($"uhelper={type}"))
        {
            bool isSet = mnt_fs_set_source(entry, s) == 0 && mnt_fs_set_target(entry, t) == 0 && mnt_fs_set_root(entry, r) == 0
                && mnt_fs_set_options(entry, o) == 0 && mnt_update_set_fs(update, 0, null, entry) == 0 && mnt_update_table(update, 0) == 0;
            mnt_free_update(update);
            mnt_unref_fs(entry);
            return isSet;
        }
    }

    /// <summary>Removes the registration of a mount point, if there is one.</summary>
    /// <param name="target">The mount point, an absolute path.</param>
    public static unsafe void Forget(string target)
    {
        if (!IsRemembered(target) || !IsThere) { return; }
        nint update = mnt_new_update();
        fixed (byte* t = PathText.Encode(target))
        {
            // best effort: a stale line refers to no other mount
            if (mnt_update_set_fs(update, 0, t, 0) == 0) { _ = mnt_update_table(update, 0); }
        }
        mnt_free_update(update);
    }

    private static bool IsThere => NativeLibrary.TryLoad(Library, out _);

    /// <summary>Whether a mount point is registered. Where none is, libmount need not be loaded.</summary>
    private static bool IsRemembered(string target)
    {
        if (Libc.ReadWhole("/run/mount/utab\0"u8, out byte[] table).IsError) { return false; }
        ReadOnlySpan<byte> rest = table;
        while (rest.Length > 0)
        {
            ReadOnlySpan<byte> line = MountTable.NextLine(ref rest);
            foreach (Range field in line.Split((byte)' '))
            {
                if (line[field].StartsWith("TARGET="u8) && MountTable.Unescape(line[field][7..]) == target) { return true; }
            }
        }
        return false;
    }
}
