using Veneer.Fuse;
using Veneer.Linux;

namespace Veneer.Overlay.Upper;

/// <summary>The set-user-id and set-group-id bits of a file.</summary>
internal static class SetId
{
    /// <summary>Takes away what the kernel does when somebody without CAP_FSETID writes: set-user-id; set-group-id where the group may execute, or for whoever is not in it. Kernel: file_remove_privs(), setattr_should_drop_sgid()</summary>
    /// <param name="directory">Where the name is.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="request">Who writes, without that capability.</param>
    public static Errno Clear(int directory, ReadOnlySpan<byte> name, in Request request)
    {
        Errno error = Libc.StatAt(directory, name, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error; }
        uint mode = stat.Mode & ModeBits.Mask;
        uint kept = mode & ~ModeBits.SetUid;
        if ((mode & ModeBits.SetGid) != 0 && ((mode & ModeBits.GroupExecute) != 0 || !request.MayBeInGroup(stat.Gid))) { kept &= ~ModeBits.SetGid; }
        return kept == mode ? Errno.None : Libc.ChangeModeAt(directory, name, kept);
    }
}
