using Veneer.Linux;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tests.Lookup;

/// <summary>What was looked up ahead of a reader is given to lookups of just these entries, while upper lacks the directory.</summary>
public sealed class PrefetchedTests : IDisposable
{
    private const int First = 10, Entries = 5;

    private readonly StackOfLayers layers = new(2);
    private readonly Prefetched prefetched = new();

    public PrefetchedTests() => prefetched.Begin(First, Entries);

    public void Dispose() => layers.Dispose();

    private void Add(int index, ulong ino, bool isDirectory = false)
    {
        var found = new Found { Exists = true, LowerPosition = 1, LowerDirectory = layers.Layers.LowerRoots[1] };
        found.Stat.Ino = ino;
        found.Stat.Mode = (ushort)(isDirectory ? FileType.Directory : FileType.Regular);
        prefetched.Add(index, found, new Whole { Lowers = isDirectory ? [layers.Layers.LowerRoots[1]] : [] });
    }

    [Theory]
    [InlineData(First - 1, false)]
    [InlineData(First, true)]
    [InlineData(First + Entries - 1, true)]
    [InlineData(First + Entries, false)]
    public void Entries_of_the_range_alone_are_known(int index, bool isKnown)
    {
        for (int i = First; i < First + Entries; i++) { Add(i, (ulong)i); }
        Assert.Equal((First, First + Entries), (prefetched.First, prefetched.End));
        DirectoryStack lowers = layers.Root.Below;

        Assert.Equal(isKnown, prefetched.TryGet(lowers, index, out Found found, out Whole whole));

        Assert.Equal(isKnown, found.Exists);
        Assert.Equal(-1, prefetched.Reader); // nobody looks up himself what was looked up, or never will be
        if (!isKnown) { return; }
        Assert.Equal((ulong)index, found.Stat.Ino);
        Assert.Equal(found.Stat.Ino, whole.LowerStat.Ino);
        Assert.Equal(1, found.LowerPosition);
        Assert.Same(lowers.Lowers[1], found.LowerDirectory);
        Assert.Same(lowers.Lowers[1], whole.LowerDirectory);
        Assert.Empty(whole.Lowers);
    }

    [Fact]
    public void A_directory_has_its_lowers()
    {
        Add(First, 1, isDirectory: true);

        Assert.True(prefetched.TryGet(layers.Root.Below, First, out _, out Whole whole));

        Assert.Null(whole.LowerDirectory);
        Assert.Same(layers.Layers.LowerRoots[1], Assert.Single(whole.Lowers));
    }

    [Fact]
    public void Who_asks_in_vain_is_noted()
    {
        Assert.False(prefetched.TryGet(layers.Root.Below, First + 3, out Found found, out _));

        Assert.False(found.Exists);
        Assert.Equal(First + 3, prefetched.Reader);
    }

    /// <summary>Upper may have any of the names by then.</summary>
    [Fact]
    public void Nothing_is_known_once_upper_has_the_directory()
    {
        Add(First, 1);

        Assert.False(prefetched.TryGet(layers.Root, First, out _, out _));
    }

    [Fact]
    public void What_leads_elsewhere_is_looked_up_again()
    {
        var elsewhere = new Whole[]
        {
            new() { Lowers = [], LowerName = [1, 0] },
            new() { Lowers = [], Metacopy = new(layers.Layers.LowerRoots[0], [1, 0]) },
        };
        foreach (Whole whole in elsewhere) { prefetched.Add(First, new Found { Exists = true }, whole); }
        prefetched.Add(First, new Found { Exists = true, HasUpper = true }, new Whole { Lowers = [] });

        Assert.False(prefetched.TryGet(layers.Root.Below, First, out _, out _));
    }

    [Fact]
    public void A_new_range_knows_nothing_of_the_last_one()
    {
        Add(First, 1);
        prefetched.TryGet(layers.Root.Below, First + 1, out _, out _);
        long size = prefetched.Size;
        Assert.True(size >= Entries * 100);

        prefetched.Begin(First, Entries - 1);

        Assert.Equal(-1, prefetched.Reader);
        Assert.False(prefetched.TryGet(layers.Root.Below, First, out _, out _));
        Assert.Equal(size, prefetched.Size);
        Assert.Equal(First + Entries - 1, prefetched.End);
    }
}
