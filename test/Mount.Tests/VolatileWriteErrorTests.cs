namespace Veneer.Mount.Tests;

/// <summary>What cannot be written back is never passed over in silence.</summary>
[Collection<Alone>] // a copy of the disk's mount in another test's namespace would keep the filesystem mounted
public sealed class VolatileWriteErrorTests
{
    private const string OnlyVeneer = "Nobody else has this.";

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData("volatile", Filesystem.Ext4)]
    [InlineData("volatile", Filesystem.Xfs)]
    [InlineData("volatile", Filesystem.Btrfs)]
    [InlineData("fsync=auto", Filesystem.Ext4)]
    [InlineData("fsync=strict", Filesystem.Xfs)]
    [InlineData("fsync=1", Filesystem.Btrfs)]
    public void After_an_error_every_fsync_fails_for_good(string option, Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount($"{option},errors=continue");
        Assert.Equal(Errno.None, disk.SyncOf("new"));

        disk.FailToWrite();

        for (int i = 0; i < 3; i++)
        {
            Assert.Equal(Errno.EIO, disk.SyncOf("new"));
            Assert.Equal(Errno.EIO, disk.SyncOf("file", write: false));
        }
        using (Descriptor directory = Sys.Open(disk.Merged, OpenFlags.ReadOnly | OpenFlags.Directory))
        {
            Assert.Equal(Errno.EIO, Libc.Sync(directory.Value, dataOnly: true));
        }
        Assert.Equal("lower", Sys.ReadText(disk.Merged / "file"));
        disk.Unmount();
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(FailingDisk.Filesystems), MemberType = typeof(FailingDisk))]
    public void An_error_that_somebody_else_was_told_of_first_is_found_all_the_same(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("volatile,errors=continue");
        disk.FailToWrite();

        disk.SomebodyElseSyncs();

        Assert.Equal(Errno.EIO, disk.SyncOf("new"));
        Assert.Equal(Errno.EIO, disk.SyncOf("new"));
        disk.Unmount();
        Assert.Contains("writing to its filesystem failed (ENOSPC)", disk.TryMount("volatile").Error, StringComparison.Ordinal);
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(FailingDisk.Filesystems), MemberType = typeof(FailingDisk))]
    public void An_error_before_the_mount_that_nobody_knows_of_forbids_volatile(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.FailToWrite();

        Command.Result refused = disk.TryMount("volatile");

        Assert.Equal(32, refused.ExitCode);
        Assert.Equal(
            $"veneer: Writing to the filesystem of the upper directory {disk.Upper} has failed, and nobody has been told of it yet: "
            + $"run sync -f {disk.Upper} and see what is lost before you mount it with volatile.",
            refused.Error.Trim());
        Assert.False(disk.DirtyMark.Exists);
        Assert.False(disk.Record.Exists);

        disk.SomebodyElseSyncs();
        disk.Mount("volatile");
        Assert.Equal(Errno.None, disk.SyncOf("new"));
        disk.Unmount();
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(FailingDisk.Filesystems), MemberType = typeof(FailingDisk))]
    public void An_error_before_the_mount_is_no_matter_to_others(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.FailToWrite();

        disk.Mount("fsync=auto");

        Assert.Equal(Errno.None, disk.SyncOf("new"));
        disk.Unmount();
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData("volatile", Filesystem.Ext4)]
    [InlineData("volatile", Filesystem.Xfs)]
    [InlineData("volatile", Filesystem.Btrfs)]
    [InlineData("fsync=auto,errors=shutdown", Filesystem.Ext4)]
    public void An_error_shuts_the_overlay_down(string options, Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount(options);
        using Descriptor file = Sys.Open(disk.Merged / "new", OpenFlags.ReadWrite | OpenFlags.Create, Oct(600));
        file.WriteAt("new", 0);

        disk.FailToWrite();

        Patience.Eventually(() => Assert.Equal(Errno.EIO, Sys.ErrorOf(() => Sys.Stat(disk.Merged))));
        Assert.Equal(Errno.EIO, Sys.ErrorOf(() => Sys.Read(disk.Merged / "file")));
        Assert.Equal(Errno.EIO, Libc.ReadAt(file.Value, new byte[3], 0, out _));
        Assert.Equal(Errno.EIO, Libc.Sync(file.Value, dataOnly: false));
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(FailingDisk.Filesystems), MemberType = typeof(FailingDisk))]
    public void An_error_makes_the_overlay_read_only_when_asked(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("volatile,errors=remount-ro");
        Sys.Write(disk.Merged / "new", "new");

        disk.FailToWrite();

        Patience.Eventually(() => Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.MakeDirectory(disk.Merged / Guid.NewGuid().ToString()))));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Write(disk.Merged / "new", "again")));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Unlink(disk.Merged / "file")));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.ChangeMode(disk.Merged / "file", Oct(600))));
        Assert.Equal("new", Sys.ReadText(disk.Merged / "new"));
        disk.Unmount();
    }

    /// <summary>
    /// A map of a passed-through file maps the real file. msync(2) goes there, as with kernel overlayfs, and gives the error of
    /// the real file.
    /// </summary>
    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(FailingDisk.Filesystems), MemberType = typeof(FailingDisk))]
    public void Msync_of_a_shared_map_tells_of_its_own_error(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("volatile,errors=continue");
        using (Descriptor file = Sys.Open(disk.Merged / "new", OpenFlags.ReadWrite | OpenFlags.Create, Oct(600)))
        {
            file.Truncate(4096);
            using Map map = file.Map(4096, write: true);
            map.Write(0, "mapped");

            disk.FailToWrite(disk.Upper / "new");

            Assert.Equal(Errno.ENOSPC, Sys.ErrorOf(map.Sync));
            Assert.Equal(Errno.EIO, Libc.Sync(file.Value, dataOnly: false));
        }
        disk.Unmount();
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void The_status_says_how_it_stands()
    {
        using var disk = new FailingDisk(Filesystem.Ext4);
        disk.Mount("volatile,errors=continue");
        Command.Result good = FailingDisk.Veneer("status", disk.Merged);
        Assert.EndsWith( // before it may stand what the kernel does not offer
            "fsync            volatile\nfailed writes    none\nwhich are found  all of the upper's filesystem\nafter one        continue\n"
            + "can be reused    with volatile, until the filesystem is mounted anew; otherwise after veneer sync",
            good.Output.Trim(), StringComparison.Ordinal);

        disk.FailToWrite();

        Assert.Contains("\"failure\":\"ENOSPC\",\"reusable\":false", disk.Status(), StringComparison.Ordinal);
        Assert.Equal(3, FailingDisk.Veneer("status", "/proc").ExitCode);
        disk.Unmount();
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(Filesystem.Ext4)]
    [InlineData(Filesystem.Xfs)]
    public void A_failure_is_noted_down_also_where_there_is_no_room(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        FilePath target = disk.Disk / "unrelated";
        using (Descriptor file = Sys.Open(target, OpenFlags.WriteOnly | OpenFlags.Create, Oct(600)))
        {
            file.Allocate(AllocateMode.Default, 0, 4 << 20);
        }
        disk.Mount("volatile,errors=continue");
        using (Descriptor filler = Sys.Open(disk.Disk / "filler", OpenFlags.WriteOnly | OpenFlags.Create, Oct(600)))
        {
            foreach (int size in (int[])[1 << 20, 4096])
            {
                long at = (long)filler.Stat().Size;
                while (Sys.ErrorOf(() => filler.Allocate(AllocateMode.Default, at, size)) == Errno.None) { at += size; }
            }
        }
        Command.Require("sync", "-f", disk.Disk);
        disk.FailToWrite(target);

        Patience.Eventually(() => Assert.Contains("\"failure\":\"", disk.Status(), StringComparison.Ordinal));
        disk.Unmount();

        string[] records = [
            Sys.ReadText(disk.Record), Sys.GetXattrText(disk.Upper, "trusted.overlay.volatile"),
            Sys.GetXattrText(disk.DirtyMark.Parent, "trusted.overlay.volatile")];
        Assert.Contains(records, record => record.Contains("\nfailure E", StringComparison.Ordinal));
        Sys.Unlink(disk.Disk / "filler");
        Assert.Contains("writing to its filesystem failed (E", disk.TryMount("volatile").Error, StringComparison.Ordinal);
    }
}
