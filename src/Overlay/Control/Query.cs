namespace Veneer.Overlay.Control;

/// <summary>What a tool may ask of a live mount. A number never changes its meaning; see docs/control.md.</summary>
public enum Query : uint
{
    /// <summary>Nothing: not a question.</summary>
    None = 0,
    /// <summary>How many requests there were, how long they took, and what the server holds.</summary>
    Stats = 1,
    /// <summary>What the overlay is made of, and what its layers contribute to one object.</summary>
    Layers = 16,
    /// <summary>What upper changes in what the lowers show, part by part.</summary>
    Changes = 17,
    /// <summary>Whether what was written is safe, and how far a sync is.</summary>
    Durability = 32,
    /// <summary>Starts to bring upper to the disk; the answer is that of <see cref="Durability"/>.</summary>
    Sync = 33,
    /// <summary>Nothing: says what the flags of the mount are now, which FUSE does not.</summary>
    Remounted = 34,
}
