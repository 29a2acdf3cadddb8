using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>What mount(8) and umount(8) of util-linux remember of a mount beside what the kernel does, in /run/mount/utab.</summary>
/// <remarks>
/// Given an absolute path, umount(8) asks statfs(2) for the filesystem's type, which is "fuse" whatever follows after
/// the dot, and so finds no helper of that. A mount that is remembered with <c>uhelper=</c> has its helper called in any
/// case. See mount(8), "uhelper".
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

    /// <summary>Has umount(8) call the helper of a type for a mount.</summary>
    /// <param name="source">What is mounted, as mount tables show it.</param>
    /// <param name="target">The mount point, in full.</param>
    /// <param name="type">The type whose helper it is.</param>
    /// <returns>Whether it is remembered: not without the library, nor by those who may not write there.</returns>
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

    /// <summary>Forgets a mount point that is remembered.</summary>
    /// <param name="target">In full.</param>
    public static unsafe void Forget(string target)
    {
        if (!IsRemembered(target) || !IsThere) { return; }
        nint update = mnt_new_update();
        fixed (byte* t = PathText.Encode(target))
        {
            if (mnt_update_set_fs(update, 0, t, 0) == 0) { _ = mnt_update_table(update, 0); } // best effort: what is left there means no other mount
        }
        mnt_free_update(update);
    }

    private static bool IsThere => NativeLibrary.TryLoad(Library, out _);

    /// <summary>Whether a mount point is remembered: it spares those who are not the library.</summary>
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
