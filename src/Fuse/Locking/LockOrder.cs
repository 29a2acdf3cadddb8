using System.Diagnostics;
#if LOCK_ORDER
using Veneer.Linux;
#endif

namespace Veneer.Fuse.Locking;

/// <summary>
/// Checks, if LOCK_ORDER is defined, that locks are taken in their order, and that methods hold the locks that they need.
/// </summary>
/// <remarks>
/// It works like the kernel's lockdep, but with a declared order: each thread keeps a list of the locks that it holds, and the
/// next lock must come later in the order. So a single thread shows a wrong order, without a deadlock. Release builds contain
/// none of it.
/// </remarks>
public static class LockOrder
{
    /// <summary>A lock that the thread holds.</summary>
    /// <param name="Class">The class of the lock.</param>
    /// <param name="Target">The object of the lock; null where locks of the class are not told apart.</param>
    /// <param name="IsExclusive">Whether the lock is held exclusively.</param>
    /// <param name="Member">The method that took it.</param>
    private readonly record struct Held(LockClass Class, object? Target, bool IsExclusive, string Member)
    {
        public override string ToString() => $"{Class} ({(IsExclusive ? "" : "shared, ")}taken by {Member})";
    }

    [ThreadStatic]
    private static List<Held>? held;

    /// <summary>
    /// Called at a violation, with a sentence. By default it ends the process, with the sentence and the stack of the thread.
    /// </summary>
    /// <remarks>The locks that the thread holds were taken further up on the same stack, so the stack shows both places.</remarks>
    public static Action<string> Violated { get; set; } = static sentence => Environment.FailFast($"{sentence}\n{Environment.StackTrace}");

    /// <summary>The pairs of classes of which the second was taken while the first was held, as <c>first > second</c>.</summary>
    public static IReadOnlyCollection<string> Seen
    {
        get
        {
            lock (seen) { return [.. seen.Select(pair => $"{pair.First} > {pair.Second}")]; }
        }
    }

    private static readonly HashSet<(LockClass First, LockClass Second)> seen = [];
    private static readonly bool[] isSeen = new bool[LockClass.MaxRank * LockClass.MaxRank];

    private static void Note(LockClass first, LockClass second)
    {
        bool isNew;
        lock (seen) { isNew = seen.Add((first, second)); }
        Volatile.Write(ref isSeen[(first.Rank * LockClass.MaxRank) + second.Rank], true);
#if LOCK_ORDER
        if (isNew) { Record(first, second); }
#else
        _ = isNew;
#endif
    }

#if LOCK_ORDER
    /// <summary>
    /// Adds a pair to the file that VENEER_LOCK_RECORD names, from which tests learn what the servers have seen. It does so at once,
    /// since a test may kill the server. A build that is shipped does not know the variable.
    /// </summary>
    private static void Record(LockClass first, LockClass second)
    {
        if (Environment.GetEnvironmentVariable("VENEER_LOCK_RECORD") is not { Length: > 0 } path) { return; }
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.WriteOnly | OpenFlags.Append, 0,
            ResolveFlags.None, out int file);
        if (error.IsError) { return; } // best effort: a server may have no right to the file, or no descriptor left
        _ = Libc.Write(file, PathText.Encode($"{first} > {second}\n").AsSpan()[..^1], out _); // best effort: as above
        Libc.Close(file);
    }
