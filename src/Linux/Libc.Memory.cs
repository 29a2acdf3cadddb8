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

    /// <summary>
    /// Creates a file in memory, which lives as long as it is open. Its descriptor is closed on exec. See memfd_create(2).
    /// </summary>
    /// <param name="name">What readlink(2) on the descriptor shows after <c>/memfd:</c>, with its NUL.</param>
    /// <param name="descriptor">The descriptor of the file, or -1.</param>
    public static Errno CreateMemoryFile(ReadOnlySpan<byte> name, out int descriptor)
    {
        fixed (byte* n = name)
        {
            Errno error = Check(memfd_create(n, 1), out descriptor);
            if (error.IsError) { descriptor = -1; }
            return error;
        }
    }

    /// <summary>
    /// Drops the pages of this program's code from its address space. Code that runs later is mapped again from the page
    /// cache.
    /// </summary>
    /// <remarks>
    /// Only executable mappings are dropped: nobody has written to them, so nothing is lost. See madvise(2), MADV_DONTNEED.
    /// </remarks>
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
