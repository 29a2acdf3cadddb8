using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>An io_uring for commands to drivers (IORING_OP_URING_CMD), each with up to 80 bytes of payload.</summary>
/// <remarks>
/// Any thread may create the ring; the first thread that calls <see cref="Enable"/> is the only one that may use it from
/// then on (IORING_SETUP_SINGLE_ISSUER). Completions are processed only while that thread waits
/// (IORING_SETUP_DEFER_TASKRUN), so that they interrupt none of its other calls. Needs Linux 6.6. See io_uring_setup(2).
/// </remarks>
public sealed unsafe partial class IoUring : IDisposable
{
    private const long SysSetup = 425;
    private const long SysEnter = 426;
    private const long SysRegister = 427;
    private const uint SetupDisabled = 1 << 6;
    private const uint SetupSubmissionEntry128 = 1 << 10;
    private const uint SetupSingleIssuer = 1 << 12;
    private const uint SetupDeferTaskRun = 1 << 13;
    private const uint SetupNoArray = 1 << 16;
    private const uint EnterGetEvents = 1;
    private const uint RegisterEnableRings = 12;
    private const long OffsetOfEntries = 0x10000000;
    private const byte OpcodeUringCommand = 46;
    private const int ProtectRead = 1;
    private const int ProtectWrite = 2;
    private const int MapShared = 1;
    private const int MapPopulate = 0x8000;

    private readonly Fd fd;
    private readonly byte* rings;
    private readonly nuint ringsSize;
    private readonly SubmissionEntry* entries;
    private readonly nuint entriesSize;
    private readonly Parameters layout;
    private uint prepared;

    private IoUring(Fd fd, in Parameters layout, byte* rings, nuint ringsSize, SubmissionEntry* entries, nuint entriesSize)
    {
        this.fd = fd;
        this.layout = layout;
        this.rings = rings;
        this.ringsSize = ringsSize;
        this.entries = entries;
        this.entriesSize = entriesSize;
    }

    /// <summary>Creates a ring with room for a number of commands. The ring is disabled until <see cref="Enable"/>.</summary>
    /// <returns>
    /// <see cref="Errno.ENOSYS"/> or <see cref="Errno.EPERM"/> where io_uring is not allowed (kernel.io_uring_disabled,
    /// a container's filter of system calls); <see cref="Errno.EINVAL"/> where the kernel is too old.
    /// </returns>
    public static Errno Create(int capacity, out IoUring? ring)
    {
        ring = null;
        var parameters = new Parameters
        {
            Flags = SetupDisabled | SetupSubmissionEntry128 | SetupSingleIssuer | SetupDeferTaskRun | SetupNoArray,
        };
        Errno error = Libc.SystemCall(SysSetup, capacity, (nint)(&parameters), 0, 0, out long descriptor);
        if (error.IsError) { return error; }

        var owner = new Fd((int)descriptor);
        nuint ringBytes = parameters.Completion.Entries + (parameters.CompletionCapacity * (uint)sizeof(CompletionEntry));
        nuint entryBytes = parameters.SubmissionCapacity * (uint)sizeof(SubmissionEntry);
        error = Map(owner.Value, 0, ringBytes, out void* ringMemory);
        if (!error.IsError)
        {
            error = Map(owner.Value, OffsetOfEntries, entryBytes, out void* entryMemory);
            if (!error.IsError)
            {
                ring = new IoUring(owner, parameters, (byte*)ringMemory, ringBytes, (SubmissionEntry*)entryMemory, entryBytes);
                return Errno.None;
            }
            _ = munmap(ringMemory, ringBytes); // cannot fail
        }
        owner.Dispose();
        return error;
    }

    private static Errno Map(int descriptor, long offset, nuint size, out void* memory)
    {
        memory = mmap(null, size, ProtectRead | ProtectWrite, MapShared | MapPopulate, descriptor, offset);
        return (nint)memory == -1 ? (Errno)Marshal.GetLastPInvokeError() : Errno.None;
    }

    /// <summary>Enables the ring and binds it to the calling thread.</summary>
    public Errno Enable() => Libc.SystemCall(SysRegister, fd.Value, (nint)RegisterEnableRings, 0, 0, out _);

