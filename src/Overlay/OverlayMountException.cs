namespace Veneer.Overlay;

/// <summary>An overlay cannot be mounted. The message is one sentence for the user: the thing, what is wrong, what to do.</summary>
public sealed class OverlayMountException : Exception
{
    /// <summary>Without a sentence.</summary>
    public OverlayMountException() { }

    /// <summary>With the sentence.</summary>
    public OverlayMountException(string message) : base(message) { }

    /// <summary>With the sentence and what led to it.</summary>
    public OverlayMountException(string message, Exception innerException) : base(message, innerException) { }

    /// <summary>What makes it impossible to write to the work directory, so that a read-only overlay is all there can be; else none.</summary>
    internal Linux.Errno WorkError { get; private init; }

    /// <summary>Nothing can be made, or removed, in the work directory.</summary>
    internal static OverlayMountException OfWork(Linux.Errno error, string sentence) => new(sentence) { WorkError = error };
}
