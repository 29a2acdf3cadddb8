namespace Veneer.Overlay;

/// <summary>The reason why a mount cannot be examined.</summary>
public enum QueryProblem
{
    /// <summary>There is no answer, or none that is understood.</summary>
    NoAnswer,
    /// <summary>The path does not exist, or is no mount point.</summary>
    NotAMount,
    /// <summary>The path is a mount point, but not of an overlay.</summary>
    NotAnOverlay,
    /// <summary>The caller may not ask the server, or not read the layers.</summary>
    Denied,
    /// <summary>The mount does not tell what its layers are, or no path leads to one of them.</summary>
    OutOfReach,
}

/// <summary>Thrown when a mounted overlay cannot be examined. The message is one sentence for the user.</summary>
public sealed class OverlayQueryException : Exception
{
    /// <summary>Makes an exception without a sentence.</summary>
    public OverlayQueryException() { }

    /// <summary>Makes an exception with the sentence.</summary>
    public OverlayQueryException(string message) : base(message) { }

    /// <summary>Makes an exception with the sentence and the exception that caused it.</summary>
    public OverlayQueryException(string message, Exception innerException) : base(message, innerException) { }

    /// <summary>Makes an exception with the sentence and the reason.</summary>
    public OverlayQueryException(string message, QueryProblem problem) : base(message) => Problem = problem;

    /// <summary>The reason why the mount cannot be examined.</summary>
    public QueryProblem Problem { get; }
}
