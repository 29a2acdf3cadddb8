using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>Memory from the beginning of a page on, as reading and writing with O_DIRECT want it. See open(2), "O_DIRECT".</summary>
public sealed class AlignedBuffer
{
    private byte[] memory = [];

    /// <summary>So many bytes, with anything in them.</summary>
    /// <param name="length">How many bytes.</param>
    public unsafe Span<byte> Take(int length)
    {
        if (memory.Length < length + Environment.SystemPageSize) { memory = GC.AllocateUninitializedArray<byte>(length + Environment.SystemPageSize, pinned: true); }
        nuint address = (nuint)Unsafe.AsPointer(ref MemoryMarshal.GetArrayDataReference(memory)); // it is pinned
        int before = (int)(-(nint)address & (Environment.SystemPageSize - 1));
        return memory.AsSpan(before, length);
    }
}
