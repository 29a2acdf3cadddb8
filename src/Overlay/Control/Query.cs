namespace Veneer.Overlay.Control;

/// <summary>The questions that a tool may ask a live mount. A number never changes its meaning; see docs/control.md.</summary>
public enum Query : uint
{
    /// <summary>No question.</summary>
    None = 0,
    /// <summary>Asks how many requests were served, how long they took, and what the server holds.</summary>
    Stats = 1,
    /// <summary>Asks what the overlay is made of, and what its layers contribute to one object.</summary>
    Layers = 16,
    /// <summary>Asks what upper changes in what the lowers show, part by part.</summary>
    Changes = 17,
    /// <summary>Asks whether what was written is safe, and how far a sync is.</summary>
    Durability = 32,
    /// <summary>Starts a sync of upper to the disk; the answer is that of <see cref="Durability"/>.</summary>
    Sync = 33,
    /// <summary>Asks nothing, but tells the server the present flags of the mount, which FUSE does not.</summary>
    Remounted = 34,
}
