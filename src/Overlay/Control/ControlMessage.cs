using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;

namespace Veneer.Overlay.Control;

/// <summary>A question to a live mount, and then a part of its answer: the argument of ioctl(2) <see cref="Request"/>.</summary>
/// <remarks>
/// The layout is an interface, described in docs/control.md: servers and tools of different versions use it. It is the same
/// in programs of 32 and of 64 bits. Numbers are in the machine's byte order, since the message never leaves the machine.
/// </remarks>
[StructLayout(LayoutKind.Sequential), WireSize(8192)]
public struct ControlMessage
{
    /// <summary><c>_IOWR('V', 1, struct of 8192 bytes)</c>.</summary>
    public const uint Request = 0xE0005601;

    /// <summary>The value that <see cref="Magic"/> must have: the letters VNRC on a little-endian machine.</summary>
    public const uint ExpectedMagic = 0x43524E56;

    /// <summary>The value that <see cref="Version"/> must have.</summary>
    public const uint CurrentVersion = 1;

    /// <summary>The most bytes of an argument, and of one part of an answer.</summary>
    public const int MaxLength = 8192 - HeaderSize;

    /// <summary>The number of bytes before <see cref="Bytes"/>.</summary>
    internal const int HeaderSize = 48;

    /// <summary>Makes the message that asks for the first part of an answer.</summary>
    /// <param name="query">The question.</param>
    /// <param name="argument">The question's argument; at most <see cref="MaxLength"/> bytes.</param>
    public ControlMessage(Query query, ReadOnlySpan<byte> argument)
    {
        Magic = ExpectedMagic;
        Version = CurrentVersion;
        Query = query;
        Length = (uint)argument.Length;
        argument.CopyTo(Bytes);
    }

    /// <summary>Always <see cref="ExpectedMagic"/>.</summary>
    public uint Magic;

    /// <summary>Always <see cref="CurrentVersion"/>.</summary>
    public uint Version;

    /// <summary>The question; the same when a further part of its answer is asked for.</summary>
    public Query Query;

    /// <summary>The number of valid <see cref="Bytes"/>: of the argument on the way in, of the answer on the way out.</summary>
    public uint Length;

    /// <summary>
    /// In: 0 to ask a question, or the number of the answer to go on reading. Out: the answer's number, or 0 after its last
    /// part.
    /// </summary>
    public ulong Document;

    /// <summary>The offset of the part in the answer, in bytes. 0 with the question.</summary>
    public ulong Offset;

    /// <summary>Out: the length of the whole answer, in bytes.</summary>
    public ulong Total;

    /// <summary>Reserved: must be zero.</summary>
    public ulong Reserved;

    /// <summary>In: the argument. Out: the part of the answer.</summary>
    public ControlBytes Bytes;
}

/// <summary>The variable part of a <see cref="ControlMessage"/>.</summary>
[InlineArray(ControlMessage.MaxLength)]
public struct ControlBytes
{
    private byte first;
}
