using Veneer.Linux;

namespace Veneer.Overlay.Upper;

/// <summary>The set-user-id and set-group-id bits of a file.</summary>
internal static class SetId
{
    /// <summary>Takes away set-user-id, and set-group-id where the group may execute, as the kernel does when somebody without privilege writes (file_remove_privs()).</summary>
    public static Errno Clear(int directory, ReadOnlySpan<byte> name)
    {
        Errno error = Libc.StatAt(directory, name, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error; }
        uint kept = stat.Mode & ModeBits.Mask & ~ModeBits.SetUid;
        if ((stat.Mode & ModeBits.GroupExecute) != 0) { kept &= ~ModeBits.SetGid; }
        return kept == (stat.Mode & ModeBits.Mask) ? Errno.None : Libc.ChangeModeAt(directory, name, kept);
    }
}
