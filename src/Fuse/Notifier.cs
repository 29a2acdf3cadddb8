using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;

namespace Veneer.Fuse;

/// <summary>Tells the kernel, unasked, that what it remembers is no longer true.</summary>
/// <remarks>
/// Writes from a thread of its own, because the kernel takes inode locks before it returns, and their holders may be
/// waiting for us. The thread starts with the first notification. Attributes alone are the exception.
/// <para>
/// While the thread waits for such a lock the queue grows, but not without bound: what waits to be said is not said
/// twice, so there is at most one message for each inode that the kernel knows (and range that is asked for).
/// </para>
/// </remarks>
public sealed class Notifier : IDisposable
{
    private readonly Device device;
    private readonly Lock gate = new();
    private readonly Queue<(ulong NodeId, long Offset, long Length)> queue = new();
    private readonly HashSet<(ulong NodeId, long Offset, long Length)> waiting = []; // what is in the queue
    private readonly SemaphoreSlim available = new(0);
    private Thread? thread;
    private bool stopped;
    private long sent;

    internal Notifier(Device device) => this.device = device;

    /// <summary>Drops the attributes of an inode, and its cached pages from <paramref name="offset"/> on (FUSE_NOTIFY_INVAL_INODE).</summary>
    /// <param name="nodeId">The inode.</param>
    /// <param name="offset">First byte; negative: attributes only.</param>
    /// <param name="length">Bytes; 0: to the end.</param>
    public void InvalidateInode(ulong nodeId, long offset, long length)
    {
        lock (gate)
        {
            if (stopped || !waiting.Add((nodeId, offset, length))) { return; }
            queue.Enqueue((nodeId, offset, length));
            if (thread is null)
            {
                thread = new Thread(Run) { IsBackground = true, Name = "notifier" };
                thread.Start();
            }
            available.Release();
        }
    }

    /// <summary>Drops the attributes of an inode, before it returns.</summary>
    /// <remarks>There are no pages to wait for, and for attributes alone the kernel takes no lock of the inode.</remarks>
    public void InvalidateAttributes(ulong nodeId) => Write(Message(nodeId, -1, 0));

    /// <summary>How many were sent.</summary>
    public long Sent => Interlocked.Read(ref sent);

    private static NotifyInvalidateInodeOut Message(ulong nodeId, long offset, long length)
    {
        var message = new NotifyInvalidateInodeOut { NodeId = nodeId, Offset = offset, Length = length };
        message.Header.Length = (uint)Unsafe.SizeOf<NotifyInvalidateInodeOut>();
        message.Header.Error = (int)NotifyCode.InvalidateInode;
        return message;
    }

    private void Write(in NotifyInvalidateInodeOut message)
    {
        Interlocked.Increment(ref sent);
        // ENOENT: the kernel does not know the inode any more, so nothing is stale.
        _ = device.Write(MemoryMarshal.AsBytes(new ReadOnlySpan<NotifyInvalidateInodeOut>(in message))); // best effort: a dead connection has no caches
    }

    private void Run()
    {
        while (true)
        {
            available.Wait();
            (ulong NodeId, long Offset, long Length) next;
            lock (gate)
            {
                if (stopped) { return; }
                next = queue.Dequeue();
                waiting.Remove(next); // before it is written: what changes meanwhile is said again
            }
            Write(Message(next.NodeId, next.Offset, next.Length));
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (gate)
        {
            if (stopped) { return; }
            stopped = true;
            available.Release();
        }
        thread?.Join();
        available.Dispose();
    }
}
