using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

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
    public void InvalidateAttributes(ulong nodeId) => Send(nodeId, -1);

    /// <summary>Drops the attributes of an inode and all its cached pages, before it returns. Pages that a map has changed are written first.</summary>
    /// <remarks>The kernel takes locks whose holders may be waiting for an answer: other threads must go on serving, and the caller holds no lock.</remarks>
    /// <param name="nodeId">The inode.</param>
    public void DropInode(ulong nodeId) => Send(nodeId, 0);

    /// <summary>Has the kernel ask again for every name that it knows (Linux 6.16; older ones ignore it).</summary>
    public void DropNames()
    {
        var message = new OutHeader { Length = (uint)Unsafe.SizeOf<OutHeader>(), Error = (int)NotifyCode.IncrementEpoch };
        Interlocked.Increment(ref sent);
        _ = device.Write(MemoryMarshal.AsBytes(new ReadOnlySpan<OutHeader>(in message))); // best effort: without attributes a name is of little use
    }

    private void Send(ulong nodeId, long offset)
    {
        var message = new NotifyInvalidateInodeOut { NodeId = nodeId, Offset = offset };
        message.Header.Length = (uint)Unsafe.SizeOf<NotifyInvalidateInodeOut>();
        message.Header.Error = (int)NotifyCode.InvalidateInode;
        Interlocked.Increment(ref sent);
        // ENOENT: the kernel does not know the inode any more, so nothing is stale.
        _ = device.Write(MemoryMarshal.AsBytes(new ReadOnlySpan<NotifyInvalidateInodeOut>(in message))); // best effort: a dead connection has no caches
    }

    /// <summary>Gives the kernel the content of a file from its beginning, as if it had been read (FUSE_NOTIFY_STORE).</summary>
    /// <remarks>
    /// The kernel waits for each of these pages while somebody else fills it, which may be with a READ that we have to
    /// answer: only for files of which no page can be in use. What reaches beyond its st_size makes the file longer there.
    /// </remarks>
    /// <param name="nodeId">The inode.</param>
    /// <param name="message">The content, after <see cref="StoreHeader"/> bytes that this method fills.</param>
    /// <returns>Whether the kernel has taken all of it.</returns>
    public bool Store(ulong nodeId, Span<byte> message)
    {
        var store = new NotifyStoreOut { NodeId = nodeId, Size = (uint)(message.Length - StoreHeader) };
        store.Header.Length = (uint)message.Length;
        store.Header.Error = (int)NotifyCode.Store;
        MemoryMarshal.Write(message, store);
        Interlocked.Increment(ref sent);
        return !device.Write(message).IsError;
    }

    /// <summary>How many bytes <see cref="Store"/> wants before the content.</summary>
    public static int StoreHeader => Unsafe.SizeOf<NotifyStoreOut>();
}
