using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Lookup;

/// <summary>The listings of directories: who uses each, and those that nobody uses any more, whose memory serves the next.</summary>
/// <remarks>
/// Whoever has got one gives it back by <see cref="Return"/> and does not touch it afterwards; a directory that shows
/// one is a user like any other. What is never given back, as by a directory that is forgotten while somebody reads it, is
/// garbage. The lock is a leaf.
/// </remarks>
/// <param name="hash">What gives names their offsets.</param>
/// <param name="layers">The layers.</param>
/// <param name="lookup">Opens directories, and tells whiteouts.</param>
internal sealed class Listings(NameHash hash, LayerStack layers, LayeredLookup lookup)
{
    /// <summary>So much memory may wait for a directory, in bytes.</summary>
    private const long MostRecycled = 2 << 20;

    private readonly OrderedLock gate = new(OverlayLocks.Listings);
    private readonly Stack<MergedDirectory> recycled = new();
    private long recycledBytes;
    private long discarded;

    /// <summary>Bytes of listings that were left to the collector, unless they were never given back.</summary>
    public long Discarded => Interlocked.Read(ref discarded);

    /// <summary>Reads a directory. The caller holds no lock, and gives the listing back by <see cref="Return"/>.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="version">Which version of the directory this is.</param>
    /// <param name="listing">What it lists; null after an error.</param>
    /// <param name="onlyWhetherEmpty">Whether to stop at the first entry that users see.</param>
    public Errno Read(DirectoryStack directory, int version, out MergedDirectory listing, bool onlyWhetherEmpty = false)
    {
        listing = Take();
        Errno error = listing.Read(layers, lookup, directory, version, onlyWhetherEmpty);
        if (error.IsError)
        {
            Return(listing);
            listing = null!;
            return error;
        }
        if (!onlyWhetherEmpty && listing.Sort(directory)) { Separate(directory, listing); }
        return Errno.None;
    }

    /// <summary>One to be filled.</summary>
    private MergedDirectory Take()
    {
        using (gate.Enter())
        {
            if (!recycled.TryPop(out MergedDirectory? listing)) { listing = new MergedDirectory(hash); }
            else { recycledBytes -= listing.Size; }
            listing.Users = 1;
            return listing;
        }
    }

    /// <summary>What the directory shows, or null.</summary>
    public MergedDirectory? Find(DirectoryStack directory)
    {
        using (gate.Enter())
        {
            if (directory.Listing is { } listing) { listing.Users++; }
            return directory.Listing;
        }
    }

    /// <summary>One user more.</summary>
    public MergedDirectory Share(MergedDirectory listing)
    {
        using (gate.Enter()) { listing.Users++; }
        return listing;
    }

    /// <summary>One user less.</summary>
    public void Return(MergedDirectory? listing)
    {
        if (listing is null) { return; }
        using (gate.Enter()) { ReturnLocked(listing); }
    }

    private void ReturnLocked(MergedDirectory listing)
    {
        LockOrder.AssertHeld(OverlayLocks.Listings);
        if (--listing.Users > 0) { return; }
        if (recycledBytes + listing.Size > MostRecycled)
        {
            Interlocked.Add(ref discarded, listing.Size);
            return;
        }
        listing.Clear();
        recycledBytes += listing.Size;
        recycled.Push(listing);
    }

    /// <summary>The directory shows this listing from now on, unless another thread was faster and has a newer one, or one as new.</summary>
    /// <remarks>An older one would hide names from whoever goes on in the newer one.</remarks>
    public void Show(DirectoryStack directory, MergedDirectory listing)
    {
        using (gate.Enter())
        {
            MergedDirectory? old = directory.Listing;
            if (old is not null && old.Version - listing.Version >= 0) { return; }
            listing.Users++;
            directory.Listing = listing;
            if (old is not null) { ReturnLocked(old); }
        }
    }

    /// <summary>The directory shows none any more, if it is this one.</summary>
    public void Hide(DirectoryStack directory, MergedDirectory listing)
    {
        using (gate.Enter())
        {
            if (!ReferenceEquals(directory.Listing, listing)) { return; }
            directory.Listing = null;
            ReturnLocked(listing);
        }
    }

    /// <summary>Gives the entries of a directory offsets of their own, where names have one hash, or once had.</summary>
    private void Separate(DirectoryStack directory, MergedDirectory listing)
    {
        using (gate.Enter()) { listing.SeparateLocked(directory); }
    }

    /// <summary>Leaves what waits for a directory to the collector, which is about to be called.</summary>
    public void DropRecycled()
    {
        using (gate.Enter())
        {
            recycled.Clear();
            recycledBytes = 0;
        }
    }
}
