using Veneer.Overlay.Changes;

namespace Veneer.Overlay.Documents;

/// <summary>The answer to <see cref="Control.Query.Changes"/>: a part of what upper changes.</summary>
public sealed record ChangesPart
{
    /// <summary>The changes, ordered by path as bytes.</summary>
    public required IReadOnlyList<Change> Changes { get; init; }

    /// <summary>The paths at which this part was disturbed.</summary>
    public required IReadOnlyList<Disturbance> Disturbances { get; init; }

    /// <summary>The argument that asks for the next part; null when this is the last one.</summary>
    public string? Next { get; init; }

    /// <summary>The most bytes that a change can take in a document.</summary>
    internal static int MostBytesOf(Change change)
    {
        const int othersAndNames = 256;
        return othersAndNames + DocumentPath.MostBytes(change.Path) + DocumentPath.MostBytes(change.From);
    }
}

/// <summary>The last line of <c>veneer diff --json</c>. Without it the stream was cut off.</summary>
/// <param name="End">The number of changes.</param>
/// <param name="Disturbances">The number of disturbed paths.</param>
public sealed record ChangesEnd(long End, int Disturbances);
