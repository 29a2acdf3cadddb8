using System.Diagnostics;
using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>Exchanges requests and replies by reading and writing /dev/fuse.</summary>
/// <remarks>
/// Most of the cost of a request is waking this thread, on another CPU than the caller's. So while there is a single, quick
/// caller, the thread polls for a moment before it sleeps. That must pay: when most polls find nothing, only one in several
/// is tried. See docs/adr/0007-how-requests-come.md.
/// </remarks>
internal sealed unsafe class DeviceExchange : Exchange
{
    /// <summary>How long to poll before sleeping, in ticks of the clock: less than waking another CPU takes.</summary>
    private static readonly long pollTime = Stopwatch.Frequency / 50_000; // 20 microseconds

    /// <summary>When polling does not pay, one request in this many is polled for, to see whether it pays now.</summary>
    private const int OneTryIn = 16;

    /// <summary>The bound of the score of successful and failed polls.</summary>
    private const int MaxScore = 16;

    /// <summary>
    /// The length in bytes from which saving one copy is worth two more system calls: see
    /// docs/adr/0009-what-was-tried-for-speed.md.
    /// </summary>
    private const int WorthSplicing = 1 << 15;

    private readonly Device device;
    private readonly bool ownsDevice;
    private readonly int size;
    private Callers? callers;
    private Device? nonBlocking;
    private bool canPoll = true;
    private int score;
    private int untried;
    private byte* input;
    private byte* output;
    private Device from;
    private int received;
    private ReplyPipe? pipe;
    private bool canSplice = true;
    private bool isSpliced;

    /// <param name="device">The device to read and write.</param>
    /// <param name="ownsDevice">Whether the exchange disposes of the device.</param>
    /// <param name="maxWrite">The largest WRITE and READ in bytes.</param>
    public DeviceExchange(Device device, bool ownsDevice, int maxWrite)
    {
        this.device = from = device;
        this.ownsDevice = ownsDevice;
        size = BufferSize(maxWrite);
        input = (byte*)NativeMemory.AlignedAlloc((nuint)size, 4096);
        output = (byte*)NativeMemory.AlignedAlloc((nuint)size, 4096);
    }

    public override Errno Enter()
    {
        callers = new Callers(WorkerPool.Current!);
        return Errno.None;
    }

    public override Errno Receive()
    {
        if (callers is { AreOne: true } && IsWorthWaiting() && TryWait()) { return Judge(); }
        from = device;
        Errno error = device.Read(new Span<byte>(input, size), out received);
        return error.IsError ? error : Judge();
    }

    private Errno Judge()
    {
        if (received == 0) { return Errno.ENODEV; } // a test has closed the other end of its socket
        if (received < sizeof(InHeader)) { return Errno.EPROTO; }
        callers?.CountRequest(Header.Pid);
        return Errno.None;
    }

    private bool IsWorthWaiting() => canPoll && (score > 0 || ++untried % OneTryIn == 0);

    /// <summary>Polls for a request for a moment. Errors are left to the blocking device, which gets them too.</summary>
    /// <remarks>A reply must be written to the descriptor from which its request was read.</remarks>
    private bool TryWait()
    {
        if (nonBlocking is null)
        {
            canPoll = !device.Clone(out nonBlocking, OpenFlags.NonBlock).IsError;
            if (!canPoll) { return false; }
        }
        long end = Stopwatch.GetTimestamp() + pollTime;
        do
        {
            if (!nonBlocking!.Read(new Span<byte>(input, size), out received).IsError)
            {
                score = Math.Min(score + 1, MaxScore);
                from = nonBlocking;
                return true;
            }
        }
        while (Stopwatch.GetTimestamp() < end);
        score = Math.Max(score - 1, -MaxScore);
        return false;
    }

    public override ref readonly InHeader Header => ref *(InHeader*)input;

    public override bool TryRead(out RequestReader reader)
    {
        int end = received - (Header.TotalExtensionLength * 8);
        if (end < sizeof(InHeader) || Header.Length != received)
        {
            reader = default;
            return false;
        }
        reader = new RequestReader(new ReadOnlySpan<byte>(input + sizeof(InHeader), end - sizeof(InHeader)));
        return true;
    }

    public override Span<byte> Payload => new(output + sizeof(OutHeader), size - sizeof(OutHeader));

    public override bool TryTake(int file, long offset, int length, out int count)
    {
        count = 0;
        if (length < WorthSplicing || !canSplice) { return false; }
        pipe ??= ReplyPipe.Make();
        canSplice = pipe is not null;
        isSpliced = canSplice && pipe!.Fill(Header.Unique, file, offset, length, new Span<byte>(output, size), out count);
        return isSpliced;
    }

    public override Errno AnswerFor(ulong unique, Errno error)
    {
        var header = new OutHeader { Length = (uint)sizeof(OutHeader), Error = -(int)error, Unique = unique };
        return from.Write(new ReadOnlySpan<byte>(&header, sizeof(OutHeader)));
    }

    public override Errno Send(in OutHeader header)
    {
        if (isSpliced)
        {
            isSpliced = false;
            bool isAnswer = header.Error == 0;
            Errno error = isAnswer ? pipe!.Send(from, (int)header.Length) : Errno.None;
            if (isAnswer && !error.IsError) { return error; }
            pipe!.Dispose(); // and drops what the pipe still holds
            pipe = null;
            if (isAnswer) { return error; }
        }
        *(OutHeader*)output = header;
        return from.Write(new ReadOnlySpan<byte>(output, (int)header.Length));
    }

    public override void Dispose()
    {
        NativeMemory.AlignedFree(input);
        NativeMemory.AlignedFree(output);
        input = null;
        output = null;
        pipe?.Dispose();
        nonBlocking?.Dispose();
        if (ownsDevice) { device.Dispose(); }
    }
}
