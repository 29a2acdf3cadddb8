using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>
/// Reads the sequence number that the kernel changes when a write to a filesystem fails (<c>super_block.s_wb_err</c>).
/// </summary>
/// <remarks>
/// No system call returns this number: syncfs(2) compares it, but writes all dirty data first. A BPF iterator over the open
/// files of this process reads it instead. Its program has a few instructions, which the kernel verifies; the offsets of
/// the fields come from the kernel's description of its own types (BTF). This needs CAP_BPF and CAP_PERFMON in the initial
/// user namespace. The first call takes some milliseconds. See include/linux/errseq.h and
/// docs/adr/0011-finding-failed-writes.md.
/// </remarks>
public static unsafe class ErrorSequence
{
    /// <summary>ERRSEQ_SEEN: the last error has been reported to somebody, so that the next error gets a new number.</summary>
    public const uint Seen = 1 << 12;

    private const uint LoadProgram = 5, CreateLink = 28, CreateIterator = 33;
    private const uint Tracing = 26, AttachToIterator = 28;
    private const int WriteToSequence = 127; // bpf_seq_write()

    private static readonly Lock gate = new();
    private static Places? places;

    /// <summary>
    /// The kernel's layout: the BTF id of the iterator, and the offset of each field in bytes from the beginning of its
    /// structure.
    /// </summary>
    private sealed record Places(uint Iterator, short InodeOfFile, short SuperblockOfInode, short ErrorOfSuperblock);

