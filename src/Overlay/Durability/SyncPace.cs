using System.Diagnostics;

namespace Veneer.Overlay.Durability;

/// <summary>Limits how many operations a sync does in a second, and tells whether it is to end early.</summary>
/// <remarks>It begins to count when it is made. One thread uses it.</remarks>
/// <param name="perSecond">The most operations a second; 0 for no limit.</param>
/// <param name="isCancelled">Whether to end early; called between two operations.</param>
internal sealed class SyncPace(int perSecond, Func<bool> isCancelled)
{
    private readonly long started = Stopwatch.GetTimestamp();
    private long operations;

    /// <summary>Asks whether to end early.</summary>
    public bool IsCancelled() => isCancelled();

    /// <summary>Waits until the next operation is due.</summary>
    /// <returns>False when the sync was cancelled.</returns>
    public bool Wait()
    {
        operations++;
        while (perSecond > 0)
        {
            if (isCancelled()) { return false; }
            double left = ((operations - 1) / (double)perSecond) - Stopwatch.GetElapsedTime(started).TotalSeconds;
            if (left <= 0) { break; }
            Thread.Sleep(TimeSpan.FromSeconds(Math.Min(left, 0.2)));
        }
        return !isCancelled();
    }
}
