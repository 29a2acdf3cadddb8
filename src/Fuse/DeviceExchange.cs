using System.Diagnostics;
using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>By reading and writing /dev/fuse.</summary>
/// <remarks>
/// Most of what a request costs is to wake us, on another CPU than the caller's. So, while there is one caller and it
/// is quick, we ask again for a moment before we sleep. It must pay: as soon as most of these waits are in vain, only
/// one in several is tried. See docs/adr/0007-how-requests-come.md.
/// </remarks>
internal sealed unsafe class DeviceExchange : Exchange
{
    /// <summary>How long to ask before sleeping: less than waking another CPU takes.</summary>
    private static readonly long patience = Stopwatch.Frequency / 50_000; // 20 microseconds

    /// <summary>When waiting does not pay, one request in so many is waited for, to see whether it does now.</summary>
    private const int TriesOneIn = 16;

    /// <summary>How many successes make up for how many failures, at most.</summary>
    private const int Memory = 16;

    /// <summary>From so many bytes on, one copy less is worth two system calls more: see docs/adr/0009-what-was-tried-for-speed.md.</summary>
    private const int WorthSplicing = 1 << 15;

    private readonly Device device;
    private readonly bool ownsDevice;
    private readonly int size;
    private Callers? callers;
    private Device? impatient;
    private bool canBeImpatient = true;
    private int success;
    private int untried;
    private byte* input;
    private byte* output;
    private Device from;
    private int received;
    private ReplyPipe? pipe;
    private bool canSplice = true;
    private bool isSpliced;

    /// <param name="device">What is read and written.</param>
    /// <param name="ownsDevice">Whether it is disposed of with this.</param>
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
        callers = new Callers(Crew.Current!);
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
        if (received == 0) { return Errno.ENODEV; } // the other end of a test's socket was closed
        if (received < sizeof(InHeader)) { return Errno.EPROTO; }
        callers?.Saw(Header.Pid);
        return Errno.None;
    }

    private bool IsWorthWaiting() => canBeImpatient && (success > 0 || ++untried % TriesOneIn == 0);

    /// <summary>Asks for a request for a moment. Errors are left to the device that sleeps, which gets them too.</summary>
    /// <remarks>A reply goes to the descriptor from which its request came.</remarks>
    private bool TryWait()
    {
        if (impatient is null)
        {
            canBeImpatient = !device.Clone(out impatient, OpenFlags.NonBlock).IsError;
            if (!canBeImpatient) { return false; }
        }
        long end = Stopwatch.GetTimestamp() + patience;
        do
        {
            if (!impatient!.Read(new Span<byte>(input, size), out received).IsError)
            {
                success = Math.Min(success + 1, Memory);
                from = impatient;
                return true;
            }
        }
        while (Stopwatch.GetTimestamp() < end);
        success = Math.Max(success - 1, -Memory);
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

    public override bool AnswerFor(ulong unique, Errno error)
    {
        var header = new OutHeader { Length = (uint)sizeof(OutHeader), Error = -(int)error, Unique = unique };
        _ = from.Write(new ReadOnlySpan<byte>(&header, sizeof(OutHeader))); // best effort: an error says that the thread was faster
        return true;
    }

    public override Errno Send(in OutHeader header)
    {
        if (isSpliced)
        {
            isSpliced = false;
            bool isAnswer = header.Error == 0;
            Errno error = isAnswer ? pipe!.Send(from, (int)header.Length) : Errno.None;
            if (isAnswer && !error.IsError) { return error; }
            pipe!.Dispose(); // with what it still holds
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
        impatient?.Dispose();
        if (ownsDevice) { device.Dispose(); }
    }
}
