using System.Runtime.CompilerServices;

namespace Veneer.Fuse.Locking;

/// <summary>A lock that belongs to a <see cref="LockClass"/>, whose order is checked: see <see cref="LockOrder"/>.</summary>
public readonly struct OrderedLock
{
    private readonly Lock inner = new();
#if LOCK_ORDER
    private readonly LockClass kind;
#endif

    /// <summary>Makes a lock.</summary>
    /// <param name="kind">The class of the lock.</param>
    public OrderedLock(LockClass kind)
    {
#if LOCK_ORDER
        this.kind = kind;
#else
        _ = kind;
#endif
    }

    /// <summary>Takes the lock until the result is disposed of.</summary>
    /// <param name="member">The method that takes the lock.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public Scope Enter([CallerMemberName] string member = "")
    {
#if LOCK_ORDER
        LockOrder.Take(kind, null, isExclusive: true, member);
        return new Scope(inner.EnterScope(), kind);
#else
        _ = member;
        return new Scope(inner.EnterScope());
#endif
    }

    /// <summary>The time during which a thread holds the lock.</summary>
    public ref struct Scope
    {
        private Lock.Scope inner;
#if LOCK_ORDER
        private readonly LockClass kind;

        internal Scope(Lock.Scope inner, LockClass kind)
        {
            this.inner = inner;
            this.kind = kind;
        }
#else
        internal Scope(Lock.Scope inner) => this.inner = inner;
#endif

        /// <summary>Releases the lock.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void Dispose()
        {
#if LOCK_ORDER
            LockOrder.Release(kind, null);
#endif
            inner.Dispose();
        }
    }
}
