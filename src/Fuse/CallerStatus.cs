using System.Buffers.Text;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>Whether the signal that interrupted a caller is deadly: the kernel then has SIGKILL pending for every thread.</summary>
/// <remarks>
/// Any other signal lets a call go on, as in kernel overlayfs (signal_pending_state(TASK_KILLABLE)): programs do not
/// expect EINTR from opening a file.
/// </remarks>
internal static class Killed
{
    /// <param name="pid">The caller's thread. One that is not there any more is dead.</param>
    public static bool Was(uint pid)
    {
        Span<byte> path = stackalloc byte[32];
        "/proc/"u8.CopyTo(path);
        _ = Utf8Formatter.TryFormat(pid, path[6..], out int digits); // cannot fail: 10 digits fit
        "/status\0"u8.CopyTo(path[(6 + digits)..]);
        if (Libc.OpenAt(Libc.AtCwd, path, OpenFlags.ReadOnly, 0, ResolveFlags.None, out int descriptor).IsError) { return true; }
        Span<byte> text = stackalloc byte[4096];
        Errno error = Libc.Read(descriptor, text, out int count);
        Libc.Close(descriptor);
        if (error.IsError) { return true; }
        return IsPending(text[..count], "SigPnd:\t"u8) || IsPending(text[..count], "ShdPnd:\t"u8);
    }

    private static bool IsPending(ReadOnlySpan<byte> status, ReadOnlySpan<byte> field)
    {
        const ulong sigKill = 1UL << (9 - 1);
        int at = status.IndexOf(field);
        if (at < 0) { return false; }
        return Utf8Parser.TryParse(status[(at + field.Length)..], out ulong set, out _, 'x') && (set & sigKill) != 0;
    }
}
