using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>The options of a <see cref="Server"/>.</summary>
public sealed record ServerOptions
{
    /// <summary>The number of threads that are ready for requests. Default: the number of CPUs, at most two.</summary>
    public int Threads { get; init; } = Math.Clamp(Environment.ProcessorCount, 1, 2);

    /// <summary>
    /// The time between two looks at the threads. A request that takes this long, or up to twice as long, has another
    /// thread take the requests after it. Default: 25 milliseconds.
    /// </summary>
    public TimeSpan StallInterval { get; init; } = TimeSpan.FromMilliseconds(25);

    /// <summary>The largest WRITE and READ in bytes, a multiple of the page size. Default: 1 MiB.</summary>
    public int MaxWrite { get; init; } = 1 << 20;

    /// <summary>
    /// The number of stacked filesystems allowed below a passed-through file: 1, or 2 for layers that are on kernel
    /// overlayfs themselves.
    /// </summary>
    public uint MaxStackDepth { get; init; } = 1;

    /// <summary>Called with one line per request served, or null.</summary>
    public Action<string>? Trace { get; init; }

    /// <summary>
    /// Ends the connection in the kernel, or null. Called when requests cannot be received any more, so that no caller
    /// waits for an answer.
    /// </summary>
    public Action? Abort { get; init; }

    /// <summary>
    /// Called when the connection has ended, or null. Other threads may still serve earlier requests, or hang in them.
    /// </summary>
    public Action? Ended { get; init; }

    /// <summary>Called with one line about a failure of the server itself.</summary>
    public Action<string> Log { get; init; } = static line => Console.Error.WriteLine(line);
}

/// <summary>Serves one connection: reads requests, calls the filesystem, writes replies.</summary>
/// <remarks>
/// Each thread has buffers of its own outside the managed heap, so that the steady path allocates nothing, and a clone of
/// the device or an io_uring where the kernel allows it. A request that throws is logged and answered with EIO; the mount
/// goes on.
/// </remarks>
public sealed partial class Server : IDisposable
{
    /// <summary>The major version of the protocol.</summary>
    public const uint Major = 7;
    /// <summary>The newest minor version that the server knows.</summary>
    public const uint Minor = 45;
    /// <summary>The oldest minor version that is served: 7.31, Linux 5.4, has everything that is indispensable.</summary>
    public const uint OldestMinor = 31;

    /// <summary>
    /// The number of requests without a waiting caller, such as read-ahead, that the kernel sends before it holds back the
    /// next one.
    /// </summary>
    /// <remarks>
    /// This is more than a pool has threads: if the kernel held requests back while this many hang, all others would wait,
    /// also those that could be served.
    /// </remarks>
    private const ushort MaxBackground = 2 * WorkerPool.MaxThreads;

    private readonly Device device;
    private readonly IFileSystem fileSystem;
    private readonly ServerOptions options;
    private readonly Notifier notifier;
    private readonly Workers workers;
    private readonly Gate gate;
    private readonly BusyPoll busyPoll = new();
    private readonly Statistics statistics = new();
    private readonly OrderedLock interruptionsLock = new(FuseLocks.Interruptions);
    private volatile Interruption[] interruptions = [];
    private readonly ulong[] overtaking = new ulong[16]; // requests that were interrupted before they came, the last ones
    private uint overtakers; // protected by interruptionsLock
    private volatile bool ended;
    private InitFlags inForce;
    private bool stopped;
    private bool lacksThread;
    private bool lacksRings;
    private ulong lastLookedUp, lastOpened; // nodeids of regular files
    private int deviceThreads;

    /// <summary>The counts of what was served.</summary>
    public Statistics Statistics => statistics;

