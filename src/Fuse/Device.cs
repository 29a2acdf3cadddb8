using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>An open /dev/fuse: requests are read from it, replies and notifications are written to it.</summary>
/// <remarks>Each read returns one whole request, each write carries one whole reply. See fuse(4).</remarks>
public sealed class Device : IDisposable
{
    private const ulong CloneRequest = 0x8004E500;
    private const ulong BackingOpenRequest = 0x4010E501;
    private const ulong BackingCloseRequest = 0x4004E502;

    private readonly Fd fd;

    /// <summary>Takes ownership of a descriptor of /dev/fuse, or, in a test, of one end of a SOCK_SEQPACKET pair.</summary>
    public Device(Fd descriptor) => fd = descriptor;

    /// <summary>The descriptor of the device.</summary>
    public int Descriptor => fd.Value;

    /// <summary>Opens /dev/fuse. mount(2) then binds it to a connection.</summary>
    public static Errno Open(out Device? device, OpenFlags flags = default)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, "/dev/fuse\0"u8, OpenFlags.ReadWrite | flags, 0, ResolveFlags.None, out int descriptor);
        device = error.IsError ? null : new Device(new Fd(descriptor));
        return error;
    }

    /// <summary>
    /// Opens a second descriptor of the same connection, which has its own list of requests being served
    /// (FUSE_DEV_IOC_CLONE).
    /// </summary>
    /// <remarks>A reply must be written to the descriptor from which its request was read.</remarks>
    /// <param name="clone">The second descriptor, or null on an error.</param>
    /// <param name="flags">O_NONBLOCK: reading it gives <see cref="Errno.EAGAIN"/> when there is no request.</param>
    public Errno Clone(out Device? clone, OpenFlags flags = default)
    {
        clone = null;
        Errno error = Open(out Device? opened, flags);
        if (error.IsError) { return error; }
        uint master = (uint)fd.Value;
        error = Libc.Ioctl(opened!.Descriptor, CloneRequest, ref master, out _);
        if (error.IsError)
        {
            opened.Dispose();
            return error;
        }
        clone = opened;
        return Errno.None;
    }

    /// <summary>Waits for a request and reads it.</summary>
    /// <returns>
    /// <see cref="Errno.ENODEV"/> after unmount; <see cref="Errno.ECONNABORTED"/> after an abort;
    /// <see cref="Errno.ENOENT"/> when the request was cancelled meanwhile.
    /// </returns>
    public Errno Read(Span<byte> buffer, out int count) => Libc.Read(fd.Value, buffer, out count);

    /// <summary>Writes one reply or notification.</summary>
    /// <returns><see cref="Errno.ENOENT"/> when nobody waits for the reply any more.</returns>
    public Errno Write(ReadOnlySpan<byte> message) => Libc.Write(fd.Value, message, out _);

    /// <summary>Registers a file for passthrough (FUSE_DEV_IOC_BACKING_OPEN). An O_PATH descriptor will do.</summary>
    /// <returns>
    /// <see cref="Errno.EPERM"/> without CAP_SYS_ADMIN in the initial user namespace or without passthrough agreed in INIT;
    /// <see cref="Errno.ELOOP"/> when the file's filesystem is stacked too deep.
    /// </returns>
    public Errno OpenBacking(int descriptor, out int backingId)
    {
        var map = new BackingMap { Descriptor = descriptor };
        return Libc.Ioctl(fd.Value, BackingOpenRequest, ref map, out backingId);
    }

    /// <summary>Closes a backing id (FUSE_DEV_IOC_BACKING_CLOSE). Files that were opened with it keep working.</summary>
    public Errno CloseBacking(int backingId)
    {
        uint id = (uint)backingId;
        return Libc.Ioctl(fd.Value, BackingCloseRequest, ref id, out _);
    }

    /// <inheritdoc/>
    public void Dispose() => fd.Dispose();
}
