using System.Globalization;
using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay.Host;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Live;

/// <summary>The attribute of the root that tells our own commands which process serves the mount.</summary>
/// <param name="hasUpper">Whether there is an upper.</param>
internal sealed class ServerAttribute(bool hasUpper)
{
    private readonly byte[] identity = ReadIdentity(hasUpper);

    /// <summary>On the root, for our own commands: which process serves the mount, and whether it can be written; in no list.</summary>
    private static ReadOnlySpan<byte> Name => "user.veneer.server\0"u8;

    /// <summary>Whether the caller is in the server's pid namespace, where he sees its process anyhow. To others its number means nothing, or tells of the host.</summary>
    /// <param name="caller">0: he is in none below that of the mount.</param>
    private static bool SharesProcesses(uint caller) =>
        caller != 0 && Processes.NamespaceOf(caller.ToString(CultureInfo.InvariantCulture), "pid") is var his and > 0 && his == Processes.NamespaceOf("self", "pid");

    /// <summary>Whether an attribute is this one.</summary>
    /// <param name="nodeId">Of the inode that is asked.</param>
    /// <param name="attribute">With its NUL.</param>
    public static bool Is(ulong nodeId, ReadOnlySpan<byte> attribute) => nodeId == InodeTable.RootId && attribute.SequenceEqual(Name);

    /// <summary>Its value, for those who may know it.</summary>
    public Errno Get(in Request request, Span<byte> value, out int size)
    {
        size = 0;
        return SharesProcesses(request.Header.Pid) ? Read(value, out size) : Errno.ENODATA;
    }

    private Errno Read(Span<byte> value, out int size)
    {
        size = identity.Length;
        if (value.IsEmpty) { return Errno.None; }
        return identity.AsSpan().TryCopyTo(value) ? Errno.None : Errno.ERANGE;
    }

    /// <summary>"PID STARTTIME", the latter as field 22 of /proc/PID/stat has it; " lower" follows when there is no upper.</summary>
    private static byte[] ReadIdentity(bool hasUpper)
    {
        Span<byte> text = stackalloc byte[1024];
        int count = 0;
        if (!Libc.OpenAt(Libc.AtCwd, "/proc/self/stat\0"u8, OpenFlags.ReadOnly, 0, ResolveFlags.None, out int descriptor).IsError)
        {
            if (Libc.Read(descriptor, text, out count).IsError) { count = 0; }
            Libc.Close(descriptor);
        }
        ReadOnlySpan<byte> rest = text[..count];
        rest = rest[(rest.LastIndexOf((byte)')') + 1)..];
        for (int field = 2; field < 22 && rest.Length > 0; field++) { rest = rest[(rest.IndexOf((byte)' ') + 1)..]; }
        int end = rest.IndexOf((byte)' ');
        ReadOnlySpan<byte> start = end < 0 ? "0"u8 : rest[..end];
        Span<byte> pid = stackalloc byte[11];
        _ = System.Buffers.Text.Utf8Formatter.TryFormat(Libc.ProcessId, pid, out int digits); // cannot fail: 11 digits fit
        return [.. pid[..digits], (byte)' ', .. start, .. hasUpper ? ""u8 : " lower"u8];
    }
}
