using System.Globalization;
using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay.Control;
using Veneer.Overlay.Host;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Live;

/// <summary>The attribute of the root that tells our own commands which process serves the mount, and whether there is an upper.</summary>
/// <param name="hasUpper">Whether there is an upper.</param>
internal sealed class ServerAttribute(bool hasUpper)
{
    private readonly byte[] identity = ServerProcess.OfThisProcess(hasUpper).Write();

    /// <summary>
    /// Whether a caller is in the server's pid namespace, and so sees its process in any case. To others its number means
    /// nothing, or would reveal the host.
    /// </summary>
    /// <param name="caller">The caller's process; 0 when it is in no pid namespace below that of the mount.</param>
    private static bool SharesProcesses(uint caller) =>
        caller != 0
        && Processes.NamespaceOf(caller.ToString(CultureInfo.InvariantCulture), "pid") is var theirs and > 0
        && theirs == Processes.NamespaceOf("self", "pid");

    /// <summary>Whether an attribute is this one.</summary>
    /// <param name="nodeId">The inode that is asked.</param>
    /// <param name="attribute">The attribute's name, with its NUL.</param>
    public static bool Matches(ulong nodeId, ReadOnlySpan<byte> attribute) =>
        nodeId == InodeTable.RootId && attribute.SequenceEqual(ServerProcess.Attribute);

    /// <summary>Gets the attribute's value.</summary>
    /// <param name="request">The request.</param>
    /// <param name="value">Room for the value; empty to ask only for the size.</param>
    /// <param name="size">The value's size in bytes.</param>
    /// <returns><see cref="Errno.ENODATA"/> for a caller in another pid namespace.</returns>
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
}
