using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>An AF_UNIX socket that is bound to a file, or was accepted from such a socket.</summary>
/// <param name="Number">
/// The socket's inode number, as in <c>socket:[123]</c>; 0 when the connection has not been accepted yet.
/// </param>
/// <param name="DeviceMajor">Major number of the device that holds the file.</param>
/// <param name="DeviceMinor">Minor number of the device that holds the file.</param>
/// <param name="Path">The path that was given to bind(2), which may be relative.</param>
public readonly record struct BoundSocket(uint Number, uint DeviceMajor, uint DeviceMinor, string Path);

public static unsafe partial class Libc
{
    private const int FamilyNetlink = 16;
    private const int SocketRaw = 3;
    private const int NetlinkSocketDiagnostics = 4;

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint recv(int socket, void* buffer, nuint length, int flags);

    /// <summary>Finds the sockets of the calling thread's network namespace that are bound to files. See sock_diag(7).</summary>
    /// <param name="sockets">The sockets are added to this collection.</param>
    /// <returns>An error where the kernel was built without socket diagnostics.</returns>
    public static Errno FindBoundSockets(ICollection<BoundSocket> sockets)
    {
        const int size = 64 * 1024;
        Errno error = Check(socket(FamilyNetlink, SocketRaw | SocketCloseOnExec, NetlinkSocketDiagnostics), out int descriptor);
        if (error.IsError) { return error; }
        using var channel = new Fd(descriptor);
        // struct nlmsghdr, and struct unix_diag_req: every state, every inode, UDIAG_SHOW_NAME | UDIAG_SHOW_VFS.
        Span<byte> request = stackalloc byte[40];
        request.Clear();
        BinaryPrimitives.WriteInt32LittleEndian(request, 40);
        BinaryPrimitives.WriteUInt16LittleEndian(request[4..], 20); // SOCK_DIAG_BY_FAMILY
        BinaryPrimitives.WriteUInt16LittleEndian(request[6..], 0x301); // NLM_F_REQUEST | NLM_F_DUMP
        request[16] = FamilyUnix;
        BinaryPrimitives.WriteUInt32LittleEndian(request[20..], uint.MaxValue);
        BinaryPrimitives.WriteUInt32LittleEndian(request[28..], 3);
        fixed (byte* p = request) { error = Check(send(descriptor, p, (nuint)request.Length, 0)); }
        byte[] buffer = new byte[size];
        while (!error.IsError)
        {
            int length;
            fixed (byte* p = buffer) { error = Check(recv(descriptor, p, size, 0), out length); }
            if (error == Errno.EINTR)
            {
                error = Errno.None;
                continue;
            }
            if (error.IsError || !TryReadMessages(buffer.AsSpan(0, length), sockets, out error)) { break; }
        }
        return error;
    }

    /// <summary>Parses the messages of one answer.</summary>
    /// <returns>Whether more are to come.</returns>
    private static bool TryReadMessages(ReadOnlySpan<byte> answer, ICollection<BoundSocket> sockets, out Errno error)
    {
        const int header = 16, done = 3, failed = 2;
        error = Errno.None;
        while (answer.Length >= header)
        {
            int length = BinaryPrimitives.ReadInt32LittleEndian(answer);
            int type = BinaryPrimitives.ReadUInt16LittleEndian(answer[4..]);
            if (type == done || length < header || length > answer.Length) { return false; }
            if (type == failed)
            {
                error = (Errno)(-BinaryPrimitives.ReadInt32LittleEndian(answer[header..]));
                return false;
            }
            if (TryReadSocket(answer[header..length], out BoundSocket socket)) { sockets.Add(socket); }
            answer = answer[Math.Min((length + 3) & ~3, answer.Length)..];
        }
        return true;
    }

    /// <summary>
    /// Parses a <c>struct unix_diag_msg</c> and its attributes. False for a socket that is not bound to a file: it has no
    /// UNIX_DIAG_VFS.
    /// </summary>
    private static bool TryReadSocket(ReadOnlySpan<byte> message, out BoundSocket socket)
    {
        const int fixedPart = 16, name = 0, file = 1;
        socket = default;
        if (message.Length < fixedPart) { return false; }
        uint number = BinaryPrimitives.ReadUInt32LittleEndian(message[4..]);
        uint? device = null;
        string path = "";
        ReadOnlySpan<byte> rest = message[fixedPart..];
        while (rest.Length >= 4)
        {
            int length = BinaryPrimitives.ReadUInt16LittleEndian(rest);
            int type = BinaryPrimitives.ReadUInt16LittleEndian(rest[2..]);
            if (length < 4 || length > rest.Length) { break; }
            ReadOnlySpan<byte> value = rest[4..length];
            if (type == name) { path = PathText.Decode(value.TrimEnd((byte)0)); }
            if (type == file && value.Length >= 8) { device = BinaryPrimitives.ReadUInt32LittleEndian(value[4..]); }
            rest = rest[Math.Min((length + 3) & ~3, rest.Length)..];
        }
        // The device number has the kernel's internal form, dev_t: the lower twenty bits are the minor number.
        if (device is { } known) { socket = new BoundSocket(number, known >> 20, known & 0xFFFFF, path); }
        return device is not null;
    }
}