#endif

    /// <summary>
    /// Checks, before a thread takes a second lock of a nested class, that it holds no other one of the class than the one that must be
    /// taken first.
    /// </summary>
    /// <param name="kind">The class of the locks.</param>
    /// <param name="outer">The object of the lock that must be taken first; null if there is none.</param>
    /// <param name="member">The method that takes the second lock.</param>
    [Conditional("LOCK_ORDER")]
    public static void AssertOnlyOuter(LockClass kind, object? outer, string member)
    {
        foreach (Held one in held ??= [])
        {
            if (ReferenceEquals(one.Class, kind) && !ReferenceEquals(one.Target, outer))
            {
                Violated($"{member} takes the {kind} of an object while the thread holds the {one} of one that is not its parent.");
            }
        }
    }

    /// <summary>Notes that the thread is about to take a lock.</summary>
    /// <param name="kind">The class of the lock.</param>
    /// <param name="target">The object of the lock; null where locks of the class are not told apart.</param>
    /// <param name="isExclusive">Whether it is taken exclusively.</param>
    /// <param name="member">The method that takes it.</param>
    [Conditional("LOCK_ORDER")]
    public static void Take(LockClass kind, object? target, bool isExclusive, string member)
    {
        List<Held> all = held ??= [];
        foreach (Held one in all)
        {
            if (!one.Class.MayBeHeldBefore(kind, target is not null && ReferenceEquals(one.Target, target)))
            {
                Violated($"{member} takes the {kind} while the thread holds the {one}, which comes later.");
            }
            if (!Volatile.Read(ref isSeen[(one.Class.Rank * LockClass.MaxRank) + kind.Rank])) { Note(one.Class, kind); }
        }
        all.Add(new Held(kind, target, isExclusive, member));
    }

    /// <summary>Notes that the thread has released a lock.</summary>
    [Conditional("LOCK_ORDER")]
    public static void Release(LockClass kind, object? target)
    {
        for (int i = (held?.Count ?? 0) - 1; i >= 0; i--)
        {
            if (!ReferenceEquals(held![i].Class, kind) || !ReferenceEquals(held[i].Target, target)) { continue; }
            held.RemoveAt(i);
            return;
        }
        Violated($"The thread lets go of the {kind}, which it does not hold.");
    }

    /// <summary>Checks that the thread holds a lock that the caller needs.</summary>
    /// <param name="kind">The class of the lock.</param>
    /// <param name="target">The object of the lock; null for any lock of the class.</param>
    /// <param name="exclusively">Whether the lock must be held exclusively.</param>
    /// <param name="member">The method that needs the lock.</param>
    [Conditional("LOCK_ORDER")]
    public static void AssertHeld(LockClass kind, object? target = null, bool exclusively = false,
        [System.Runtime.CompilerServices.CallerMemberName] string member = "")
    {
        if (Holds(kind, target, exclusively)) { return; }
        Violated($"{member} needs the {kind}{(exclusively ? ", exclusively" : "")}, and the thread holds {Everything}.");
    }

    /// <summary>Checks that the thread holds a lock that the caller needs, or another lock exclusively, which serves as well.</summary>
    /// <param name="other">The class of the lock that serves as well.</param>
    /// <param name="kind">The class of the lock.</param>
    /// <param name="target">The object of the lock; null for any lock of the class.</param>
    /// <param name="member">The method that needs the lock.</param>
    [Conditional("LOCK_ORDER")]
    public static void AssertHeldOr(LockClass other, LockClass kind, object? target = null,
        [System.Runtime.CompilerServices.CallerMemberName] string member = "")
    {
        if (Holds(kind, target) || Holds(other, null, exclusively: true)) { return; }
        Violated($"{member} needs the {kind}, or the {other} exclusively, and the thread holds {Everything}.");
    }

    private static string Everything => held is { Count: > 0 } ? string.Join(", ", held) : "nothing";

    private static bool Holds(LockClass kind, object? target, bool exclusively = false)
    {
        foreach (Held one in held ??= [])
        {
            if (ReferenceEquals(one.Class, kind)
                && (target is null || ReferenceEquals(one.Target, target))
                && (one.IsExclusive || !exclusively))
            {
                return true;
            }
        }
        return false;
    }

    /// <summary>
    /// Checks that the thread holds no lock of a class, since the caller may wait for long, or for a thread that needs one.
    /// </summary>
    /// <param name="kind">The class of the locks.</param>
    /// <param name="member">The method that may wait.</param>
    [Conditional("LOCK_ORDER")]
    public static void AssertNotHeld(LockClass kind, [System.Runtime.CompilerServices.CallerMemberName] string member = "")
    {
        foreach (Held one in held ??= [])
        {
            if (ReferenceEquals(one.Class, kind)) { Violated($"{member} may wait for long, and the thread holds the {one}."); }
        }
    }
}
