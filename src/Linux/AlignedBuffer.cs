using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>A buffer that begins on a page boundary, as reads and writes with O_DIRECT require. See open(2), "O_DIRECT".</summary>
public sealed class AlignedBuffer
{
    private byte[] memory = [];

    /// <summary>Returns aligned memory of a given length. Its content is undefined; the next call reuses the memory.</summary>
    /// <param name="length">The length in bytes.</param>
    public unsafe Span<byte> Take(int length)
    {
        if (memory.Length < length + Environment.SystemPageSize)
        {
            memory = GC.AllocateUninitializedArray<byte>(length + Environment.SystemPageSize, pinned: true);
        }
        nuint address = (nuint)Unsafe.AsPointer(ref MemoryMarshal.GetArrayDataReference(memory)); // the array is pinned
        int before = (int)(-(nint)address & (Environment.SystemPageSize - 1));
        return memory.AsSpan(before, length);
    }
}
