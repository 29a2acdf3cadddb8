namespace Veneer.Fuse.Locking;

/// <summary>
/// A class of locks, whose objects protect the same kind of thing. It says which locks may be taken while one of the class is
/// held.
/// </summary>
/// <param name="name">The name of the class in messages, and in the chart of ARCHITECTURE.md.</param>
/// <param name="rank">The place of the class in the order: unless it is a leaf, a held lock allows only locks of a higher rank.</param>
/// <param name="isLeaf">
/// Whether no other lock may be taken while one of the class is held, except those of <paramref name="inner"/>.
/// </param>
/// <param name="inner">The classes of locks that may be taken while a leaf is held.</param>
public sealed class LockClass(string name, int rank, bool isLeaf = true, params LockClass[] inner)
{
    /// <summary>The limit of ranks: every rank is below this.</summary>
    public const int MaxRank = 64;

    /// <summary>The name of the class in messages.</summary>
    public string Name => name;

    /// <summary>The place of the class in the order.</summary>
    public int Rank => rank;

    /// <summary>Whether no other lock may be taken while one of the class is held, except those of <see cref="Inner"/>.</summary>
    public bool IsLeaf => isLeaf;

    /// <summary>The classes of locks that may be taken while a leaf is held.</summary>
    public IReadOnlyList<LockClass> Inner => inner;

    /// <summary>
    /// Whether one thread may hold two locks of the class. Its users then check an order among them: see
    /// <see cref="LockOrder.AssertOnlyOuter"/>.
    /// </summary>
    public bool IsNested { get; init; }

    /// <summary>Whether another lock may be taken while one of this class is held.</summary>
    /// <param name="other">The class of the other lock.</param>
    /// <param name="isSameLock">Whether the other lock is the one that is held.</param>
    public bool MayBeHeldBefore(LockClass other, bool isSameLock)
    {
        if (isSameLock) { return false; }
        if (ReferenceEquals(this, other)) { return IsNested; }
        return isLeaf ? Array.IndexOf(inner, other) >= 0 : rank < other.Rank;
    }

    /// <inheritdoc/>
    public override string ToString() => name;
}
