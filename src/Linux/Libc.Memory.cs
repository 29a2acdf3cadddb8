using System.Buffers.Text;
using System.Runtime.InteropServices;

namespace Veneer.Linux;

public static unsafe partial class Libc
{
    private const int AdviseDontNeed = 4;

    [LibraryImport(Library, SetLastError = true)]
    private static partial int madvise(void* address, nuint length, int advice);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int memfd_create(byte* name, uint flags);

    /// <summary>A file in memory that lives as long as its descriptor, closed on exec. See memfd_create(2).</summary>
    /// <param name="name">What the descriptor's link shows after <c>/memfd:</c>, with its NUL.</param>
    /// <param name="descriptor">The descriptor.</param>
    public static Errno CreateMemoryFile(ReadOnlySpan<byte> name, out int descriptor)
    {
        fixed (byte* n = name)
        {
            Errno error = Check(memfd_create(n, 1), out descriptor);
            if (error.IsError) { descriptor = -1; }
            return error;
        }
    }

    /// <summary>Lets go of the pages of this program's code. What runs next is mapped again, from the system's pages of its file.</summary>
    /// <remarks>Only what may be executed: nobody has ever written there, so that nothing is lost. See madvise(2), MADV_DONTNEED.</remarks>
    public static Errno ForgetCode()
    {
        Span<byte> path = stackalloc byte[4096];
        Errno error = ReadLinkAt(AtCwd, "/proc/self/exe\0"u8, path, out int length);
        if (error.IsError) { return error; }
        error = ReadWhole("/proc/self/maps\0"u8, out byte[] maps);
        if (error.IsError) { return error; }
        foreach (Range range in maps.AsSpan().Split((byte)'\n'))
        {
            ReadOnlySpan<byte> line = maps.AsSpan(range);
            if (!line.EndsWith(path[..length])
                || !Utf8Parser.TryParse(line, out ulong start, out int first, 'x')
                || !Utf8Parser.TryParse(line[(first + 1)..], out ulong end, out int second, 'x')
                || !line[(first + second + 1)..].StartsWith(" r-xp "u8))
            {
                continue;
            }
            error = Check(madvise((void*)start, (nuint)(end - start), AdviseDontNeed));
            if (error.IsError) { return error; }
        }
        return error;
    }
}
