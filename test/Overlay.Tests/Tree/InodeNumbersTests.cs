using System.Globalization;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tests.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Tests.Tree;

/// <summary>Keys and numbers of objects that are told apart by their places.</summary>
public sealed class InodeNumbersTests : IDisposable
{
    private readonly StackOfLayers layers = new(2, hasUpper: false);

    public void Dispose() => layers.Dispose();

    private static byte[] Name(int i) => StackOfLayers.Name(i.ToString(CultureInfo.InvariantCulture));

    [Fact]
    public void Each_name_of_each_directory_has_a_key_of_its_own_and_keeps_it()
    {
        var keys = new HashSet<RealKey>();
        for (ulong directory = 1; directory <= 100; directory++)
        {
            for (int i = 0; i < 100; i++)
            {
                RealKey key = InodeNumbers.KeyOfName(directory, Name(i));
                Assert.True(keys.Add(key));
                Assert.Equal(key, InodeNumbers.KeyOfName(directory, Name(i)));
                Assert.True(key.IsByName);
            }
        }
        Assert.All(keys, key => Assert.True(key.Device < 0)); // no filesystem has such an index
        // Both halves of the hash count.
        Assert.True(keys.Select(key => key.Device).Distinct().Count() > 9900);
        Assert.True(keys.Select(key => (uint)key.Ino).Distinct().Count() > 9900);
    }

    [Fact]
    public void A_number_tells_layer_directory_and_name()
    {
        var numbers = new HashSet<ulong>();
        foreach (RealDirectory root in layers.Layers.LowerRoots)
        {
            var one = new RealDirectory(root, [(byte)'d', 0]);
            foreach (RealDirectory directory in (RealDirectory[])[root, one, new(one, [(byte)'d', 0]), new(root, [(byte)'e', 0])])
            {
                for (int i = 0; i < 1000; i++)
                {
                    ulong number = InodeNumbers.NumberOfName(directory, Name(i));
                    Assert.True(numbers.Add(number));
                    Assert.Equal(0xFFFFUL, number >> 48);
                }
            }
        }
        // 48 bits of hash: they are all used.
        Assert.Equal(0xFFFF_FFFF_FFFFUL, numbers.Aggregate(0UL, (all, number) => all | number) & 0xFFFF_FFFF_FFFFUL);
        Assert.True(numbers.Select(number => number & 0xFFFFFFFF).Distinct().Count() > 7990);
    }

    [Fact]
    public void Another_number_is_another_one()
    {
        var numbers = new HashSet<ulong>();
        ulong number = 5;
        for (int i = 0; i < 10_000; i++)
        {
            number = InodeNumbers.AlternativeTo(number);
            Assert.True(numbers.Add(number));
            Assert.Equal(0xFFFFUL, number >> 48);
        }
    }
}
