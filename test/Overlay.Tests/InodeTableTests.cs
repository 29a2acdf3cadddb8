using System.Runtime.CompilerServices;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Tests;

/// <summary>What the table keeps, and for how long.</summary>
public sealed class InodeTableTests
{
    private readonly InodeTable table = new(new DirectoryCache(16), static line => Assert.Fail(line));
    private readonly DirectoryInode root = new() { Type = FileType.Directory };

    public InodeTableTests() => table.AddRoot(root);

    [Fact]
    public void An_inode_takes_no_more_memory_than_the_table_says()
    {
        const int count = 50_000;
        var kept = new Inode[count];
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < count; i++) { kept[i] = new Inode { Name = new byte[16], Type = FileType.Regular, Parent = root, Key = new RealKey(0, (ulong)i) }; }
        long each = (GC.GetAllocatedBytesForCurrentThread() - before) / count;

        Assert.InRange(each + (2 * IntPtr.Size), 1, InodeTable.BytesOfInode);
    }

    [Fact]
    public void What_the_kernel_has_forgotten_can_be_collected_and_the_table_shrinks()
    {
        int buckets = table.Buckets;
        WeakReference[] inodes = AddAndForget(100_000, keep: 0);
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
            Assert.Same(inode, table.FindByKey(inode.Key));
        }
    }

    [Fact]
    public void A_table_that_grows_and_shrinks_over_and_over_stays_as_it_was()
    {
        int buckets = table.Buckets;
        for (int round = 0; round < 20; round++) { AddAndForget(5_000, keep: 0); }

        Assert.Equal((1, buckets), (table.Count, table.Buckets));
    }

    [MethodImpl(MethodImplOptions.NoInlining)] // so that no local keeps them alive
    private WeakReference[] AddAndForget(int count, int keep)
    {
        Inode[] inodes = [.. Enumerable.Range(10, count).Select(i => new Inode { Name = [1, 0], Type = FileType.Regular, Parent = root, Key = new RealKey(0, (ulong)i) })];
        foreach (Inode inode in inodes) { table.AddAndLend(inode); }
        foreach (Inode inode in inodes.Skip(keep)) { table.Forget(inode.NodeId, 1); }
        return [.. inodes.Select(inode => new WeakReference(inode))];
    }
}
