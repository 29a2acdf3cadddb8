using System.Buffers.Text;
using System.Text;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>Reads from /proc what a request does not tell about the caller's thread. See proc_pid_status(5).</summary>
internal static class CallerStatus
{
    /// <summary>
    /// Whether the signal that interrupted the caller is deadly. The kernel then has SIGKILL pending for every thread.
    /// </summary>
    /// <remarks>
    /// With any other signal the call goes on, as in kernel overlayfs (signal_pending_state(TASK_KILLABLE)): programs do
    /// not expect EINTR from opening a file.
    /// </remarks>
    /// <param name="pid">The caller's thread. A thread that no longer exists counts as killed.</param>
    public static bool WasKilled(uint pid) =>
        !TryRead(pid, out ReadOnlySpan<byte> status) || IsPending(status, "SigPnd:\t"u8) || IsPending(status, "ShdPnd:\t"u8);

    /// <summary>Finds whether a group is among the caller's supplementary groups.</summary>
    /// <param name="pid">The caller's thread.</param>
    /// <param name="gid">The group, as numbered in our user namespace.</param>
    /// <param name="has">Whether the caller has the group.</param>
    /// <returns>False when it cannot be determined.</returns>
    public static bool TryFindGroup(uint pid, uint gid, out bool has)
    {
        has = false;
        ReadOnlySpan<byte> groups = TryRead(pid, out ReadOnlySpan<byte> status)
            ? Field(status, "Groups:\t"u8).TrimStart((byte)' ')
            : default;
        while (Utf8Parser.TryParse(groups, out uint group, out int used))
        {
            has |= group == gid;
            groups = groups[used..].TrimStart((byte)' ');
        }
        return groups.StartsWith("\n"u8);
    }

    private static bool TryRead(uint pid, out ReadOnlySpan<byte> status)
    {
        bool isRead = !Libc.ReadWhole(Encoding.ASCII.GetBytes($"/proc/{pid}/status\0"), out byte[] content).IsError;
        status = content;
        return isRead;
    }

    /// <summary>The text after a field's name, which begins a line; empty when there is no such field.</summary>
    private static ReadOnlySpan<byte> Field(ReadOnlySpan<byte> status, ReadOnlySpan<byte> name)
    {
        int at = status.IndexOf(name);
        return at < 0 ? default : status[(at + name.Length)..];
    }

    private static bool IsPending(ReadOnlySpan<byte> status, ReadOnlySpan<byte> field)
    {
        const ulong sigKill = 1UL << (9 - 1);
        return Utf8Parser.TryParse(Field(status, field), out ulong set, out _, 'x') && (set & sigKill) != 0;
    }
}
