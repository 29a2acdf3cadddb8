using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;

namespace Veneer.Fuse;

/// <summary>What ends something that the kernel holds: FORGET, RELEASE or RELEASEDIR.</summary>
/// <param name="Opcode">Which of them.</param>
/// <param name="NodeId">The inode.</param>
/// <param name="Value">The number of references that FORGET returns, or the fh.</param>
internal readonly record struct Ending(Opcode Opcode, ulong NodeId, ulong Value);

/// <summary>
/// Requests that were answered in their threads' place and whose threads are still busy with them. Protected by the lock of the
/// <see cref="WorkerPool"/>.
/// </summary>
/// <remarks>
/// The kernel keeps the inode of a request, and the open file that it reads, until it has the answer. Then it may forget the one
/// and release the other, while the thread goes on to use both. So what would end them waits until the thread is done. Otherwise the
/// filesystem would give them to another file, and the thread would read or change that one.
/// </remarks>
internal sealed class AnsweredRequests
{
    private readonly List<(ulong Unique, ulong NodeId, Opcode Opcode)> requests = [];
    private readonly List<Ending> deferred = [];
    private volatile bool any;

    /// <summary>Whether there are such requests. May be read without the lock in serving what the kernel sent afterwards.</summary>
    public bool Any => any;

    /// <summary>A request is about to be answered in its thread's place.</summary>
    public void Add(ulong unique, ulong nodeId, Opcode opcode)
    {
        LockOrder.AssertHeld(FuseLocks.Workers);
        requests.Add((unique, nodeId, opcode));
        any = true;
    }

    /// <summary>Keeps an ending back if a thread may still use what it ends.</summary>
    /// <returns>False when nobody does, so that the caller carries it out.</returns>
    public bool TryDefer(in Ending ending)
    {
        LockOrder.AssertHeld(FuseLocks.Workers);
        if (!IsAwaited(ending)) { return false; }
        deferred.Add(ending);
        return true;
    }

    /// <summary>A thread is done with its request, or the request could not be answered in its place.</summary>
    /// <returns>The endings that nothing keeps back any more, in the order in which they must be carried out.</returns>
    public List<Ending> Remove(ulong unique)
    {
        LockOrder.AssertHeld(FuseLocks.Workers);
        requests.RemoveAll(request => request.Unique == unique);
        any = requests.Count > 0;
        List<Ending> free = [.. deferred.Where(ending => !IsAwaited(ending))];
        deferred.RemoveAll(ending => !IsAwaited(ending));
        // An inode may go with its last reference, and an open file refers to its inode.
        free.Sort(static (one, other) => (one.Opcode == Opcode.Forget).CompareTo(other.Opcode == Opcode.Forget));
        return free;
    }

    private bool IsAwaited(Ending ending)
    {
        foreach ((_, ulong nodeId, Opcode opcode) in requests)
        {
            bool uses = ending.Opcode switch
            {
                Opcode.Forget => true,
                Opcode.Release => opcode != Opcode.Open,
                _ => opcode is Opcode.ReadDir or Opcode.ReadDirPlus or Opcode.FSyncDir,
            };
            if (uses && nodeId == ending.NodeId) { return true; }
        }
        return false;
    }
}
