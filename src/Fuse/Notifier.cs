using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;

namespace Veneer.Fuse;

/// <summary>Tells the kernel, unasked, that what it remembers is no longer true.</summary>
public sealed class Notifier
{
    private readonly Device device;
    private long sent;

    internal Notifier(Device device) => this.device = device;

    /// <summary>How many were sent.</summary>
    public long Sent => Interlocked.Read(ref sent);

    /// <summary>Drops the attributes of an inode, before it returns (FUSE_NOTIFY_INVAL_INODE without a range).</summary>
    /// <remarks>
    /// For attributes alone the kernel takes no lock of the inode and waits for no page, so that a handler may say it of
    /// an inode that the kernel is using. Anything else would have to come from another thread: the holder of the lock may
    /// be waiting for us.
    /// </remarks>
    /// <param name="nodeId">The inode.</param>
    public void InvalidateAttributes(ulong nodeId)
    {
        var message = new NotifyInvalidateInodeOut { NodeId = nodeId, Offset = -1 };
        message.Header.Length = (uint)Unsafe.SizeOf<NotifyInvalidateInodeOut>();
        message.Header.Error = (int)NotifyCode.InvalidateInode;
        Interlocked.Increment(ref sent);
        // ENOENT: the kernel does not know the inode any more, so nothing is stale.
        _ = device.Write(MemoryMarshal.AsBytes(new ReadOnlySpan<NotifyInvalidateInodeOut>(in message))); // best effort: a dead connection has no caches
    }
}
