using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Lookup;

/// <summary>The listings of directories: counts the users of each, and recycles the memory of unused ones.</summary>
/// <remarks>
/// A caller that got a listing gives it back by <see cref="Return"/> and does not touch it afterwards. A directory that
/// shows a listing counts as a user. A listing that is never given back, as by a directory that is forgotten while somebody
/// reads it, is left to the garbage collector. The lock is a leaf.
/// </remarks>
/// <param name="hash">Gives names their offsets.</param>
/// <param name="layers">Opens real directories, and recognises whiteouts.</param>
internal sealed class Listings(NameHash hash, LayerReader layers)
{
    /// <summary>The most memory that is kept for recycling, in bytes.</summary>
    private const long MostRecycled = 2 << 20;

    private readonly OrderedLock gate = new(OverlayLocks.Listings);
    private readonly Stack<MergedDirectory> recycled = new();
    private long recycledBytes;
    private long discarded;

    /// <summary>The bytes of listings that were given back and left to the garbage collector.</summary>
    public long Discarded => Interlocked.Read(ref discarded);

    /// <summary>Reads a directory. The caller holds no lock, and gives the listing back by <see cref="Return"/>.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="version">The directory's version.</param>
    /// <param name="listing">The listing; null after an error.</param>
    /// <param name="onlyWhetherEmpty">Whether to stop at the first entry that users see.</param>
    public Errno Read(DirectoryStack directory, int version, out MergedDirectory listing, bool onlyWhetherEmpty = false)
    {
        listing = Take();
        Errno error = listing.Read(layers, directory, version, onlyWhetherEmpty);
        if (error.IsError)
        {
            Return(listing);
            listing = null!;
            return error;
        }
        if (!onlyWhetherEmpty && listing.Sort(directory)) { Separate(directory, listing); }
        return Errno.None;
    }

    /// <summary>Takes an empty listing, recycled if possible.</summary>
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

    /// <summary>The listing that the directory shows, with one more user; null if it shows none.</summary>
    public MergedDirectory? Find(DirectoryStack directory)
    {
        using (gate.Enter())
        {
            if (directory.Listing is { } listing) { listing.Users++; }
            return directory.Listing;
        }
    }

    /// <summary>Adds a user to a listing.</summary>
    public MergedDirectory Share(MergedDirectory listing)
    {
        using (gate.Enter()) { listing.Users++; }
        return listing;
    }

    /// <summary>Removes a user from a listing; the last one recycles it.</summary>
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

    /// <summary>Makes the directory show a listing, unless it already shows one that is as new or newer.</summary>
    /// <remarks>An older listing would hide names from a reader who goes on in the newer one.</remarks>
    public void Publish(DirectoryStack directory, MergedDirectory listing)
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

    /// <summary>Makes the directory show no listing, if it shows this one.</summary>
    public void Withdraw(DirectoryStack directory, MergedDirectory listing)
    {
        using (gate.Enter())
        {
            if (!ReferenceEquals(directory.Listing, listing)) { return; }
            directory.Listing = null;
            ReturnLocked(listing);
        }
    }

    /// <summary>Gives entries of a directory offsets of their own where several names have the same hash, or once had it.</summary>
    private void Separate(DirectoryStack directory, MergedDirectory listing)
    {
        using (gate.Enter()) { listing.SeparateLocked(directory); }
    }

    /// <summary>Leaves the recycled listings to the garbage collector, which is about to be called.</summary>
    public void DropRecycled()
    {
        using (gate.Enter())
        {
            recycled.Clear();
            recycledBytes = 0;
        }
    }
}