    /// <summary>Queues a command, which <see cref="Submit"/> and its variants hand to the kernel.</summary>
    /// <param name="descriptor">A descriptor of the driver's device.</param>
    /// <param name="operation">The driver's number of the command.</param>
    /// <param name="address">Memory for the driver to use, or null. It must stay valid until the command has completed.</param>
    /// <param name="length">The length of that memory, in the driver's unit.</param>
    /// <param name="userData">A value that comes back with the completion.</param>
    /// <param name="command">The payload of the command, at most 80 bytes, copied.</param>
    /// <exception cref="InvalidOperationException">
    /// The submission queue is full, or the payload is larger than 80 bytes.
    /// </exception>
    public void Prepare<T>(int descriptor, uint operation, void* address, uint length, ulong userData, in T command) where T : unmanaged
    {
        ref uint tail = ref At(layout.Submission.Tail);
        if (prepared == layout.SubmissionCapacity || sizeof(T) > SubmissionEntry.CommandSize)
        {
            throw new InvalidOperationException("The submission queue is full.");
        }
        SubmissionEntry* entry = entries + (tail & (layout.SubmissionCapacity - 1));
        *entry = default;
        entry->Opcode = OpcodeUringCommand;
        entry->Descriptor = descriptor;
        entry->Operation = operation;
        entry->Address = (ulong)address;
        entry->Length = length;
        entry->UserData = userData;
        Unsafe.WriteUnaligned(entry->Command, command);
        Volatile.Write(ref tail, tail + 1);
        prepared++;
    }

    /// <summary>Hands the queued commands to the kernel, and waits until a command has completed.</summary>
    /// <returns>
    /// <see cref="Errno.EINTR"/> after a signal. Then perhaps nothing has completed; the next call hands over what is still
    /// queued.
    /// </returns>
    public Errno SubmitAndWait() => Enter(1, EnterGetEvents);

    /// <summary>Hands the queued commands to the kernel without waiting.</summary>
    public Errno Submit() => Enter(0, 0);

    private Errno Enter(uint completions, uint flags)
    {
        Errno error = Libc.SystemCall(SysEnter, fd.Value, (nint)prepared, (nint)completions, (nint)flags, out long submitted);
        if (!error.IsError) { prepared -= (uint)submitted; }
        return error;
    }

    /// <summary>Hands the queued commands to the kernel, and lets it process completions without waiting.</summary>
    public Errno SubmitAndPoll() => Enter(0, EnterGetEvents);

    /// <summary>Whether a completion is ready for <see cref="TryTake"/>.</summary>
    public bool HasCompletion => At(layout.Completion.Head) != Volatile.Read(ref At(layout.Completion.Tail));

    /// <summary>Takes the next completion.</summary>
    /// <param name="userData">The value that was given to <see cref="Prepare{T}"/>.</param>
    /// <param name="result">The driver's result: zero or more, or a negative errno.</param>
    public bool TryTake(out ulong userData, out int result)
    {
        userData = 0;
        result = 0;
        if (!HasCompletion) { return false; }
        ref uint head = ref At(layout.Completion.Head);
        CompletionEntry* entry = (CompletionEntry*)(rings + layout.Completion.Entries) + (head & (layout.CompletionCapacity - 1));
        userData = entry->UserData;
        result = entry->Result;
        Volatile.Write(ref head, head + 1);
        return true;
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial void* mmap(void* address, nuint length, int protection, int flags, int descriptor, long offset);

    [LibraryImport("libc")]
    private static partial int munmap(void* address, nuint length);

    private ref uint At(uint offset) => ref *(uint*)(rings + offset);

    /// <summary>
    /// Closes the ring, which cancels the commands that have not completed. The ring's thread must have stopped using it.
    /// </summary>
    public void Dispose()
    {
        if (fd.Value < 0) { return; }
        _ = munmap(entries, entriesSize); // cannot fail
        _ = munmap(rings, ringsSize); // cannot fail
        fd.Dispose();
    }

    /// <summary><c>struct io_uring_params</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct Parameters
    {
        public uint SubmissionCapacity;
        public uint CompletionCapacity;
        public uint Flags;
        private uint threadCpu, threadIdle, features, workQueue, reserved0, reserved1, reserved2;
        public SubmissionOffsets Submission;
        public CompletionOffsets Completion;
    }

    /// <summary><c>struct io_sqring_offsets</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SubmissionOffsets
    {
        public uint Head;
        public uint Tail;
        private uint mask, capacity, flags, dropped, array, reserved;
        private ulong address;
    }

    /// <summary><c>struct io_cqring_offsets</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CompletionOffsets
    {
        public uint Head;
        public uint Tail;
        private uint mask, capacity, overflow;
        public uint Entries;
        private uint flags, reserved;
        private ulong address;
    }

    /// <summary><c>struct io_uring_sqe</c> with IORING_SETUP_SQE128, as used by IORING_OP_URING_CMD.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 128)]
    private struct SubmissionEntry
    {
        public const int CommandSize = 80;

        [FieldOffset(0)] public byte Opcode;
        [FieldOffset(4)] public int Descriptor;
        [FieldOffset(8)] public uint Operation;
        [FieldOffset(16)] public ulong Address;
        [FieldOffset(24)] public uint Length;
        [FieldOffset(32)] public ulong UserData;
        [FieldOffset(48)] public fixed byte Command[CommandSize];
    }

    /// <summary><c>struct io_uring_cqe</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CompletionEntry
    {
        public ulong UserData;
        public int Result;
        private uint flags;
    }
}
