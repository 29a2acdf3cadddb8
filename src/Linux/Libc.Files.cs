using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>Flags of open(2), with their values on x86-64.</summary>
[Flags]
public enum OpenFlags : uint
{
    /// <summary>O_RDONLY.</summary>
    ReadOnly = 0,
    /// <summary>O_WRONLY.</summary>
    WriteOnly = 1,
    /// <summary>O_RDWR.</summary>
    ReadWrite = 2,
    /// <summary>O_ACCMODE.</summary>
    AccessMode = 3,
    /// <summary>__FMODE_EXEC: the kernel opens the file to execute it.</summary>
    Execute = 0x20,
    /// <summary>O_CREAT.</summary>
    Create = 0x40,
    /// <summary>O_EXCL.</summary>
    Exclusive = 0x80,
    /// <summary>O_NOCTTY.</summary>
    NoCtty = 0x100,
    /// <summary>O_TRUNC.</summary>
    Truncate = 0x200,
    /// <summary>O_APPEND.</summary>
    Append = 0x400,
    /// <summary>O_NONBLOCK.</summary>
    NonBlock = 0x800,
    /// <summary>O_DSYNC.</summary>
    DataSync = 0x1000,
    /// <summary>O_DIRECT.</summary>
    Direct = 0x4000,
    /// <summary>O_LARGEFILE.</summary>
    LargeFile = 0x8000,
    /// <summary>O_DIRECTORY.</summary>
    Directory = 0x10000,
    /// <summary>O_NOFOLLOW.</summary>
    NoFollow = 0x20000,
    /// <summary>O_NOATIME.</summary>
    NoAccessTime = 0x40000,
    /// <summary>O_CLOEXEC.</summary>
    CloseOnExec = 0x80000,
    /// <summary>O_SYNC, which includes O_DSYNC.</summary>
    Sync = 0x101000,
    /// <summary>O_PATH.</summary>
    Path = 0x200000,
    /// <summary>O_TMPFILE, which includes O_DIRECTORY.</summary>
    TemporaryFile = 0x410000,
}

/// <summary>How openat2(2) resolves a path.</summary>
[Flags]
public enum ResolveFlags : ulong
{
    /// <summary>As open(2) does.</summary>
    None = 0,
    /// <summary>RESOLVE_NO_XDEV: no crossing of mounts.</summary>
    NoCrossDevice = 1,
    /// <summary>RESOLVE_NO_MAGICLINKS.</summary>
    NoMagicLinks = 2,
    /// <summary>RESOLVE_NO_SYMLINKS.</summary>
    NoSymbolicLinks = 4,
    /// <summary>RESOLVE_BENEATH: never above the starting directory.</summary>
    Beneath = 8,
    /// <summary>RESOLVE_IN_ROOT: the starting directory is the root directory.</summary>
    InRoot = 16,
    /// <summary>Used for every access to a layer: no path leads out of it.</summary>
    Confined = Beneath | NoSymbolicLinks | NoMagicLinks | NoCrossDevice,
}

/// <summary>Whence of lseek(2).</summary>
public enum SeekWhence
{
    /// <summary>SEEK_SET.</summary>
    Set = 0,
    /// <summary>SEEK_DATA.</summary>
    Data = 3,
    /// <summary>SEEK_HOLE.</summary>
    Hole = 4,
}

/// <summary>Modes of fallocate(2).</summary>
[Flags]
public enum AllocateMode
{
    /// <summary>Allocate, and grow the file where needed.</summary>
    Default = 0,
    /// <summary>FALLOC_FL_KEEP_SIZE.</summary>
    KeepSize = 1,
    /// <summary>FALLOC_FL_PUNCH_HOLE.</summary>
    PunchHole = 2,
    /// <summary>FALLOC_FL_COLLAPSE_RANGE.</summary>
    CollapseRange = 8,
    /// <summary>FALLOC_FL_ZERO_RANGE.</summary>
    ZeroRange = 16,
    /// <summary>FALLOC_FL_INSERT_RANGE.</summary>
    InsertRange = 32,
}

