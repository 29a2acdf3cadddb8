using System.Text;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Tests;

/// <summary>Names of a file that has many are found, and found no more when they are gone, while others read.</summary>
public sealed class AliasListTests
{
    private readonly OrderedLock gate = new(OverlayLocks.InodeTable);

    private static byte[] Name(int i) => Encoding.ASCII.GetBytes($"name{i}\0");

    private static DirectoryInode New() => new(new DirectoryStack(null, [])) { Type = FileType.Directory };

    [Theory]
    [InlineData(3)]
    [InlineData(1000)]
    public void Each_name_is_known_until_it_is_removed(int count)
    {
        DirectoryInode one = New(), other = New();
        using OrderedLock.Scope locked = gate.Enter();
        var names = new AliasList();
        for (int i = 0; i < count; i++)
        {
            names.Add(new Alias(one, Name(i)));
            names.Add(new Alias(other, Name(i)));
        }
        Assert.Equal(2 * count, names.Count);

        for (int i = 0; i < count; i += 2) { names.Remove(names.Find(one, Name(i))!); }
        for (int i = 0; i < count; i++) { names.Remove(names.Find(other, Name(i))!); }

        Assert.Null(names.Find(one, "none\0"u8));
        for (int i = 0; i < count; i++)
        {
            Assert.Equal(i % 2 == 1, names.Find(one, Name(i)) is { IsRemoved: false });
            Assert.Null(names.Find(other, Name(i)));
        }
        Assert.Equal(count / 2, names.Count);
        Assert.Equal(count / 2, names.All.ToArray().Count(alias => !alias.IsRemoved));
        Assert.InRange(names.All.Length, count / 2, Math.Max(3, 2 * (count / 2)));
    }

    /// <summary>A name that comes back is another one.</summary>
    [Fact]
    public void A_removed_name_may_be_added_again()
    {
        DirectoryInode directory = New();
        using OrderedLock.Scope locked = gate.Enter();
        var names = new AliasList();
        for (int i = 0; i < 40; i++)
        {
            names.Add(new Alias(directory, Name(i)));
            Alias first = names.Find(directory, Name(i))!;
            names.Remove(first);
            names.Add(new Alias(directory, Name(i)));
            Assert.NotSame(first, names.Find(directory, Name(i)));
        }
        Assert.Equal(40, names.Count);
    }

    /// <summary>Who began to read before a change sees what there was.</summary>
    [Fact]
    public void A_reader_is_not_disturbed()
    {
        DirectoryInode directory = New();
        using OrderedLock.Scope locked = gate.Enter();
        var names = new AliasList();
        for (int i = 0; i < 20; i++) { names.Add(new Alias(directory, Name(i))); }
        ReadOnlySpan<Alias> seen = names.All;
        for (int i = 0; i < 20; i++) { names.Remove(names.Find(directory, Name(i))!); }
        for (int i = 20; i < 60; i++) { names.Add(new Alias(directory, Name(i))); }

        for (int i = 0; i < 20; i++) { Assert.Equal(Name(i), seen[i].Name); }
        Assert.Equal(20, seen.Length);
    }
}
