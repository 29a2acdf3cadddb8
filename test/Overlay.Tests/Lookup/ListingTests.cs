using System.Globalization;
using System.Text;
using Veneer.Linux;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tests.Lookup;

/// <summary>Listings of directories, small and large: each name once, at an offset of its own that it keeps.</summary>
public sealed class ListingTests : IDisposable
{
    private readonly StackOfLayers layers = new(3);

    public void Dispose() => layers.Dispose();

    private static Dictionary<string, (ulong Offset, byte Type)> Told(MergedDirectory listing) =>
        Enumerable.Range(0, listing.Count).ToDictionary(
            i => Encoding.UTF8.GetString(listing.NameOf(i)[..^1]), i => (listing.OffsetOf(i), listing.TypeOf(i)));

    private static MergedDirectory Read(Listings listings, DirectoryStack directory, int version = 1)
    {
        Assert.Equal(Errno.None, listings.Read(directory, version, out MergedDirectory listing));
        return listing;
    }

    /// <summary>Names of all lengths, several times as many as there is room for at first.</summary>
    private static string Name(int i) => i.ToString(CultureInfo.InvariantCulture) + new string('x', i * 7 % 240);

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(63)]
    [InlineData(64)]
    [InlineData(65)]
    [InlineData(3000)]
    public void Of_several_layers_has_each_name_once(int count)
    {
        var expected = new Dictionary<string, byte>();
        for (int i = 0; i < count; i++)
        {
            // Every third name is in several layers, as a directory above; every fifth is hidden by upper.
            layers.Make.File(layers[1 + (i % 3), Name(i)], []);
            expected[Name(i)] = 8;
            if (i % 3 == 0 && i % 5 != 0)
            {
                layers.Make.Directory(layers[0, Name(i)]);
                expected[Name(i)] = 4;
            }
            if (i % 5 != 0) { continue; }
            layers.Make.Whiteout(layers[0, Name(i)]);
            expected.Remove(Name(i));
        }
        var listings = new Listings(NameHash.New(), layers.Reader);

        for (int round = 0; round < 3; round++) // the second one reads into memory of the first
        {
            MergedDirectory listing = Read(listings, layers.Root);
            Assert.Equivalent(expected, Told(listing).ToDictionary(pair => pair.Key, pair => pair.Value.Type), strict: true);
            Assert.Equal((count + 4) / 5, listing.UpperWhiteouts);
            for (int i = 0; i < listing.Count; i++)
            {
                Assert.Equal(i, listing.IndexOf(listing.NameOf(i)));
                Assert.Equal(i, listing.IndexAfter(listing.OffsetOf(i) - 1));
                Assert.Equal(i + 1, listing.IndexAfter(listing.OffsetOf(i)));
                Assert.True(listing.OffsetOf(i) > MergedDirectory.FirstOffset && (long)listing.OffsetOf(i) > 0);
                Assert.Equal(listing.TypeOf(i) == 4, listing.IsUpper(i));
            }
            Assert.Equal(-1, listing.IndexOf("missing\0"u8));
            listings.Return(listing);
        }
    }

    [Fact]
    public void An_entry_tells_its_real_object_and_the_first_lower_that_can_have_it()
    {
        layers.Make.File(layers[0, "upper"], []);
        layers.Make.File(layers[2, "middle"], []);
        layers.Make.File(layers[3, "middle"], []);
        layers.Make.File(layers[3, "lowest"], []);
        MergedDirectory listing = Read(new Listings(NameHash.New(), layers.Reader), layers.Root);

        foreach ((string name, int layer) in (ReadOnlySpan<(string, int)>)[("upper", 0), ("middle", 2), ("lowest", 3)])
        {
            int index = listing.IndexOf(StackOfLayers.Name(name));
            Assert.Equal(Errno.None, Libc.StatAt(Libc.AtCwd, StackOfLayers.Name(layers[layer, name]), StatxMask.Basic, out Statx stat));
            Assert.Equal((stat.Dev, stat.Ino), listing.RealNumber(index));
            Assert.Equal(Math.Max(layer - 1, 0), listing.FirstLower(index));
        }
    }

    [Fact]
    public void An_entry_keeps_its_offset_while_others_come_and_go()
    {
        for (int i = 0; i < 200; i++) { layers.Make.File(layers[0, Name(i)], []); }
        var listings = new Listings(NameHash.New(), layers.Reader);
        Dictionary<string, (ulong, byte)> before = Told(Read(listings, layers.Root));

        for (int i = 0; i < 400; i++)
        {
            if (i % 3 == 0) { File.Delete(layers[0, Name(i)]); }
            else if (i >= 200) { layers.Make.File(layers[0, Name(i)], []); }
        }
        Dictionary<string, (ulong, byte)> after = Told(Read(listings, layers.Root, version: 2));

        foreach ((string name, (ulong, byte) entry) in before)
        {
            if (after.TryGetValue(name, out (ulong, byte) kept)) { Assert.Equal(entry, kept); }
        }
        Assert.Equal(Enumerable.Range(0, 400).Count(i => i % 3 != 0), after.Count);
    }

    [Theory]
    [InlineData("nothing", true)]
    [InlineData("whiteouts", true)]
    [InlineData("hidden", true)]
    [InlineData("file in upper", false)]
    [InlineData("file in a lower", false)]
    [InlineData("file below a whiteout of another name", false)]
    public void A_directory_is_empty_when_nothing_shows(string kind, bool isEmpty)
    {
        if (kind is "whiteouts" or "hidden") { layers.Make.Whiteout(layers[0, "name"]); }
        if (kind == "hidden") { layers.Make.File(layers[2, "name"], []); }
        if (kind == "file in upper") { layers.Make.File(layers[0, "name"], []); }
        if (kind == "file in a lower") { layers.Make.File(layers[3, "name"], []); }
        if (kind == "file below a whiteout of another name")
        {
            layers.Make.Whiteout(layers[0, "other"]);
            layers.Make.File(layers[3, "name"], []);
        }

        var listings = new Listings(NameHash.New(), layers.Reader);
        Assert.Equal(Errno.None, listings.Read(layers.Root, 1, out MergedDirectory listing, onlyWhetherEmpty: true));

        Assert.Equal(isEmpty, listing.Count == 0);
    }

    /// <summary>Whiteouts and other special files are told apart whatever the filesystem tells of a type.</summary>
    [Fact]
    public void A_device_that_is_no_whiteout_is_listed()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess || Environment.GetEnvironmentVariable("CI") is not null,
            "Only root makes devices.");
        layers.Make.Node(layers[0, "null"], FileType.CharacterDevice, 0x1B6, DeviceNumber.Encode(1, 3));
        layers.Make.Node(layers[1, "fifo"], FileType.Fifo, 0x1B6);

        Dictionary<string, (ulong, byte Type)> told = Told(Read(new Listings(NameHash.New(), layers.Reader), layers.Root));

        Assert.Equal(2, told["null"].Type);
        Assert.Equal(1, told["fifo"].Type);
    }

    [Fact]
    public void A_directory_shows_its_newest_listing_until_it_is_withdrawn()
    {
        layers.Make.File(layers[0, "name"], []);
        var listings = new Listings(NameHash.New(), layers.Reader);
        DirectoryStack directory = layers.Root;
        MergedDirectory old = Read(listings, directory, version: 1), newer = Read(listings, directory, version: 2);
        Assert.Null(listings.Find(directory));

        listings.Publish(directory, newer);
        listings.Publish(directory, old); // comes late
        Assert.Same(newer, listings.Find(directory));
        listings.Return(newer);

        listings.Withdraw(directory, old); // is not shown
        Assert.Same(newer, directory.Listing);
        listings.Withdraw(directory, newer);
        Assert.Null(directory.Listing);

        // Of the users of the newer one, who read it is left.
        Assert.Equal(1, newer.Users);
        Assert.Equal(1, newer.Count);
        listings.Return(newer);
        Assert.Equal(0, newer.Users);
        Assert.Equal(0, newer.Count);
    }

    [Fact]
    public void A_listing_is_recycled_when_its_last_user_returns_it()
    {
        layers.Make.File(layers[0, "name"], []);
        var listings = new Listings(NameHash.New(), layers.Reader);
        MergedDirectory first = Read(listings, layers.Root);
        listings.Share(first);
        listings.Return(first);
        Assert.NotSame(first, Read(listings, layers.Root)); // it has a user still

        listings.Return(first);
        Assert.Same(first, Read(listings, layers.Root));

        listings.Return(first);
        listings.DropRecycled();
        Assert.NotSame(first, Read(listings, layers.Root));
        Assert.Equal(0, listings.Discarded);
    }
}
