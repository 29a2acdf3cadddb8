namespace Veneer.Overlay;

/// <summary>What keeps a mount from being looked at.</summary>
public enum QueryProblem
{
    /// <summary>No answer, or none that is understood.</summary>
    NoAnswer,
    /// <summary>The path does not exist, or is no mount point.</summary>
    NotAMount,
    /// <summary>It is a mount, but not an overlay.</summary>
    NotAnOverlay,
    /// <summary>The caller may not ask, or not read the layers.</summary>
    Denied,
    /// <summary>The mount does not tell what its layers are, or no path leads to one of them.</summary>
    OutOfReach,
}

/// <summary>A mounted overlay cannot be looked at. The message is one sentence for the user.</summary>
public sealed class OverlayQueryException : Exception
{
    /// <summary>Without a sentence.</summary>
    public OverlayQueryException() { }

    /// <summary>With the sentence.</summary>
    public OverlayQueryException(string message) : base(message) { }

    /// <summary>With the sentence and what led to it.</summary>
    public OverlayQueryException(string message, Exception innerException) : base(message, innerException) { }

    /// <summary>With the sentence and what it is about.</summary>
    public OverlayQueryException(string message, QueryProblem problem) : base(message) => Problem = problem;

    /// <summary>What it is about.</summary>
    public QueryProblem Problem { get; }
}
