using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>
/// Exchanges requests and replies over io_uring: one call sends the reply and fetches the next request, and the caller's
/// own CPU serves it.
/// </summary>
/// <remarks>
/// The kernel has a queue for each CPU, and puts a request into an entry of the queue of the caller's CPU. The entry's
/// owner fills in the reply and commits it. An exchange has one entry in each of its queues: an entry that waits while its
/// thread is busy with another entry would keep a request waiting. FORGET and INTERRUPT do not come this way. See
/// Documentation/filesystems/fuse/fuse-io-uring.rst.
/// </remarks>
internal sealed unsafe class RingExchange : Exchange
{
    private const uint Register = 1;
    private const uint CommitAndFetch = 2;

    /// <summary>
    /// The offsets of the parts of an entry's memory, in bytes: the header is at 0, then the two iovecs, then the payload.
    /// </summary>
    private const int VectorsAt = 512, PayloadAt = 4096;

    /// <summary>
    /// The size of the copy buffer in bytes. The argument of an ioctl has 14 bits of length, the name of an xattr 8.
    /// </summary>
    private const int LargestCopy = 1 << 14;

    /// <summary>The size in bytes from which a READ counts as reading ahead: the caller works on other data meanwhile.</summary>
    private const uint LargeRead = 64 * 1024;

    /// <summary>After this many other requests, the thread is pinned to its CPU again.</summary>
    private const int ReturnAfter = 16;

    private static ulong wakes;

    private readonly Device device;
    private readonly int payloadSize;
    private readonly IoUring ring;
    private readonly byte** entries;
    private readonly ulong[] files;
    private readonly BusyPoll busyPoll;
    private readonly byte[] copy = GC.AllocateUninitializedArray<byte>(LargestCopy);
    private int sinceLarge = ReturnAfter;
    private int current = -1;
    private bool isAnswered;
    private OutHeader reply;

    private RingExchange(Device device, ushort[] queues, int cpu, BusyPoll busyPoll, ulong[] files, int maxWrite, IoUring ring)
    {
        this.device = device;
        Queues = queues;
        Cpu = cpu;
        this.busyPoll = busyPoll;
        this.files = files;
        this.ring = ring;
        payloadSize = BufferSize(maxWrite);
        entries = (byte**)NativeMemory.AllocZeroed((nuint)queues.Length, (nuint)sizeof(byte*));
        for (int i = 0; i < queues.Length; i++) { entries[i] = (byte*)NativeMemory.AlignedAlloc((nuint)(PayloadAt + payloadSize), 4096); }
    }

    /// <summary>Makes an exchange. Nothing is asked of the connection before <see cref="Enter"/>.</summary>
    /// <param name="device">The connection.</param>
    /// <param name="queues">The numbers of its queues, which are the numbers of the CPUs.</param>
    /// <param name="cpu">The CPU to run its thread on, or -1 for any.</param>
    /// <param name="busyPoll">The busy-polling of the connection.</param>
    /// <param name="files">
    /// Empty for the first exchange of a queue. Otherwise requests may be waiting in the queue already; then these are
    /// inodes that the kernel knows, at least one of them, if possible, a regular file.
    /// </param>
    /// <param name="maxWrite">The largest WRITE and READ in bytes.</param>
    /// <param name="exchange">The exchange, or null on an error.</param>
    /// <returns>The errors of <see cref="IoUring.Create"/>.</returns>
    public static Errno Create(Device device, ushort[] queues, int cpu, BusyPoll busyPoll, ulong[] files, int maxWrite,
        out RingExchange? exchange)
    {
        Errno error = IoUring.Create(queues.Length, out IoUring? ring);
        exchange = error.IsError ? null : new RingExchange(device, queues, cpu, busyPoll, files, maxWrite, ring!);
        return error;
    }

    /// <summary>The queues that the exchange serves.</summary>
    public ushort[] Queues { get; }

    /// <summary>The CPU that its thread runs on, or -1 for any.</summary>
    public int Cpu { get; }

    public override Errno Enter()
    {
        PinToOwnCpu();
        Errno error = ring.Enable();
        if (error.IsError) { return error; }
        for (int i = 0; i < Queues.Length; i++) { Offer(i); }
        if (files.Length == 0) { return Errno.None; }
        error = ring.Submit();
        if (!error.IsError) { WakeQueue(); }
        return error;
    }

    private void PinToOwnCpu()
    {
        if (Cpu >= 0) { _ = Libc.PinThread(Cpu); } // best effort: a process that may not use the CPU serves it from another one
    }

    /// <summary>
    /// Leaves the CPU to a caller that reads a file from beginning to end: the caller and the server then work at the same
    /// time.
    /// </summary>
    /// <remarks>
    /// A caller that waits for the answer to a small request is best served on its own CPU: see
    /// docs/adr/0007-how-requests-come.md.
    /// </remarks>
    private void ChooseCpu()
    {
        if (Cpu < 0) { return; }
        if (Header.Opcode == Opcode.Read && ((ReadIn*)HeaderOf(current)->Operation)->Size >= LargeRead)
        {
            if (sinceLarge >= ReturnAfter) { _ = Libc.UnpinThread(); } // best effort: the thread stays on its CPU
            sinceLarge = 0;
        }
        else if (sinceLarge < ReturnAfter && ++sinceLarge == ReturnAfter)
        {
            PinToOwnCpu();
        }
    }

