using System.Text;
using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Tests.Format;

/// <summary>The letters of the protattr attribute (Linux: ovl_check_protattr(), ovl_set_protattr()) and the flags of statx(2).</summary>
public sealed class ProtectionTests
{
    private const uint ImmutableFlag = 0x10, AppendOnlyFlag = 0x20, CompressedFlag = 0x4;

    [Theory]
    [InlineData("", 0)]
    [InlineData("i", (int)Protection.Immutable)]
    [InlineData("a", (int)Protection.AppendOnly)]
    [InlineData("ai", (int)(Protection.Immutable | Protection.AppendOnly))]
    [InlineData("ia", (int)(Protection.Immutable | Protection.AppendOnly))]
    [InlineData("aa", (int)Protection.AppendOnly)]
    [InlineData("ii", (int)Protection.Immutable)]
    [InlineData("xa", 0)]
    [InlineData("axi", (int)Protection.AppendOnly)]
    public void Letters_are_read_up_to_an_unknown_one(string letters, int protection) =>
        Assert.Equal((Protection)protection, Protections.Parse(Encoding.ASCII.GetBytes(letters)));

    [Theory]
    [InlineData((int)Protection.None, "")]
    [InlineData((int)Protection.Immutable, "i")]
    [InlineData((int)Protection.AppendOnly, "a")]
    [InlineData((int)(Protection.Immutable | Protection.AppendOnly), "ai")]
    public void The_kernels_letters_are_written(int protection, string letters)
    {
        Span<byte> space = stackalloc byte[Protections.MaxLength];

        int length = Protections.Write((Protection)protection, space);

        Assert.Equal(letters, Encoding.ASCII.GetString(space[..length]));
    }

    [Theory]
    [InlineData(0u, (int)Protection.None)]
    [InlineData(CompressedFlag, (int)Protection.None)]
    [InlineData(ImmutableFlag, (int)Protection.Immutable)]
    [InlineData(AppendOnlyFlag | CompressedFlag, (int)Protection.AppendOnly)]
    [InlineData(ImmutableFlag | AppendOnlyFlag, (int)(Protection.Immutable | Protection.AppendOnly))]
    public void Flags_that_forbid_nothing_are_no_protection(uint flags, int protection) =>
        Assert.Equal((Protection)protection, Protections.OfFlags(flags));

    [Fact]
    public void A_flag_that_the_filesystem_does_not_know_counts_for_nothing()
    {
        var stat = new Statx { Attributes = ImmutableFlag | AppendOnlyFlag, AttributesMask = AppendOnlyFlag };

        Assert.Equal(Protection.AppendOnly, Protections.Of(stat));
    }
}
