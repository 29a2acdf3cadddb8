namespace Veneer.Mount.Tests;

/// <summary>With sync_on_unmount the upper is synced at the end, and its mark goes.</summary>
[Collection<Alone>] // a copy of the disk's mount in another test's namespace would keep the filesystem mounted
public sealed class VolatileSyncOnUnmountTests
{
    private const string OnlyVeneer = "Nobody else has this.";

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(FailingDisk.Filesystems), MemberType = typeof(FailingDisk))]
    public void Sync_on_unmount_leaves_no_mark(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("volatile,sync_on_unmount");
        Sys.Write(disk.Merged / "new", new byte[1 << 20]);
        Assert.True(disk.DirtyMark.Exists);
        Assert.EndsWith("can be reused    with any options, the unmount syncs it", FailingDisk.Veneer("status", disk.Merged).Output.Trim(),
            StringComparison.Ordinal);

        disk.Unmount();

        Assert.False(disk.DirtyMark.Exists);
        Assert.False(FailingDisk.IsDirty(disk.Upper / "new"));
        disk.Mount("fsync=auto");
        disk.Unmount();
    }

    /// <summary>In a user namespace nobody may open the files of a user who has no number there.</summary>
    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void What_a_sync_on_unmount_may_not_open_is_not_lost()
    {
        using var disk = new FailingDisk(Filesystem.Ext4);
        Sys.Write(disk.Upper / "closed", "closed");
        Command.Require("chown", "1000:1000", disk.Upper / "closed");
        Command.Require("chmod", "000", disk.Upper / "closed");
        Command.Result inside = FailingDisk.InUserNamespace(
            $"{Mounter.Binary} mount -o {disk.Layers},userxattr,volatile,sync_on_unmount {disk.Merged}; "
            + $"echo new > {disk.Merged}/new; {Mounter.Binary} umount {disk.Merged}");
        Assert.True(inside.ExitCode == 0, inside.Text);
        Assert.True(disk.DirtyMark.Exists);

        Command.Result synced = FailingDisk.Veneer("sync", disk.Upper);

        Assert.True(synced.ExitCode == 0, synced.Text);
        Assert.False(disk.DirtyMark.Exists);
        disk.Mount("userxattr");
        Assert.Equal("new\n", Sys.ReadText(disk.Merged / "new"));
        disk.Unmount();
    }

    /// <summary>
    /// The crash keeps what is on the disk at that moment, and the boot id is another. No fsync can be asked for the owner of a
    /// symbolic link.
    /// </summary>
    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(Filesystem.Ext4, "sync")]
    [InlineData(Filesystem.Xfs, "sync")]
    [InlineData(Filesystem.Btrfs, "sync")]
    [InlineData(Filesystem.Ext4, "sync_on_unmount")]
    [InlineData(Filesystem.Btrfs, "sync_on_unmount")]
    public void What_was_synced_survives_a_crash_and_the_mark_does_not(Filesystem filesystem, string how)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("volatile");
        Sys.MakeDirectory(disk.Merged / "dir");
        Sys.SymbolicLink("target", disk.Merged / "dir/link");
        Command.Require("sync", "-f", disk.Disk);
        Sys.Write(disk.Merged / "dir/large", new string('x', 3 << 20));
        Sys.Unlink(disk.Merged / "file");
        Command.Require("chown", "-h", "1000:1000", disk.Merged / "dir/link");
        if (how == "sync")
        {
            disk.Unmount();
            Command.Result synced = FailingDisk.Veneer("sync", disk.Upper);
            Assert.True(synced.ExitCode == 0, synced.Text);
        }
        else
        {
            disk.Unmount();
            disk.Mount("volatile,sync_on_unmount");
            disk.Unmount();
        }

        disk.Crash();

        Assert.False(disk.DirtyMark.Exists);
        disk.Mount("fsync=auto");
        Assert.Equal(new string('x', 3 << 20), Sys.ReadText(disk.Merged / "dir/large"));
        Assert.Equal(1000u, Sys.Stat(disk.Merged / "dir/link").Uid);
        Assert.False((disk.Merged / "file").Exists);
        disk.Unmount();
    }

    /// <summary>On a filesystem that is frozen the mark cannot be removed, so that it takes long.</summary>
    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void An_umount_waits_for_the_sync_and_says_so()
    {
        using var disk = new FailingDisk(Filesystem.Ext4);
        disk.Mount("volatile,sync_on_unmount");
        Sys.Write(disk.Merged / "new", "new");
        Command.Require("fsfreeze", "-f", disk.Disk);
        Command.Result? unmounted = null;
        var unmounting = new Thread(() => unmounted = FailingDisk.Veneer("umount", disk.Merged));
        try
        {
            unmounting.Start();
            Assert.False(unmounting.Join(4000));
        }
        finally
        {
            Command.Require("fsfreeze", "-u", disk.Disk);
            unmounting.Join();
        }

        Assert.Equal(0, unmounted!.ExitCode);
        Assert.Matches(
            @"^veneer: \S+ is unmounted, and its server \(process \d+\) brings the upper to the disk, as sync_on_unmount asks: "
            + @"this takes as long as that does\.$",
            unmounted.Error.Trim());
        Assert.False(disk.DirtyMark.Exists);
    }
}
