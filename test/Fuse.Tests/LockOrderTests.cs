using Veneer.Fuse.Locking;

namespace Veneer.Fuse.Tests;

/// <summary>Debug builds have the checks, and so has this one.</summary>
[CollectionDefinition(DisableParallelization = true)]
public sealed class LockOrderCollection;

[Collection(typeof(LockOrderCollection))]
public sealed class LockOrderTests : IDisposable
{
    private static readonly LockClass inner = new("inner lock", 60);
    private static readonly LockClass leaf = new("leaf", 61, isLeaf: true, inner);
    private static readonly LockClass first = new("first lock", 55, isLeaf: false);
    private static readonly LockClass second = new("second lock", 56, isLeaf: false) { IsNested = true };

    private readonly Action<string> before = LockOrder.Violated;
    private readonly List<string> violations = [];

    public LockOrderTests() => LockOrder.Violated = violations.Add;

    public void Dispose() => LockOrder.Violated = before;

    [Fact]
    public void In_their_order_locks_may_be_taken()
    {
        var shared = new SharedLock(first);
        object one = new(), other = new();
        using (shared.Share())
        using (ObjectLock.Enter(one, second))
        using (ObjectLock.Enter(other, second))
        using (new OrderedLock(leaf).Enter())
        using (new OrderedLock(inner).Enter())
        {
            LockOrder.AssertHeld(first);
            LockOrder.AssertHeld(second, one);
            LockOrder.AssertHeld(leaf);
        }
        Assert.Empty(violations);
        Assert.Contains("first lock > second lock", LockOrder.Seen);
    }

    [Fact]
    public void Another_order_is_told_with_both_places()
    {
        using (ObjectLock.Enter(new object(), second))
        using (new SharedLock(first).Exclude()) { }

        Assert.Equal(
            ["Another_order_is_told_with_both_places takes the first lock while the thread holds the second lock "
                + "(taken by Another_order_is_told_with_both_places), which comes later."],
            violations);
    }

    [Fact]
    public void Nothing_is_taken_under_a_leaf_but_what_it_allows()
    {
        using (new OrderedLock(leaf).Enter())
        using (new OrderedLock(leaf).Enter())
        using (new SharedLock(first).Share()) { }

        Assert.Equal(3, violations.Count); // the leaf twice, and the first under both of them
    }

    [Fact]
    public void One_lock_is_not_taken_twice()
    {
        object one = new();
        using (ObjectLock.Enter(one, second))
        using (ObjectLock.Enter(one, second)) { }

        Assert.Single(violations);
    }

    [Fact]
    public void Who_needs_a_lock_must_have_it_and_the_right_one()
    {
        object one = new(), other = new();
        var shared = new SharedLock(first);
        LockOrder.AssertHeld(first);
        using (shared.Share())
        using (ObjectLock.Enter(one, second))
        {
            LockOrder.AssertHeld(first, exclusively: true);
            LockOrder.AssertHeld(second, other);
            LockOrder.AssertNotHeld(first);
        }
        Assert.Equal(4, violations.Count);
        Assert.Equal("Who_needs_a_lock_must_have_it_and_the_right_one needs the first lock, and the thread holds nothing.", violations[0]);
    }

    [Fact]
    public void Another_lock_held_exclusively_may_serve_as_well()
    {
        object one = new(), other = new();
        var shared = new SharedLock(first);
        using (shared.Exclude()) { LockOrder.AssertHeldOr(first, second, one); }
        using (shared.Share())
        {
            using (ObjectLock.Enter(one, second)) { LockOrder.AssertHeldOr(first, second, one); }
            Assert.Empty(violations);
            using (ObjectLock.Enter(other, second)) { LockOrder.AssertHeldOr(first, second, one); }
        }
        Assert.Equal(
            ["Another_lock_held_exclusively_may_serve_as_well needs the second lock, or the first lock exclusively, and the thread holds "
                + "first lock (shared, taken by Another_lock_held_exclusively_may_serve_as_well), "
                + "second lock (taken by Another_lock_held_exclusively_may_serve_as_well)."],
            violations);
    }

    [Fact]
    public void Of_a_nested_class_only_the_outer_lock_is_held_before()
    {
        object outer = new(), other = new();
        LockOrder.AssertOnlyOuter(second, null, "Parentless");
        using (ObjectLock.Enter(outer, second)) { LockOrder.AssertOnlyOuter(second, outer, "Child"); }
        Assert.Empty(violations);
        using (ObjectLock.Enter(other, second))
        {
            LockOrder.AssertOnlyOuter(second, outer, "Child");
            LockOrder.AssertOnlyOuter(second, null, "Parentless");
        }
        Assert.Equal(2, violations.Count);
    }

    [Fact]
    public void A_lock_that_is_not_free_in_time_is_not_held()
    {
        object one = new();
        using (ObjectLock.Enter(one, second))
        {
            bool isTaken = true;
            var other = new Thread(() => isTaken = ObjectLock.TryEnter(one, second, 10, out _));
            other.Start();
            other.Join();
            Assert.False(isTaken);
        }
        Assert.True(ObjectLock.TryEnter(one, second, 10, out ObjectLock.Scope scope));
        scope.Dispose();

        Assert.Empty(violations);
    }
}
