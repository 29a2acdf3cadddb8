using System.Diagnostics;

namespace Veneer.Fuse.Locking;

/// <summary>Checks, where LOCK_ORDER is defined, that locks are taken in their order, and that methods have the lock that they need.</summary>
/// <remarks>
/// As the kernel's lockdep, but for an order that is declared: each thread keeps a list of what it holds, and what it takes
/// next must come later. So one thread alone shows a wrong order, without a deadlock. A build that is shipped has none of it.
/// </remarks>
public static class LockOrder
{
    /// <summary>A lock that the thread holds.</summary>
    /// <param name="Class">What it is.</param>
    /// <param name="Target">Which it is; null where one of its class is like another.</param>
    /// <param name="IsExclusive">Whether nobody else holds it.</param>
    /// <param name="Member">The method that took it.</param>
    private readonly record struct Held(LockClass Class, object? Target, bool IsExclusive, string Member)
    {
        public override string ToString() => $"{Class} ({(IsExclusive ? "" : "shared, ")}taken by {Member})";
    }

    [ThreadStatic]
    private static List<Held>? held;

    /// <summary>What happens at a violation; by default the process ends, with the sentence and the stack of the thread.</summary>
    /// <remarks>What the thread holds was taken further up on the same stack, so that this one shows both places.</remarks>
    public static Action<string> Violated { get; set; } = static sentence => Environment.FailFast($"{sentence}\n{Environment.StackTrace}");

    /// <summary>Each pair of classes of which the second was taken while the first was held, as <c>first > second</c>.</summary>
    public static IReadOnlyCollection<string> Seen { get { lock (seen) { return [.. seen.Select(pair => $"{pair.First} > {pair.Second}")]; } } }

    private static readonly HashSet<(LockClass First, LockClass Second)> seen = [];
    private static readonly bool[] isSeen = new bool[LockClass.MaxRank * LockClass.MaxRank];

    private static void Note(LockClass first, LockClass second)
    {
        lock (seen) { seen.Add((first, second)); }
        Volatile.Write(ref isSeen[(first.Rank * LockClass.MaxRank) + second.Rank], true);
    }

    /// <summary>The thread is about to take a lock, and waits for it.</summary>
    /// <param name="kind">What it is.</param>
    /// <param name="target">Which it is; null where one of its class is like another.</param>
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

    /// <summary>The thread has let go of a lock.</summary>
    [Conditional("LOCK_ORDER")]
    public static void LetGo(LockClass kind, object? target)
    {
        for (int i = (held?.Count ?? 0) - 1; i >= 0; i--)
        {
            if (!ReferenceEquals(held![i].Class, kind) || !ReferenceEquals(held[i].Target, target)) { continue; }
            held.RemoveAt(i);
            return;
        }
        Violated($"The thread lets go of the {kind}, which it does not hold.");
    }

    /// <summary>The caller needs a lock.</summary>
    /// <param name="kind">What it is.</param>
    /// <param name="target">Which it is; null for any of its class.</param>
    /// <param name="exclusively">Whether it must be held exclusively.</param>
    /// <param name="member">Who needs it.</param>
    [Conditional("LOCK_ORDER")]
    public static void AssertHeld(LockClass kind, object? target = null, bool exclusively = false, [System.Runtime.CompilerServices.CallerMemberName] string member = "")
    {
        foreach (Held one in held ??= [])
        {
            if (ReferenceEquals(one.Class, kind) && (target is null || ReferenceEquals(one.Target, target)) && (one.IsExclusive || !exclusively)) { return; }
        }
        Violated($"{member} needs the {kind}{(exclusively ? ", exclusively" : "")}, and the thread holds {(held is { Count: > 0 } ? string.Join(", ", held) : "nothing")}.");
    }

    /// <summary>The caller may wait for long, or for somebody who needs a lock: the thread must not hold one.</summary>
    /// <param name="kind">What must not be held.</param>
    /// <param name="member">Who may wait.</param>
    [Conditional("LOCK_ORDER")]
    public static void AssertNotHeld(LockClass kind, [System.Runtime.CompilerServices.CallerMemberName] string member = "")
    {
        foreach (Held one in held ??= [])
        {
            if (ReferenceEquals(one.Class, kind)) { Violated($"{member} may wait for long, and the thread holds the {one}."); }
        }
    }
}
