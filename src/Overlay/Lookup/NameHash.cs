using System.Buffers.Binary;
using System.Numerics;
using Veneer.Linux;

namespace Veneer.Overlay.Lookup;

/// <summary>A hash of names that users cannot predict: SipHash-1-3, with a key of its own in each process.</summary>
/// <remarks>
/// Users choose names. If they knew the hash, they could choose thousands that collide, and listing such a directory would
/// compare each name with all others. The offsets of entries, which users see, do not reveal the key.
/// </remarks>
/// <param name="key0">One half of the key.</param>
/// <param name="key1">The other half.</param>
/// <param name="mask">The bits of the hash that are kept. Fewer bits make names collide, for tests.</param>
internal sealed class NameHash(ulong key0, ulong key1, ulong mask = ulong.MaxValue)
{
    /// <summary>The hash of this process. A process serves one mount, for which the hash stays the same.</summary>
    public static NameHash Secret { get; } = New();

    /// <summary>Makes a hash with a random key.</summary>
    public static NameHash New() => new(Libc.RandomNumber(), Libc.RandomNumber());

    /// <summary>The hash of a name.</summary>
    public ulong Of(ReadOnlySpan<byte> name)
    {
        var state = new State(key0, key1);
        ulong length = (ulong)name.Length << 56;
        for (; name.Length >= sizeof(ulong); name = name[sizeof(ulong)..]) { state.Add(BinaryPrimitives.ReadUInt64LittleEndian(name)); }
        for (int i = 0; i < name.Length; i++) { length |= (ulong)name[i] << (8 * i); }
        state.Add(length);
        return state.Finish() & mask;
    }

    private ref struct State(ulong key0, ulong key1)
    {
        private ulong v0 = key0 ^ 0x736f6d6570736575, v1 = key1 ^ 0x646f72616e646f6d, v2 = key0 ^ 0x6c7967656e657261,
            v3 = key1 ^ 0x7465646279746573;

        public void Add(ulong word)
        {
            v3 ^= word;
            Round();
            v0 ^= word;
        }

        public ulong Finish()
        {
            v2 ^= 0xFF;
            Round();
            Round();
            Round();
            return v0 ^ v1 ^ v2 ^ v3;
        }

        private void Round()
        {
            v0 += v1;
            v1 = BitOperations.RotateLeft(v1, 13) ^ v0;
            v0 = BitOperations.RotateLeft(v0, 32);
            v2 += v3;
            v3 = BitOperations.RotateLeft(v3, 16) ^ v2;
            v0 += v3;
            v3 = BitOperations.RotateLeft(v3, 21) ^ v0;
            v2 += v1;
            v1 = BitOperations.RotateLeft(v1, 17) ^ v2;
            v2 = BitOperations.RotateLeft(v2, 32);
        }
    }
}
