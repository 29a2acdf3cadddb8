using Veneer.Fuse.Locking;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tree;

/// <summary>A real inode: which filesystem, and its number there; or, where numbers tell nothing, where it is.</summary>
/// <param name="Device">Index in <see cref="InodeNumbers"/>; negative for what is known by where it is.</param>
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

    /// <summary>Whether the object is known by where it is.</summary>
    public bool IsByName => Device < 0;

    /// <summary>A hash that is the same in every mount; its upper bits are the good ones.</summary>
    public ulong LongHash => Ino * 0x9E3779B97F4A7C15UL + (ulong)(uint)Device * 0xC2B2AE3D27D4EB4FUL;
}

/// <summary>Which st_ino an object is to have.</summary>
/// <param name="Ino">The number that it has had since before it was copied up, or its own.</param>
/// <param name="Real">Its own number.</param>
/// <param name="Origin">The real object that has <paramref name="Ino"/>, if that may be found as well.</param>
internal readonly record struct InoChoice(ulong Ino, ulong Real, RealKey? Origin)
{
    /// <summary>Its own.</summary>
    public static InoChoice Own(ulong ino) => new(ino, ino, null);
}

/// <summary>The st_ino policy: unique in the mount, and a function of the real inode, so that it never changes.</summary>
/// <remarks>
/// With one filesystem below, users see the real numbers, as with kernel overlayfs. With several, the upper 16 bits tell
/// which one (the kernel's xino). Numbers that do not fit in 48 bits get one of our own, remembered until the object is gone;
/// it is made from the real one, so that mostly it is the same in the next mount. What is known by where it is gets one
/// that is made from there.
/// </remarks>
internal sealed class InodeNumbers
{
    private const int Bits = 48;
    private const ulong OverflowBase = 0xFFFFUL << Bits;

    private static readonly NameHash other = NameHash.New();

    private readonly OrderedLock gate = new(OverlayLocks.InodeNumbers);
    private readonly Dictionary<ulong, int> devices = [];
    private readonly Dictionary<RealKey, ulong> overflow = [];
    private readonly HashSet<ulong> overflowTaken = [];
    private readonly Dictionary<RealKey, ulong> remembered = [];
    private ulong lastDevice = ulong.MaxValue;
    private int lastIndex = -1;

    /// <summary>The key of a real object.</summary>
    /// <param name="device">st_dev as <see cref="Linux.Statx.Dev"/>.</param>
    /// <param name="ino">st_ino.</param>
    public RealKey Key(ulong device, ulong ino)
    {
        using (gate.Enter())
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

    /// <summary>The key of a real object that is known by where it is: see <see cref="RealIdentity"/>.</summary>
    /// <param name="directory">The nodeid of the overlay's directory, which is never that of another one.</param>
    /// <param name="name">With its NUL.</param>
    /// <remarks>95 bits of a hash with a secret key: that two names have the same can neither be arranged nor awaited.</remarks>
    public static RealKey KeyOfName(ulong directory, ReadOnlySpan<byte> name)
    {
        ulong low = NameHash.Secret.Of(name), high = other.Of(name);
        low = (low ^ directory) * 0x9E3779B97F4A7C15UL;
        high = (high + directory) * 0xC2B2AE3D27D4EB4FUL;
        return new RealKey((int)(high >> 33) | int.MinValue, low ^ (low >> 32));
    }

    /// <summary>The number that users see of a lower object that is known by where it is: the same in every mount of the same layers.</summary>
    /// <param name="directory">The real directory.</param>
    /// <param name="name">With its NUL.</param>
    public static ulong NumberOfName(RealDirectory directory, ReadOnlySpan<byte> name)
    {
        ulong hash = Mix((ulong)directory.Layer.Index, name);
        for (RealDirectory? above = directory; above is { Parent: not null }; above = above.Parent) { hash = Mix(hash, above.Name); }
        return OverflowBase | hash >> (64 - Bits);
    }

    /// <summary>A number that is to stand in for one that is taken.</summary>
    public static ulong Another(ulong number) => OverflowBase | (number * 0x9E3779B97F4A7C15UL) >> (64 - Bits);

    private static ulong Mix(ulong hash, ReadOnlySpan<byte> name)
    {
        foreach (byte one in name) { hash = (hash ^ one) * 1099511628211; }
        hash = (hash ^ (hash >> 32)) * 0x9E3779B97F4A7C15UL;
        return hash ^ (hash >> 29);
    }

    /// <summary>The number that users see.</summary>
    public ulong Number(RealKey key)
    {
        if (key.Ino >> Bits == 0 && key.Device < 0xFFFF) { return ((ulong)(uint)key.Device << Bits) | key.Ino; }
        using (gate.Enter())
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
    public void Remember(RealKey key, ulong number)
    {
        using (gate.Enter()) { remembered[key] = number; }
    }

    /// <summary>The number that was remembered for a copy.</summary>
    public bool TryGetRemembered(RealKey key, out ulong number)
    {
        using (gate.Enter()) { return remembered.TryGetValue(key, out number); }
    }

    /// <summary>The real inode is gone: its number may come again for another object.</summary>
    public void Release(RealKey key)
    {
        using (gate.Enter())
        {
            remembered.Remove(key);
            if (overflow.Remove(key, out ulong number)) { overflowTaken.Remove(number); }
        }
    }
}
