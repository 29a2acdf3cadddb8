namespace Veneer.Mount.Tests;

/// <summary>A volatile upper is used again only when nothing of what was written to it is missing.</summary>
[Collection<Alone>] // a copy of the disk's mount in another test's namespace would keep the filesystem mounted
public sealed class VolatileReuseTests
{
    private const string OnlyVeneer = "Nobody else has this.";

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
    [MemberData(nameof(FailingDisk.Filesystems), MemberType = typeof(FailingDisk))]
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
                foreach (Filesystem filesystem in FailingDisk.Kinds) { data.Add(what, reason, filesystem); }
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
                Sys.SetXattr(disk.Upper, "trusted.overlay.volatile",
                    record.Replace("veneer-volatile 1", "veneer-volatile 2", StringComparison.Ordinal));
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
            Assert.StartsWith(
                $"veneer: The upper directory {disk.Upper} was last mounted with volatile and may lack what was written then, "
                + $"since {reason}: {(what == "record of another version" ? "run veneer sync of that version, or " : "")}"
                + $"discard it and {disk.Work}",
                refused.Error, StringComparison.Ordinal);
            Assert.Single(refused.Error.Trim().Split('\n'));
        }
        Command.Result notSynced = FailingDisk.Veneer(
            what == "no record" ? ["sync", "--work", disk.Work, disk.Upper] : ["sync", disk.Upper]);
        Assert.Equal(what switch { "damaged record" => 7, "record of another version" => 13, _ => 9 }, notSynced.ExitCode);
        Assert.StartsWith($"veneer: {disk.Upper} may lack what was written while it was volatile, since {reason}", notSynced.Error,
            StringComparison.Ordinal);
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
    [MemberData(nameof(FailingDisk.Filesystems), MemberType = typeof(FailingDisk))]
    public void Kernel_overlayfs_refuses_a_volatile_upper(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("volatile");
        disk.Unmount();

        Command.Result refused = Command.Run(["mount", "-t", "overlay", "overlay", "-o",
            $"lowerdir={disk.Disk},upperdir={disk.Upper},workdir={disk.Work}", disk.Merged]);

        Assert.NotEqual(0, refused.ExitCode);
    }

    /// <summary>The content of a file that was there before can reach the disk without the filesystem's journal.</summary>
    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(FailingDisk.Filesystems), MemberType = typeof(FailingDisk))]
    public void After_a_crash_the_mark_is_there_before_anything_that_was_written(Filesystem filesystem)
    {
        using var disk = new FailingDisk(filesystem);
        disk.Mount("fsync=auto");
        Sys.Write(disk.Merged / "old", new string('a', 1 << 20));
        disk.Unmount();
        Command.Require("sync", "-f", disk.Disk);
        disk.Mount("volatile");
        using (Descriptor file = Sys.Open(disk.Merged / "old", OpenFlags.WriteOnly)) { file.WriteAt(new string('b', 4096), 0); }
        using (Descriptor real = Sys.Open(disk.Upper / "old", OpenFlags.ReadWrite))
        {
            Assert.Equal(Errno.None, Libc.SyncRange(real.Value, 0, 0));
        }

        disk.Crash();

        if (filesystem != Filesystem.Btrfs) { Assert.Equal("b", Sys.ReadText(disk.Upper / "old")[..1]); } // which writes elsewhere
        Assert.True(disk.DirtyMark.Exists);
        foreach (string option in (string[])["volatile", "fsync=auto"])
        {
            Assert.Contains("may lack what was written then", disk.TryMount(option).Error, StringComparison.Ordinal);
        }
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
        string mount = $"{Mounter.Binary} mount -o {disk.Layers},userxattr,volatile";
        Command.Result first = FailingDisk.InUserNamespace(
            $"{mount} {disk.Merged}; echo new > {disk.Merged}/new; {Mounter.Binary} status {disk.Merged}; umount {disk.Merged}");
        Assert.True(first.ExitCode == 0, first.Text);
        Assert.Contains("can be reused    after veneer sync", first.Output, StringComparison.Ordinal);

        Command.Result refused = FailingDisk.InUserNamespace($"{mount} {disk.Merged}");

        Assert.Equal(32, refused.ExitCode);
        Assert.Contains("whether writing to its filesystem failed cannot be told without CAP_BPF and CAP_PERFMON: run veneer sync",
            refused.Error, StringComparison.Ordinal);
        Command.Result again = FailingDisk.InUserNamespace(
            $"{Mounter.Binary} sync {disk.Upper}; {mount} {disk.Merged}; cat {disk.Merged}/new");
        Assert.True(again.ExitCode == 0, again.Text);
        Assert.EndsWith("\nnew", again.Output.TrimEnd(), StringComparison.Ordinal);
    }
}
