namespace Veneer.Linux.Tests;

public sealed class MountTableTests
{
    [Fact]
    public void A_line_of_mountinfo_is_read()
    {
        MountEntry entry = MountTable.Parse("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:3 - ext3 /dev/root rw,errors=continue"u8)!;

        Assert.Equal(36, entry.Id);
        Assert.Equal(35, entry.Parent);
        Assert.Equal("98:0", entry.Device);
        Assert.Equal("/mnt1", entry.Root);
        Assert.Equal("/mnt2", entry.MountPoint);
        Assert.Equal("rw,noatime", entry.Options);
        Assert.Equal("ext3", entry.Type);
        Assert.Equal("/dev/root", entry.Source);
    }

    [Fact]
    public void Spaces_and_backslashes_are_written_in_octal()
    {
        MountEntry entry = MountTable.Parse(@"1 2 0:5 / /with\040space\134\012end rw - fuse.veneer a\040b rw"u8)!;

        Assert.Equal("/with space\\\nend", entry.MountPoint);
        Assert.Equal("a b", entry.Source);
    }

    [Fact]
    public void The_table_of_this_process_has_proc()
    {
        Assert.Equal(Errno.None, MountTable.Read(out List<MountEntry> mounts));
        Assert.Contains(mounts, mount => mount is { Type: "proc", MountPoint: "/proc" });
    }
}