public static unsafe partial class Libc
{
    private const int AtSymlinkNoFollow = 0x100;
    private const int AtRemoveDirectory = 0x200;
    private const int AtSymlinkFollow = 0x400;
    private const int AtEmptyPath = 0x1000;
    private const long SysOpenAt2 = 437;

    [StructLayout(LayoutKind.Sequential)]
    private struct OpenHow
    {
        public ulong Flags;
        public ulong Mode;
        public ulong Resolve;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct IoVec
    {
        public void* Base;
        public nuint Length;
    }

    /// <summary>
    /// Opens a path that begins at a directory. Only <paramref name="resolve"/> keeps it from leading elsewhere. See
    /// openat2(2).
    /// </summary>
    /// <param name="mode">Permissions of a new file; the umask applies.</param>
    public static Errno OpenAt(int directory, ReadOnlySpan<byte> path, OpenFlags flags, uint mode, ResolveFlags resolve, out int descriptor)
    {
        var how = new OpenHow { Flags = (ulong)(flags | OpenFlags.CloseOnExec), Mode = mode, Resolve = (ulong)resolve };
        fixed (byte* p = path)
        {
            // EAGAIN: a rename ran at the same time, and the kernel could not prove that the path stayed beneath.
            for (int attempt = 0; ; attempt++)
            {
                Errno error = Check(syscall(SysOpenAt2, directory, (nint)p, (nint)(&how), sizeof(OpenHow), 0, 0), out descriptor);
                if (error == Errno.EAGAIN && attempt < 64 && resolve != ResolveFlags.None) { continue; }
                if (error.IsError) { descriptor = -1; }
                return error;
            }
        }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int open(byte* path, int flags, uint mode);

    /// <summary>
    /// Opens the file behind a descriptor again with other flags, through /proc/self/fd. Works for an O_PATH descriptor.
    /// </summary>
    public static Errno Reopen(int descriptor, OpenFlags flags, out int opened)
    {
        Span<byte> path = stackalloc byte[ProcPathSize];
        FormatProcPath(path, descriptor, default);
        fixed (byte* p = path)
        {
            Errno error = Check(open(p, (int)(flags | OpenFlags.CloseOnExec), 0), out opened);
            if (error.IsError) { opened = -1; }
            return error;
        }
    }

    /// <summary>The size of the longest name with its NUL. No filesystem that can be a layer has longer names.</summary>
    private const int MaxName = 255 + 1;
    private const int ProcPathSize = 14 + 11 + 1 + MaxName;

    /// <summary>
    /// Writes <c>/proc/self/fd/N</c>, or <c>/proc/self/fd/N/NAME</c>, with a NUL at the end. The name has at most
    /// <see cref="MaxName"/> bytes.
    /// </summary>
    private static void FormatProcPath(Span<byte> path, int descriptor, ReadOnlySpan<byte> name)
    {
        "/proc/self/fd/"u8.CopyTo(path);
        _ = System.Buffers.Text.Utf8Formatter.TryFormat(descriptor, path[14..], out int digits); // cannot fail: 11 bytes are enough
        int length = 14 + digits;
        if (name.Length > 1)
        {
            path[length++] = (byte)'/';
            name.CopyTo(path[length..]);
            return;
        }
        path[length] = 0;
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint read(int descriptor, void* buffer, nuint count);

    /// <summary>See read(2).</summary>
    public static Errno Read(int descriptor, Span<byte> buffer, out int count)
    {
        fixed (byte* p = buffer) { return Check(read(descriptor, p, (nuint)buffer.Length), out count); }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint write(int descriptor, void* buffer, nuint count);

    /// <summary>See write(2).</summary>
    public static Errno Write(int descriptor, ReadOnlySpan<byte> buffer, out int count)
    {
        fixed (byte* p = buffer) { return Check(write(descriptor, p, (nuint)buffer.Length), out count); }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint pread(int descriptor, void* buffer, nuint count, long offset);

    /// <summary>See pread(2).</summary>
    public static Errno ReadAt(int descriptor, Span<byte> buffer, long offset, out int count)
    {
        fixed (byte* p = buffer) { return Check(pread(descriptor, p, (nuint)buffer.Length, offset), out count); }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint pwrite(int descriptor, void* buffer, nuint count, long offset);

    /// <summary>See pwrite(2).</summary>
    public static Errno WriteAt(int descriptor, ReadOnlySpan<byte> buffer, long offset, out int count)
    {
        fixed (byte* p = buffer) { return Check(pwrite(descriptor, p, (nuint)buffer.Length, offset), out count); }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int ftruncate(int descriptor, long length);

    /// <summary>See ftruncate(2).</summary>
    public static Errno Truncate(int descriptor, long length) => Check(ftruncate(descriptor, length));

    [LibraryImport(Library, SetLastError = true)]
    private static partial int truncate(byte* path, long length);

    /// <summary>
    /// Sets the length of a file with truncate(2). Unlike ftruncate(2), that leaves the times alone when the file has the
    /// length already.
    /// </summary>
    public static Errno TruncateAsNamed(int descriptor, long length)
    {
        Span<byte> path = stackalloc byte[ProcPathSize];
        FormatProcPath(path, descriptor, default);
        fixed (byte* p = path) { return Check(truncate(p, length)); }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int fallocate(int descriptor, int mode, long offset, long length);

    /// <summary>See fallocate(2).</summary>
    public static Errno Allocate(int descriptor, AllocateMode mode, long offset, long length) =>
        Check(fallocate(descriptor, (int)mode, offset, length));

    [LibraryImport(Library, SetLastError = true)]
    private static partial long lseek(int descriptor, long offset, int whence);

    /// <summary>See lseek(2).</summary>
    public static Errno Seek(int descriptor, long offset, SeekWhence whence, out long position)
    {
        position = lseek(descriptor, offset, (int)whence);
        return position >= 0 ? Errno.None : (Errno)Marshal.GetLastPInvokeError();
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int fsync(int descriptor);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int fdatasync(int descriptor);

    /// <summary>See fsync(2) and fdatasync(2).</summary>
    public static Errno Sync(int descriptor, bool dataOnly) => Check(dataOnly ? fdatasync(descriptor) : fsync(descriptor));

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint copy_file_range(int source, long* sourceOffset, int target, long* targetOffset, nuint length, uint flags);

    /// <summary>Copies bytes between two files within the kernel, and advances both offsets. See copy_file_range(2).</summary>
    public static Errno CopyFileRange(int source, ref long sourceOffset, int target, ref long targetOffset, long length, out long copied)
    {
        fixed (long* from = &sourceOffset, to = &targetOffset)
        {
            copied = copy_file_range(source, from, target, to, (nuint)length, 0);
            return copied >= 0 ? Errno.None : (Errno)Marshal.GetLastPInvokeError();
        }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int ioctl(int descriptor, ulong request, nint argument);

    private const ulong FiClone = 0x40049409;

    /// <summary>Makes a file share all blocks of another file. See FICLONE in ioctl_ficlone(2).</summary>
    public static Errno Clone(int target, int source) => Check(ioctl(target, FiClone, source));

    /// <summary>Runs an ioctl(2) whose argument is a number.</summary>
    public static Errno Ioctl(int descriptor, ulong request, nint argument, out int result) =>
        Check(ioctl(descriptor, request, argument), out result);

    /// <summary>Runs an ioctl(2) whose argument points to a structure.</summary>
    public static Errno Ioctl<T>(int descriptor, ulong request, ref T argument, out int result) where T : unmanaged
    {
        fixed (T* p = &argument) { return Check(ioctl(descriptor, request, (nint)p), out result); }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int flock(int descriptor, int operation);

    /// <summary>Takes an exclusive flock(2) without waiting.</summary>
    /// <returns><see cref="Errno.EAGAIN"/> when another open file holds the lock.</returns>
    public static Errno TryLockExclusive(int descriptor) => Check(flock(descriptor, 2 | 4));

    /// <summary>Takes a shared flock(2) without waiting.</summary>
    /// <returns><see cref="Errno.EAGAIN"/> when another open file holds the lock exclusively.</returns>
    public static Errno TryLockShared(int descriptor) => Check(flock(descriptor, 1 | 4));

    [LibraryImport(Library, SetLastError = true)]
    private static partial int dup2(int descriptor, int target);

    /// <summary>
    /// Makes <paramref name="target"/> a copy of a descriptor. A descriptor that had this number is closed. See dup2(2).
    /// </summary>
    public static Errno Duplicate(int descriptor, int target) => Check(dup2(descriptor, target));

    [LibraryImport(Library, SetLastError = true)]
    private static partial int fcntl(int descriptor, int command, nint argument);

    /// <summary>Makes a new descriptor of the same open file, closed on exec (F_DUPFD_CLOEXEC).</summary>
    public static Errno Duplicate(int descriptor, out int copy) => Check(fcntl(descriptor, 1030, 0), out copy);

    /// <summary>Switches O_DIRECT of an open file on or off. Its other flags stay. See fcntl(2), F_SETFL.</summary>
    /// <returns><see cref="Errno.EINVAL"/> where the filesystem has no O_DIRECT.</returns>
    public static Errno SetDirect(int descriptor, bool direct)
    {
        int flags = fcntl(descriptor, 3, 0);
        if (flags < 0) { return Check(flags); }
        return Check(fcntl(descriptor, 4, direct ? flags | (int)OpenFlags.Direct : flags & ~(int)OpenFlags.Direct));
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int pipe2(int* descriptors, int flags);

    /// <summary>See pipe2(2); both ends are closed on exec.</summary>
    public static Errno Pipe(out int readEnd, out int writeEnd)
    {
        int* ends = stackalloc int[2] { -1, -1 };
        Errno error = Check(pipe2(ends, (int)OpenFlags.CloseOnExec));
        readEnd = ends[0];
        writeEnd = ends[1];
        return error;
    }

    /// <summary>Sets how many bytes a pipe holds (F_SETPIPE_SZ).</summary>
    /// <returns><see cref="Errno.EPERM"/> when the user's pipes would hold more than allowed. See pipe(7).</returns>
    public static Errno SetPipeRoom(int descriptor, int bytes) => Check(fcntl(descriptor, 1031, bytes));

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint splice(int from, long* fromOffset, int to, long* toOffset, nuint length, uint flags);

    /// <summary>Moves bytes into or out of a pipe within the kernel. See splice(2).</summary>
    /// <param name="from">A file, or a pipe.</param>
    /// <param name="offset">The offset in the file, in bytes; -1 for a pipe.</param>
    /// <param name="to">A pipe, or a device.</param>
    /// <param name="length">The largest number of bytes to move.</param>
    /// <param name="moved">The number of bytes moved; 0 at the end of the file.</param>
    /// <returns>
    /// <see cref="Errno.EAGAIN"/> when the pipe has no room; <see cref="Errno.EINVAL"/> when the file's filesystem cannot
    /// do it.
    /// </returns>
    public static Errno Splice(int from, long offset, int to, int length, out int moved)
    {
        const uint nonBlocking = 2; // SPLICE_F_NONBLOCK: does not wait for the pipe; reading the file may still wait
        return Check(splice(from, offset < 0 ? null : &offset, to, null, (nuint)length, nonBlocking), out moved);
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int fstatfs(int descriptor, StatFs* result);

    /// <summary>See fstatfs(2).</summary>
    public static Errno StatFileSystem(int descriptor, out StatFs result)
    {
        fixed (StatFs* p = &result) { return Check(fstatfs(descriptor, p)); }
    }
}

/// <summary>Questions about open flags.</summary>
public static class OpenFlagsExtensions
{
    extension(OpenFlags flags)
    {
        /// <summary>Whether the file may be written.</summary>
        public bool Writes => (flags & OpenFlags.AccessMode) != OpenFlags.ReadOnly;
    }
}
