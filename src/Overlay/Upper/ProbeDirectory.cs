using Veneer.Linux;

namespace Veneer.Overlay.Upper;

/// <summary>Where a mount tries things out, and then has what must be on upper's filesystem but is none of its users': a directory of its own in the work directory, beside <c>work</c>.</summary>
/// <remarks>
/// Crash safety. What a killed mount has left is removed by the next. The kernel does not look at it, however deep it is;
/// in <c>work</c> it mounts read-only when it finds more than files and empty directories in a directory there. Kernel:
/// ovl_workdir_cleanup().
/// </remarks>
internal static class ProbeDirectory
{
    /// <summary>Its name in the work directory.</summary>
    public static ReadOnlySpan<byte> Name => "#veneer-probe\0"u8;

    /// <summary>Makes it, empty.</summary>
    /// <param name="workdir">The work directory that the user named.</param>
    public static Errno Make(int workdir)
    {
        Errno error = Libc.MakeDirectoryAt(workdir, Name, 0x1C0); // 0700
        if (error != Errno.EEXIST) { return error; }
        Remove(workdir);
        error = Libc.MakeDirectoryAt(workdir, Name, 0x1C0);
        // A work directory that can only be added to (chattr +a) keeps it, but not what is in it.
        bool isKept = error == Errno.EEXIST && !Libc.StatAt(workdir, Name, StatxMask.Basic, out Statx stat).IsError && stat.IsDirectory;
        return isKept ? Errno.None : error;
    }

    /// <summary>Removes it, with all that is in it.</summary>
    /// <param name="workdir">The work directory that the user named.</param>
    public static void Remove(int workdir)
    {
        // Where an open file leaves a name behind, that goes a moment after the file was closed.
        const int tries = 100;
        for (int i = 0; i < tries; i++)
        {
            Errno error = WorkDirectory.RemoveTree(workdir, Name, 0);
            if (error is not (Errno.ENOTEMPTY or Errno.EEXIST)) { return; } // best effort: the next mount tries again
            Thread.Sleep(1);
        }
    }
}
