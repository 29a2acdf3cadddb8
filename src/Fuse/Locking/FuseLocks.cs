namespace Veneer.Fuse.Locking;

/// <summary>The locks of the server. All are leaves, since a filesystem may call the server while it holds locks of its own.</summary>
internal static class FuseLocks
{
    /// <summary>Protects the list of threads, and what each is doing.</summary>
    public static readonly LockClass Workers = new("Workers", 50);

    /// <summary>Protects whether requests are let in.</summary>
    public static readonly LockClass Gate = new("Gate", 51);

    /// <summary>Protects the counts of each thread.</summary>
    public static readonly LockClass Statistics = new("Statistics", 52);

    /// <summary>Protects the list of requests that may be interrupted.</summary>
    public static readonly LockClass Interruptions = new("Interruptions", 53);
}
