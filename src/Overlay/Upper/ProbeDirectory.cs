using Veneer.Linux;

namespace Veneer.Overlay.Upper;

/// <summary>
/// A directory in the work directory, beside <c>work</c>, in which a mount probes upper's filesystem. Later it holds files that
/// must be on upper's filesystem, but that users must not see.
/// </summary>
/// <remarks>
/// Crash safety. The next mount removes what a killed server has left. The kernel does not look at the directory, however deep
/// it is. In <c>work</c> it would: if a directory there contains more than files and empty directories, the kernel mounts
/// read-only. Kernel: ovl_workdir_cleanup().
/// </remarks>
internal static class ProbeDirectory
{
    /// <summary>The name of the directory in the work directory.</summary>
    public static ReadOnlySpan<byte> Name => "#veneer-probe\0"u8;

    /// <summary>Makes the directory, or empties an existing one.</summary>
    /// <param name="workdir">A descriptor of the work directory that the user named.</param>
    public static Errno Make(int workdir)
    {
        Errno error = Libc.MakeDirectoryAt(workdir, Name, 0x1C0); // 0700
        if (error != Errno.EEXIST) { return error; }
        Remove(workdir);
        error = Libc.MakeDirectoryAt(workdir, Name, 0x1C0);
        // An append-only work directory (chattr +a) keeps the directory, but not what was in it.
        bool isKept = error == Errno.EEXIST
            && !Libc.StatAt(workdir, Name, StatxMask.Basic, out Statx stat).IsError && stat.IsDirectory;
        return isKept ? Errno.None : error;
    }

    /// <summary>Removes the directory, with all that is in it.</summary>
    /// <param name="workdir">A descriptor of the work directory that the user named.</param>
    public static void Remove(int workdir)
    {
        // Some filesystems give an open file that is unlinked another name, which goes a moment after the file was closed.
        const int tries = 100;
        for (int i = 0; i < tries; i++)
        {
            Errno error = WorkDirectory.RemoveTree(workdir, Name, 0);
            if (error is not (Errno.ENOTEMPTY or Errno.EEXIST)) { return; } // best effort: the next mount tries again
            Thread.Sleep(1);
        }
    }
}
