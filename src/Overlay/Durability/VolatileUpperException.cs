namespace Veneer.Overlay.Durability;

/// <summary>What keeps an upper from being synced.</summary>
public enum UpperProblem
{
    /// <summary>None of the others.</summary>
    Other,
    /// <summary>It, or its work directory, is not there.</summary>
    Absent,
    /// <summary>The caller may not read it.</summary>
    Denied,
    /// <summary>It may lack something that no sync brings back.</summary>
    Lost,
    /// <summary>The record by which that is known is damaged.</summary>
    Damaged,
    /// <summary>The record is of another version.</summary>
    OtherVersion,
}

/// <summary>An upper cannot be synced. The message is one sentence for the user.</summary>
public sealed class VolatileUpperException : Exception
{
    /// <summary>Without a sentence.</summary>
    public VolatileUpperException() { }

    /// <summary>With the sentence.</summary>
    public VolatileUpperException(string message) : base(message) { }

    /// <summary>With the sentence and what led to it.</summary>
    public VolatileUpperException(string message, Exception innerException) : base(message, innerException) { }

    /// <summary>With the sentence and what it is about.</summary>
    public VolatileUpperException(string message, UpperProblem problem) : base(message) => Problem = problem;

    /// <summary>What it is about.</summary>
    public UpperProblem Problem { get; }
}
