using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;

namespace Veneer.Fuse;

/// <summary>The request being served: its header, and what is known of its caller.</summary>
public readonly ref struct Request
{
    private readonly Interruption interruption;

    internal Request(in InHeader header, Interruption interruption)
    {
        Header = ref header;
        this.interruption = interruption;
    }

    /// <summary>The request's header.</summary>
    public readonly ref readonly InHeader Header;

    /// <summary>The inode that the request is about; for a request with a name, the directory.</summary>
    public ulong NodeId => Header.NodeId;

    /// <summary>Whether a signal has reached the caller while the request is served (FUSE_INTERRUPT).</summary>
    public bool IsInterrupted => interruption.IsRaised;

    /// <summary>
    /// Whether the caller was killed, so that nobody waits for the answer. An interrupted caller whose pid is unknown
    /// counts as killed.
    /// </summary>
    public bool IsCallerDead => IsInterrupted && (Header.Pid == 0 || CallerStatus.WasKilled(Header.Pid));

    /// <summary>Whether the caller is, or may be, in a group. Reads /proc, unless the request names the group.</summary>
    /// <param name="gid">The group.</param>
    /// <returns>True also when it cannot be determined.</returns>
    public bool MayBeInGroup(uint gid) =>
        Header.Gid == gid || Header.Pid == 0 || !CallerStatus.TryFindGroup(Header.Pid, gid, out bool has) || has;
}

/// <summary>The request that a worker serves, and whether it was interrupted.</summary>
/// <remarks>
/// The mark of an interruption is the request's number. A mark that comes late, when the worker serves its next request
/// already, marks nothing. Numbers are never recycled.
/// </remarks>
internal sealed class Interruption
{
    private ulong unique;
    private ulong marked;
    private volatile bool expectsClosing;

    /// <summary>The number of the current request, or 0.</summary>
    public ulong Unique => Volatile.Read(ref unique);

    /// <summary>Whether the current request was interrupted.</summary>
    public bool IsRaised => Unique is not 0 and ulong current && Volatile.Read(ref marked) == current;

    /// <summary>
    /// Whether the current request waits for the <see cref="Gate"/> to close, so that the gate must not wait for it.
    /// </summary>
    public bool ExpectsClosing { get => expectsClosing; set => expectsClosing = value; }

    /// <summary>The worker begins a request. A thread that looks for it afterwards finds it.</summary>
    public void Begin(ulong request)
    {
        expectsClosing = false;
        Interlocked.Exchange(ref unique, request);
    }

    /// <summary>The worker has ended its request.</summary>
    public void End() => Volatile.Write(ref unique, 0);

    /// <summary>Marks a request as interrupted, if this worker serves it.</summary>
    /// <remarks>One call at a time: the caller holds the lock of all interruptions, if it is not the worker itself.</remarks>
    public bool TryRaise(ulong request)
    {
        AssertAlone();
        if (Volatile.Read(ref unique) != request) { return false; }
        Volatile.Write(ref marked, request);
        return true;
    }

    [Conditional("LOCK_ORDER")]
    private void AssertAlone()
    {
        if (!ReferenceEquals(Worker.Current?.Interruption, this)) { LockOrder.AssertHeld(FuseLocks.Interruptions); }
    }
}

/// <summary>
/// Takes a request apart. Each method returns false when the request is too short, which is answered with EINVAL.
/// </summary>
internal ref struct RequestReader
{
    private readonly ReadOnlySpan<byte> structure;
    private readonly bool isApart;
    private ReadOnlySpan<byte> rest;

    /// <summary>A reader of a request in one piece: structures, then names and data.</summary>
    public RequestReader(ReadOnlySpan<byte> body) => rest = body;

    /// <summary>A reader of a request whose only structure is in separate memory.</summary>
    public RequestReader(ReadOnlySpan<byte> structure, ReadOnlySpan<byte> rest)
    {
        this.structure = structure;
        this.rest = rest;
        isApart = true;
    }

    /// <summary>The bytes that have not been taken.</summary>
    public readonly ReadOnlySpan<byte> Rest => rest;

    /// <summary>Takes a structure off the front of the request.</summary>
    public bool Take<T>(out T value) where T : unmanaged
    {
        ReadOnlySpan<byte> from = isApart ? structure : rest;
        if (from.Length < Unsafe.SizeOf<T>())
        {
            value = default;
            return false;
        }
        value = MemoryMarshal.Read<T>(from);
        if (!isApart) { rest = rest[Unsafe.SizeOf<T>()..]; }
        return true;
    }

    /// <summary>
    /// Takes a name with its NUL. An empty name is refused: to the system calls below it would be the directory itself.
    /// </summary>
    public bool TakeName(out ReadOnlySpan<byte> name)
    {
        int end = rest.IndexOf((byte)0);
        if (end <= 0)
        {
            name = default;
            return false;
        }
        name = rest[..(end + 1)];
        rest = rest[(end + 1)..];
        return true;
    }

    /// <summary>Takes a number of bytes.</summary>
    public bool TakeBytes(uint count, out ReadOnlySpan<byte> bytes)
    {
        if (count > (uint)rest.Length)
        {
            bytes = default;
            return false;
        }
        bytes = rest[..(int)count];
        rest = rest[(int)count..];
        return true;
    }
}
