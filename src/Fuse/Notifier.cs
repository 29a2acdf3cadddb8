using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>Sends notifications: tells the kernel, unasked, that its caches are stale.</summary>
public sealed class Notifier
{
    private readonly Device device;
    private long sent;

    internal Notifier(Device device) => this.device = device;

    /// <summary>The number of notifications sent.</summary>
    public long Sent => Interlocked.Read(ref sent);

    /// <summary>
    /// Makes the kernel drop the attributes of an inode before this returns (FUSE_NOTIFY_INVAL_INODE without a range).
    /// </summary>
    /// <remarks>
    /// For attributes alone the kernel takes no lock of the inode and waits for no page, so that a handler may send this
    /// for an inode that the kernel is using. Any other notification must come from another thread: the holder of the
    /// inode's lock may be waiting for us.
    /// </remarks>
    /// <param name="nodeId">The inode.</param>
    public void InvalidateAttributes(ulong nodeId) => Send(nodeId, -1);

    /// <summary>
    /// Makes the kernel drop the attributes and all cached pages of an inode before this returns. Pages that a map has
    /// changed are written first.
    /// </summary>
    /// <remarks>
    /// The kernel takes locks whose holders may be waiting for an answer: other threads must go on serving, and the caller
    /// must hold no lock.
    /// </remarks>
    /// <param name="nodeId">The inode.</param>
    public void DropInode(ulong nodeId) => Send(nodeId, 0);

    /// <summary>Makes the kernel look up every known name again (Linux 6.16; ignored by older kernels).</summary>
    public void DropNames()
    {
        var message = new OutHeader { Length = (uint)Unsafe.SizeOf<OutHeader>(), Error = (int)NotifyCode.IncrementEpoch };
        Interlocked.Increment(ref sent);
        // best effort: without attributes a name is of little use
        _ = device.Write(MemoryMarshal.AsBytes(new ReadOnlySpan<OutHeader>(in message)));
    }

    private void Send(ulong nodeId, long offset)
    {
        var message = new NotifyInvalidateInodeOut { NodeId = nodeId, Offset = offset };
        message.Header.Length = (uint)Unsafe.SizeOf<NotifyInvalidateInodeOut>();
        message.Header.Error = (int)NotifyCode.InvalidateInode;
        Interlocked.Increment(ref sent);
        // ENOENT: the kernel does not know the inode any more, so nothing is stale.
        // best effort: a dead connection has no caches
        _ = device.Write(MemoryMarshal.AsBytes(new ReadOnlySpan<NotifyInvalidateInodeOut>(in message)));
    }

    /// <summary>
    /// Gives the kernel the content of a file from its beginning, as if the kernel had read it (FUSE_NOTIFY_STORE).
    /// </summary>
    /// <remarks>
    /// The kernel waits for each of these pages while it is being filled, perhaps by a READ that we have to answer. So this
    /// is only for files of which no page can be in use. Content beyond the kernel's st_size makes the file longer there.
    /// </remarks>
    /// <param name="nodeId">The inode.</param>
    /// <param name="message">A buffer with <see cref="StoreHeader"/> bytes, which this method fills, and then the content.</param>
    /// <returns>Whether the kernel has taken all of the content.</returns>
    public bool Store(ulong nodeId, Span<byte> message)
    {
        var store = new NotifyStoreOut { NodeId = nodeId, Size = (uint)(message.Length - StoreHeader) };
        store.Header.Length = (uint)message.Length;
        store.Header.Error = (int)NotifyCode.Store;
        MemoryMarshal.Write(message, store);
        Interlocked.Increment(ref sent);
        return !device.Write(message).IsError;
    }

    /// <summary>The bytes that <see cref="Store"/> needs before the content.</summary>
    public static int StoreHeader => Unsafe.SizeOf<NotifyStoreOut>();
}
