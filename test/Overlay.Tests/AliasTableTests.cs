using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Tests;

/// <summary>What names and retained inodes keep alive, and what dead inodes leave behind.</summary>
public sealed class AliasTableTests
{
    private readonly InodeTable table = new(new DirectoryCache(16), static line => Assert.Fail(line));
    private readonly DirectoryInode root = NewDirectory(null, 1);

    public AliasTableTests() => table.AddRoot(root);

    [Fact]
    public void A_name_keeps_its_directory_alive_until_the_file_dies()
    {
        DirectoryInode directory = NewDirectory(root, 10);
        Enter(directory);
        Inode file = Add(11);
        table.Aliases.Add(file, directory, "other\0"u8, isUpper: true);

        table.Forget(directory.NodeId, 1);
        Assert.Equal(Errno.None, table.Find(directory.NodeId, out _));

        table.Forget(file.NodeId, 1);
        Assert.Equal(1, table.Count);
        Assert.Equal(0, root.Children);
    }

    [Fact]
    public void A_removed_name_keeps_nothing_alive()
    {
        DirectoryInode directory = NewDirectory(root, 10);
        Enter(directory);
        Inode file = Add(11);
        table.Aliases.Add(file, directory, "other\0"u8, isUpper: true);
        table.Forget(directory.NodeId, 1);

        table.Aliases.Remove(file, table.Aliases.Find(file, directory, "other\0"u8)!);

        Assert.Equal(Errno.ESTALE, table.Find(directory.NodeId, out _));
        Assert.False(table.Aliases.HasName(file, directory, "other\0"u8));
        Assert.True(table.Aliases.HasName(file, root, "file\0"u8));
    }

    [Fact]
    public void A_retained_inode_is_found_by_its_lower_key_until_it_is_released()
    {
        RealKey lower = new(0, 11), copy = new(0, 12);
        Inode file = Add(11);
        file.BeginLinks(2);
        table.ChangeKey(file, copy, keepLower: true);
        table.Forget(file.NodeId, 1);

        using (BorrowedInode byLower = table.Borrow(lower), byCopy = table.Borrow(copy))
        {
            Assert.Same(file, byLower.Inode);
            Assert.Same(file, byCopy.Inode);
        }
        table.Aliases.Release(file);

        Assert.Null(table.Borrow(lower).Inode);
        Assert.Null(table.Borrow(copy).Inode);
        Assert.Equal(1, table.Count);
    }

    [Fact]
    public void A_copy_is_found_by_its_key_before_it_has_its_name()
    {
        RealKey copy = new(0, 12);
        Inode file = Add(11);

        table.Expect(file, copy);
        using (BorrowedInode borrowed = table.Borrow(copy)) { Assert.Same(file, borrowed.Inode); }
        table.ExpectNoMore(copy);

        Assert.Null(table.Borrow(copy).Inode);
    }

    [Fact]
    public void A_dead_inode_leaves_its_descriptor_and_its_name_in_work()
    {
        Inode first = Add(11), second = Add(12);
        using (root.LockNames())
        {
            table.Orphans.AddLocked(first, 1000);
            second.BecomeOrphanedLocked("#1\0"u8.ToArray());
        }
        Assert.Equal(1, table.Orphans.Count);
        Assert.False(table.Orphans.TryTakeDescriptor(out _));

        table.Forget(first.NodeId, 1);
        table.Forget(second.NodeId, 1);

        Assert.Equal(1, table.Orphans.Count);
        Assert.True(table.Orphans.TryTakeDescriptor(out int descriptor));
        Assert.True(table.Orphans.TryTakeWorkName(out byte[] workName));
        Assert.Equal((1000, 0), (descriptor, table.Orphans.Count));
        Assert.Equal("#1\0"u8, workName);
        Assert.False(table.Orphans.TryTakeDescriptor(out _));
        Assert.False(table.Orphans.TryTakeWorkName(out _));
    }

    [Fact]
    public void Two_copies_of_one_origin_show_different_numbers()
    {
        RealKey origin = new(0, 5);
        Assert.True(table.TryAddAndLend(New(11), new InoChoice(5, 11, origin), root.Version, out Inode first, out _));
        Assert.True(table.TryAddAndLend(New(12), new InoChoice(5, 12, origin), root.Version, out Inode second, out _));
        Assert.Equal((5UL, 12UL), (first.Ino, second.Ino));

        table.Forget(first.NodeId, 1);

        Assert.Equal(5UL, table.Free(new InoChoice(5, 13, origin)));
    }

    [Fact]
    public void References_under_an_old_nodeid_keep_the_inode_alive()
    {
        Inode file = Add(11);
        ulong old = file.NodeId;
        table.TryGetBacking(file, old, out BackingFile backing);
        Assert.True(table.TrySupersede(file, backing));
        Assert.False(table.TrySupersede(file, backing));
        ulong current = table.Lend(file);
        Assert.Equal(Errno.None, table.Find(old, out Inode found, out bool isSuperseded));
        Assert.True(isSuperseded);
        Assert.Same(file, found);
        Assert.Equal([current, old], table.NodeIds());

        table.Forget(current, 1);
        Assert.Equal(Errno.None, table.Find(current, out _));
        table.Forget(old, 1);

        Assert.Equal(Errno.ESTALE, table.Find(old, out _));
        Assert.Equal(Errno.ESTALE, table.Find(current, out _));
    }

    private static DirectoryInode NewDirectory(DirectoryInode? parent, ulong ino) =>
        new(new DirectoryStack(null, [])) { Type = FileType.Directory, Parent = parent, Key = new RealKey(0, ino), Ino = ino };

    private Inode New(ulong ino)
    {
        Inode inode = table.Make("file\0"u8);
        inode.Type = FileType.Regular;
        inode.Parent = root;
        inode.Key = new RealKey(0, ino);
        inode.Ino = ino;
        return inode;
    }

    private void Enter(Inode inode)
    {
        using (root.LockNames()) { table.AddAndLendLocked(inode); }
    }

    private Inode Add(ulong ino)
    {
        Inode inode = New(ino);
        Enter(inode);
        return inode;
    }
}
