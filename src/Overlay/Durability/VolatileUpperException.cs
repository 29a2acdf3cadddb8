namespace Veneer.Overlay.Durability;

/// <summary>Why an upper cannot be synced.</summary>
public enum UpperProblem
{
    /// <summary>Another reason.</summary>
    Other,
    /// <summary>The upper or its work directory does not exist.</summary>
    Absent,
    /// <summary>The caller may not read the upper.</summary>
    Denied,
    /// <summary>The upper may lack something that no sync brings back.</summary>
    Lost,
    /// <summary>The record by which the upper is judged is damaged.</summary>
    Damaged,
    /// <summary>The record is of another version.</summary>
    OtherVersion,
}

/// <summary>An upper cannot be synced. The message is one sentence for the user.</summary>
public sealed class VolatileUpperException : Exception
{
    /// <summary>Makes an exception without a message.</summary>
    public VolatileUpperException() { }

    /// <summary>Makes an exception with its sentence.</summary>
    public VolatileUpperException(string message) : base(message) { }

    /// <summary>Makes an exception with its sentence and its cause.</summary>
    public VolatileUpperException(string message, Exception innerException) : base(message, innerException) { }

    /// <summary>Makes an exception with its sentence and its reason.</summary>
    public VolatileUpperException(string message, UpperProblem problem) : base(message) => Problem = problem;

    /// <summary>The reason.</summary>
    public UpperProblem Problem { get; }
}
