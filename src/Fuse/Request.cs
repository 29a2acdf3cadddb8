using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;

namespace Veneer.Fuse;

/// <summary>Who asks, and about which inode.</summary>
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

    /// <summary>The inode that the request is about; for names, their directory.</summary>
    public ulong NodeId => Header.NodeId;

    /// <summary>Whether a signal reached the caller while the request is being served (FUSE_INTERRUPT).</summary>
    public bool IsInterrupted => interruption.IsRaised;

    /// <summary>Whether nobody waits for the request any more. A caller that was interrupted and whose pid we cannot know is taken for dead.</summary>
    public bool IsCallerDead => IsInterrupted && (Header.Pid == 0 || CallerStatus.WasKilled(Header.Pid));

    /// <summary>Whether the caller is, or may be, in a group. Asked of /proc, unless it is the one that the request tells.</summary>
    /// <param name="gid">The group.</param>
    /// <returns>True also when it cannot be told.</returns>
    public bool MayBeInGroup(uint gid) => Header.Gid == gid || Header.Pid == 0 || !CallerStatus.TryFindGroup(Header.Pid, gid, out bool has) || has;
}

/// <summary>Whether the request that one worker serves was interrupted.</summary>
/// <remarks>
/// The mark is the number of the request that it is for, so that one which comes late, when the worker is at its next
/// request already, marks nothing. Numbers are never used again.
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

    /// <summary>Whether the current request waits for the <see cref="Gate"/> to close, which must not wait for it.</summary>
    public bool ExpectsClosing { get => expectsClosing; set => expectsClosing = value; }

    /// <summary>The worker starts on a request; whoever looks for it afterwards finds it.</summary>
    public void Begin(ulong request)
    {
        expectsClosing = false;
        Interlocked.Exchange(ref unique, request);
    }

    /// <summary>The worker is done with its request.</summary>
    public void End() => Volatile.Write(ref unique, 0);

    /// <summary>Marks the request as interrupted, when this worker serves it.</summary>
    /// <remarks>One at a time: the caller holds the lock of all interruptions, or is the worker itself.</remarks>
    public bool TryRaise(ulong request)
    {
        if (Volatile.Read(ref unique) != request) { return false; }
        Volatile.Write(ref marked, request);
        return true;
    }
}

/// <summary>Takes a request apart. Every method returns false when the request is too short: the answer is EINVAL.</summary>
internal ref struct RequestReader
{
    private readonly ReadOnlySpan<byte> structure;
    private readonly bool isApart;
    private ReadOnlySpan<byte> rest;

    /// <summary>A request in one piece: structures, then names and data.</summary>
    public RequestReader(ReadOnlySpan<byte> body) => rest = body;

    /// <summary>A request whose only structure lies apart.</summary>
    public RequestReader(ReadOnlySpan<byte> structure, ReadOnlySpan<byte> rest)
    {
        this.structure = structure;
        this.rest = rest;
        isApart = true;
    }

    /// <summary>What has not been taken.</summary>
    public readonly ReadOnlySpan<byte> Rest => rest;

    /// <summary>Takes a structure.</summary>
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

    /// <summary>Takes a name with its NUL. An empty one is none: to the calls beneath it would be the directory itself.</summary>
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

    /// <summary>Takes so many bytes.</summary>
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
