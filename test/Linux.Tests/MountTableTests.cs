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

    [Theory]
    [InlineData("/a/b/c", 3)]
    [InlineData("/a/b", 3)]
    [InlineData("/a/bc", 2)]
    [InlineData("/a b/c", 4)]
    [InlineData("/x", 1)]
    [InlineData("/top/x", 6)]
    public void The_mount_at_a_path_is_the_longest_and_the_last(string path, int id)
    {
        MountEntry? covering = MountTable.Covering("""
            1 0 0:1 / / rw - ext4 a rw
            2 1 0:2 / /a rw - ext4 b rw
            3 2 0:3 / /a/b rw - ext4 c rw
            4 1 0:4 / /a\040b rw - ext4 d rw
            5 1 0:5 / /top rw - ext4 e rw
            6 5 0:6 / /top rw - ext4 f rw

            """u8, path);

        Assert.Equal(id, covering?.Id);
    }

    [Fact]
    public void An_option_of_the_filesystem_is_found()
    {
        MountEntry entry = MountTable.Parse(@"1 2 0:5 / /m rw - overlay o rw,upperdir=/u\054v,workdir=/w,upperdir=/u2"u8)!;

        Assert.Equal(("/u2", "/w", null), (entry.Option("upperdir"), entry.Option("workdir"), entry.Option("upper")));
    }

    /// <summary>Lists are equal when they are the same object.</summary>
    private static MountEntry WithoutLists(MountEntry entry) =>
        entry with { FileSystemOptions = [], FileSystemFlags = [], Propagation = [] };

    [Fact]
    public void A_mount_is_told_of_as_in_the_table()
    {
        Needs.Root();
        string directory = Directory.CreateTempSubdirectory("veneer-mount-").FullName;
        string point = $"{directory}/an odd,name\\";
        Directory.CreateDirectory(point);
        try
        {
            Assert.Equal(Errno.None, Libc.Mount("a source\0"u8, PathText.Encode(point), "tmpfs\0"u8,
                MountFlags.NoSetUid | MountFlags.NoAccessTime | MountFlags.NoExecute, "size=40k,mode=751\0"u8));
            Assert.Equal(Errno.None, Libc.StatAt(Libc.AtCwd, PathText.Encode(point), StatxMask.UniqueMountId, out Statx stat));
            Errno error = Libc.StatMount(stat.MountId, out MountEntry? told);
            Needs.That(error is not (Errno.ENOSYS or Errno.EOPNOTSUPP), "Linux 6.13");
            Assert.Equal(Errno.None, error);
            Assert.Equal(Errno.None, MountTable.Read(out List<MountEntry> table));
            MountEntry listed = table.Single(entry => entry.MountPoint == point);

            Assert.Equal(WithoutLists(listed), WithoutLists(told!));
            Assert.Equal(listed.FileSystemFlags, told!.FileSystemFlags);
            Assert.Equal(listed.Propagation, told.Propagation);
            Assert.Equal(listed.FileSystemOptions.Where(option => option is not ("rw" or "ro")), told.FileSystemOptions);
            Assert.Equal(Errno.ENOENT, Libc.StatMount(ulong.MaxValue - 1, out _));
        }
        finally
        {
            _ = Libc.Unmount(PathText.Encode(point), lazy: true);
            Directory.Delete(directory, recursive: true);
        }
    }
}
