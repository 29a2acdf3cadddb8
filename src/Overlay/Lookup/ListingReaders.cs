namespace Veneer.Overlay.Lookup;

/// <summary>Who began to read a directory a moment ago: whether the kernel may take what one of them has read for what another one has.</summary>
/// <remarks>
/// The kernel keeps one listing for all readers. It notes the state of the directory when somebody begins, but keeps the
/// first entries that arrive: those of who began before a change and got to it late, with the state after the change.
/// Until the next one, a new name would be missing there, and one that is gone be listed. When two have begun with a
/// change between them, the kernel is told, at the end of each listing, to drop what it has, until the earlier one must
/// have got to it. A thread alone does not meet itself.
/// </remarks>
internal struct ListingReaders
{
    /// <summary>So long, in milliseconds, a thread may take from its answer to the kernel's note of it.</summary>
    private const int Patience = 100;

    private int version;
    private uint reader;
    private int began;
    private int mixedUntil;

    /// <summary>Somebody begins.</summary>
    /// <param name="listed">The version that he is shown.</param>
    /// <param name="thread">Who; 0 is anybody, from another pid namespace.</param>
    /// <param name="now">The time, in milliseconds.</param>
    public void Began(int listed, uint thread, int now)
    {
        bool isAnother = thread != reader || thread == 0;
        if (listed == version)
        {
            if (isAnother) { reader = 0; } // several
        }
        else
        {
            if (isAnother && now - began < Patience) { mixedUntil = began + Patience; }
            version = listed;
            reader = thread;
        }
        began = now;
    }

    /// <summary>Whether what the kernel has read may be of several versions.</summary>
    /// <param name="now">The time, in milliseconds.</param>
    public readonly bool HaveMixed(int now) => mixedUntil != 0 && mixedUntil - now > 0;
}
