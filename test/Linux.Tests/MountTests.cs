using static Veneer.Linux.Tests.TemporaryDirectory;

namespace Veneer.Linux.Tests;

/// <summary>Mounts, in a mount namespace of each test's own.</summary>
public sealed class MountTests : IDisposable
{
    private readonly TemporaryDirectory directory = new();

    public void Dispose() => directory.Dispose();

    [Fact]
    public void A_filesystem_is_mounted_and_unmounted() => OwnThread.RunWithPrivateMounts(() =>
    {
        byte[] point = Name(directory.Path);
        directory.Write("below", "");

        Assert.Equal(Errno.None, Libc.Mount("source\0"u8, point, "tmpfs\0"u8, MountFlags.NoSetUid | MountFlags.NoDevices, "size=1m\0"u8));
        Assert.Empty(Directory.EnumerateFileSystemEntries(directory.Path));
        string line = File.ReadLines("/proc/thread-self/mountinfo")
            .Single(line => line.Contains(' ' + directory.Path + ' ', StringComparison.Ordinal));
        Assert.Contains("nosuid,nodev", line, StringComparison.Ordinal);
        Assert.Contains("- tmpfs source rw,size=1024k", line, StringComparison.Ordinal);

        Assert.Equal(Errno.None, Libc.Unmount(point, lazy: false));
        Assert.Single(Directory.EnumerateFileSystemEntries(directory.Path));
        Assert.Equal(Errno.EINVAL, Libc.Unmount(point, lazy: false));
        Assert.Equal(Errno.ENODEV, Libc.Mount("source\0"u8, point, "nosuchtype\0"u8, MountFlags.None, default));
    });

    [Fact]
    public void A_busy_mount_is_left_lazily() => OwnThread.RunWithPrivateMounts(() =>
    {
        byte[] point = Name(directory.Path);
        Assert.Equal(Errno.None, Libc.Mount("none\0"u8, point, "tmpfs\0"u8, MountFlags.None, default));
        directory.Write("file", "x");
        Assert.Equal(Errno.None,
            Libc.OpenAt(Libc.AtCwd, Name(directory.Path + "/file"), OpenFlags.ReadOnly, 0, ResolveFlags.None, out int descriptor));
        using var file = new Fd(descriptor);

        Assert.Equal(Errno.EBUSY, Libc.Unmount(point, lazy: false));
        Assert.Equal(Errno.None, Libc.Unmount(point, lazy: true));
        Assert.Empty(Directory.EnumerateFileSystemEntries(directory.Path));
        byte[] buffer = new byte[1];
        Assert.Equal(Errno.None, Libc.Read(file.Value, buffer, out _));
    });

    [Fact]
    public void A_symbolic_link_is_not_followed_to_unmount() => OwnThread.RunWithPrivateMounts(() =>
    {
        Directory.CreateDirectory(directory.Path + "/point");
        File.CreateSymbolicLink(directory.Path + "/link", "point");
        Assert.Equal(Errno.None, Libc.Mount("none\0"u8, Name(directory.Path + "/point"), "tmpfs\0"u8, MountFlags.None, default));

        Assert.Equal(Errno.EINVAL, Libc.Unmount(Name(directory.Path + "/link"), lazy: true));
        Assert.Equal(Errno.None, Libc.Unmount(Name(directory.Path + "/point"), lazy: false));
    });

    [Fact]
    public void A_clone_of_a_mount_is_read_only_when_told_so_and_the_original_is_not() => OwnThread.RunWithPrivateMounts(() =>
    {
        directory.Write("file", "before");
        using Fd clone = Clone(MountAttributes.ReadOnly, MountAttributes.None);

        Assert.Equal(Errno.EROFS, Libc.OpenAt(clone.Value, "file\0"u8, OpenFlags.WriteOnly, 0, ResolveFlags.Confined, out _));
        Assert.Equal(Errno.EROFS,
            Libc.OpenAt(clone.Value, "new\0"u8, OpenFlags.WriteOnly | OpenFlags.Create, 0x180, ResolveFlags.Confined, out _));
        Assert.Equal(Errno.EROFS, Libc.UnlinkAt(clone.Value, "file\0"u8));
        Assert.Equal(Errno.EROFS, Libc.MakeDirectoryAt(clone.Value, "sub\0"u8, 0x1C0));
        Assert.Equal(Errno.EROFS, Libc.SetXattrAt(clone.Value, "file\0"u8, "trusted.t\0"u8, "v"u8, XattrFlags.None));
        Assert.Equal(Errno.EROFS, Libc.ChangeModeAt(clone.Value, "file\0"u8, 0x1FF));
        Assert.Equal(Errno.EROFS, Libc.ChangeTimesAt(clone.Value, "file\0"u8, TimeSpec.Now, TimeSpec.Now));

        Assert.Equal(Errno.None, Libc.OpenAt(clone.Value, "file\0"u8, OpenFlags.Path, 0, ResolveFlags.Confined, out int descriptor));
        using var path = new Fd(descriptor);
        Assert.Equal(Errno.EROFS, Libc.Reopen(path.Value, OpenFlags.ReadWrite, out _));
        Assert.Equal(Errno.EROFS, Libc.SetXattrAt(path.Value, Libc.Self, "trusted.t\0"u8, "v"u8, XattrFlags.None));
        Assert.Equal(Errno.None, Libc.Reopen(path.Value, OpenFlags.ReadOnly, out descriptor));
        using var reader = new Fd(descriptor);
        Assert.Equal(Errno.EBADF, Libc.Write(reader.Value, "after"u8, out _));

        directory.Write("file", "after");
        Assert.Equal("after", directory.Read("file"));
    });

