using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <remarks>Sockets for fusermount3, syslog and <see cref="OwnerWitness"/>. The request path uses none.</remarks>
public static unsafe partial class Libc
{
    private const int FamilyUnix = 1;
    private const int SocketStream = 1;
    private const int SocketDatagram = 2;
    private const int SocketCloseOnExec = 0x80000;
    private const int MessageNoSignal = 0x4000;
    private const int MessageDontWait = 0x40;
    private const int MessageCloseOnExec = 0x40000000;

    [LibraryImport(Library, SetLastError = true)]
    private static partial int socketpair(int family, int type, int protocol, int* pair);

    /// <summary>Makes two connected stream sockets. See socketpair(2).</summary>
    public static Errno SocketPair(out int one, out int other)
    {
        int* pair = stackalloc int[2];
        Errno error = Check(socketpair(FamilyUnix, SocketStream | SocketCloseOnExec, 0, pair));
        (one, other) = error.IsError ? (-1, -1) : (pair[0], pair[1]);
        return error;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct MessageHeader
    {
        public void* Name;
        public uint NameLength;
        public IoVec* Vectors;
        public nuint VectorCount;
        public void* Control;
        public nuint ControlLength;
        public int Flags;
    }

    /// <summary><c>struct cmsghdr</c> with one descriptor in it.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 24)]
    private struct ControlMessage
    {
        public nuint Length;
        public int Level;
        public int Type;
        public int Descriptor;
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint recvmsg(int socket, MessageHeader* message, int flags);

    /// <summary>Receives one byte and the descriptor that comes with it (SCM_RIGHTS). See unix(7).</summary>
    /// <returns><see cref="Errno.ECONNABORTED"/> when the other end was closed, or sent no descriptor.</returns>
    public static Errno ReceiveDescriptor(int socket, out int descriptor)
    {
        const int levelSocket = 1;
        const int rights = 1;
        descriptor = -1;
        byte content;
        var vector = new IoVec { Base = &content, Length = 1 };
        var control = default(ControlMessage);
        var message = new MessageHeader
        {
            Vectors = &vector,
            VectorCount = 1,
            Control = &control,
            ControlLength = (nuint)sizeof(ControlMessage),
        };
        Errno error;
        int count;
        do { error = Check(recvmsg(socket, &message, MessageCloseOnExec), out count); } while (error == Errno.EINTR);
        if (error.IsError) { return error; }
        if (count == 0 || message.ControlLength < 20 || control.Level != levelSocket || control.Type != rights)
        {
            return Errno.ECONNABORTED;
        }
        descriptor = control.Descriptor;
        return Errno.None;
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint sendmsg(int socket, MessageHeader* message, int flags);

    /// <summary>Sends one byte and a descriptor with it (SCM_RIGHTS). See unix(7).</summary>
    public static Errno SendDescriptor(int socket, int descriptor)
    {
        const int levelSocket = 1;
        const int rights = 1;
        byte content = 0;
        var vector = new IoVec { Base = &content, Length = 1 };
        var control = new ControlMessage { Length = 20, Level = levelSocket, Type = rights, Descriptor = descriptor };
        var message = new MessageHeader
        {
            Vectors = &vector,
            VectorCount = 1,
            Control = &control,
            ControlLength = (nuint)sizeof(ControlMessage),
        };
        Errno error;
        do { error = Check(sendmsg(socket, &message, MessageNoSignal)); } while (error == Errno.EINTR);
        return error;
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int setsockopt(int socket, int level, int option, void* value, uint length);

    /// <summary>
    /// Sets how long a receive waits before it fails with <see cref="Errno.EAGAIN"/> (SO_RCVTIMEO). See socket(7).
    /// </summary>
    public static Errno SetReceiveTimeout(int socket, int seconds)
    {
        const int levelSocket = 1, receiveTimeout = 20;
        long* time = stackalloc long[2] { seconds, 0 };
        return Check(setsockopt(socket, levelSocket, receiveTimeout, time, 2 * sizeof(long)));
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int socket(int family, int type, int protocol);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int connect(int socket, void* address, uint length);

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint send(int socket, void* content, nuint length, int flags);

    /// <summary>Makes a datagram socket that is connected to a path, such as /dev/log.</summary>
    public static Errno ConnectDatagram(ReadOnlySpan<byte> path, out int descriptor)
    {
        const int size = 110; // sockaddr_un: a family of two bytes and a path of 108
        byte* address = stackalloc byte[size];
        new Span<byte>(address, size).Clear();
        *(ushort*)address = FamilyUnix;
        if (path.Length > size - 2) { descriptor = -1; return Errno.ENAMETOOLONG; }
        path.CopyTo(new Span<byte>(address + 2, size - 2));
        Errno error = Check(socket(FamilyUnix, SocketDatagram | SocketCloseOnExec, 0), out descriptor);
        if (error.IsError) { descriptor = -1; return error; }
        error = Check(connect(descriptor, address, size));
        if (error.IsError)
        {
            Close(descriptor);
            descriptor = -1;
        }
        return error;
    }

    /// <summary>Sends one datagram without waiting. See send(2).</summary>
    public static Errno Send(int descriptor, ReadOnlySpan<byte> content)
    {
        fixed (byte* p = content) { return Check(send(descriptor, p, (nuint)content.Length, MessageNoSignal | MessageDontWait)); }
    }
}
