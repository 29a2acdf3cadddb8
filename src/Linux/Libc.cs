using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>
/// System calls, typed. Each has one private import with its C name and one public method that returns an
/// <see cref="Errno"/>. Names and paths are bytes and their spans include the NUL at the end.
/// </summary>
/// <remarks>No method allocates. A call interrupted by a signal handler returns <see cref="Errno.EINTR"/> to the caller.</remarks>
public static unsafe partial class Libc
{
    private const string Library = "libc";

    /// <summary>Stands for the working directory in every "at" call.</summary>
    public const int AtCwd = -100;

    /// <summary>The empty name: the call acts on the descriptor itself (AT_EMPTY_PATH).</summary>
    public static ReadOnlySpan<byte> Self => "\0"u8;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Errno Check(long result) => result >= 0 ? Errno.None : (Errno)Marshal.GetLastPInvokeError();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Errno Check(long result, out int value)
    {
        value = (int)result;
        return result >= 0 ? Errno.None : (Errno)Marshal.GetLastPInvokeError();
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial long syscall(long number, nint a, nint b, nint c, nint d, nint e, nint f);

    /// <summary>A call that libc has no name for.</summary>
    internal static Errno SystemCall(long number, nint a, nint b, nint c, nint d, out long result)
    {
        result = syscall(number, a, b, c, d, 0, 0);
        return Check(result);
    }

    [LibraryImport(Library)]
    private static partial int close(int descriptor);

    private static volatile int placeholder = -1;

    /// <summary>Closes a descriptor. Errors of close(2) are of no use to the caller: the descriptor is gone either way.</summary>
    public static void Close(int descriptor)
    {
        // best effort: see close(2), "Dealing with error returns"
        if (placeholder < 0 || Duplicate(placeholder, descriptor).IsError) { _ = close(descriptor); }
    }

    /// <summary>From now on the number of a descriptor that is closed means nothing, and never anything else.</summary>
    /// <remarks>For when a thread may come back late from a system call, and use what was closed meanwhile.</remarks>
    public static void UseNumbersOnce()
    {
        if (placeholder < 0 && !OpenAt(AtCwd, "/dev/null\0"u8, OpenFlags.Path, 0, ResolveFlags.None, out int nothing).IsError) { placeholder = nothing; }
    }
}
