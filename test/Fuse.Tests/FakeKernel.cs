using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>What came back for a request.</summary>
internal sealed record Answer(ulong Unique, Errno Error, byte[] Body)
{
    /// <summary>The structure that the body is; its size must be the body's.</summary>
    public T As<T>() where T : unmanaged
    {
        Assert.Equal(Errno.None, Error);
        Assert.Equal(Unsafe.SizeOf<T>(), Body.Length);
        return MemoryMarshal.Read<T>(Body);
    }
}

/// <summary>
/// The other end of /dev/fuse: drives a real <see cref="Fuse.Server"/> through a pair of sockets, which keep messages
/// apart as the device does. The device cannot be cloned here, so all threads share it.
/// </summary>
internal sealed partial class FakeKernel : IDisposable
{
    /// <summary>What Linux 6.18 offers, but for io_uring: a pair of sockets takes no such commands.</summary>
    public const InitFlags EverythingOffered = (InitFlags)0x7FF_FFFF_FFFFul
        & ~((InitFlags)(1ul << 2) | InitFlags.MapAlignment | InitFlags.Submounts | (InitFlags)(1ul << 31)
            | InitFlags.HasInodeDax | InitFlags.OverIoUring);

    private const int Patience = 20_000;

    private readonly Fd socket;
    private readonly byte[] buffer = new byte[2 << 20];
    private readonly Dictionary<ulong, Answer> early = [];
    private Thread? waiter;
    private ulong lastUnique;
    private Exception? failure;

    /// <summary>A server that has not read anything.</summary>
    public FakeKernel(IFileSystem fileSystem, ServerOptions? options = null)
    {
        int[] pair = new int[2];
        Assert.Equal(0, socketpair(1, 5 | 0x80000, 0, pair)); // AF_UNIX, SOCK_SEQPACKET, SOCK_CLOEXEC
        socket = new Fd(pair[0]);
        Device = new Device(new Fd(pair[1]));
        Server = new Server(Device, fileSystem, (options ?? new ServerOptions { MaxWrite = 1 << 16 }) with { Log = Logged.Enqueue });
    }

    /// <summary>A server that has agreed on everything its filesystem wants, and serves.</summary>
    public static FakeKernel Start(IFileSystem fileSystem, ServerOptions? options = null)
    {
        var kernel = new FakeKernel(fileSystem, options);
        kernel.Send(Opcode.Init, 0, Bytes.Of(Init(EverythingOffered)));
        Assert.Equal(Errno.None, kernel.Server.Initialize());
        kernel.Receive();
        kernel.Serve();
        return kernel;
    }

    public static InitIn Init(InitFlags offered, uint minor = Server.Minor) => new()
    {
        Major = 7,
        Minor = minor,
        MaxReadAhead = 0x20000,
        Flags = (uint)offered,
        Flags2 = (uint)((ulong)offered >> 32),
    };

    public Server Server { get; }

    public Device Device { get; }

    /// <summary>What the server complained about.</summary>
    public ConcurrentQueue<string> Logged { get; } = new();

    /// <summary>Starts the server's threads, and one that waits for their end.</summary>
    public void Serve()
    {
        Server.Start();
        waiter = new Thread(() =>
        {
            try
            {
                Server.WaitForEnd();
            }
#pragma warning disable CA1031 // shown by WaitForEnd
            catch (Exception exception)
            {
                failure = exception;
            }
#pragma warning restore CA1031
        });
        waiter.Start();
    }

    /// <summary>Sends a request.</summary>
    /// <returns>Its number: even, as the kernel's are.</returns>
    public ulong Send(Opcode opcode, ulong nodeId, params ReadOnlySpan<byte[]> body)
    {
        ulong unique = lastUnique += 2;
        SendAs(unique, opcode, nodeId, body);
        return unique;
    }

    /// <summary>Sends a request with a number of the test's choice.</summary>
    public void SendAs(ulong unique, Opcode opcode, ulong nodeId, params ReadOnlySpan<byte[]> body) =>
        SendRaw(Packet(unique, opcode, nodeId, body));

    /// <summary>The bytes of a request.</summary>
    public static byte[] Packet(ulong unique, Opcode opcode, ulong nodeId, params ReadOnlySpan<byte[]> body)
    {
        var packet = new List<byte>(new byte[Unsafe.SizeOf<InHeader>()]);
        foreach (byte[] part in body) { packet.AddRange(part); }
        byte[] bytes = [.. packet];
        var header = new InHeader { Length = (uint)bytes.Length, Opcode = opcode, Unique = unique, NodeId = nodeId };
        (header.Uid, header.Gid, header.Pid) = (1000, 100, 4321);
        MemoryMarshal.Write(bytes, header);
        return bytes;
    }

