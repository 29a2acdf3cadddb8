namespace Veneer.Fuse.Locking;

/// <summary>What a lock is, whatever object it belongs to, and which locks may be taken while one of it is held.</summary>
/// <param name="name">Its name in messages, and in the chart of ARCHITECTURE.md.</param>
/// <param name="rank">Its place in the order: a lock is taken only while all that are held have a lower one.</param>
/// <param name="isLeaf">Whether nothing else may be taken while it is held, but for <paramref name="inner"/>.</param>
/// <param name="inner">What may be taken while a leaf is held.</param>
public sealed class LockClass(string name, int rank, bool isLeaf = true, params LockClass[] inner)
{
    /// <summary>Ranks are below this.</summary>
    public const int MaxRank = 64;

    /// <summary>Its name in messages.</summary>
    public string Name => name;

    /// <summary>Its place in the order.</summary>
    public int Rank => rank;

    /// <summary>Whether nothing else may be taken while it is held, but for <see cref="Inner"/>.</summary>
    public bool IsLeaf => isLeaf;

    /// <summary>What may be taken while a leaf is held.</summary>
    public IReadOnlyList<LockClass> Inner => inner;

    /// <summary>Whether two of it may be held by one thread: those who take them agree on an order.</summary>
    public bool IsNested { get; init; }

    /// <summary>Whether another lock may be taken while one of this class is held.</summary>
    /// <param name="other">The class of the other one.</param>
    /// <param name="isSameLock">Whether it is this very lock.</param>
    public bool MayBeHeldBefore(LockClass other, bool isSameLock)
    {
        if (isSameLock) { return false; }
        if (ReferenceEquals(this, other)) { return IsNested; }
        return isLeaf ? Array.IndexOf(inner, other) >= 0 : rank < other.Rank;
    }

    /// <inheritdoc/>
    public override string ToString() => name;
}
