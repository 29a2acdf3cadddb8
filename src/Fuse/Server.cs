using System.Runtime.InteropServices;
using System.Runtime.CompilerServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>How a <see cref="Server"/> is set up.</summary>
public sealed record ServerOptions
{
    /// <summary>Threads ready for requests. Default: the number of CPUs, at most two.</summary>
    public int Threads { get; init; } = Math.Clamp(Environment.ProcessorCount, 1, 2);

    /// <summary>Largest WRITE and READ in bytes, a multiple of the page size. Default: 1 MiB.</summary>
    public int MaxWrite { get; init; } = 1 << 20;

    /// <summary>Stacked filesystems allowed below a passed-through file: 1, or 2 for layers that are kernel overlayfs themselves.</summary>
    public uint MaxStackDepth { get; init; } = 1;

    /// <summary>Called with one line per request served, or null.</summary>
    public Action<string>? Trace { get; init; }

    /// <summary>Called with one line about something that went wrong in the server itself.</summary>
    public Action<string> Log { get; init; } = static line => Console.Error.WriteLine(line);
}

/// <summary>Serves one connection: reads requests, calls the filesystem, writes replies.</summary>
/// <remarks>
/// Each thread has a clone of the device and buffers of its own outside the managed heap, so that the steady path
/// allocates nothing. A request that throws is logged and answered EIO; the mount goes on.
/// </remarks>
public sealed partial class Server : IDisposable
{
    /// <summary>The protocol that we speak.</summary>
    public const uint Major = 7;
    /// <summary>The newest minor version that we know.</summary>
    public const uint Minor = 45;
    /// <summary>The oldest minor version that we serve: 7.31, Linux 5.4, has everything that cannot be done without.</summary>
    public const uint OldestMinor = 31;

    /// <summary>The kernel insists on room for a WRITE plus headers, and on at least 8 KiB (FUSE_MIN_READ_BUFFER).</summary>
    private const int HeaderRoom = 4096;

    /// <summary>What may be large although writes are small: reads of 32 pages unless MAX_PAGES is agreed on, xattrs of 64 KiB.</summary>
    private static readonly int smallestBuffer = Math.Max(32 * Environment.SystemPageSize, 1 << 16);

    private readonly Device device;
    private readonly IFileSystem fileSystem;
    private readonly ServerOptions options;
    private readonly Notifier notifier;
    private readonly Workers workers;
    private readonly Lock interruptionsLock = new();
    private volatile Interruption[] interruptions = [];
    private ulong overtaking;
    private volatile bool ended;
    private InitFlags inForce;
    private bool stopped;
    private int workerNumber;

