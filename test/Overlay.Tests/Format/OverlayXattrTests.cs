using System.Text;
using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Tests.Format;

/// <summary>Names at the limits of what an attribute may be called. Ordinary names are in <see cref="FormatTests"/>.</summary>
public sealed class OverlayXattrTests
{
    [Theory]
    [InlineData(false, "trusted.overlay.\0")]
    [InlineData(false, "trusted.overlay.")]
    [InlineData(true, "user.overlay.\0")]
    public void The_prefix_alone_is_no_name(bool user, string name) =>
        Assert.Equal(Errno.EINVAL, new OverlayXattr(user).Escape(Encoding.UTF8.GetBytes(name), new byte[256], out _));

    [Fact]
    public void A_list_that_is_cut_off_is_read_to_its_end()
    {
        byte[] list = Encoding.UTF8.GetBytes("trusted.overlay.impure\0user.a\0trusted.overlay.overlay.b");

        int length = new OverlayXattr(user: false).Filter(list);

        Assert.Equal("user.a\0trusted.overlay.b", Encoding.UTF8.GetString(list, 0, length));
    }

    [Fact]
    public void An_escaped_name_in_the_middle_is_put_where_it_belongs()
    {
        byte[] list = Encoding.UTF8.GetBytes("user.a\0trusted.overlay.overlay.b\0user.c\0");

        int length = new OverlayXattr(user: false).Filter(list);

        Assert.Equal("user.a\0trusted.overlay.b\0user.c\0", Encoding.UTF8.GetString(list, 0, length));
    }
}
