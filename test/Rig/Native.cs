using System.Runtime.InteropServices;
using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>System calls that only tests need; the others are <see cref="Libc"/>'s.</summary>
/// <remarks>Those that change identity are raw: they change the calling thread alone.</remarks>
internal static unsafe partial class Native
{
    private const string Library = "libc";

    public const long SysSetResUid = 117, SysSetResGid = 119, SysSetGroups = 116, SysGetTid = 186;

    public const int SetDescriptorFlags = 2, CloseOnExec = 1; // F_SETFD, FD_CLOEXEC

    [LibraryImport(Library, SetLastError = true)]
    public static partial long syscall(long number, nint a, nint b, nint c, nint d, nint e, nint f);

    /// <summary>Unlike <see cref="Libc"/>'s, for a descriptor that the programs have that are started.</summary>
    [LibraryImport(Library, SetLastError = true)]
    public static partial int open(byte* path, int flags);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int statx(int directory, byte* path, int flags, uint mask, Statx* result);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int chmod(byte* path, uint mode);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int fchmod(int descriptor, uint mode);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int fchownat(int directory, byte* path, uint uid, uint gid, int flags);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int utimensat(int directory, byte* path, TimeSpec* times, int flags);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int futimens(int descriptor, TimeSpec* times);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int linkat(int directory, byte* name, int newDirectory, byte* newName, int flags);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int truncate(byte* path, long length);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int faccessat(int directory, byte* path, int mode, int flags);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int fcntl(int descriptor, int command, void* argument);

    [LibraryImport(Library, SetLastError = true)]
    public static partial long pwritev2(int descriptor, nint* vector, int count, long offset, int flags);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int flock(int descriptor, int operation);

    [LibraryImport(Library, SetLastError = true)]
    public static partial long lseek(int descriptor, long offset, int whence);

    [LibraryImport(Library, SetLastError = true)]
    public static partial long sendfile(int target, int source, long* offset, nuint count);

    [LibraryImport(Library, SetLastError = true)]
    public static partial nint mmap(nint address, nuint length, int protection, int flags, int descriptor, long offset);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int munmap(nint address, nuint length);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int msync(nint address, nuint length, int flags);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int unshare(int flags);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int kill(int pid, int signal);

    [LibraryImport(Library, SetLastError = true)]
    public static partial int execve(byte* path, byte** arguments, byte** environment);

    [LibraryImport(Library, SetLastError = true)]
    public static partial void* memcpy(void* target, void* source, nuint length);

    public static Errno Check(long result) => result >= 0 ? Errno.None : (Errno)Marshal.GetLastPInvokeError();
}
