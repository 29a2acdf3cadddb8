namespace Veneer.Overlay.Tree;

/// <summary>A real inode: which filesystem, and its number there.</summary>
/// <param name="Device">Index in <see cref="InodeNumbers"/>.</param>
/// <param name="Ino">The real inode number.</param>
internal readonly record struct RealKey(int Device, ulong Ino)
{
    /// <summary>Odd, and another one in each process.</summary>
    private static readonly ulong secret = Linux.Libc.RandomNumber() | 1;

    /// <summary>A well-spread hash that nobody can foresee: inode numbers are often consecutive, and who makes a filesystem chooses them.</summary>
    public uint Hash
    {
        get
        {
            ulong product = LongHash * secret;
            return (uint)(((product ^ (product >> 32)) * 0x9E3779B97F4A7C15UL) >> 32);
        }
    }

    /// <summary>As that of the tables.</summary>
    public override int GetHashCode() => (int)Hash;

    /// <summary>A hash that is the same in every mount; its upper bits are the good ones.</summary>
    public ulong LongHash => Ino * 0x9E3779B97F4A7C15UL + (ulong)(uint)Device * 0xC2B2AE3D27D4EB4FUL;
}

/// <summary>The st_ino policy: unique in the mount, and a function of the real inode, so that it never changes.</summary>
/// <remarks>
/// With one filesystem below, users see the real numbers, as with kernel overlayfs. With several, the upper 16 bits tell
/// which one (the kernel's xino). Numbers that do not fit in 48 bits get one of our own, remembered until the object is gone;
/// it is made from the real one, so that mostly it is the same in the next mount.
/// </remarks>
internal sealed class InodeNumbers
{
    private const int Bits = 48;
    private const ulong OverflowBase = 0xFFFFUL << Bits;

    private readonly Lock gate = new();
    private readonly Dictionary<ulong, int> devices = [];
    private readonly Dictionary<RealKey, ulong> overflow = [];
    private readonly HashSet<ulong> overflowTaken = [];
    private readonly Dictionary<RealKey, ulong> kept = [];
    private ulong lastDevice = ulong.MaxValue;
    private int lastIndex = -1;

    /// <summary>The key of a real object.</summary>
    /// <param name="device">st_dev as <see cref="Linux.Statx.Dev"/>.</param>
    /// <param name="ino">st_ino.</param>
    public RealKey Key(ulong device, ulong ino)
    {
        lock (gate)
        {
            if (device != lastDevice)
            {
                if (!devices.TryGetValue(device, out int index))
                {
                    index = devices.Count;
                    devices.Add(device, index);
                }
                lastDevice = device;
                lastIndex = index;
            }
            return new RealKey(lastIndex, ino);
        }
    }

    /// <summary>The number that users see.</summary>
    public ulong Number(RealKey key)
    {
        if (key.Ino >> Bits == 0 && key.Device < 0xFFFF) { return ((ulong)(uint)key.Device << Bits) | key.Ino; }
        lock (gate)
        {
            if (!overflow.TryGetValue(key, out ulong number))
            {
                number = OverflowBase | key.LongHash >> (64 - Bits);
                while (!overflowTaken.Add(number)) { number = OverflowBase | (number + (key.Hash | 1)); }
                overflow.Add(key, number);
            }
            return number;
        }
    }

    /// <summary>Remembers the number of a copy whose origin cannot be asked: file handles need privilege, and symbolic links and special files take no user.* attribute.</summary>
    public void Keep(RealKey key, ulong number)
    {
        lock (gate) { kept[key] = number; }
    }

    /// <summary>The number that was remembered for a copy.</summary>
    public bool TryGetKept(RealKey key, out ulong number)
    {
        lock (gate) { return kept.TryGetValue(key, out number); }
    }

    /// <summary>The real inode is gone: its number may come again for another object.</summary>
    public void Release(RealKey key)
    {
        lock (gate)
        {
            kept.Remove(key);
            if (overflow.Remove(key, out ulong number)) { overflowTaken.Remove(number); }
        }
    }
}
