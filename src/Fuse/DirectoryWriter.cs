using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;

namespace Veneer.Fuse;

/// <summary>Fills the reply to READDIR or READDIRPLUS.</summary>
public ref struct DirectoryWriter
{
    private readonly Span<byte> buffer;
    private int used;

    internal DirectoryWriter(Span<byte> buffer, bool plus)
    {
        this.buffer = buffer;
        IsPlus = plus;
    }

    /// <summary>Whether entries carry attributes (READDIRPLUS).</summary>
    public bool IsPlus { get; }

    /// <summary>Bytes written so far.</summary>
    public readonly int Used => used;

    /// <summary>Whether an entry with a name of this length in bytes, without NUL, still fits.</summary>
    public readonly bool Fits(int nameLength) => used + Size(nameLength) <= buffer.Length;

    private readonly int Size(int nameLength) => Align((IsPlus ? Unsafe.SizeOf<EntryOut>() : 0) + Unsafe.SizeOf<DirEnt>() + nameLength);

    private static int Align(int length) => (length + 7) & ~7;

    /// <summary>Adds an entry if it fits.</summary>
    /// <param name="name">The name, without NUL.</param>
    /// <param name="ino">The inode number that readdir(3) shows.</param>
    /// <param name="type">The DT_ value: the type bits of the mode, shifted right by 12.</param>
    /// <param name="next">The offset after this entry, at which the next read continues.</param>
    /// <param name="entry">For READDIRPLUS: the result of a lookup of the name. A NodeId of 0 lends no reference.</param>
    /// <returns>False when the entry did not fit; nothing was written.</returns>
    public bool TryAdd(ReadOnlySpan<byte> name, ulong ino, uint type, ulong next, in EntryOut entry)
    {
        int size = Size(name.Length);
        if (used + size > buffer.Length) { return false; }
        Span<byte> place = buffer.Slice(used, size);
        if (IsPlus)
        {
            MemoryMarshal.Write(place, entry);
            place = place[Unsafe.SizeOf<EntryOut>()..];
        }
        MemoryMarshal.Write(place, new DirEnt { Ino = ino, Offset = next, NameLength = (uint)name.Length, Type = type });
        place = place[Unsafe.SizeOf<DirEnt>()..];
        name.CopyTo(place);
        place[name.Length..].Clear();
        used += size;
        return true;
    }
}
