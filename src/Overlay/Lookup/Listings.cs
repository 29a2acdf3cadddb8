using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Lookup;

/// <summary>The listings of directories: who uses each, and those that nobody uses any more, whose memory serves the next.</summary>
/// <remarks>
/// Whoever has got one gives it back by <see cref="Return"/> and does not touch it afterwards; a directory that shows
/// one is a user like any other. What is never given back, as by a directory that is forgotten while somebody reads it, is
/// garbage. The lock is a leaf.
/// </remarks>
/// <param name="hash">What gives names their offsets.</param>
internal sealed class Listings(NameHash hash)
{
    /// <summary>So much memory may wait for a directory, in bytes.</summary>
    private const long MostRecycled = 2 << 20;

    private readonly Lock gate = new();
    private readonly Stack<MergedDirectory> recycled = new();
    private long recycledBytes;
    private long discarded;

    /// <summary>Bytes of listings that were left to the collector, unless they were never given back.</summary>
    public long Discarded => Interlocked.Read(ref discarded);

    /// <summary>One to be filled.</summary>
    public MergedDirectory Take()
    {
        lock (gate)
        {
            if (!recycled.TryPop(out MergedDirectory? listing)) { listing = new MergedDirectory(hash); }
            else { recycledBytes -= listing.Size; }
            listing.Users = 1;
            return listing;
        }
    }

    /// <summary>What the directory shows, or null.</summary>
    public MergedDirectory? Find(DirectoryInode directory)
    {
        lock (gate)
        {
            if (directory.Listing is { } listing) { listing.Users++; }
            return directory.Listing;
        }
    }

    /// <summary>One user more.</summary>
    public MergedDirectory Share(MergedDirectory listing)
    {
        lock (gate) { listing.Users++; }
        return listing;
    }

    /// <summary>One user less.</summary>
    public void Return(MergedDirectory? listing)
    {
        if (listing is null) { return; }
        lock (gate) { ReturnLocked(listing); }
    }

    private void ReturnLocked(MergedDirectory listing)
    {
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
    public void Show(DirectoryInode directory, MergedDirectory listing)
    {
        lock (gate)
        {
            MergedDirectory? old = directory.Listing;
            if (old is not null && old.Version - listing.Version >= 0) { return; }
            listing.Users++;
            directory.Listing = listing;
            if (old is not null) { ReturnLocked(old); }
        }
    }

    /// <summary>The directory shows none any more, if it is this one.</summary>
    public void Hide(DirectoryInode directory, MergedDirectory listing)
    {
        lock (gate)
        {
            if (!ReferenceEquals(directory.Listing, listing)) { return; }
            directory.Listing = null;
            ReturnLocked(listing);
        }
    }

    /// <summary>Gives the entries of a directory offsets of their own, where names have one hash, or once had.</summary>
    public void Separate(DirectoryInode directory, MergedDirectory listing)
    {
        lock (gate) { listing.SeparateLocked(directory); }
    }

    /// <summary>Leaves what waits for a directory to the collector, which is about to be called.</summary>
    public void DropRecycled()
    {
        lock (gate)
        {
            recycled.Clear();
            recycledBytes = 0;
        }
    }
}
