using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>Reads the entries of a directory, without "." and "..". See getdents64(2).</summary>
public unsafe ref struct DirectoryReader
{
    private const int BufferSize = 64 * 1024;

    /// <summary>
    /// The buffer of the thread's last reader: allocating and freeing one takes as long as reading a small directory.
    /// </summary>
    [ThreadStatic]
    private static void* spare;

    private readonly int descriptor;
    private void* buffer;
    private int count;
    private int at;

    /// <summary>Makes a reader that begins at the descriptor's position. The caller keeps the descriptor.</summary>
    public DirectoryReader(int descriptor)
    {
        this.descriptor = descriptor;
        buffer = spare is null ? NativeMemory.Alloc(BufferSize) : spare;
        spare = null;
    }

    /// <summary>The error that ended the reading, or <see cref="Errno.None"/> at the end of the directory.</summary>
    public Errno Error { get; private set; }

    /// <summary>The name of the current entry, with its NUL.</summary>
    public ReadOnlySpan<byte> TerminatedName { get; private set; }

    /// <summary>The name of the current entry, without NUL.</summary>
    public readonly ReadOnlySpan<byte> Name => TerminatedName[..^1];

    /// <summary>The inode number of the current entry.</summary>
    public ulong Ino { get; private set; }

    /// <summary>The type of the current entry (DT_); 0 when the filesystem does not tell it.</summary>
    public byte Type { get; private set; }

    /// <summary>Moves to the next entry. False at the end, or after an error.</summary>
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

    /// <summary>Leaves the buffer to the next reader of this thread.</summary>
    public void Dispose()
    {
        if (spare is null) { spare = buffer; } else { NativeMemory.Free(buffer); }
        buffer = null;
    }
}
