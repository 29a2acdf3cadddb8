using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>Reads the entries of a directory, without "." and "..". See getdents64(2).</summary>
public unsafe ref struct DirectoryReader
{
    private const int BufferSize = 64 * 1024;

    /// <summary>The buffer that the thread's last reader had: to allocate and free one costs as much as to read a small directory.</summary>
    [ThreadStatic]
    private static void* spare;

    private readonly int descriptor;
    private void* buffer;
    private int count;
    private int at;

    /// <summary>Reads from the descriptor's position.</summary>
    public DirectoryReader(int descriptor)
    {
        this.descriptor = descriptor;
        buffer = spare is null ? NativeMemory.Alloc(BufferSize) : spare;
        spare = null;
    }

    /// <summary>What stopped the reading, or None at the end.</summary>
    public Errno Error { get; private set; }

    /// <summary>The entry's name with its NUL.</summary>
    public ReadOnlySpan<byte> TerminatedName { get; private set; }

    /// <summary>The entry's name.</summary>
    public readonly ReadOnlySpan<byte> Name => TerminatedName[..^1];

    /// <summary>The entry's inode number.</summary>
    public ulong Ino { get; private set; }

    /// <summary>The entry's type (DT_).</summary>
    public byte Type { get; private set; }

    /// <summary>Goes to the next entry.</summary>
    public bool MoveNext()
    {
        while (true)
        {
            if (at >= count)
            {
                at = 0;
                Error = Libc.ReadDirectory(descriptor, new Span<byte>(buffer, BufferSize), out count);
                if (Error.IsError || count == 0)
                {
                    count = 0;
                    return false;
                }
            }
            // struct linux_dirent64: ino, offset, record length, type, name
            var record = new ReadOnlySpan<byte>((byte*)buffer + at, count - at);
            Ino = BinaryPrimitives.ReadUInt64LittleEndian(record);
            int length = BinaryPrimitives.ReadUInt16LittleEndian(record[16..]);
            Type = record[18];
            ReadOnlySpan<byte> name = record[19..length];
            TerminatedName = name[..(name.IndexOf((byte)0) + 1)];
            at += length;
            if (!TerminatedName.SequenceEqual(".\0"u8) && !TerminatedName.SequenceEqual("..\0"u8)) { return true; }
        }
    }

    /// <summary>Gives the buffer to the next reader of this thread.</summary>
    public void Dispose()
    {
        if (spare is null) { spare = buffer; } else { NativeMemory.Free(buffer); }
        buffer = null;
    }
}
