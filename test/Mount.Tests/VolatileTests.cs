namespace Veneer.Mount.Tests;

/// <summary>What cannot be written back is never passed over in silence, and a volatile upper is used again only when all is there.</summary>
[Collection<Alone>] // a copy of the disk's mount in another test's namespace would keep the filesystem mounted
public sealed class VolatileTests
{
    private const string OnlyVeneer = "Nobody else has this.";

    private static readonly Filesystem[] Kinds = [Filesystem.Ext4, Filesystem.Xfs, Filesystem.Btrfs];

    public static TheoryData<Filesystem> Filesystems => [.. Kinds];

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
        using (Descriptor directory = Sys.Open(disk.Merged, OpenFlags.ReadOnly | OpenFlags.Directory)) { Assert.Equal(Errno.EIO, Libc.Sync(directory.Value, dataOnly: true)); }
        Assert.Equal("lower", Sys.ReadText(disk.Merged / "file"));
        disk.Unmount();
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Filesystems))]
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
    [MemberData(nameof(Filesystems))]
    public void An_error_before_the_mount_that_nobody_knows_of_forbids_volatile(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.FailToWrite();

        Command.Result refused = disk.TryMount("volatile");

        Assert.Equal(32, refused.ExitCode);
        Assert.Equal($"veneer: Writing to the filesystem of the upper directory {disk.Upper} has failed, and nobody has been told of it yet: run sync -f {disk.Upper} and see what is lost before you mount it with volatile.", refused.Error.Trim());
        Assert.False(disk.DirtyMark.Exists);
        Assert.False(disk.Record.Exists);

        disk.SomebodyElseSyncs();
        disk.Mount("volatile");
        Assert.Equal(Errno.None, disk.SyncOf("new"));
        disk.Unmount();
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Filesystems))]
    public void An_error_before_the_mount_is_no_matter_to_others(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.FailToWrite();

        disk.Mount("fsync=auto");

        Assert.Equal(Errno.None, disk.SyncOf("new"));
        disk.Unmount();
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(Filesystem.Ext4)]
    [InlineData(Filesystem.Xfs)]
    [InlineData(Filesystem.Btrfs)]
    public void A_volatile_upper_can_be_mounted_volatile_again(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("volatile");
        Sys.Write(disk.Merged / "one", "1");
        disk.Unmount();
        Assert.True(disk.DirtyMark.Exists);

        disk.Mount("fsync=0");
        Assert.True(disk.DirtyMark.Exists);
        Sys.Write(disk.Merged / "two", "2");
        disk.KillServer();
        disk.Mount("fsync=volatile");

        Assert.Equal("12", Sys.ReadText(disk.Merged / "one") + Sys.ReadText(disk.Merged / "two"));
        disk.Unmount();
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Filesystems))]
    public void The_record_survives_callers_who_remove_the_kernels_mark(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("volatile");
        disk.Unmount();
        Sys.RemoveTree(disk.Work / "work/incompat/volatile");

        Assert.Contains("has not been synced", disk.TryMount("fsync=auto").Error, StringComparison.Ordinal);
        disk.Mount("volatile");

        Assert.True(disk.DirtyMark.Exists);
        disk.Unmount();
        Sys.RemoveTree(disk.Work / "work");
        disk.Reboot();
        Assert.Contains("the machine has been started anew", disk.TryMount("volatile").Error, StringComparison.Ordinal);
    }

    private static readonly (string What, string Reason)[] doubts =
    [
        ("error between", "writing to its filesystem failed"),
        ("error between, that somebody else was told of", "writing to its filesystem failed"),
        ("error while mounted", "writing to its filesystem failed (ENOSPC)"),
        ("error after the server was killed", "writing to its filesystem failed"),
        ("reboot", "the machine has been started anew"),
        ("filesystem remounted", "its filesystem has been mounted anew"),
        ("copied", "the record in it is that of another directory, so that it is a copy"),
        ("damaged record", "its record is damaged"),
        ("record of another version", "its record is of another version of Veneer"),
        ("no record", "there is no record by which that could be told, as after kernel overlayfs"),
    ];

    public static TheoryData<string, string, Filesystem> Doubts
    {
        get
        {
            var data = new TheoryData<string, string, Filesystem>();
            foreach ((string what, string reason) in doubts)
            {
                foreach (Filesystem filesystem in Kinds) { data.Add(what, reason, filesystem); }
            }
            return data;
        }
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Doubts))]
    public void A_volatile_upper_that_may_lack_something_is_refused(string what, string reason, Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("volatile,errors=continue");
        Sys.Write(disk.Merged / "new", "new");
        if (what == "error while mounted") { disk.FailToWrite(); }
        if (what == "error after the server was killed") { disk.KillServer(); } else { disk.Unmount(); }
        switch (what)
        {
            case "error between" or "error after the server was killed":
                disk.FailToWrite();
                break;
            case "error between, that somebody else was told of":
                disk.FailToWrite();
                disk.SomebodyElseSyncs();
                break;
            case "reboot":
                disk.Reboot();
                break;
            case "filesystem remounted":
                disk.RemountDisk();
                break;
            case "copied":
                Sys.Rename(disk.Upper, disk.Disk / "old");
                Command.Require("cp", "-a", disk.Disk / "old", disk.Upper);
                break;
            case "damaged record":
                Sys.Write(disk.Record, Sys.ReadText(disk.Record)[..40]);
                break;
            case "record of another version":
                string record = Sys.ReadText(disk.Record);
                Sys.SetXattr(disk.Upper, "trusted.overlay.volatile", record.Replace("veneer-volatile 1", "veneer-volatile 2", StringComparison.Ordinal));
                break;
            case "no record":
                Sys.Unlink(disk.Record);
                Sys.RemoveXattr(disk.Upper, "trusted.overlay.volatile");
                Sys.RemoveXattr(disk.Work / "work/incompat/volatile", "trusted.overlay.volatile");
                break;
        }

        foreach (string option in (string[])["volatile", "fsync=auto"])
        {
            Command.Result refused = disk.TryMount(option);

            Assert.Equal(32, refused.ExitCode);
            Assert.StartsWith($"veneer: The upper directory {disk.Upper} was last mounted with volatile and may lack what was written then, since {reason}: {(what == "record of another version" ? "run veneer sync of that version, or " : "")}discard it and {disk.Work}", refused.Error, StringComparison.Ordinal);
            Assert.Single(refused.Error.Trim().Split('\n'));
        }
        Command.Result notSynced = FailingDisk.Veneer(what == "no record" ? ["sync", "--work", disk.Work, disk.Upper] : ["sync", disk.Upper]);
        Assert.Equal(what switch { "damaged record" => 7, "record of another version" => 13, _ => 9 }, notSynced.ExitCode);
        Assert.StartsWith($"veneer: {disk.Upper} may lack what was written while it was volatile, since {reason}", notSynced.Error, StringComparison.Ordinal);
        Assert.True(disk.DirtyMark.Exists);
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(Filesystem.Ext4)]
    public void A_pipe_in_the_place_of_the_record_is_not_waited_for(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("volatile");
        disk.Unmount();
        Sys.Unlink(disk.Record);
        Sys.MakeNode(disk.Record, FileType.Fifo, Oct(600));

        foreach (string option in (string[])["volatile", "fsync=auto"])
        {
            Command.Result refused = disk.TryMount(option);
            Assert.Equal(32, refused.ExitCode);
            Assert.Contains("since its record is damaged", refused.Error, StringComparison.Ordinal);
        }
        Assert.Equal(7, FailingDisk.Veneer("sync", disk.Upper).ExitCode);
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(Filesystem.Ext4)]
    public void A_pipe_where_the_record_is_prepared_is_not_waited_for(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        Sys.MakeNode(disk.Work / "veneer-volatile.new", FileType.Fifo, Oct(600));

        disk.Mount("volatile");

        Assert.True(disk.Record.Exists);
        disk.Unmount();
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Filesystems))]
    public void Kernel_overlayfs_refuses_a_volatile_upper(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("volatile");
        disk.Unmount();

        Command.Result refused = Command.Run(["mount", "-t", "overlay", "overlay", "-o", $"lowerdir={disk.Disk},upperdir={disk.Upper},workdir={disk.Work}", disk.Merged]);

        Assert.NotEqual(0, refused.ExitCode);
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
    [MemberData(nameof(Filesystems))]
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

    /// <summary>A map of a passed-through file is one of the real file: msync(2) goes there, as with kernel overlayfs, and tells the error of that file.</summary>
    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Filesystems))]
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

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(Filesystem.Ext4)]
    [InlineData(Filesystem.Xfs)]
    [InlineData(Filesystem.Btrfs)]
    public void After_a_sync_a_volatile_upper_is_like_any_other(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("volatile");
        Sys.MakeDirectory(disk.Merged / "dir");
        Sys.Write(disk.Merged / "dir/large", new byte[3 << 20]);
        Sys.Write(disk.Merged / "file", "copied up");
        Sys.Write(disk.Disk / "unrelated", new byte[1 << 20]);
        disk.Unmount();

        Command.Result synced = FailingDisk.Veneer("sync", disk.Upper);

        Assert.Equal((0, "4 files and directories synced\n"), (synced.ExitCode, synced.Output.TrimEnd() + "\n"));
        foreach ((FilePath path, bool isDirty) in (ReadOnlySpan<(FilePath, bool)>)[(disk.Upper / "dir/large", false), (disk.Upper / "file", false), (disk.Disk / "unrelated", true)])
        {
            using Descriptor file = Sys.Open(path, OpenFlags.ReadOnly);
            Assert.Equal((path.Text, isDirty), (path.Text, Libc.IsDirty(file.Value, 0, 0)));
        }
        Assert.False(disk.DirtyMark.Exists);
        Assert.False(disk.Record.Exists);
        Assert.False(Sys.HasXattr(disk.Upper, "trusted.overlay.volatile"));
        disk.Mount("fsync=auto");
        Assert.Equal("copied up", Sys.ReadText(disk.Merged / "file"));
        disk.Unmount();
        Command.Require("mount", "-t", "overlay", "overlay", "-o", $"lowerdir={disk.Merged.Parent / "lower"},upperdir={disk.Upper},workdir={disk.Work}", disk.Merged);
        Command.Require("umount", disk.Merged);
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Filesystems))]
    public void A_mounted_upper_is_synced_and_stays_volatile(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("volatile");
        Sys.Write(disk.Merged / "new", new byte[1 << 20]);

        foreach (FilePath place in (FilePath[])[disk.Merged, disk.Upper])
        {
            Command.Result synced = FailingDisk.Veneer("sync", place);
            Assert.True(synced.ExitCode == 0, synced.Text);
            Assert.StartsWith("2 files and directories synced", synced.Output, StringComparison.Ordinal);
            Assert.Contains("stays volatile while it is mounted", synced.Output, StringComparison.Ordinal);
            Assert.True(disk.DirtyMark.Exists);
        }

        using (Descriptor real = Sys.Open(disk.Upper / "new", OpenFlags.ReadOnly)) { Assert.False(Libc.IsDirty(real.Value, 0, 0)); }
        disk.Unmount();
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void What_a_failed_write_has_lost_no_sync_brings_back()
    {
        using var disk = new FailingDisk(Filesystem.Ext4);
        disk.Mount("volatile,errors=continue");
        Sys.Write(disk.Merged / "good", "good");
        Sys.Write(disk.Merged / "bad", "bad");
        using (Descriptor keeps = Sys.Open(disk.Upper / "bad", OpenFlags.ReadOnly))
        {
            disk.FailToWrite(disk.Upper / "bad");

            Command.Result mounted = FailingDisk.Veneer("sync", disk.Merged);

            Assert.Equal(9, mounted.ExitCode);
            disk.Unmount();
        }
        Command.Result refused = FailingDisk.Veneer("sync", disk.Upper);
        Assert.Equal(9, refused.ExitCode);
        Assert.Equal($"veneer: {disk.Upper} may lack what was written while it was volatile, since writing to its filesystem failed (ENOSPC), and a sync does not bring that back: discard it and its work directory.", refused.Error.Trim());
        Assert.True(disk.DirtyMark.Exists);
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_slow_sync_takes_its_time_and_the_overlay_goes_on()
    {
        using var disk = new FailingDisk(Filesystem.Ext4);
        disk.Mount("volatile");
        for (int i = 0; i < 20; i++) { Sys.Write(disk.Merged / $"file{i}", "x"); }
        var clock = System.Diagnostics.Stopwatch.StartNew();
        Command.Result? synced = null;
        var syncing = new Thread(() => synced = FailingDisk.Veneer("sync", "--iops", "20", disk.Merged));
        syncing.Start();

        int made = 0;
        while (syncing.IsAlive)
        {
            Sys.MakeDirectory(disk.Merged / $"dir{made++}");
            Thread.Sleep(20);
        }

        Assert.True(synced!.ExitCode == 0, synced.Text);
        Assert.InRange(clock.Elapsed.TotalSeconds, 0.9, 10);
        Assert.InRange(made, 10, 1000);
        var other = new Thread(() => FailingDisk.Veneer("sync", "--iops", "20", disk.Merged));
        other.Start();
        Patience.Eventually(() => Assert.Contains("\"over\":false", FailingDisk.Veneer("status", "--json", disk.Merged).Output, StringComparison.Ordinal));
        Command.Result second = FailingDisk.Veneer("sync", disk.Merged);
        Assert.Equal((32, $"veneer: {disk.Merged} is being synced already: wait for the end of that, see veneer status."), (second.ExitCode, second.Error.Trim()));
        disk.Unmount(); // which does not wait for it
        other.Join();
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData("rename")]
    [InlineData("exchange")]
    [InlineData("link")]
    public void A_sync_reaches_what_is_moved_meanwhile(string change)
    {
        using var disk = new FailingDisk(Filesystem.Ext4);
        disk.Mount("volatile");
        for (int i = 0; i < 20; i++) { Sys.Write(disk.Merged / $"file{i}", "x"); }
        Sys.MakeDirectory(disk.Merged / "dir");
        Sys.Write(disk.Merged / "dir/moved", "content");
        Command.Result? synced = null;
        var syncing = new Thread(() => synced = FailingDisk.Veneer("sync", "--iops", "20", disk.Merged));
        syncing.Start();
        Patience.Eventually(() => Assert.Matches("\"done\":[1-9]", FailingDisk.Veneer("status", "--json", disk.Merged).Output));

        // The files of the root come first, so that it has been listed, and the directory has not.
        switch (change)
        {
            case "exchange":
                Sys.Rename(disk.Merged / "dir/moved", disk.Merged / "file0", RenameFlags.Exchange);
                break;
            case "link":
                Sys.Link(disk.Merged / "dir/moved", disk.Merged / "file0.new");
                Sys.Unlink(disk.Merged / "dir/moved");
                break;
            default:
                Sys.Rename(disk.Merged / "dir", disk.Merged / "other");
                break;
        }
        Assert.True(syncing.IsAlive);
        syncing.Join();

        Assert.True(synced!.ExitCode == 0, synced.Text);
        FilePath place = disk.Upper / (change switch { "exchange" => "file0", "link" => "file0.new", _ => "other/moved" });
        Assert.Equal("content", Sys.ReadText(place));
        using Descriptor real = Sys.Open(place, OpenFlags.ReadOnly);
        Assert.False(Libc.IsDirty(real.Value, 0, 0));
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Filesystems))]
    public void Sync_on_unmount_leaves_no_mark(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("volatile,sync_on_unmount");
        Sys.Write(disk.Merged / "new", new byte[1 << 20]);
        Assert.True(disk.DirtyMark.Exists);
        Assert.EndsWith("can be reused    with any options, the unmount syncs it", FailingDisk.Veneer("status", disk.Merged).Output.Trim(), StringComparison.Ordinal);

        disk.Unmount();

        Assert.False(disk.DirtyMark.Exists);
        using (Descriptor real = Sys.Open(disk.Upper / "new", OpenFlags.ReadOnly)) { Assert.False(Libc.IsDirty(real.Value, 0, 0)); }
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
        Command.Result inside = Command.Run([
            "unshare", "--user", "--map-root-user", "--mount", "--propagation", "private", "sh", "-ec",
            $"{Mounter.Binary} mount -o lowerdir={disk.Lower},upperdir={disk.Upper},workdir={disk.Work},userxattr,volatile,sync_on_unmount {disk.Merged}; echo new > {disk.Merged}/new; {Mounter.Binary} umount {disk.Merged}"]);
        Assert.True(inside.ExitCode == 0, inside.Text);
        Assert.True(disk.DirtyMark.Exists);

        Command.Result synced = FailingDisk.Veneer("sync", disk.Upper);

        Assert.True(synced.ExitCode == 0, synced.Text);
        Assert.False(disk.DirtyMark.Exists);
        disk.Mount("userxattr");
        Assert.Equal("new\n", Sys.ReadText(disk.Merged / "new"));
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
            + "can be reused    with volatile, until the filesystem is mounted anew; otherwise after veneer sync", good.Output.Trim(), StringComparison.Ordinal);

        disk.FailToWrite();

        Command.Result bad = FailingDisk.Veneer("status", "--json", disk.Merged);
        Assert.Contains("\"failure\":\"ENOSPC\",\"reusable\":false", bad.Output, StringComparison.Ordinal);
        Assert.Equal(3, FailingDisk.Veneer("status", "/proc").ExitCode);
        disk.Unmount();
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData("passthrough=auto")]
    [InlineData("passthrough=off")]
    public void No_sync_of_a_volatile_overlay_writes_anything(string passthrough)
    {
        using var disk = new FailingDisk(Filesystem.Ext4);
        disk.Mount($"volatile,{passthrough}");
        using Descriptor file = Sys.Open(disk.Merged / "new", OpenFlags.ReadWrite | OpenFlags.Create, Oct(600));
        file.WriteAt("buffered", 0);
        using (Descriptor synchronous = Sys.Open(disk.Merged / "new", OpenFlags.WriteOnly | OpenFlags.Sync)) { synchronous.WriteAt("synced", 4096); }

        Assert.Equal(Errno.None, Libc.Sync(file.Value, dataOnly: false));
        Assert.Equal(Errno.None, Libc.Sync(file.Value, dataOnly: true));
        Assert.Equal(Errno.None, Libc.SyncRange(file.Value, 0, 0));
        using (Descriptor directory = Sys.Open(disk.Merged, OpenFlags.ReadOnly | OpenFlags.Directory)) { Assert.Equal(Errno.None, Libc.Sync(directory.Value, dataOnly: false)); }
        Command.Require("sync", "-f", disk.Merged);

        using (Descriptor real = Sys.Open(disk.Upper / "new", OpenFlags.ReadOnly))
        {
            Assert.True(Libc.IsDirty(real.Value, 0, 4096));
            Assert.True(Libc.IsDirty(real.Value, 4096, 4096));
        }
        file.Dispose();
        disk.Unmount();
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Filesystems))]
    public void A_sync_names_each_file_that_it_cannot_write(Filesystem filesystem)
    {
        foreach (bool isMounted in (bool[])[true, false])
        {
            using var disk = new FailingDisk(filesystem);
            disk.Mount("volatile,errors=continue");
            Sys.Write(disk.Merged / "good", "good");
            Command.Require("sync", "-f", disk.Disk);
            FilePath bad = disk.Merged / [(byte)'b', (byte)'a', (byte)'d', 0xFF];
            byte[] data = new byte[3 << 20];
            Random.Shared.NextBytes(data);
            Sys.Write(bad, data);
            if (!isMounted) { disk.Unmount(); }
            using (disk.Fill())
            {
                Command.Result failed = FailingDisk.Veneer("sync", isMounted ? disk.Merged : disk.Upper);

                Assert.Equal(9, failed.ExitCode);
                Assert.Contains("veneer: bad\\xff cannot be synced (ENOSPC)\n", failed.Error, StringComparison.Ordinal);
                Assert.DoesNotContain("good", failed.Error, StringComparison.Ordinal);
                Assert.DoesNotContain("synced", failed.Output, StringComparison.Ordinal);
                if (isMounted) { Assert.Contains("\"path\":\"bad\\uFFFD\",\"path_base64\":\"YmFk/w==\",\"error\":\"ENOSPC\"", FailingDisk.Veneer("status", "--json", disk.Merged).Output, StringComparison.Ordinal); }
            }
            if (isMounted) { disk.Unmount(); }
            disk.RemountDisk(); // a btrfs that has given up may not even find what it has
            Assert.True(disk.DirtyMark.Exists);
            Assert.Equal(32, disk.TryMount("volatile").ExitCode);
        }
    }

    /// <summary>The disk as it is at that moment, with another start of the machine. The owner of a symbolic link is what no fsync names.</summary>
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

    /// <summary>The content of a file that was there before can reach the disk without the filesystem's journal.</summary>
    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Filesystems))]
    public void After_a_crash_the_mark_is_there_before_anything_that_was_written(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("fsync=auto");
        Sys.Write(disk.Merged / "old", new string('a', 1 << 20));
        disk.Unmount();
        Command.Require("sync", "-f", disk.Disk);
        disk.Mount("volatile");
        using (Descriptor file = Sys.Open(disk.Merged / "old", OpenFlags.WriteOnly)) { file.WriteAt(new string('b', 4096), 0); }
        using (Descriptor real = Sys.Open(disk.Upper / "old", OpenFlags.ReadWrite)) { Assert.Equal(Errno.None, Libc.SyncRange(real.Value, 0, 0)); }

        disk.Crash();

        if (filesystem != Filesystem.Btrfs) { Assert.Equal("b", Sys.ReadText(disk.Upper / "old")[..1]); } // which writes elsewhere
        Assert.True(disk.DirtyMark.Exists);
        foreach (string option in (string[])["volatile", "fsync=auto"]) { Assert.Contains("may lack what was written then", disk.TryMount(option).Error, StringComparison.Ordinal); }
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(Filesystem.Ext4)]
    [InlineData(Filesystem.Xfs)]
    public void A_failure_is_noted_down_also_where_there_is_no_room(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        FilePath target = disk.Disk / "unrelated";
        using (Descriptor file = Sys.Open(target, OpenFlags.WriteOnly | OpenFlags.Create, Oct(600))) { file.Allocate(AllocateMode.Default, 0, 4 << 20); }
        disk.Mount("volatile,errors=continue");
        using (Descriptor filler = Sys.Open(disk.Disk / "filler", OpenFlags.WriteOnly | OpenFlags.Create, Oct(600)))
        {
            foreach (int size in (int[])[1 << 20, 4096])
            {
                for (long at = (long)filler.Stat().Size; Sys.ErrorOf(() => filler.Allocate(AllocateMode.Default, at, size)) == Errno.None; at += size) { }
            }
        }
        Command.Require("sync", "-f", disk.Disk);
        disk.FailToWrite(target);

        Patience.Eventually(() => Assert.Contains("\"failure\":\"", FailingDisk.Veneer("status", "--json", disk.Merged).Output, StringComparison.Ordinal));
        disk.Unmount();

        string[] records = [Sys.ReadText(disk.Record), Sys.GetXattrText(disk.Upper, "trusted.overlay.volatile"), Sys.GetXattrText(disk.DirtyMark.Parent, "trusted.overlay.volatile")];
        Assert.Contains(records, record => record.Contains("\nfailure E", StringComparison.Ordinal));
        Sys.Unlink(disk.Disk / "filler");
        Assert.Contains("writing to its filesystem failed (E", disk.TryMount("volatile").Error, StringComparison.Ordinal);
    }

    /// <summary>As when a server is killed while it lays the mark down or takes it away.</summary>
    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData("file")]
    [InlineData("upper")]
    [InlineData("volatile")]
    [InlineData("file", "upper")]
    [InlineData("dirty", "file")]
    public void What_is_left_of_a_mark_still_asks_for_a_sync(params string[] left)
    {
        using var disk = new FailingDisk(Filesystem.Ext4);
        disk.Mount("volatile");
        Sys.Write(disk.Merged / "new", "new");
        disk.KillServer();
        if (!left.Contains("file")) { Sys.Unlink(disk.Record); }
        if (!left.Contains("upper")) { Sys.RemoveXattr(disk.Upper, "trusted.overlay.volatile"); }
        if (!left.Contains("dirty")) { Sys.Unlink(disk.DirtyMark); }
        if (!left.Contains("volatile"))
        {
            Sys.RemoveXattr(disk.DirtyMark.Parent, "trusted.overlay.volatile");
            if (!left.Contains("dirty")) { Sys.RemoveTree(disk.DirtyMark.Parent.Parent); }
        }

        Assert.Contains("has not been synced", disk.TryMount("fsync=auto").Error, StringComparison.Ordinal);
        disk.Mount("volatile");
        Assert.Equal("new", Sys.ReadText(disk.Merged / "new"));
        Assert.True(disk.DirtyMark.Exists);
        disk.Unmount();
        Assert.Equal(0, FailingDisk.Veneer("sync", disk.Upper).ExitCode);
        disk.Mount("fsync=auto");
        disk.Unmount();
    }

    /// <summary>In a user namespace nobody has CAP_BPF, so that the error sequence of the past cannot be compared.</summary>
    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Without_the_privilege_to_know_a_volatile_upper_is_used_again_after_a_sync()
    {
        using var disk = new FailingDisk(Filesystem.Ext4);
        string[] inside = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private", "sh", "-ec"];
        string mount = $"{Mounter.Binary} mount -o lowerdir={disk.Lower},upperdir={disk.Upper},workdir={disk.Work},userxattr,volatile";
        Command.Result first = Command.Run([.. inside, $"{mount} {disk.Merged}; echo new > {disk.Merged}/new; {Mounter.Binary} status {disk.Merged}; umount {disk.Merged}"]);
        Assert.True(first.ExitCode == 0, first.Text);
        Assert.Contains("can be reused    after veneer sync", first.Output, StringComparison.Ordinal);

        Command.Result refused = Command.Run([.. inside, $"{mount} {disk.Merged}"]);

        Assert.Equal(32, refused.ExitCode);
        Assert.Contains("whether writing to its filesystem failed cannot be told without CAP_BPF and CAP_PERFMON: run veneer sync", refused.Error, StringComparison.Ordinal);
        Command.Result again = Command.Run([.. inside, $"{Mounter.Binary} sync {disk.Upper}; {mount} {disk.Merged}; cat {disk.Merged}/new"]);
        Assert.True(again.ExitCode == 0, again.Text);
        Assert.EndsWith("\nnew", again.Output.TrimEnd(), StringComparison.Ordinal);
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_tree_to_sync_may_be_deeper_than_the_number_of_descriptors()
    {
        const int depth = 3000;
        FilePath upper = Scratch.New();
        int directory = OpenDirectory(Libc.AtCwd, upper.Bytes);
        for (int i = 0; i < depth; i++)
        {
            Assert.Equal(Errno.None, Libc.MakeDirectoryAt(directory, "d\0"u8, Oct(755)));
            int next = OpenDirectory(directory, "d\0"u8);
            Libc.Close(directory);
            directory = next;
        }
        Assert.Equal(Errno.None, Libc.MakeNodeAt(directory, "file\0"u8, FileType.Regular | Oct(644), 0));
        Libc.Close(directory);
        try
        {
            Command.Result synced = Command.Run(["sh", "-c", $"ulimit -n 200; exec {Mounter.Binary} sync {upper}"]);

            Assert.Equal((0, $"{depth + 2} files and directories synced", $"veneer: {upper} has no mark of a volatile upper, so none was removed: if that is a mount point, name the upper."), (synced.ExitCode, synced.Output.Trim(), synced.Error.Trim()));
        }
        finally
        {
            Command.Require("rm", "-rf", upper);
        }
    }

    private static int OpenDirectory(int directory, ReadOnlySpan<byte> name)
    {
        Assert.Equal(Errno.None, Libc.OpenAt(directory, name, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int descriptor));
        return descriptor;
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
        Assert.Matches(@"^veneer: \S+ is unmounted, and its server \(process \d+\) brings the upper to the disk, as sync_on_unmount asks: this takes as long as that does\.$", unmounted.Error.Trim());
        Assert.False(disk.DirtyMark.Exists);
    }

    /// <summary>Of a failure somebody else may have been told, so that no fsync of the sync gives it.</summary>
    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(true)]
    [InlineData(false)]
    public void What_fails_during_a_sync_of_an_upper_is_found(bool isMounted)
    {
        using var disk = new FailingDisk(Filesystem.Ext4);
        disk.Mount("volatile,errors=continue");
        for (int i = 0; i < 40; i++) { Sys.Write(disk.Merged / $"file{i}", "x"); }
        Command.Require("sync", "-f", disk.Disk);
        if (!isMounted) { disk.Unmount(); }
        Command.Result? synced = null;
        var syncing = new Thread(() => synced = FailingDisk.Veneer("sync", "--iops", "10", disk.Upper));
        syncing.Start();
        Thread.Sleep(1000); // it takes four seconds

        disk.FailToWrite();
        syncing.Join();

        Assert.Equal(9, synced!.ExitCode);
        Assert.True(synced.Error.Contains("writing to its filesystem failed", StringComparison.Ordinal), synced.Error);
        if (isMounted) { disk.Unmount(); }
        Assert.True(disk.DirtyMark.Exists);
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_sync_shows_on_a_terminal_how_far_it_is()
    {
        using var disk = new FailingDisk(Filesystem.Ext4);
        disk.Mount("volatile");
        for (int i = 0; i < 10; i++) { Sys.Write(disk.Merged / $"file{i}", "x"); }
        disk.Unmount();

        Command.Result synced = Command.Run(["script", "-qec", $"{Mounter.Binary} sync --iops 10 {disk.Upper}", "/dev/null"], environment: new Dictionary<string, string>(StringComparer.Ordinal) { ["TERM"] = "xterm" });

        Assert.True(synced.ExitCode == 0, synced.Text);
        Assert.Contains("Syncing", synced.Output, StringComparison.Ordinal);
        Assert.Matches("[1-9][0-9]%", synced.Output);
        Assert.Contains("11 files and directories synced", synced.Output, StringComparison.Ordinal);
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void What_cannot_be_synced_is_refused_in_a_sentence()
    {
        using var disk = new FailingDisk(Filesystem.Ext4);
        foreach ((string[] words, int code, string sentence) in (ReadOnlySpan<(string[], int, string)>)[
            (["sync"], 1, "Nothing is named: name a mount point, or an upper directory."),
            (["sync", "a", "b"], 1, "b is one word too many: name one mount point, or one upper directory."),
            (["sync", "--iops", "0", disk.Upper], 1, "--iops 0 is not understood: give a number of operations a second, from 1."),
            (["sync", "--iops", "many", disk.Upper], 1, "--iops many is not understood: give a number of operations a second, from 1."),
            (["sync", "/nothing"], 11, "/nothing does not exist: name a mount point, or an upper directory."),
            (["sync", "/etc/passwd"], 11, "/etc/passwd is not a directory: name a mount point, or an upper directory."),
            (["sync", "--work", "/nothing", disk.Upper], 11, "The work directory /nothing cannot be opened (ENOENT): see whether it is there."),
            (["status"], 1, "No mount point is given: name the one to look at."),
            (["status", "/nothing"], 11, "/nothing does not exist: name a mount point."),
            (["status", "/proc"], 3, "/proc is not in a mount of Veneer, but in one of type proc: name the mount point of one, see findmnt -t fuse.veneer.")])
        {
            Command.Result refused = FailingDisk.Veneer(words);
            Assert.Equal((code, $"veneer: {sentence}"), (refused.ExitCode, refused.Error.Trim()));
        }
        Command.Result unmarked = FailingDisk.Veneer("sync", disk.Merged);
        Assert.Equal((0, "1 file or directory synced", $"veneer: {disk.Merged} has no mark of a volatile upper, so none was removed: if that is a mount point, name the upper."), (unmarked.ExitCode, unmarked.Output.Trim(), unmarked.Error.Trim()));
        Command.Result without = FailingDisk.Veneer("mount", "-o", $"lowerdir={disk.Lower}", disk.Merged);
        Assert.True(without.ExitCode == 0, without.Text);
        Command.Result nothing = FailingDisk.Veneer("sync", disk.Merged);
        Assert.Equal((32, $"veneer: {disk.Merged} has no upper: there is nothing to sync."), (nothing.ExitCode, nothing.Error.Trim()));
        disk.Unmount();
        Command.Require("mount", "-t", "overlay", "overlay", "-o", $"lowerdir={disk.Lower}:{disk.Upper}", disk.Merged);
        Command.Result kernel = FailingDisk.Veneer("sync", disk.Merged);
        Assert.Equal((3, $"veneer: {disk.Merged} is an overlay of the kernel, which is not asked to sync: name its upper directory, see veneer layers {disk.Merged}."), (kernel.ExitCode, kernel.Error.Trim()));
        Command.Require("umount", disk.Merged);
        disk.Mount("volatile");
        disk.Unmount();
        Sys.Rename(disk.Work, disk.Disk / "elsewhere");
        Assert.Equal($"veneer: The work directory of {disk.Upper} is not where it was (../work from there): name it with --work DIR.", FailingDisk.Veneer("sync", disk.Upper).Error.Trim());
        Assert.Equal(0, FailingDisk.Veneer("sync", "--work", disk.Disk / "elsewhere", disk.Upper).ExitCode);
    }
}
