namespace Veneer.Overlay.Lookup;

/// <summary>The last readers of a directory: tells whether the kernel may have kept entries of several versions of it.</summary>
/// <remarks>
/// The kernel keeps one listing for all readers. It notes the directory's state when a reader begins, but keeps the first
/// entries that arrive. They may come from a slow reader that began before a change, and are then kept under the state after
/// the change. Until the next change, a new name would be missing from the listing, or a removed one would be listed. When
/// one reader has begun before a change and another one after it, the kernel is told at the end of each listing to drop what
/// it keeps, until the entries of the first reader must have arrived. A single thread cannot overtake itself.
/// </remarks>
internal struct ListingReaders
{
    /// <summary>The longest time from our answer to a reader until the kernel has kept the entries, in milliseconds.</summary>
    private const int Patience = 100;

    private int version;
    private uint reader;
    private int began;
    private int mixedUntil;

    /// <summary>Notes that a reader begins.</summary>
    /// <param name="listed">The version of the directory that the reader is shown.</param>
    /// <param name="thread">The reader's thread; 0 is any thread of another pid namespace.</param>
    /// <param name="now">The time, in milliseconds.</param>
    public void NoteReader(int listed, uint thread, int now)
    {
        bool isAnother = thread != reader || thread == 0;
        if (listed == version)
        {
            if (isAnother) { reader = 0; } // several threads
        }
        else
        {
            if (isAnother && now - began < Patience) { mixedUntil = began + Patience; }
            version = listed;
            reader = thread;
        }
        began = now;
    }

    /// <summary>Whether the entries that the kernel has kept may belong to several versions.</summary>
    /// <param name="now">The time, in milliseconds.</param>
    public readonly bool MayBeMixed(int now) => mixedUntil != 0 && mixedUntil - now > 0;
}
