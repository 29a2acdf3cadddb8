using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Tests.Format;

/// <summary>The limits of the origin attribute. The kernel's own bytes are in <see cref="FormatTests"/>.</summary>
public sealed class OriginHandleTests
{
    private static readonly byte[] Uuid = Convert.FromHexString("0123456789abcdef0123456789abcdef");

    [Theory]
    [InlineData(0, true)]
    [InlineData(255, true)]
    [InlineData(256, false)] // the format has one byte for the type
    [InlineData(-1, false)]
    public void Only_a_type_of_one_byte_is_written(int type, bool written)
    {
        int length = OriginHandle.Encode(new FileHandle(type, new byte[8]), Uuid, new byte[OriginHandle.MaxLength]);

        Assert.Equal(written ? 21 + 8 : 0, length);
    }

    [Fact]
    public void The_longest_handle_comes_back()
    {
        byte[] content = [.. Enumerable.Range(1, FileHandle.MaxLength).Select(i => (byte)i)];
        byte[] value = new byte[OriginHandle.MaxLength];

        int length = OriginHandle.Encode(new FileHandle(1, content), Uuid, value);

        Assert.True(OriginHandle.TryDecode(value.AsSpan(0, length), out FileHandle handle, out _));
        Assert.Equal(content, handle.Content.ToArray());
    }

    [Fact]
    public void A_handle_that_no_filesystem_makes_is_unknown()
    {
        byte[] value = [0, 0xFB, 21 + FileHandle.MaxLength + 1, 0, 1, .. Uuid, .. new byte[FileHandle.MaxLength + 1]];

        Assert.False(OriginHandle.TryDecode(value, out _, out _));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(2)] // of any byte order
    [InlineData(3)]
    [InlineData(4)] // of an upper object: the kernel's index
    public void Flags_that_the_kernel_knows_are_accepted(int flags)
    {
        byte[] value = [0, 0xFB, 21 + 8, (byte)flags, 1, .. Uuid, .. new byte[8]];

        Assert.True(OriginHandle.TryDecode(value, out _, out _));
    }

    [Fact]
    public void What_follows_the_handle_is_not_part_of_it()
    {
        byte[] value = [0, 0xFB, 21 + 8, 0, 1, .. Uuid, 1, 2, 3, 4, 5, 6, 7, 8, 9];

        Assert.True(OriginHandle.TryDecode(value, out FileHandle handle, out _));
        Assert.Equal([1, 2, 3, 4, 5, 6, 7, 8], handle.Content.ToArray());
    }
}
