namespace Veneer.Overlay.Tree;

/// <summary>Returns the memory of forgotten inodes and of listings to the system.</summary>
/// <remarks>
/// The steady path allocates nothing, so the garbage collector may have no occasion of its own. All threads stand still while
/// it moves what lives, for some 25 ms and 0.2 µs for each inode. So it runs only after four times as much has died, and while
/// requests come only if that is soon over. A collection that does not move objects does not return the memory.
/// </remarks>
/// <param name="tree">The tree of the overlay.</param>
internal sealed class Garbage(ObjectTree tree)
{
    /// <summary>The least garbage that is worth a collection, in bytes.</summary>
    private const long Enough = 4 << 20;

    /// <summary>The most inodes, in bytes, that a collection may move while callers wait: some 130,000 inodes.</summary>
    private const long MostLiving = 24 << 20;

    private long collected; // the bytes of garbage at the last collection

    /// <summary>Calls the collector if that is worth it. No two threads call this at once.</summary>
    /// <param name="isQuiet">Whether no requests come at the moment.</param>
    public void Rest(bool isQuiet)
    {
        long dead = tree.Listings.Discarded + (tree.Inodes.Dropped * InodeTable.BytesOfInode);
        long living = (long)tree.Inodes.Count * InodeTable.BytesOfInode;
        if (dead - collected < Math.Max(Enough, 4 * living) || (!isQuiet && living > MostLiving)) { return; }
        collected = dead;
        tree.Inodes.DropRecycled();
        tree.Listings.DropRecycled();
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
    }
}
