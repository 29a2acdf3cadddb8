using Veneer.Linux;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Durability;

/// <summary>An object of upper that could not be synced.</summary>
/// <param name="Path">The path from upper, as <see cref="PathText"/> encodes it; empty for upper itself.</param>
/// <param name="Error">The error.</param>
public sealed record SyncFailure(string Path, Errno Error);

/// <summary>Syncs an upper: writes each of its files and directories to the disk, and nothing else of its filesystem.</summary>
/// <remarks>
/// Files are written in pieces, so that others have their turn, and only where they are dirty. Objects that the fsync(2) of
/// a directory covers (links, devices, whiteouts) are not opened. Nothing of the overlay is locked: what is written during
/// the sync may or may not be on the disk. Objects that are moved during the sync are synced at their new place. If too
/// many are moved to know them all, the whole filesystem is synced in the end.
/// </remarks>
public sealed class UpperSync
{
    /// <summary>The most failures that are kept; further ones are only counted.</summary>
    public const int MaxFailures = 1000;

    private readonly int upper;
    private readonly int perSecond;
    private readonly Moves? moves;
    private readonly SyncProgress progress = new();

    /// <param name="upper">A descriptor of the upper directory; it stays the caller's.</param>
    /// <param name="perSecond">The most operations a second, each an fsync(2) or up to 1 MiB; 0 for no limit.</param>
    public UpperSync(int upper, int perSecond) : this(upper, perSecond, moves: null)
    {
    }

    /// <param name="upper">A descriptor of the upper directory; it stays the caller's.</param>
    /// <param name="perSecond">The most operations a second; 0 for no limit.</param>
    /// <param name="moves">The objects that users move from now on; null when nobody moves any.</param>
    internal UpperSync(int upper, int perSecond, Moves? moves)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(perSecond);
        this.upper = upper;
        this.perSecond = perSecond;
        this.moves = moves;
    }

    /// <summary>The number of files and directories to sync; 0 while they are being counted.</summary>
    public long Total => progress.Total;

    /// <summary>The number of them that were synced, with or without success.</summary>
    public long Done => progress.Done;

    /// <summary>The number of them that could not be synced.</summary>
    public long Failed => progress.Failed;

    /// <summary>The first failures, up to <see cref="MaxFailures"/>.</summary>
    public IReadOnlyList<SyncFailure> Failures => progress.Failures;

    /// <summary>
    /// The first error that means that data was lost, unlike an error that only kept the sync from beginning. Valid once
    /// the sync is over.
    /// </summary>
    internal Errno Loss => progress.Loss;

    /// <summary>Whether the sync is over.</summary>
    public bool IsOver { get; private set; }

    /// <summary>Runs the sync to its end.</summary>
    /// <param name="isCancelled">Whether to end early; called between two operations.</param>
    /// <returns>Whether everything is on the disk.</returns>
    public bool Run(Func<bool>? isCancelled = null)
    {
        var pace = new SyncPace(perSecond, isCancelled ?? (static () => false));
        var walk = new SyncWalk(upper, "", progress, pace, areMovesReported: moves is not null, synced: null);
        bool ended = false;
        if (walk.Count(out long count))
        {
            progress.AddToTotal(count);
            ended = walk.Sync() && (moves is null || new MovedSync(upper, moves, progress, pace).Run());
        }
        IsOver = true;
        return ended && Failed == 0;
    }
}