    /// <summary>Prepares a server. It reads nothing before <see cref="Initialize"/>.</summary>
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
        workers = new Workers(this.options.StallInterval, Rest);
        gate = new Gate(() => interruptions);
    }

    /// <summary>Reads INIT and answers it. Kernel and server have then agreed, and requests may follow.</summary>
    /// <returns>
    /// <see cref="Errno.EPROTO"/> when the kernel speaks another protocol. After any error the filesystem has not been
    /// started, or has been stopped again.
    /// </returns>
    public Errno Initialize()
    {
        using var exchange = new DeviceExchange(device, ownsDevice: false, options.MaxWrite);
        while (true)
        {
            Errno error = exchange.Receive();
            if (error is Errno.EINTR or Errno.EAGAIN) { continue; }
            if (error.IsError) { return error; }
            ref readonly InHeader header = ref exchange.Header;
            if (header.Opcode != Opcode.Init || !exchange.TryRead(out RequestReader reader) || reader.Rest.Length < 16)
            {
                return Errno.EPROTO;
            }

            InitIn input = default;
            ReadOnlySpan<byte> body = reader.Rest;
            body[..Math.Min(body.Length, Unsafe.SizeOf<InitIn>())].CopyTo(MemoryMarshal.AsBytes(new Span<InitIn>(ref input)));
            TraceInit(header, input);
            if (input.Major > Major)
            {
                // The kernel is newer, and asks again in our version.
                Reply(exchange, header.Unique, new InitOut { Major = Major, Minor = Minor });
                continue;
            }
            if (input.Major < Major || input.Minor < OldestMinor)
            {
                ReplyError(exchange, header.Unique, Errno.EPROTO);
                return Errno.EPROTO;
            }

            InitFlags flags = fileSystem.Negotiate(input.AllFlags) & input.AllFlags;
            if ((input.AllFlags & InitFlags.InitExt) != 0) { flags |= InitFlags.InitExt; }
            Errno ringError = AddPools(ref flags);
            inForce = flags;
            var output = new InitOut
            {
                Major = Major,
                Minor = Math.Min(Minor, input.Minor),
                MaxReadAhead = input.MaxReadAhead,
                Flags = (uint)flags,
                Flags2 = (uint)((ulong)flags >> 32),
                MaxBackground = MaxBackground,
                CongestionThreshold = MaxBackground / 4 * 3,
                MaxWrite = (uint)options.MaxWrite,
                TimeGranularity = 1,
                MaxPages = (ushort)(options.MaxWrite / Environment.SystemPageSize),
                MaxStackDepth = (flags & InitFlags.Passthrough) != 0 ? options.MaxStackDepth : 0,
            };
            // Start first: the reply releases every caller that waits for the mount.
            fileSystem.Start(new Connection(flags, output.MaxStackDepth, device, notifier, workers, gate, statistics, ringError));
            error = Reply(exchange, header.Unique, output);
            if (error.IsError) { StopOnce(); }
            return error;
        }
    }

    /// <summary>The number of requests being served.</summary>
    public int Busy => workers.Busy;

    /// <summary>Starts the serving threads.</summary>
    public void Start() => workers.Start();

    /// <summary>Waits until the connection has ended and every thread has left, then stops the filesystem.</summary>
    public void WaitForEnd()
    {
        workers.Join();
        StopOnce();
    }

    private void Rest(bool isQuiet)
    {
        try
        {
            fileSystem.Rest(isQuiet);
        }
#pragma warning disable CA1031 // a bug in tidying up must not cost the mount
        catch (Exception bug)
        {
            options.Log($"veneer: bug: resting failed: {bug}");
        }
#pragma warning restore CA1031
    }

    private void StopOnce()
    {
        if (!Interlocked.Exchange(ref stopped, true)) { fileSystem.Stop(); }
    }

    /// <summary>Decides which threads serve: several on the device, or one on the device and one on the ring of each CPU.</summary>
    /// <param name="flags">
    /// The capabilities to answer INIT with. Loses <see cref="InitFlags.OverIoUring"/> when rings cannot be made.
    /// </param>
    /// <returns>Why rings cannot be made.</returns>
    private Errno AddPools(ref InitFlags flags)
    {
        Errno error = Errno.None;
        var rings = new List<RingExchange>();
        if ((flags & InitFlags.OverIoUring) != 0)
        {
            error = MakeRings(rings);
            if (error.IsError)
            {
                flags &= ~InitFlags.OverIoUring;
                rings.ForEach(ring => ring.Dispose());
                rings.Clear();
            }
        }
        workers.Add(new WorkerPool(rings.Count > 0 ? 1 : options.Threads, parks: true, _ => OpenDevice(), Work));
        foreach (RingExchange ring in rings)
        {
            // One thread: the kernel hands over the next request with the reply to the last one, and another thread would
            // have to be woken.
            RingExchange? first = ring;
            workers.Add(new WorkerPool(1, parks: false,
                cause => Interlocked.Exchange(ref first, null) ?? OpenRing(ring.Queues, ring.Cpu, cause), Work));
        }
        return error;
    }

    /// <summary>Makes the exchange of each ring's first thread, while INIT can still decline io_uring.</summary>
    /// <remarks>
    /// A queue has the number of its CPU. The kernel requires all of them to be served, also those of absent CPUs.
    /// </remarks>
    private Errno MakeRings(List<RingExchange> rings)
    {
        Errno error = Libc.ReadCpuList("/sys/devices/system/cpu/possible\0"u8, out List<int> possible);
        if (error.IsError) { return error; }
        error = Libc.ReadCpuList("/sys/devices/system/cpu/online\0"u8, out List<int> online);
        if (error.IsError) { return error; }
        var places = online.ConvertAll(cpu => (Queues: (ushort[])[(ushort)cpu], Cpu: cpu));
        ushort[] absent = [.. possible.Except(online).Select(cpu => (ushort)cpu)];
        if (absent.Length > 0) { places.Add((absent, -1)); }
        foreach ((ushort[] queues, int cpu) in places)
        {
            error = RingExchange.Create(device, queues, cpu, busyPoll, [], options.MaxWrite, out RingExchange? ring);
            if (error.IsError) { return error; }
            rings.Add(ring!);
        }
        return Errno.None;
    }

    private RingExchange? OpenRing(ushort[] queues, int cpu, ulong cause)
    {
        Span<ulong> known = stackalloc ulong[16];
        known = known[..fileSystem.FindKnownFiles(known)];
        Errno error = RingExchange.Create(device, queues, cpu, busyPoll,
            [cause, Volatile.Read(ref lastOpened), Volatile.Read(ref lastLookedUp), .. known], options.MaxWrite,
            out RingExchange? exchange);
        if (error.IsError) { LogLack(error); }
        return exchange;
    }

    private void LogLack(Errno error)
    {
        if (!Interlocked.Exchange(ref lacksThread, true))
        {
            options.Log($"veneer: one more thread cannot receive requests ({error}): they wait for those that there are");
        }
    }

    private void DoWithoutRings()
    {
        if (Interlocked.Exchange(ref lacksRings, true)) { return; }
        options.Log("veneer: requests do not come over io_uring: it was switched off while the mount began");
        workers.AddDeviceThreads(options.Threads);
    }

    /// <summary>
    /// Opens the exchange of a thread on the device. The first thread uses the device itself; where it cannot be cloned,
    /// all others share it.
    /// </summary>
    private DeviceExchange OpenDevice()
    {
        if (Interlocked.Increment(ref deviceThreads) > 1 && !device.Clone(out Device? clone).IsError)
        {
            return new DeviceExchange(clone!, ownsDevice: true, options.MaxWrite);
        }
        return new DeviceExchange(device, ownsDevice: false, options.MaxWrite);
    }

    /// <summary>The loop of one thread: receive, dispatch, reply, until the connection ends.</summary>
    /// <returns>False when the thread could not begin to serve, and the other threads do without it.</returns>
    private bool Work(Exchange exchange)
    {
        Worker worker = Worker.Current!;
        using (interruptionsLock.Enter()) { interruptions = [.. interruptions, worker.Interruption]; }
        ThreadCounts counts = statistics.Add(exchange is RingExchange);

        bool hasServed = false;
        Errno error = exchange.Enter();
        while (!error.IsError)
        {
            worker.Pool.Yield();
            if (ended) { break; }
            error = exchange.Receive();
            if (!error.IsError)
            {
                hasServed = true;
                Opcode opcode = exchange.Header.Opcode;
                long began = Statistics.Now;
                exchange.Outcome = default;
                Serve(exchange, worker);
                counts.Add(opcode, exchange.Outcome, Statistics.Now - began);
            }
            else if (error is Errno.ENOENT or Errno.EINTR or Errno.EAGAIN or Errno.EPROTO) { error = Errno.None; }
        }
        bool isEnd = !error.IsError || error is Errno.ENODEV or Errno.ECONNABORTED or Errno.ENOTCONN;
        if (!isEnd && !hasServed && worker.IsExtra)
        {
            LogLack(error);
            return false;
        }
        if (!hasServed && error == Errno.EOPNOTSUPP && exchange is RingExchange)
        {
            // enable_uring was switched off while INIT was answered: all requests come by the device. Kernel:
            // process_init_reply().
            DoWithoutRings();
            return false;
        }
        bool isFirst = !Interlocked.Exchange(ref ended, true);
        workers.Stop();
        if (isFirst) { options.Ended?.Invoke(); }
        if (!isEnd)
        {
            options.Log($"veneer: reading requests failed ({error}): the mount ends");
            // Other threads may wait in the kernel, and callers for requests that only this thread would have taken.
            options.Abort?.Invoke();
        }
        return true;
    }

    private void Serve(Exchange exchange, Worker worker)
    {
        Interruption interruption = worker.Interruption;
        ref readonly InHeader header = ref exchange.Header;
        ulong unique = header.Unique;
        if (!exchange.TryRead(out RequestReader reader))
        {
            if (HasReply(header.Opcode)) { ReplyError(exchange, header.Unique, Errno.EINVAL); }
            return;
        }
        worker.NodeId = header.NodeId;
        worker.Caller = header.Pid;
        worker.Opcode = header.Opcode;
        worker.OnlyReads = OnlyReads(header.Opcode, reader);
        worker.Begun++;
        interruption.Begin(header.Unique);
        workers.Watch();
        if (overtaking.AsSpan().Contains(header.Unique)) { interruption.TryRaise(header.Unique); }
        try
        {
            if (gate.Service != Service.All && IsRefused(exchange, header, reader)) { return; }
            Dispatch(exchange, new Request(header, interruption), ref reader);
        }
#pragma warning disable CA1031 // the one guard: a bug in a request costs that request, not the mount
        catch (Exception bug)
        {
            options.Log($"veneer: bug: {header.Opcode} of node {header.NodeId} failed: {bug}");
            if (HasReply(header.Opcode)) { ReplyError(exchange, header.Unique, Errno.EIO); }
        }
#pragma warning restore CA1031
        finally
        {
            if (worker.Answered == unique) { EndAnswered(worker, unique); }
            interruption.End();
            if (worker.IsReplaced) { worker.Pool.EndBlocking(); }
        }
    }

    /// <summary>Carries out what had to wait until the thread is done with a request that was answered in its place.</summary>
    private void EndAnswered(Worker worker, ulong request)
    {
        foreach (Ending ending in worker.Pool.EndAnswered(request))
        {
            if (gate.Service == Service.Nothing) { continue; } // the filesystem is not called any more
            try { CarryOut(ending); }
#pragma warning disable CA1031 // as in Serve
            catch (Exception bug) { options.Log($"veneer: bug: {ending.Opcode} of node {ending.NodeId} failed: {bug}"); }
#pragma warning restore CA1031
        }
    }

    private void CarryOut(in Ending ending)
    {
        switch (ending.Opcode)
        {
            case Opcode.Release: fileSystem.Release(ending.NodeId, ending.Value); break;
            case Opcode.ReleaseDir: fileSystem.ReleaseDir(ending.NodeId, ending.Value); break;
            default: fileSystem.Forget(ending.NodeId, ending.Value); break;
        }
    }

    /// <summary>Ends what the kernel held, or has that wait while a thread uses it: see <see cref="AnsweredRequests"/>.</summary>
    private void End(Opcode opcode, ulong nodeId, ulong value)
    {
        var ending = new Ending(opcode, nodeId, value);
        if (!workers.TryDefer(ending)) { CarryOut(ending); }
    }

    /// <summary>Answers a request that the gate keeps from the filesystem. False when the gate lets it through.</summary>
    private bool IsRefused(Exchange exchange, in InHeader header, RequestReader reader)
    {
        ulong unique = header.Unique;
        if (gate.TryRevoke(header, reader, out EntryOut entry))
        {
            _ = Reply(exchange, unique, entry); // best effort: on an error, the caller of the lookup is gone
            return true;
        }
        if (!gate.Refuses(header, reader, out Errno error)) { return false; }
        if (HasReply(header.Opcode)) { ReplyError(exchange, unique, error); }
        return true;
    }

    /// <summary>Whether a request changes nothing, and what its reply lends is taken back when nobody receives it.</summary>
    private static bool OnlyReads(Opcode opcode, RequestReader reader) => opcode switch
    {
        Opcode.Lookup or Opcode.GetAttr or Opcode.StatX or Opcode.ReadLink or Opcode.StatFs or Opcode.GetXattr or Opcode.ListXattr => true,
        Opcode.Read or Opcode.OpenDir or Opcode.ReadDir or Opcode.ReadDirPlus or Opcode.LSeek => true,
        Opcode.Open => reader.Take(out OpenIn open) && (open.Flags & (OpenFlags.AccessMode | OpenFlags.Truncate)) == OpenFlags.ReadOnly,
        _ => false,
    };

    /// <summary>Whether the kernel waits for a reply. A reply to INTERRUPT is optional.</summary>
    private static bool HasReply(Opcode opcode) => opcode is not (Opcode.Forget or Opcode.BatchForget or Opcode.Interrupt);

    /// <summary>Marks a request as interrupted, if a worker serves it.</summary>
    /// <remarks>
    /// A worker may have read its request, but not yet begun it, when another worker has read the INTERRUPT. EAGAIN asks
    /// the kernel to send the INTERRUPT again, but the kernel looks for the request only among those of the device that
    /// answers, and each worker has its own clone. So the number is also kept, before the workers are searched, and each
    /// worker compares it after it has begun a request. Both sides store and then load: at least one sees the other's store.
    /// </remarks>
    private Errno Interrupt(ulong unique)
    {
        using (interruptionsLock.Enter())
        {
            Interlocked.Exchange(ref overtaking[overtakers++ % overtaking.Length], unique);
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
        workers.Dispose();
    }
}