    /// <summary>A request that nobody has used the number of.</summary>
    public ulong NextUnique() => lastUnique += 2;

    /// <summary>Sends bytes as they are. An empty message would be the end of the connection.</summary>
    public void SendRaw(ReadOnlySpan<byte> packet) => Assert.Equal(Errno.None, Libc.Write(socket.Value, packet, out _));

    /// <summary>Sends a request and waits for its answer.</summary>
    public Answer Call(Opcode opcode, ulong nodeId, params ReadOnlySpan<byte[]> body) => Receive(Send(opcode, nodeId, body));

    /// <summary>Waits for the answer to one request; others are kept for later.</summary>
    public Answer Receive(ulong unique)
    {
        while (true)
        {
            if (early.Remove(unique, out Answer? kept)) { return kept; }
            Answer answer = Receive();
            early.Add(answer.Unique, answer);
        }
    }

    /// <summary>Waits for the next answer.</summary>
    public Answer Receive() =>
        TryReceive(Patience) ?? throw new TimeoutException("No answer from the server. " + string.Join('\n', Logged));

    /// <summary>The next answer, or null when there is none for a while.</summary>
    public Answer? TryReceive(int milliseconds)
    {
        ReadOnlySpan<byte> message = ReceiveRaw(milliseconds);
        if (message.IsEmpty) { return null; }
        var header = MemoryMarshal.Read<OutHeader>(message);
        Assert.Equal(message.Length, (int)header.Length);
        Assert.InRange(header.Error, -4095, 0);
        return new Answer(header.Unique, (Errno)(-header.Error), message[Unsafe.SizeOf<OutHeader>()..].ToArray());
    }

    /// <summary>The next message as it is: an answer or a notification.</summary>
    public ReadOnlySpan<byte> ReceiveRaw(int milliseconds = Patience)
    {
        Assert.Equal(Errno.None, Libc.Poll(socket.Value, PollEvents.In, milliseconds, out bool happened));
        if (!happened) { return default; }
        Assert.Equal(Errno.None, Libc.Read(socket.Value, buffer, out int count));
        Assert.True(count >= Unsafe.SizeOf<OutHeader>(), $"A message of {count} bytes");
        return buffer.AsSpan(0, count);
    }

    /// <summary>Exchanges a request for an answer, and allocates nothing.</summary>
    public int Exchange(ReadOnlySpan<byte> packet)
    {
        Errno error = Libc.Write(socket.Value, packet, out _);
        if (!error.IsError) { error = Libc.Read(socket.Value, buffer, out _); }
        if (error.IsError) { throw new InvalidOperationException(error.ToString()); }
        return MemoryMarshal.Read<OutHeader>(buffer).Error;
    }

    /// <summary>Asks something that always works, to be sure that whatever was sent before has been served (with one thread).</summary>
    public void Settle()
    {
        ulong unique = Send(Opcode.StatFs, 1);
        Assert.Equal(unique, Receive().Unique);
    }

    /// <summary>Until the result is disposed of, EISDIR is what they get who begin to read the device; who reads already goes on.</summary>
    public IDisposable Break()
    {
        int saved = dup(Device.Descriptor);
        Assert.Equal(Errno.None,
            Libc.OpenAt(Libc.AtCwd, "/\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int directory));
        Assert.Equal(Device.Descriptor, dup2(directory, Device.Descriptor));
        Libc.Close(directory);
        return new Breach(saved, Device.Descriptor);
    }

    private sealed class Breach(int saved, int broken) : IDisposable
    {
        public void Dispose()
        {
            Assert.Equal(broken, dup2(saved, broken));
            Libc.Close(saved);
        }
    }

    /// <summary>Ends the connection, as unmounting does.</summary>
    public void Disconnect() => socket.Dispose();

    /// <summary>Ends the connection and waits until the server has left.</summary>
    public void DisconnectAndWait()
    {
        Disconnect();
        if (waiter is null) { return; }
        Assert.True(waiter.Join(Patience), "The server does not end");
        Assert.True(failure is null, failure?.ToString());
    }

    public void Dispose()
    {
        DisconnectAndWait();
        Server.Dispose();
        Device.Dispose();
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial int socketpair(int family, int type, int protocol, int[] pair);

    [LibraryImport("libc")]
    private static partial int dup(int descriptor);

    [LibraryImport("libc")]
    private static partial int dup2(int descriptor, int other);
}

/// <summary>The bytes of things.</summary>
internal static class Bytes
{
    public static byte[] Of<T>(T value) where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();

    /// <summary>Of text, each character one byte.</summary>
    public static byte[] Of(string text) => System.Text.Encoding.Latin1.GetBytes(text);

    public static string Text(ReadOnlySpan<byte> bytes) => System.Text.Encoding.Latin1.GetString(bytes);
}