    /// <summary>Prepares to serve; nothing is read before <see cref="Initialize"/>.</summary>
    public Server(Device device, IFileSystem fileSystem, ServerOptions? options = null)
    {
        this.device = device;
        this.fileSystem = fileSystem;
        this.options = options ?? new ServerOptions();
        ArgumentOutOfRangeException.ThrowIfLessThan(this.options.Threads, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(this.options.MaxWrite, Environment.SystemPageSize);
        ArgumentOutOfRangeException.ThrowIfNotEqual(this.options.MaxWrite % Environment.SystemPageSize, 0);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(this.options.MaxWrite / Environment.SystemPageSize, ushort.MaxValue);
        notifier = new Notifier(device);
        workers = new Workers(this.options.Threads, Work);
    }

    /// <summary>Reads INIT and answers it. Kernel and server then agree; requests may follow.</summary>
    /// <returns><see cref="Errno.EPROTO"/> when the kernel speaks another protocol. After any error the filesystem is not started, or stopped again.</returns>
    public Errno Initialize()
    {
        using Buffers buffers = NewBuffers();
        while (true)
        {
            Errno error = device.Read(buffers.In, out int count);
            if (error is Errno.EINTR or Errno.EAGAIN) { continue; }
            if (error.IsError) { return error; }
            if (count < Unsafe.SizeOf<InHeader>() + 16) { return Errno.EPROTO; }
            ref readonly InHeader header = ref MemoryMarshal.AsRef<InHeader>(buffers.In);
            if (header.Opcode != Opcode.Init) { return Errno.EPROTO; }

            InitIn input = default;
            ReadOnlySpan<byte> body = buffers.In[Unsafe.SizeOf<InHeader>()..count];
            body[..Math.Min(body.Length, Unsafe.SizeOf<InitIn>())].CopyTo(MemoryMarshal.AsBytes(new Span<InitIn>(ref input)));
            TraceInit(header, input);
            if (input.Major > Major)
            {
                // The kernel is newer: it asks again in our version.
                Reply(device, buffers, header.Unique, new InitOut { Major = Major, Minor = Minor });
                continue;
            }
            if (input.Major < Major || input.Minor < OldestMinor)
            {
                ReplyError(device, buffers, header.Unique, Errno.EPROTO);
                return Errno.EPROTO;
            }

            InitFlags flags = fileSystem.Negotiate(input.AllFlags) & input.AllFlags;
            if ((input.AllFlags & InitFlags.InitExt) != 0) { flags |= InitFlags.InitExt; }
            inForce = flags;
            var output = new InitOut
            {
                Major = Major,
                Minor = Math.Min(Minor, input.Minor),
                MaxReadAhead = input.MaxReadAhead,
                Flags = (uint)flags,
                Flags2 = (uint)((ulong)flags >> 32),
                MaxBackground = 64,
                CongestionThreshold = 48,
                MaxWrite = (uint)options.MaxWrite,
                TimeGranularity = 1,
                MaxPages = (ushort)(options.MaxWrite / Environment.SystemPageSize),
                MaxStackDepth = (flags & InitFlags.Passthrough) != 0 ? options.MaxStackDepth : 0,
            };
            // Start first: the reply releases whatever waits for the mount.
            fileSystem.Start(new Connection(flags, output.MaxStackDepth, device, notifier, workers));
            error = Reply(device, buffers, header.Unique, output);
            if (error.IsError) { StopOnce(); }
            return error;
        }
    }

    /// <summary>Starts the threads.</summary>
    public void Start() => workers.Start();

    /// <summary>Waits until the connection has ended and every thread has left, then tells the filesystem.</summary>
    public void WaitForEnd()
    {
        workers.Join();
        StopOnce();
    }

    private void StopOnce()
    {
        if (!Interlocked.Exchange(ref stopped, true)) { fileSystem.Stop(); }
    }

    /// <summary>One thread: read, dispatch, reply, until the connection ends.</summary>
    private void Work()
    {
        // The first thread may use the device itself; without clones the others share it.
        Device mine = device;
        bool cloned = false;
        if (Interlocked.Increment(ref workerNumber) > 1 && !device.Clone(out Device? clone).IsError)
        {
            mine = clone!;
            cloned = true;
        }
        var interruption = new Interruption();
        lock (interruptionsLock) { interruptions = [.. interruptions, interruption]; }

        using (Buffers buffers = NewBuffers())
        {
            while (!ended)
            {
                workers.Yield();
                if (ended) { break; }
                Errno error = mine.Read(buffers.In, out int count);
                if (error.IsError)
                {
                    // ENOENT: the request was taken back; EINTR, EAGAIN: try again.
                    if (error is Errno.ENOENT or Errno.EINTR or Errno.EAGAIN) { continue; }
                    if (error is not (Errno.ENODEV or Errno.ECONNABORTED or Errno.ENOTCONN)) { options.Log($"veneer: reading requests failed: {error}"); }
                    break;
                }
                if (count == 0) { break; } // the other end of a test's socket was closed
                Serve(mine, buffers, count, interruption);
            }
        }
        ended = true;
        workers.Stop();
        if (cloned) { mine.Dispose(); }
    }

    private void Serve(Device mine, Buffers buffers, int count, Interruption interruption)
    {
        if (count < Unsafe.SizeOf<InHeader>()) { return; }
        ref readonly InHeader header = ref MemoryMarshal.AsRef<InHeader>(buffers.In);
        int end = count - header.TotalExtensionLength * 8;
        if (header.Length != count || end < Unsafe.SizeOf<InHeader>())
        {
            if (HasReply(header.Opcode)) { ReplyError(mine, buffers, header.Unique, Errno.EINVAL); }
            return;
        }
        interruption.Begin(header.Unique);
        if (Volatile.Read(ref overtaking) == header.Unique) { interruption.TryRaise(header.Unique); }
        try
        {
            var request = new Request(header, interruption);
            var reader = new RequestReader(buffers.In[Unsafe.SizeOf<InHeader>()..end]);
            Dispatch(mine, buffers, request, ref reader);
        }
#pragma warning disable CA1031 // the one guard: a bug in a request costs that request, not the mount
        catch (Exception bug)
        {
            options.Log($"veneer: bug: {header.Opcode} of node {header.NodeId} failed: {bug}");
            if (HasReply(header.Opcode)) { ReplyError(mine, buffers, header.Unique, Errno.EIO); }
        }
#pragma warning restore CA1031
        finally
        {
            interruption.End();
        }
    }

    /// <summary>Whether the kernel waits for an answer. That to INTERRUPT is optional.</summary>
    private static bool HasReply(Opcode opcode) => opcode is not (Opcode.Forget or Opcode.BatchForget or Opcode.Interrupt);

    /// <summary>Finds the worker that serves a request, and tells it.</summary>
    /// <remarks>
    /// A worker may have read its request and not yet begun when another one has read the interrupt. EAGAIN asks the
    /// kernel to send that again, but it looks for the request only among those of the device that answers, and each
    /// worker has its own clone. So the last number is kept as well, before the workers are looked at, and each worker
    /// looks at it after it has begun: one of the two sees the other.
    /// </remarks>
    private Errno Interrupt(ulong unique)
    {
        lock (interruptionsLock)
        {
            Interlocked.Exchange(ref overtaking, unique);
            foreach (Interruption interruption in interruptions)
            {
                if (interruption.TryRaise(unique)) { return Errno.None; }
            }
        }
        return Errno.EAGAIN;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        notifier.Dispose();
        workers.Dispose();
    }

    private Buffers NewBuffers() => new(Math.Max(options.MaxWrite, smallestBuffer) + HeaderRoom);

    /// <summary>A thread's memory, outside the managed heap: one request and one reply.</summary>
    private sealed unsafe class Buffers : IDisposable
    {
        private readonly int size;
        private void* input;
        private void* output;

        public Buffers(int size)
        {
            this.size = size;
            input = NativeMemory.AlignedAlloc((nuint)size, 4096);
            output = NativeMemory.AlignedAlloc((nuint)size, 4096);
        }

        public Span<byte> In => new(input, size);

        /// <summary>The whole reply, header included.</summary>
        public Span<byte> Out => new(output, size);

        /// <summary>What follows the reply's header.</summary>
        public Span<byte> Payload => new((byte*)output + sizeof(OutHeader), size - sizeof(OutHeader));

        /// <summary>Room for what was asked for, as far as there is.</summary>
        public Span<byte> PayloadOf(uint asked) => Payload[..(int)Math.Min(asked, (uint)(size - sizeof(OutHeader)))];

        public void Dispose()
        {
            NativeMemory.AlignedFree(input);
            NativeMemory.AlignedFree(output);
            input = null;
            output = null;
        }
    }
}