    /// <summary>Has the kernel put the next request of a queue into an entry.</summary>
    private void Offer(int entry)
    {
        var vectors = (IoVector*)(entries[entry] + VectorsAt);
        vectors[0] = new IoVector { Base = entries[entry], Length = (nuint)sizeof(RingHeader) };
        vectors[1] = new IoVector { Base = entries[entry] + PayloadAt, Length = (nuint)payloadSize };
        ring.Prepare(device.Descriptor, Register, vectors, 2, (ulong)entry, new RingCommand { Queue = Queues[entry] });
    }

    /// <summary>Has the kernel look at the queue of this CPU.</summary>
    /// <remarks>
    /// The kernel looks for requests that came while all entries were busy when an entry is committed, but not when a new
    /// one is registered. They would wait for the end of long work, although this thread was started for them. So we cause
    /// a request with the only notification that is answered by one (RETRIEVE); that request takes the new entry, which is
    /// then committed. The notification must name a regular file that the kernel knows. Its data are not wanted, so that
    /// any answer will do (it is ENOSYS).
    /// </remarks>
    private void WakeQueue()
    {
        // Even, as the kernel's own numbers are, and never one of these: the kernel finds a request by its number.
        ulong unique = (1UL << 62) + (Interlocked.Increment(ref wakes) * 2);
        var message = new NotifyRetrieveOut { Unique = unique };
        message.Header.Length = (uint)sizeof(NotifyRetrieveOut);
        message.Header.Error = (int)NotifyCode.Retrieve;
        foreach (ulong file in files)
        {
            message.NodeId = file;
            if (!device.Write(new ReadOnlySpan<byte>(&message, sizeof(NotifyRetrieveOut))).IsError) { return; }
        }
        // None of these inodes is a regular file that the kernel still knows. The next request of the queue has the same
        // effect.
    }

    public override Errno Receive()
    {
        if (current >= 0) { Commit(); }
        while (true)
        {
            // Submit first, also when another entry has a request already: the reply must not wait until that one is
            // served.
            Errno error = busyPoll.TryEnter() ? WaitAwake() : ring.SubmitAndWait();
            if (error.IsError && error != Errno.EINTR) { return error; }
            if (!ring.TryTake(out ulong entry, out int result)) { continue; }
            if ((Errno)(-result) is Errno.ENOENT or Errno.EAGAIN)
            {
                // Nobody waits for the reply, or INIT is not done: the kernel puts no request into the entry until the
                // entry is registered again. See fuse_uring_commit_fetch() and fuse_uring_cmd().
                Offer((int)entry);
                continue;
            }
            if (result < 0) { return (Errno)(-result); }
            current = (int)entry;
            isAnswered = false;
            busyPoll.CountRequest(Header.Pid, Queues[current]);
            ChooseCpu();
            return Errno.None;
        }
    }

    private Errno WaitAwake()
    {
        Errno error;
        do { error = ring.SubmitAndPoll(); }
        while (!error.IsError && !ring.HasCompletion && !busyPoll.IsOver());
        busyPoll.Leave();
        return error.IsError || ring.HasCompletion ? error : ring.SubmitAndWait();
    }

    private void Commit()
    {
        RingHeader* header = HeaderOf(current);
        if (!isAnswered) { reply = new OutHeader { Length = (uint)sizeof(OutHeader), Error = -(int)Errno.EIO, Unique = Header.Unique }; }
        *(OutHeader*)header->InOut = reply;
        header->Entry.PayloadSize = reply.Length - (uint)sizeof(OutHeader);
        ring.Prepare(device.Descriptor, CommitAndFetch, null, 0, (ulong)current,
            new RingCommand { Queue = Queues[current], CommitId = header->Entry.CommitId });
        current = -1;
    }

    private RingHeader* HeaderOf(int entry) => (RingHeader*)entries[entry];

    public override ref readonly InHeader Header => ref *(InHeader*)HeaderOf(current)->InOut;

    public override bool TryRead(out RequestReader reader)
    {
        RingHeader* header = HeaderOf(current);
        long length = header->Entry.PayloadSize - (Header.TotalExtensionLength * 8L);
        if (length < 0 || length > payloadSize)
        {
            reader = default;
            return false;
        }
        var names = new ReadOnlySpan<byte>(entries[current] + PayloadAt, (int)length);
        if (Header.Opcode is Opcode.GetXattr or Opcode.Ioctl)
        {
            // The handler still reads these while it writes its answer to the same memory.
            if (length > copy.Length)
            {
                reader = default;
                return false;
            }
            names.CopyTo(copy);
            names = copy.AsSpan(0, (int)length);
        }
        reader = new RequestReader(new ReadOnlySpan<byte>(header->Operation, RingHeader.PartSize), names);
        return true;
    }

    public override Span<byte> Payload => new(entries[current] + PayloadAt, payloadSize);

    /// <remarks>The next <see cref="Receive"/> sends the reply, which arrives unless the connection has ended.</remarks>
    public override Errno Send(in OutHeader header)
    {
        reply = header;
        isAnswered = true;
        return Errno.None;
    }

    public override void Dispose()
    {
        ring.Dispose();
        for (int i = 0; i < Queues.Length; i++)
        {
            NativeMemory.AlignedFree(entries[i]);
            entries[i] = null;
        }
        NativeMemory.Free(entries);
    }

    /// <summary><c>struct iovec</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct IoVector
    {
        public void* Base;
        public nuint Length;
    }
}
