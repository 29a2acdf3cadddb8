using System.Runtime.CompilerServices;

namespace Veneer.Fuse.Locking;

/// <summary>Locks on existing objects, for objects that are too many to have locks of their own.</summary>
public static class ObjectLock
{
    /// <summary>Takes the lock until the result is disposed of.</summary>
    /// <param name="target">The object.</param>
    /// <param name="kind">The class of the lock.</param>
    /// <param name="member">The method that takes the lock.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Scope Enter(object target, LockClass kind, [CallerMemberName] string member = "")
    {
        LockOrder.Take(kind, target, isExclusive: true, member);
        Monitor.Enter(target);
        return new Scope(target, kind);
    }

    /// <summary>Takes the lock if it is free, or becomes free in time.</summary>
    /// <param name="target">The object.</param>
    /// <param name="kind">The class of the lock.</param>
    /// <param name="milliseconds">The longest time to wait, in milliseconds.</param>
    /// <param name="scope">Holds the lock until it is disposed of.</param>
    /// <param name="member">The method that takes the lock.</param>
    public static bool TryEnter(object target, LockClass kind, int milliseconds, out Scope scope, [CallerMemberName] string member = "")
    {
        LockOrder.Take(kind, target, isExclusive: true, member);
        if (Monitor.TryEnter(target, milliseconds))
        {
            scope = new Scope(target, kind);
            return true;
        }
        LockOrder.Release(kind, target);
        scope = default;
        return false;
    }

    /// <summary>The time during which a thread holds the lock.</summary>
    public readonly ref struct Scope
    {
        private readonly object? target;
#if LOCK_ORDER
        private readonly LockClass kind;
#endif

        internal Scope(object target, LockClass kind)
        {
            this.target = target;
#if LOCK_ORDER
            this.kind = kind;
#else
            _ = kind;
#endif
        }

        /// <summary>Releases the lock, if there is one.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void Dispose()
        {
            if (target is null) { return; }
#if LOCK_ORDER
            LockOrder.Release(kind, target);
#endif
            Monitor.Exit(target);
        }
    }
}
