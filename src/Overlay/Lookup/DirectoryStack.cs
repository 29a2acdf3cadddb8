using Veneer.Fuse.Locking;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Lookup;

/// <summary>The offset of a directory entry that is not the hash of the entry's name, since another name has that hash.</summary>
/// <param name="Name">The entry's name with its NUL.</param>
/// <param name="Offset">The entry's offset in listings.</param>
internal sealed record OwnOffset(byte[] Name, ulong Offset);

/// <summary>The real directories behind one directory of the overlay, and what is remembered of the names in them.</summary>
/// <param name="upper">The directory in upper, or null.</param>
/// <param name="lowers">The directories of the lower layers that show through, topmost first.</param>
internal sealed class DirectoryStack(RealDirectory? upper, RealDirectory[] lowers)
{
    private RealDirectory? upper = upper;
    private LowerNames? lowerNames;
    private OwnOffset[]? ownOffsets;

    /// <summary>The directory in upper, or null. Copy-up sets it, once.</summary>
    public RealDirectory? Upper { get => Volatile.Read(ref upper); set => Volatile.Write(ref upper, value); }

    /// <summary>The directories of the lower layers that show through, topmost first.</summary>
    public RealDirectory[] Lowers { get; } = lowers;

    /// <summary>Whether upper and at least one lower make up the directory.</summary>
    public bool IsMerged => Upper is not null && Lowers.Length > 0;

    /// <summary>Whether the directory is in upper only.</summary>
    public bool IsPureUpper => Upper is not null && Lowers.Length == 0;

    /// <summary>The topmost real directory.</summary>
    public RealDirectory Topmost => Upper ?? Lowers[0];

    /// <summary>The same directory without upper: what the lowers alone show.</summary>
    public DirectoryStack Below => new(null, Lowers);

    /// <summary>Makes the stack of a directory that was found in this one.</summary>
    /// <param name="name">The directory's name with its NUL. The array must not change afterwards.</param>
    /// <param name="hasUpper">Whether upper has the directory.</param>
    /// <param name="whole">What is behind the directory.</param>
    public DirectoryStack Child(byte[] name, bool hasUpper, in Whole whole) =>
        new(hasUpper ? new RealDirectory(Upper!, name) : null, whole.Lowers);

    /// <summary>Which lower has which names; null until reading them all is worthwhile. Set once.</summary>
    public LowerNames? LowerNames { get => Volatile.Read(ref lowerNames); set => Volatile.Write(ref lowerNames, value); }

    /// <summary>
    /// How many times a lower was asked for a name that it does not have. Threads that count at the same time may lose counts.
    /// </summary>
    public int Misses;

    /// <summary>The directory's listing while somebody reads it, otherwise null. Protected by <see cref="Listings"/>.</summary>
    public MergedDirectory? Listing { get; set; }

    /// <summary>The last readers of the directory. Threads that write at the same time may lose a write.</summary>
    public ListingReaders Readers;

    /// <summary>
    /// The entries whose offset is not the hash of their name, since another name has that hash; null while there are none.
    /// Protected by <see cref="Listings"/>.
    /// </summary>
    public OwnOffset[]? OwnOffsets => Volatile.Read(ref ownOffsets);

    /// <summary>Gives an entry an offset for as long as the directory is known. Caller holds the gate of <see cref="Listings"/>.</summary>
    /// <param name="name">The entry's name with its NUL.</param>
    /// <param name="offset">The entry's offset in listings.</param>
    public void AddOwnOffsetLocked(ReadOnlySpan<byte> name, ulong offset)
    {
        LockOrder.AssertHeld(OverlayLocks.Listings);
        var all = new List<OwnOffset>(ownOffsets ?? []);
        byte[] own = name.ToArray();
        all.RemoveAll(known => known.Name.AsSpan().SequenceEqual(own));
        all.Add(new OwnOffset(own, offset));
        Volatile.Write(ref ownOffsets, [.. all]);
    }
}
