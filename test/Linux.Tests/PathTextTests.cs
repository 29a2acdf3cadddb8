using FsCheck;
using FsCheck.Fluent;

namespace Veneer.Linux.Tests;

public sealed class PathTextTests
{
    [Fact]
    public void Any_bytes_become_text_and_the_same_bytes_again()
    {
        Prop.ForAll<byte[]>(bytes =>
        {
            byte[] path = [.. bytes.Where(b => b != 0)];
            return PathText.Encode(PathText.Decode(path)).SequenceEqual([.. path, (byte)0]);
        }).QuickCheckThrowOnFailure();
    }

    [Theory]
    [InlineData("/plain")]
    [InlineData("/\u00fcml\u00e4ut/\U0001F427")]
    public void Utf8_is_ordinary_text(string text)
    {
        byte[] bytes = PathText.Encode(text);

        Assert.Equal([.. System.Text.Encoding.UTF8.GetBytes(text), (byte)0], bytes);
        Assert.Equal(text, PathText.Decode(bytes));
    }

    [Fact]
    public void Bytes_that_are_not_utf8_become_lone_surrogates()
    {
        Assert.Equal("a\uDCFF\uDC80b", PathText.Decode([(byte)'a', 0xFF, 0x80, (byte)'b']));
    }

    [Fact]
    public void Text_ends_at_the_first_nul()
    {
        Assert.Equal("ab", PathText.Decode("ab\0cd"u8));
    }

    [Fact]
    public void A_name_is_printable_as_ASCII()
    {
        byte[] name = [(byte)'a', (byte)' ', (byte)'\\', (byte)'~', 0x1F, 0x7F, 0xC3, 0xBC];

        Assert.Equal(@"a \x5c~\x1f\x7f\xc3\xbc", PathText.PrintableAscii(name));
        Assert.Equal(@"a\x20\x5c~\x1f\x7f\xc3\xbc", PathText.PrintableAscii(name, isWord: true));
    }
}
