using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using Veneer.Fuse.Wire;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Tests;

/// <summary>Which inodes the table keeps, and for how long.</summary>
public sealed class InodeTableTests
{
    private readonly InodeTable table = new(new DirectoryCache(16), static line => Assert.Fail(line));
    private readonly DirectoryInode root = new(new DirectoryStack(null, [])) { Type = FileType.Directory };

    public InodeTableTests() => table.AddRoot(root);

    [Fact]
    public void An_inode_takes_no_more_memory_than_the_table_says()
    {
        const int count = 50_000;
        var kept = new Inode[count];
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < count; i++) { kept[i] = Make("sixteen-letters\0"u8, (ulong)i); }
        long each = (GC.GetAllocatedBytesForCurrentThread() - before) / count;

        Assert.InRange(each + (2 * IntPtr.Size), 1, InodeTable.BytesOfInode);
    }

    [Fact]
    public void What_the_kernel_has_forgotten_can_be_collected_and_the_table_shrinks()
    {
        int buckets = table.Buckets;
        WeakReference[] inodes = AddAndForget(100_000, keep: 0);
        Assert.InRange(table.Recycled, 1, 20_000);
        table.DropRecycled();
        GC.Collect();
        GC.Collect();

        Assert.DoesNotContain(inodes, inode => inode.IsAlive);
        Assert.Equal((1, 100_000L), (table.Count, table.Dropped));
        Assert.Equal(0, root.Children);
        Assert.Equal(buckets, table.Buckets);
    }

    [Fact]
    public void What_it_has_not_forgotten_is_found_in_the_smaller_table()
    {
        WeakReference[] inodes = AddAndForget(50_000, keep: 1_000);

        Assert.InRange(table.Buckets, 1_000, 4_100);
        foreach (Inode inode in inodes.Take(1_000).Select(inode => (Inode)inode.Target!))
        {
            Assert.Equal(Errno.None, table.Find(inode.NodeId, out Inode found));
            Assert.Same(inode, found);
            using BorrowedInode borrowed = table.Borrow(inode.Key);
            Assert.Same(inode, borrowed.Inode);
        }
    }

    [Fact]
    public void A_table_that_grows_and_shrinks_over_and_over_stays_as_it_was()
    {
        int buckets = table.Buckets;
        for (int round = 0; round < 20; round++) { AddAndForget(5_000, keep: 0); }

        Assert.Equal((1, buckets), (table.Count, table.Buckets));
    }

    [Fact]
    public void What_has_died_serves_another_object()
    {
        Inode first = Make("first\0"u8, 10);
        Enter(first);
        ulong nodeId = first.NodeId;
        table.Forget(nodeId, 1);

        Inode second = Make("second\0"u8, 11);
        Enter(second);

        Assert.Same(first, second);
        Assert.Equal("second\0"u8, second.Name);
        Assert.NotEqual(nodeId, second.NodeId);
        Assert.Equal(Errno.ESTALE, table.Find(nodeId, out _));
        Assert.Null(table.Borrow(new RealKey(0, 10)).Inode);
    }

    [Fact]
    public void What_is_borrowed_does_not_die()
    {
        Inode inode = Make("name\0"u8, 10);
        Enter(inode);

        using (BorrowedInode borrowed = table.Borrow(inode.Key))
        {
            table.Forget(inode.NodeId, 1);
            Assert.Same(inode, borrowed.Inode);
            Assert.NotSame(inode, Make("other\0"u8, 11));
        }

        Assert.Same(inode, Make("other\0"u8, 11));
    }

    [Fact]
    public void What_others_may_still_know_serves_nobody_else()
    {
        Inode open = Make("open\0"u8, 10), linked = Make("linked\0"u8, 11);
        OpenOut reply = default;
        Enter(open);
        Assert.True(table.TryGetBacking(open, open.NodeId, out BackingFile backing));
        backing.Admit(-1, lower: false, writes: false, ServerShare.Nothing, PassthroughScope.Nothing, null, ref reply);
        Enter(linked);
        table.Aliases.Add(linked, root, "other\0"u8, isUpper: true);

        table.Forget(open.NodeId, 1);
        table.Forget(linked.NodeId, 1);

        Assert.Equal((1, 0, 2L), (table.Count, table.Recycled, table.Dropped));
    }

    /// <summary>Compares every field, so that it finds a new field that <see cref="Inode.ClearLocked"/> forgets.</summary>
    [Fact]
    public void It_serves_the_other_as_if_it_were_new()
    {
        var directory = new RealDirectory(null!, -1);
        Inode used = Make("a-long-name-at-first\0"u8, 10), fresh = table.Make("short\0"u8);
        used.SetLowerName([1, 0]);
        used.BeginLinks(2);
        using (new OrderedLock(OverlayLocks.InodeTable).Enter()) { used.MakeAliasListLocked().Add(new Alias(root, [1, 0])); }
        used.Metacopy = new RealName(directory, [1, 0]);
        used.BecomeOrphanedLocked(1);
        (used.NextByKey, used.NextByNodeId, used.LowerDirectory) = (fresh, fresh, directory);
        (used.Backing, fresh.Backing) = (new BackingFile(), new BackingFile());
        fresh.SetWorkNameLocked([1, 0]); // has what few inodes have, with nothing in it
        fresh.BecomeNamedLocked(out _, out _);
        Fill(used);
        Fill(used.Backing);

        using (new OrderedLock(OverlayLocks.InodeTable).Enter()) { used.ClearLocked(); }
        used.Begin("short\0"u8);

        Assert.Equal(fresh.Name, used.Name);
        AssertSame(fresh, used, "name", "rareFields", "Backing");
        AssertSame(ValueOf(fresh, "rareFields"), ValueOf(used, "rareFields"));
        // The first open file sets these.
        AssertSame(fresh.Backing, used.Backing, "gate", "opens", "writers", "isPassthrough", "isLower", "onlyMaps", "backingId");
    }

    private static void Fill(object target)
    {
        foreach (FieldInfo field in FieldsOf(target).Where(field => field.FieldType.IsPrimitive || field.FieldType.IsEnum))
        {
            object one = field.FieldType.IsEnum
                ? Enum.ToObject(field.FieldType, 1)
                : Convert.ChangeType(1, field.FieldType, CultureInfo.InvariantCulture);
            field.SetValue(target, one);
        }
    }

    private static void AssertSame(object expected, object actual, params string[] excepted)
    {
        foreach (FieldInfo field in FieldsOf(expected).Where(field => !excepted.Contains(field.Name)))
        {
            Assert.True(Equals(field.GetValue(expected), field.GetValue(actual)), field.Name);
        }
    }

    private static object ValueOf(object target, string name) => FieldsOf(target).Single(field => field.Name == name).GetValue(target)!;

    private static FieldInfo[] FieldsOf(object target) =>
        target.GetType().GetFields(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic);

    /// <summary>Many threads use inodes with the same few keys, which die and are recycled all the time.</summary>
    [Fact]
    public void Nobody_finds_another_object_in_what_he_has_at_hand()
    {
        const int threads = 8, rounds = 20_000, keys = 37;
        Parallel.For(0, threads, new ParallelOptions { MaxDegreeOfParallelism = threads }, thread =>
        {
            var random = new Random(thread);
            byte[] name = new byte[12];
            for (int i = 0; i < rounds; i++)
            {
                ulong ino = (ulong)random.Next(keys) + 10;
                ino.TryFormat(name, out int length, provider: CultureInfo.InvariantCulture);
                name[length] = 0;
                var key = new RealKey(0, ino);
                using BorrowedInode borrowed = table.Borrow(key);
                Inode inode = borrowed.Inode!;
                ulong nodeId = 0;
                if (inode is null)
                {
                    Inode candidate = Make(name.AsSpan(0, length + 1), ino);
                    if (!table.TryAddAndLend(candidate, InoChoice.OfReal(ino), table.VersionOf(root), out inode, out nodeId)) { continue; }
                }
                if (random.Next(4) == 0) { table.TryGetBacking(inode, inode.NodeId, out _); }
                if (random.Next(16) == 0) { table.NoteChange(root); }
                if (random.Next(64) == 0) { Thread.Yield(); }
                Assert.Equal(ino, inode.Ino);
                Assert.Equal(key, inode.Key);
                Assert.True(inode.Name.SequenceEqual(name.AsSpan(0, length + 1)));
                Assert.Same(root, inode.Parent);
                if (nodeId != 0) { table.Forget(nodeId, 1); }
            }
        });

        Assert.Equal(1, table.Count);
        Assert.Equal(0, root.Children);
        Assert.Equal(table.Recycled, table.Dropped);
        Assert.InRange(table.Recycled, 1, threads * 2);
    }

    private void Enter(Inode inode)
    {
        using (root.LockNames()) { table.AddAndLendLocked(inode); }
    }

    private Inode Make(ReadOnlySpan<byte> name, ulong ino)
    {
        Inode inode = table.Make(name);
        inode.Type = FileType.Regular;
        inode.Parent = root;
        inode.Key = new RealKey(0, ino);
        inode.Ino = ino;
        return inode;
    }

    [MethodImpl(MethodImplOptions.NoInlining)] // so that no local keeps them alive
    private WeakReference[] AddAndForget(int count, int keep)
    {
        Inode[] inodes = [.. Enumerable.Range(10, count).Select(i => Make([1, 0], (ulong)i))];
        foreach (Inode inode in inodes) { Enter(inode); }
        foreach (Inode inode in inodes.Skip(keep)) { table.Forget(inode.NodeId, 1); }
        return [.. inodes.Select(inode => new WeakReference(inode))];
    }
}
