using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Tests;

public sealed class InodeTests
{
    [Fact]
    public void The_lower_name_stays_when_the_name_changes()
    {
        var inode = new Inode();
        inode.Begin("first\0"u8);
        inode.LowerDirectory = new RealDirectory(null!, -1);
        Assert.Equal("first\0"u8, inode.LowerName);

        inode.SetNameLocked("second\0"u8.ToArray());
        inode.SetNameLocked("third\0"u8.ToArray());

        Assert.Equal("first\0"u8, inode.LowerName);
        Assert.Equal("third\0"u8, inode.Name);
    }

    [Fact]
    public void A_lower_name_that_differs_stays_as_well()
    {
        var inode = new Inode();
        inode.Begin("name\0"u8);
        inode.LowerDirectory = new RealDirectory(null!, -1);
        inode.SetLowerName("redirected\0"u8.ToArray());

        inode.SetNameLocked("other\0"u8.ToArray());

        Assert.Equal("redirected\0"u8, inode.LowerName);
    }
}
