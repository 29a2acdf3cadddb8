using Veneer.Linux;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tests.Lookup;

/// <summary>What is remembered of the names in many lowers leads to the same objects, and asks fewer lowers.</summary>
public sealed class LowerNamesTests : IDisposable
{
    private const int Lowers = 6;

    private readonly StackOfLayers layers = new(Lowers, hasUpper: false);

    public void Dispose() => layers.Dispose();

    private LowerNames? Read() => LowerNames.Read(layers.Reader, layers.Layers.LowerRoots);

    [Fact]
    public void The_first_lower_with_a_name_is_known()
    {
        for (int layer = 1; layer <= Lowers; layer++)
        {
            layers.Make.File(layers[layer, $"own{layer}"], []);
            if (layer is 2 or 5) { layers.Make.File(layers[layer, "twice"], []); }
            if (layer >= 3) { layers.Make.Whiteout(layers[layer, "whiteout"]); }
        }

        LowerNames names = Read()!;

        for (int layer = 1; layer <= Lowers; layer++) { Assert.Equal(layer - 1, names.FirstOf(StackOfLayers.Name($"own{layer}"))); }
        Assert.Equal(1, names.FirstOf("twice\0"u8));
        Assert.Equal(2, names.FirstOf("whiteout\0"u8));
        Assert.Equal(-1, names.FirstOf("nowhere\0"u8));
    }

    [Fact]
    public void Empty_lowers_lack_every_name()
    {
        layers.Make.File(layers[4, "NAME"], []); // in capitals alone

        LowerNames names = Read()!;

        Assert.Equal(3, names.FirstOf("NAME\0"u8));
        Assert.Equal(-1, names.FirstOf("name\0"u8));
    }

    /// <summary>Whether a directory ignores case is told by a name with letters; it may find names that it does not list.</summary>
    [Fact]
    public void Names_without_letters_are_not_remembered()
    {
        layers.Make.File(layers[2, "1234"], []);
        Assert.Null(Read());

        layers.Make.File(layers[2, "Letters"], []);
        Assert.NotNull(Read());
    }

    [Fact]
    public void A_directory_whose_letters_are_two_files_does_not_ignore_case()
    {
        layers.Make.File(layers[1, "name"], []);
        layers.Make.File(layers[1, "Name"], []);

        Assert.Equal(0, Read()!.FirstOf("Name\0"u8));
    }

    /// <summary>What a directory that ignores case shows: the other name leads to the same object.</summary>
    [Fact]
    public void A_directory_whose_letters_are_one_file_may_ignore_case()
    {
        layers.Make.File(layers[1, "n"], []);
        layers.Make.Link(layers[1, "n"], layers[1, "N"]);

        Assert.Null(Read());
    }

    [Fact]
    public void Very_many_names_are_not_remembered()
    {
        const int most = 16 << 10;
        layers.Make.File(layers[1, "name"], []);
        for (int i = 1; i < most; i++) { layers.Make.Link(layers[1, "name"], layers[1, $"name{i}"]); }
        Assert.Equal(0, Read()!.FirstOf("name9\0"u8));

        layers.Make.File(layers[3, "one more"], []);
        Assert.Null(Read());
    }

    [Theory]
    [InlineData("letters", true)]
    [InlineData("1234", false)]
    public void Lookups_find_the_same_before_and_after_names_are_remembered(string other, bool areRemembered)
    {
        for (int layer = 1; layer <= Lowers; layer++)
        {
            layers.Make.File(layers[layer, $"own{layer}"], new byte[layer]);
            layers.Make.File(layers[layer, "each"], new byte[layer]);
        }
        layers.Make.Whiteout(layers[3, "own6"]);
        if (other == "1234")
        {
            for (int layer = 1; layer <= Lowers; layer++)
            {
                Directory.Delete(layers[layer, ""], true);
                Directory.CreateDirectory(layers[layer, ""]);
                layers.Make.File(layers[layer, $"{layer}"], new byte[layer]);
            }
        }
        LayeredLookup lookup = layers.Lookup(remembersLowers: true);
        DirectoryStack root = layers.Root;
        var before = new Dictionary<string, long>();
        for (int round = 0; round < 20; round++)
        {
            for (int layer = 1; layer <= Lowers + 1; layer++)
            {
                foreach (string name in (string[])[$"own{layer}", "each", $"{layer}", "missing"])
                {
                    Assert.Equal(Errno.None, lookup.Find(root, StackOfLayers.Name(name), out Found found));
                    long size = found.Exists ? (long)found.Stat.Size : -1;
                    if (before.TryAdd(name, size)) { continue; }
                    Assert.Equal(before[name], size);
                    if (found.Exists) { Assert.Equal(root.Lowers[found.LowerPosition], found.LowerDirectory); }
                }
            }
            // The names are worth reading when eight times as many lowers as there are were asked in vain.
            if (root.LowerNames is null && areRemembered) { Assert.True(root.Misses <= (8 * Lowers) + Lowers); }
        }
        Assert.Equal(-1, before["own6"]);
        Assert.Equal(areRemembered, root.LowerNames is not null);
    }
}
