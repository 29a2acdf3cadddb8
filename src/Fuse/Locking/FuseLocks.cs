namespace Veneer.Fuse.Locking;

/// <summary>The locks of the server, all of them leaves: a filesystem may call the server while it holds locks of its own.</summary>
internal static class FuseLocks
{
    /// <summary>The threads, and what they do now.</summary>
    public static readonly LockClass Workers = new("Workers", 50);

    /// <summary>Whether requests are let in.</summary>
    public static readonly LockClass Gate = new("Gate", 51);

    /// <summary>Counts of each thread.</summary>
    public static readonly LockClass Statistics = new("Statistics", 52);

    /// <summary>Who may be interrupted.</summary>
    public static readonly LockClass Interruptions = new("Interruptions", 53);
}