    /// <summary>Reads the sequence number of the filesystem that holds a file.</summary>
    /// <param name="descriptor">A descriptor of the file, not opened with O_PATH.</param>
    /// <param name="value">
    /// An errno in the lower 12 bits, then <see cref="Seen"/>, then a count. 0: no write has failed since the filesystem
    /// was mounted.
    /// </param>
    /// <returns>
    /// <see cref="Errno.EPERM"/> without the capabilities; <see cref="Errno.EOPNOTSUPP"/> where the kernel does not
    /// describe its types.
    /// </returns>
    public static Errno Read(int descriptor, out uint value)
    {
        value = 0;
        Errno error = Find(out Places where);
        if (error.IsError) { return error; }
        error = Load(descriptor, where, out int program);
        if (error.IsError) { return error; }
        using var loaded = new Fd(program);

        uint* scope = stackalloc uint[3] { 0, (uint)Libc.ProcessId, 0 }; // bpf_iter_link_info.task: tid, pid, pid_fd
        var link = new LinkAttributes
        {
            Program = (uint)program,
            AttachType = AttachToIterator,
            Iterator = (ulong)scope,
            IteratorLength = 3 * sizeof(uint),
        };
        error = Libc.Bpf(CreateLink, &link, sizeof(LinkAttributes), out int linked);
        if (error.IsError) { return error; }
        using var attached = new Fd(linked);

        var iterator = new IteratorAttributes { Link = (uint)linked };
        error = Libc.Bpf(CreateIterator, &iterator, sizeof(IteratorAttributes), out int iterated);
        if (error.IsError) { return error; }
        using var sequence = new Fd(iterated);

        Span<byte> found = stackalloc byte[sizeof(uint)];
        int count;
        do { error = Libc.Read(iterated, found, out count); } while (error is Errno.EINTR or Errno.EAGAIN);
        if (error.IsError) { return error; }
        if (count < sizeof(uint)) { return Errno.EBADF; }
        value = BinaryPrimitives.ReadUInt32LittleEndian(found);
        return Errno.None;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct ProgramAttributes
    {
        public uint Type;
        public uint InstructionCount;
        public ulong Instructions;
        public ulong License;
        public uint LogLevel;
        public uint LogSize;
        public ulong Log;
        public uint KernelVersion;
        public uint Flags;
        public ulong NameLow;
        public ulong NameHigh;
        public uint NetworkInterface;
        public uint ExpectedAttachType;
        public uint TypesDescriptor;
        public uint FunctionRecordSize;
        public ulong Functions;
        public uint FunctionCount;
        public uint LineRecordSize;
        public ulong Lines;
        public uint LineCount;
        public uint AttachTo;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct LinkAttributes
    {
        public uint Program;
        public uint Target;
        public uint AttachType;
        public uint Flags;
        public ulong Iterator;
        public ulong IteratorLength;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct IteratorAttributes
    {
        public uint Link;
        public uint Flags;
    }

    /// <summary>Encodes one instruction, <c>struct bpf_insn</c>.</summary>
    private static ulong Instruction(byte code, int to, int from, int offset, int immediate) =>
        code | ((ulong)(uint)(to | (from << 4)) << 8) | ((ulong)(ushort)(short)offset << 16) | ((ulong)(uint)immediate << 32);

    private static Errno Load(int descriptor, Places where, out int program)
    {
        const byte move = 0xBF, moveImmediate = 0xB7, addImmediate = 0x07, load64 = 0x79, load32 = 0x61, store32 = 0x63;
        const byte jumpIfEqual = 0x15, jumpUnlessEqual = 0x55, call = 0x85, exit = 0x95;
        // Called with struct bpf_iter__task_file { meta, task, u32 fd, file } for each open file of the process.
        ulong* code = stackalloc ulong[]
        {
            Instruction(move, 6, 1, 0, 0),
            Instruction(load64, 7, 6, 24, 0),                          // file
            Instruction(jumpIfEqual, 7, 0, 12, 0),                     // the end of the iteration
            Instruction(load32, 1, 6, 16, 0),                          // fd
            Instruction(jumpUnlessEqual, 1, 0, 10, descriptor),
            Instruction(load64, 8, 7, where.InodeOfFile, 0),
            Instruction(load64, 8, 8, where.SuperblockOfInode, 0),
            Instruction(load32, 9, 8, where.ErrorOfSuperblock, 0),
            Instruction(store32, 10, 9, -8, 0),
            Instruction(load64, 1, 6, 0, 0),                           // meta
            Instruction(load64, 1, 1, 0, 0),                           // seq
            Instruction(move, 2, 10, 0, 0),
            Instruction(addImmediate, 2, 0, 0, -8),
            Instruction(moveImmediate, 3, 0, 0, sizeof(uint)),
            Instruction(call, 0, 0, 0, WriteToSequence),
            Instruction(moveImmediate, 0, 0, 0, 0),
            Instruction(exit, 0, 0, 0, 0),
        };
        fixed (byte* license = "Dual MIT/GPL\0"u8) // the kernel lets only such a program call its helpers
        {
            var attributes = new ProgramAttributes
            {
                Type = Tracing,
                InstructionCount = 17,
                Instructions = (ulong)code,
                License = (ulong)license,
                ExpectedAttachType = AttachToIterator,
                AttachTo = where.Iterator,
            };
            return Libc.Bpf(LoadProgram, &attributes, sizeof(ProgramAttributes), out program);
        }
    }

    private static Errno Find(out Places found)
    {
        lock (gate)
        {
            if (places is null)
            {
                Errno error = Search(out places);
                if (error.IsError)
                {
                    found = null!;
                    return error;
                }
            }
            found = places!;
            return places is null ? Errno.EOPNOTSUPP : Errno.None;
        }
    }

    /// <summary>Reads the kernel's types into native memory: they take some megabytes, and are needed once.</summary>
    private static Errno Search(out Places? found)
    {
        found = null;
        Errno error = Libc.OpenAt(Libc.AtCwd, "/sys/kernel/btf/vmlinux\0"u8, OpenFlags.ReadOnly, 0, ResolveFlags.None, out int descriptor);
        if (error.IsError) { return error == Errno.ENOENT ? Errno.EOPNOTSUPP : error; }
        using var file = new Fd(descriptor);
        error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error; }
        if (stat.Size is 0 or > int.MaxValue) { return Errno.EOPNOTSUPP; }
        var memory = (byte*)NativeMemory.Alloc((nuint)stat.Size);
        var types = new Span<byte>(memory, (int)stat.Size);
        int length = 0;
        while (length < types.Length)
        {
            error = Libc.Read(descriptor, types[length..], out int count);
            if (error == Errno.EINTR) { continue; }
            if (error.IsError || count == 0) { break; }
            length += count;
        }
        if (!error.IsError) { found = Search(types[..length]); }
        NativeMemory.Free(memory);
        return error;
    }

    /// <summary>Finds the fields in the kernel's description of its types. See Documentation/bpf/btf.rst.</summary>
    /// <returns>Null when the description is not understood, or lacks one of the fields.</returns>
    private static Places? Search(ReadOnlySpan<byte> types)
    {
        const int headerSize = 24, recordSize = 12;
        const int kindArray = 3, kindStruct = 4, kindUnion = 5, kindEnum = 6, kindFunction = 12, kindPrototype = 13,
            kindVariable = 14, kindSection = 15, kindInteger = 1, kindDeclarationTag = 17, kindEnum64 = 19;
        if (types.Length < headerSize || Word(types, 0) << 16 >> 16 != 0xEB9F) { return null; }
        int start = (int)(Word(types, 4) + Word(types, 8)), length = (int)Word(types, 12);
        int strings = (int)(Word(types, 4) + Word(types, 16));
        if ((uint)start + (uint)length > types.Length || (uint)strings > types.Length) { return null; }
        ReadOnlySpan<byte> names = types[strings..];

        uint iterator = 0;
        int inode = -1, superblock = -1, error = -1;
        ReadOnlySpan<byte> rest = types.Slice(start, length);
        for (uint id = 1; rest.Length >= recordSize; id++)
        {
            uint info = Word(rest, 4);
            int kind = (int)(info >> 24) & 31, count = (int)(info & 0xFFFF);
            ReadOnlySpan<byte> members = rest[recordSize..];
            if (kind == kindFunction && NameAt(names, rest).SequenceEqual("bpf_iter_task_file"u8)) { iterator = id; }
            else if (kind == kindStruct)
            {
                ReadOnlySpan<byte> name = NameAt(names, rest);
                if (name.SequenceEqual("file"u8)) { inode = MemberAt(names, members, count, "f_inode"u8, info); }
                else if (name.SequenceEqual("inode"u8)) { superblock = MemberAt(names, members, count, "i_sb"u8, info); }
                else if (name.SequenceEqual("super_block"u8)) { error = MemberAt(names, members, count, "s_wb_err"u8, info); }
            }
            int more = kind switch
            {
                kindInteger or kindVariable or kindDeclarationTag => 4,
                kindArray => 12,
                kindStruct or kindUnion or kindSection or kindEnum64 => 12 * count,
                kindEnum or kindPrototype => 8 * count,
                _ => 0,
            };
            if (members.Length < more) { return null; }
            rest = members[more..];
        }
        return iterator != 0 && inode >= 0 && superblock >= 0 && error >= 0
            ? new Places(iterator, (short)inode, (short)superblock, (short)error)
            : null;
    }

    private static uint Word(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[at..]);

    private static ReadOnlySpan<byte> NameAt(ReadOnlySpan<byte> names, ReadOnlySpan<byte> record)
    {
        ReadOnlySpan<byte> name = names[(int)Math.Min(Word(record, 0), (uint)names.Length)..];
        int end = name.IndexOf((byte)0);
        return end < 0 ? default : name[..end];
    }

    /// <returns>The offset of a member in bytes, or -1.</returns>
    private static int MemberAt(ReadOnlySpan<byte> names, ReadOnlySpan<byte> members, int count, ReadOnlySpan<byte> wanted, uint info)
    {
        for (int i = 0; i < count && members.Length >= 12; i++, members = members[12..])
        {
            if (!NameAt(names, members).SequenceEqual(wanted)) { continue; }
            uint bits = Word(members, 8);
            bits = (info >> 31) != 0 ? bits & 0xFFFFFF : bits; // with bit fields, the upper byte is a size
            return bits / 8 <= short.MaxValue ? (int)(bits / 8) : -1;
        }
        return -1;
    }
}
