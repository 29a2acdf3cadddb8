using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>By io_uring: one call gives the reply and fetches the next request, and the CPU that asks is the one that serves.</summary>
/// <remarks>
/// The kernel has a queue for each CPU, and puts a request into an entry of the queue of the caller's CPU; the entry's
/// owner fills in the reply and commits it. One exchange has one entry in each of its queues: an entry that waits while
/// its thread is busy with another would keep a request waiting. FORGET and INTERRUPT do not come this way.
/// See Documentation/filesystems/fuse/fuse-io-uring.rst.
/// </remarks>
internal sealed unsafe class RingExchange : Exchange
{
    private const uint Register = 1;
    private const uint CommitAndFetch = 2;

    /// <summary>Where the parts of an entry's memory begin: header, then the two iovecs, then the payload.</summary>
    private const int VectorsAt = 512, PayloadAt = 4096;

    /// <summary>The argument of an ioctl has 14 bits of length, a name of an xattr 8.</summary>
    private const int LargestCopy = 1 << 14;

    /// <summary>From this size on, in bytes, a READ is one of data that the caller will come to, and works on meanwhile.</summary>
    private const uint LargeRead = 64 * 1024;

    /// <summary>After so many requests that are none of these the thread goes back to its CPU.</summary>
    private const int Homesick = 16;

    private static ulong wakes;

    private readonly Device device;
    private readonly int payloadSize;
    private readonly IoUring ring;
    private readonly byte** entries;
    private readonly ulong[] files;
    private readonly BusyPoll busyPoll;
    private readonly byte[] copy = GC.AllocateUninitializedArray<byte>(LargestCopy);
    private int sinceLarge = Homesick;
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

    /// <summary>Makes one; nothing is asked of the connection before <see cref="Enter"/>.</summary>
    /// <param name="device">The connection.</param>
    /// <param name="queues">The numbers of its queues, which are those of the CPUs.</param>
    /// <param name="cpu">Where its thread is to run, or -1 for anywhere.</param>
    /// <param name="busyPoll">That of the connection.</param>
    /// <param name="files">
    /// Where requests may be waiting already: inodes that the kernel knows, one of them best a regular file. Else empty.
    /// </param>
    /// <param name="maxWrite">The largest WRITE and READ in bytes.</param>
    /// <param name="exchange">What was made.</param>
    /// <returns>As <see cref="IoUring.Create"/>.</returns>
    public static Errno Create(Device device, ushort[] queues, int cpu, BusyPoll busyPoll, ulong[] files, int maxWrite, out RingExchange? exchange)
    {
        Errno error = IoUring.Create(queues.Length, out IoUring? ring);
        exchange = error.IsError ? null : new RingExchange(device, queues, cpu, busyPoll, files, maxWrite, ring!);
        return error;
    }

    /// <summary>The queues that it serves.</summary>
    public ushort[] Queues { get; }

    /// <summary>Where its thread runs, or -1 for anywhere.</summary>
    public int Cpu { get; }

    public override Errno Enter()
    {
        StayHome();
        Errno error = ring.Enable();
        if (error.IsError) { return error; }
        for (int i = 0; i < Queues.Length; i++) { Offer(i); }
        if (files.Length == 0) { return Errno.None; }
        error = ring.Submit();
        if (!error.IsError) { WakeQueue(); }
        return error;
    }

    private void StayHome()
    {
        if (Cpu >= 0) { _ = Libc.PinThread(Cpu); } // best effort: a process that may not use the CPU serves it from another one
    }

    /// <summary>Leaves the CPU to a caller who reads a file from its beginning to its end: he and the server work at once then.</summary>
    /// <remarks>Who waits for the answer to a small request is served best on his own CPU: see docs/adr/0007-how-requests-come.md.</remarks>
    private void ChooseCpu()
    {
        if (Cpu < 0) { return; }
        if (Header.Opcode == Opcode.Read && ((ReadIn*)HeaderOf(current)->Operation)->Size >= LargeRead)
        {
            if (sinceLarge >= Homesick) { _ = Libc.UnpinThread(); } // best effort: it stays
            sinceLarge = 0;
        }
        else if (sinceLarge < Homesick && ++sinceLarge == Homesick)
        {
            StayHome();
        }
    }

    /// <summary>Has the kernel put the next request of its queue into an entry.</summary>
    private void Offer(int entry)
    {
        var vectors = (IoVector*)(entries[entry] + VectorsAt);
        vectors[0] = new IoVector { Base = entries[entry], Length = (nuint)sizeof(RingHeader) };
        vectors[1] = new IoVector { Base = entries[entry] + PayloadAt, Length = (nuint)payloadSize };
        ring.Prepare(device.Descriptor, Register, vectors, 2, (ulong)entry, new RingCommand { Queue = Queues[entry] });
    }

    /// <summary>Has the kernel look at the queue of this CPU.</summary>
    /// <remarks>
    /// What came while all entries were busy is looked for when one of these is committed, but not when a new one is
    /// registered: it would wait for the end of long work, although we are there for its sake. So we ask for a request,
    /// with the only notification that is answered by one, and that one is committed. It must be about a regular file that
    /// the kernel knows; of its data nothing is wanted, and any answer will do (it is ENOSYS).
    /// </remarks>
    private void WakeQueue()
    {
        // Even, as the kernel's own are, and never one of these: it finds a request by its number.
        ulong unique = (1UL << 62) + (Interlocked.Increment(ref wakes) * 2);
        var message = new NotifyRetrieveOut { Unique = unique };
        message.Header.Length = (uint)sizeof(NotifyRetrieveOut);
        message.Header.Error = (int)NotifyCode.Retrieve;
        foreach (ulong file in files)
        {
            message.NodeId = file;
            if (!device.Write(new ReadOnlySpan<byte>(&message, sizeof(NotifyRetrieveOut))).IsError) { return; }
        }
        // None of them is one, or not any more: the next request of the queue does it too.
    }

    public override Errno Receive()
    {
        if (current >= 0) { Commit(); }
        while (true)
        {
            // First, also when another entry has a request already: the reply must not wait until that one is served.
            Errno error = busyPoll.TryEnter() ? WaitAwake() : ring.SubmitAndWait();
            if (error.IsError && error != Errno.EINTR) { return error; }
            if (!ring.TryTake(out ulong entry, out int result)) { continue; }
            if ((Errno)(-result) is Errno.ENOENT or Errno.EAGAIN)
            {
                // There is nobody to give the reply to, or INIT is not done: the kernel puts no request into the entry unless it
                // is offered anew. See fuse_uring_commit_fetch() and fuse_uring_cmd().
                Offer((int)entry);
                continue;
            }
            if (result < 0) { return (Errno)(-result); }
            current = (int)entry;
            isAnswered = false;
            busyPoll.Saw(Header.Pid, Queues[current]);
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
        ring.Prepare(device.Descriptor, CommitAndFetch, null, 0, (ulong)current, new RingCommand { Queue = Queues[current], CommitId = header->Entry.CommitId });
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
            // The handler still reads these while it writes its answer, which has the same place.
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

    /// <remarks>It goes with the next <see cref="Receive"/>, and arrives unless the connection has ended.</remarks>
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
