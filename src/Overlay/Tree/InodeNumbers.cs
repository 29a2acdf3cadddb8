using Veneer.Fuse.Locking;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tree;

/// <summary>What identifies a real object: its filesystem and its number, or a hash of its place where numbers are not reliable.</summary>
/// <param name="Device">The filesystem's index in <see cref="InodeNumbers"/>; negative when the key tells the object's place.</param>
/// <param name="Ino">The real inode number, or a part of the hash.</param>
internal readonly record struct RealKey(int Device, ulong Ino)
{
    /// <summary>An odd number that differs in each process.</summary>
    private static readonly ulong secret = Linux.Libc.RandomNumber() | 1;

    /// <summary>
    /// A well-spread hash that nobody can predict: inode numbers are often consecutive, and whoever makes a filesystem chooses them.
    /// </summary>
    public uint Hash
    {
        get
        {
            ulong product = LongHash * secret;
            return (uint)(((product ^ (product >> 32)) * 0x9E3779B97F4A7C15UL) >> 32);
        }
    }

    /// <summary>The same as <see cref="Hash"/>.</summary>
    public override int GetHashCode() => (int)Hash;

    /// <summary>Whether the key tells the object's place.</summary>
    public bool IsByName => Device < 0;

    /// <summary>A hash that is the same in every mount. Its upper bits are the well-spread ones.</summary>
    public ulong LongHash => Ino * 0x9E3779B97F4A7C15UL + (ulong)(uint)Device * 0xC2B2AE3D27D4EB4FUL;
}

/// <summary>Which st_ino an object should have.</summary>
/// <param name="Ino">The number that the object had before it was copied up, or that of its real object.</param>
/// <param name="Real">The number of its real object.</param>
/// <param name="Origin">The lower object whose number <paramref name="Ino"/> is; null if there is none, or its key is not known.</param>
internal readonly record struct InoChoice(ulong Ino, ulong Real, RealKey? Origin)
{
    /// <summary>An object should have the number of its real object.</summary>
    public static InoChoice OfReal(ulong ino) => new(ino, ino, null);
}

/// <summary>The st_ino policy: numbers are unique in the mount, and made from the real inode, so that they never change.</summary>
/// <remarks>
/// If all layers are on one filesystem, users see the real numbers, as with kernel overlayfs. Otherwise the upper 16 bits tell the
/// filesystem (the kernel's xino). A real number that does not fit in 48 bits is replaced by a hash of it, which is mostly the same
/// in the next mount, and which is remembered until the object is gone. Where numbers are not reliable, st_ino is a hash of the
/// object's place.
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

    /// <summary>The key of a real object that is identified by its place: see <see cref="RealIdentity"/>.</summary>
    /// <param name="directory">The nodeid of the overlay's directory. No other directory ever has it.</param>
    /// <param name="name">With its NUL.</param>
    /// <remarks>It is 95 bits of a hash with a secret key, so nobody can make two names with one key, and chance does not.</remarks>
    public static RealKey KeyOfName(ulong directory, ReadOnlySpan<byte> name)
    {
        ulong low = NameHash.Secret.Of(name), high = other.Of(name);
        low = (low ^ directory) * 0x9E3779B97F4A7C15UL;
        high = (high + directory) * 0xC2B2AE3D27D4EB4FUL;
        return new RealKey((int)(high >> 33) | int.MinValue, low ^ (low >> 32));
    }

    /// <summary>
    /// The number that users see of a lower object that is identified by its place. It is the same in every mount of the same layers.
    /// </summary>
    /// <param name="directory">The real directory.</param>
    /// <param name="name">With its NUL.</param>
    public static ulong NumberOfName(RealDirectory directory, ReadOnlySpan<byte> name)
    {
        // Spread over all bits: what differs in the lowest byte alone may be undone by the first byte of a name.
        ulong hash = Mix((ulong)directory.Layer.Index * 0xC2B2AE3D27D4EB4FUL, name);
        for (RealDirectory? above = directory; above is { Parent: not null }; above = above.Parent) { hash = Mix(hash, above.Name); }
        return OverflowBase | hash >> (64 - Bits);
    }

    /// <summary>The number to try instead of a number that another object has.</summary>
    public static ulong AlternativeTo(ulong number) => OverflowBase | (number * 0x9E3779B97F4A7C15UL) >> (64 - Bits);

    private static ulong Mix(ulong hash, ReadOnlySpan<byte> name)
    {
        foreach (byte one in name) { hash = (hash ^ one) * 1099511628211; }
        hash = (hash ^ (hash >> 32)) * 0x9E3779B97F4A7C15UL;
        return hash ^ (hash >> 29);
    }

    /// <summary>The st_ino that is made from the number of a real object.</summary>
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

    /// <summary>
    /// Remembers the number of a copy whose origin cannot be found: file handles need privilege, symbolic links and special files
    /// have no user.* attributes, and the copy of a file with several lower names has no origin.
    /// </summary>
    public void Remember(RealKey key, ulong number)
    {
        using (gate.Enter()) { remembered[key] = number; }
    }

    /// <summary>Whether a number was remembered for a copy.</summary>
    public bool IsRemembered(RealKey key) => remembered.Count > 0 && TryGetRemembered(key, out _); // in a race, there was none

    /// <summary>Finds the number that was remembered for a copy.</summary>
    public bool TryGetRemembered(RealKey key, out ulong number)
    {
        using (gate.Enter()) { return remembered.TryGetValue(key, out number); }
    }

    /// <summary>Forgets what is remembered of a real inode that is gone: another object may get its number.</summary>
    public void Release(RealKey key)
    {
        using (gate.Enter())
        {
            remembered.Remove(key);
            if (overflow.Remove(key, out ulong number)) { overflowTaken.Remove(number); }
        }
    }
}
