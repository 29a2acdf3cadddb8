using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>
/// The system calls, typed. Each has one private import with its C name and one public method that returns an
/// <see cref="Errno"/>. Names and paths are bytes; their spans include the NUL at the end.
/// </summary>
/// <remarks>
/// The methods of the request path allocate nothing. Unless a method says or shows otherwise, a call that a signal handler
/// interrupts returns <see cref="Errno.EINTR"/>.
/// </remarks>
public static unsafe partial class Libc
{
    private const string Library = "libc";

    /// <summary>The working directory, for the <c>directory</c> of every "at" call.</summary>
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

    /// <summary>Makes a system call that has no wrapper in libc.</summary>
    internal static Errno SystemCall(long number, nint a, nint b, nint c, nint d, out long result)
    {
        result = syscall(number, a, b, c, d, 0, 0);
        return Check(result);
    }

    [LibraryImport(Library)]
    private static partial int close(int descriptor);

    private static volatile int placeholder = -1;

    /// <summary>
    /// Closes a descriptor. An error of close(2) is of no use to the caller: the descriptor is closed in any case.
    /// </summary>
    public static void Close(int descriptor)
    {
        // best effort: see close(2), "Dealing with error returns"
        if (placeholder < 0 || Duplicate(placeholder, descriptor).IsError) { _ = close(descriptor); }
    }

    /// <summary>
    /// From now on, <see cref="Close"/> keeps the number of a closed descriptor occupied, so that the kernel never recycles
    /// it.
    /// </summary>
    /// <remarks>
    /// For threads that may return late from a system call and use a descriptor that was closed meanwhile. The number then
    /// refers to /dev/null, opened with O_PATH, which allows neither reading nor writing.
    /// </remarks>
    public static void UseNumbersOnce()
    {
        if (placeholder < 0 && !OpenAt(AtCwd, "/dev/null\0"u8, OpenFlags.Path, 0, ResolveFlags.None, out int nothing).IsError)
        {
            placeholder = nothing;
        }
    }
}
