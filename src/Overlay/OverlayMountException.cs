namespace Veneer.Overlay;

/// <summary>
/// Thrown when an overlay cannot be mounted. The message is one sentence for the user: the thing, what is wrong, what to do.
/// </summary>
public sealed class OverlayMountException : Exception
{
    /// <summary>Makes an exception without a sentence.</summary>
    public OverlayMountException() { }

    /// <summary>Makes an exception with the sentence.</summary>
    public OverlayMountException(string message) : base(message) { }

    /// <summary>Makes an exception with the sentence and the exception that caused it.</summary>
    public OverlayMountException(string message, Exception innerException) : base(message, innerException) { }

    /// <summary>
    /// The error that makes writing to the work directory impossible, so that only a read-only overlay can be mounted;
    /// otherwise none.
    /// </summary>
    internal Linux.Errno WorkError { get; private init; }

    /// <summary>Makes an exception for a work directory in which nothing can be made or removed.</summary>
    internal static OverlayMountException OfWork(Linux.Errno error, string sentence) => new(sentence) { WorkError = error };
}