    [Fact]
    public void A_clone_has_the_root_where_the_directory_was_and_shows_in_no_table() => OwnThread.RunWithPrivateMounts(() =>
    {
        Directory.CreateDirectory(directory.Path + "/sub");
        string[] before = File.ReadAllLines("/proc/thread-self/mountinfo");
        using Fd clone = Clone(MountAttributes.ReadOnly, MountAttributes.None);

        Assert.Equal(Errno.None, Libc.StatAt(clone.Value, Libc.Self, StatxMask.Basic | StatxMask.MountId, out Statx stat));
        Assert.Equal(directory.Stat(".").Ino, stat.Ino);
        Assert.Equal(Statx.AttributeMountRoot, stat.Attributes & Statx.AttributeMountRoot);
        Assert.Equal(Errno.None, Libc.StatAt(clone.Value, "..\0"u8, StatxMask.Basic, out Statx above));
        Assert.Equal(stat.Ino, above.Ino); // nothing is above it
        Assert.Equal(before, File.ReadAllLines("/proc/thread-self/mountinfo"));
    });

    [Fact]
    public void The_access_time_field_is_cleared_before_it_is_set() => OwnThread.RunWithPrivateMounts(() =>
    {
        directory.Write("file", "x");
        Assert.Equal(Errno.None,
            Libc.ChangeTimesAt(directory.Descriptor, "file\0"u8, new TimeSpec { Seconds = 1 }, new TimeSpec { Seconds = 2 }));
        using Fd clone = Clone(MountAttributes.NoAccessTime, MountAttributes.AccessTimeField);

        Assert.Equal(Errno.None, Libc.OpenAt(clone.Value, "file\0"u8, OpenFlags.ReadOnly, 0, ResolveFlags.Confined, out int descriptor));
        using var file = new Fd(descriptor);
        Assert.Equal(Errno.None, Libc.Read(file.Value, new byte[1], out _));

        Assert.Equal(1, directory.Stat("file").AccessTime.Seconds);
        Assert.Equal(Errno.EINVAL, Libc.SetMountAttributes(clone.Value, MountAttributes.NoAccessTime, MountAttributes.None));
    });

    [Fact]
    public void Mounts_below_are_not_cloned() => OwnThread.RunWithPrivateMounts(() =>
    {
        Directory.CreateDirectory(directory.Path + "/sub");
        directory.Write("sub/hidden", "x");
        Assert.Equal(Errno.None, Libc.Mount("none\0"u8, Name(directory.Path + "/sub"), "tmpfs\0"u8, MountFlags.None, default));
        Assert.Empty(Directory.EnumerateFileSystemEntries(directory.Path + "/sub"));

        using (Fd clone = Clone(MountAttributes.ReadOnly, MountAttributes.None))
        {
            Assert.Equal(Errno.None, Libc.StatAt(clone.Value, "sub/hidden\0"u8, StatxMask.Basic, out _));
        }
        Assert.Equal(Errno.None, Libc.Unmount(Name(directory.Path + "/sub"), lazy: false));
    });

    private Fd Clone(MountAttributes set, MountAttributes clear)
    {
        // Opened here: the directory's own descriptor belongs to the namespace outside, whose mounts cannot be cloned.
        Assert.Equal(Errno.None,
            Libc.OpenAt(Libc.AtCwd, Name(directory.Path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out int here));
        using var opened = new Fd(here);
        Assert.Equal(Errno.None, Libc.CloneMount(opened.Value, out int descriptor));
        var clone = new Fd(descriptor);
        Assert.Equal(Errno.None, Libc.SetMountAttributes(clone.Value, set, clear));
        return clone;
    }

    [Fact]
    public void What_is_not_a_mount_cannot_be_changed_as_one()
    {
        Needs.Root();
        Assert.Equal(Errno.EBADF, Libc.CloneMount(-1, out int descriptor));
        Assert.Equal(-1, descriptor);
        Assert.True(Libc.SetMountAttributes(-1, MountAttributes.ReadOnly, MountAttributes.None).IsError);
    }
}
