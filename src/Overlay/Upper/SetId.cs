using Veneer.Fuse;
using Veneer.Linux;

namespace Veneer.Overlay.Upper;

/// <summary>The set-user-id and set-group-id bits of a file.</summary>
internal static class SetId
{
    /// <summary>
    /// Clears the bits that a write without CAP_FSETID clears. Set-user-id always goes. Set-group-id goes if the group may execute
    /// the file, or if the writer is not in the group. Kernel: file_remove_privs(), setattr_should_drop_sgid().
    /// </summary>
    /// <param name="directory">A descriptor of the directory that has the file, or of the file itself.</param>
    /// <param name="name">The name of the file, with its NUL; empty but for the NUL for the file itself.</param>
    /// <param name="request">The request of the writer, who does not have the capability.</param>
    public static Errno Clear(int directory, ReadOnlySpan<byte> name, in Request request)
    {
        Errno error = Libc.StatAt(directory, name, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error; }
        uint mode = stat.Mode & ModeBits.Mask;
        uint kept = mode & ~ModeBits.SetUid;
        if ((mode & ModeBits.SetGid) != 0 && ((mode & ModeBits.GroupExecute) != 0 || !request.MayBeInGroup(stat.Gid)))
        {
            kept &= ~ModeBits.SetGid;
        }
        return kept == mode ? Errno.None : Libc.ChangeModeAt(directory, name, kept);
    }
}
