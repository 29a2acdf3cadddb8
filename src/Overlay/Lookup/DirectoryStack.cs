using Veneer.Fuse.Locking;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Lookup;

/// <summary>The offset of an entry in listings, where it is not the hash of its name.</summary>
/// <param name="Name">With its NUL.</param>
/// <param name="Offset">The offset.</param>
internal sealed record OwnOffset(byte[] Name, ulong Offset);

/// <summary>The real directories behind one directory of the overlay, and what is remembered of the names in them.</summary>
/// <param name="upper">The directory in upper, or null.</param>
/// <param name="lowers">The directories of the lower layers that show through, topmost first.</param>
internal sealed class DirectoryStack(RealDirectory? upper, RealDirectory[] lowers)
{
    private RealDirectory? upper = upper;
    private LowerNames? lowerNames;
    private OwnOffset[]? ownOffsets;

    /// <summary>The directory in upper, or null. Set once, by the copy-up.</summary>
    public RealDirectory? Upper { get => Volatile.Read(ref upper); set => Volatile.Write(ref upper, value); }

    /// <summary>The directories of the lower layers that show through, topmost first.</summary>
    public RealDirectory[] Lowers { get; } = lowers;

    /// <summary>Whether upper and at least one lower make up the directory.</summary>
    public bool IsMerged => Upper is not null && Lowers.Length > 0;

    /// <summary>Whether the directory is in upper only.</summary>
    public bool IsPureUpper => Upper is not null && Lowers.Length == 0;

    /// <summary>The topmost real directory.</summary>
    public RealDirectory Topmost => Upper ?? Lowers[0];

    /// <summary>What the lowers alone show.</summary>
    public DirectoryStack Below => new(null, Lowers);

    /// <summary>A directory that was found in this one.</summary>
    /// <param name="name">With its NUL. Nobody changes it any more.</param>
    /// <param name="hasUpper">Whether upper has it.</param>
    /// <param name="whole">What is behind it.</param>
    public DirectoryStack Child(byte[] name, bool hasUpper, in Whole whole) => new(hasUpper ? new RealDirectory(Upper!, name) : null, whole.Lowers);

    /// <summary>Where names are in the lowers; null as long as it is not worth knowing. Set once.</summary>
    public LowerNames? LowerNames { get => Volatile.Read(ref lowerNames); set => Volatile.Write(ref lowerNames, value); }

    /// <summary>How many lowers were asked for a name that they do not have. Counts are lost when threads meet.</summary>
    public int Misses;

    /// <summary>What the directory lists, while somebody reads it. Protected by <see cref="Listings"/>.</summary>
    public MergedDirectory? Listing { get; set; }

    /// <summary>Who reads the directory. Counts are lost when threads meet.</summary>
    public ListingReaders Readers;

    /// <summary>Entries whose offset is not their hash, which another name has; null as long as there was none. Protected by <see cref="Listings"/>.</summary>
    public OwnOffset[]? OwnOffsets => Volatile.Read(ref ownOffsets);

    /// <summary>An entry has this offset for as long as the directory is known. Caller holds the gate of <see cref="Listings"/>.</summary>
    /// <param name="name">With its NUL.</param>
    /// <param name="offset">The offset.</param>
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
