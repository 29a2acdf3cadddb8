using System.Runtime.CompilerServices;

namespace Veneer.Fuse.Locking;

/// <summary>A lock that several threads may share, or one thread holds exclusively. A thread must not take it twice.</summary>
/// <param name="kind">The class of the lock.</param>
public sealed class SharedLock(LockClass kind) : IDisposable
{
    private readonly ReaderWriterLockSlim inner = new(LockRecursionPolicy.NoRecursion);

    /// <summary>Takes the lock shared, until the result is disposed of.</summary>
    public Scope Share([CallerMemberName] string member = "") => Enter(exclusively: false, member);

    /// <summary>Takes the lock exclusively, until the result is disposed of.</summary>
    public Scope Exclude([CallerMemberName] string member = "") => Enter(exclusively: true, member);

    /// <summary>Takes the lock, exclusively or shared, until the result is disposed of.</summary>
    public Scope Enter(bool exclusively, [CallerMemberName] string member = "")
    {
        LockOrder.Take(kind, this, exclusively, member);
        if (exclusively) { inner.EnterWriteLock(); }
        else { inner.EnterReadLock(); }
        return new Scope(this, exclusively);
    }

    private void Exit(bool exclusively)
    {
        LockOrder.Release(kind, this);
        if (exclusively) { inner.ExitWriteLock(); }
        else { inner.ExitReadLock(); }
    }

    /// <inheritdoc/>
    public void Dispose() => inner.Dispose();

    /// <summary>The time during which a thread holds the lock.</summary>
    public readonly ref struct Scope
    {
        private readonly SharedLock? target;
        private readonly bool isExclusive;

        internal Scope(SharedLock target, bool isExclusive)
        {
            this.target = target;
            this.isExclusive = isExclusive;
        }

        /// <summary>Releases the lock, if there is one.</summary>
        public void Dispose() => target?.Exit(isExclusive);
    }
}
