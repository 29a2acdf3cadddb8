namespace Veneer.Mount.Tests;

/// <summary>What a sync of a volatile upper brings to the disk, what it says, and what it refuses.</summary>
[Collection<Alone>] // a copy of the disk's mount in another test's namespace would keep the filesystem mounted
public sealed class VolatileSyncTests
{
    private const string OnlyVeneer = "Nobody else has this.";

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
        foreach ((FilePath path, bool isDirty) in (ReadOnlySpan<(FilePath, bool)>)[(disk.Upper / "dir/large", false),
            (disk.Upper / "file", false), (disk.Disk / "unrelated", true)])
        {
            Assert.Equal((path.Text, isDirty), (path.Text, FailingDisk.IsDirty(path)));
        }
        Assert.False(disk.DirtyMark.Exists);
        Assert.False(disk.Record.Exists);
        Assert.False(Sys.HasXattr(disk.Upper, "trusted.overlay.volatile"));
        disk.Mount("fsync=auto");
        Assert.Equal("copied up", Sys.ReadText(disk.Merged / "file"));
        disk.Unmount();
        Command.Require("mount", "-t", "overlay", "overlay", "-o", disk.Layers, disk.Merged);
        Command.Require("umount", disk.Merged);
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(FailingDisk.Filesystems), MemberType = typeof(FailingDisk))]
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

        Assert.False(FailingDisk.IsDirty(disk.Upper / "new"));
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
        Assert.Equal(
            $"veneer: {disk.Upper} may lack what was written while it was volatile, since writing to its filesystem failed (ENOSPC), "
            + "and a sync does not bring that back: discard it and its work directory.",
            refused.Error.Trim());
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
        Patience.Eventually(() => Assert.Contains("\"over\":false", disk.Status(), StringComparison.Ordinal));
        Command.Result second = FailingDisk.Veneer("sync", disk.Merged);
        Assert.Equal((32, $"veneer: {disk.Merged} is being synced already: wait for the end of that, see veneer status."),
            (second.ExitCode, second.Error.Trim()));
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
        Patience.Eventually(() => Assert.Matches("\"done\":[1-9]", disk.Status()));

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
        Assert.False(FailingDisk.IsDirty(place));
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
        using (Descriptor synchronous = Sys.Open(disk.Merged / "new", OpenFlags.WriteOnly | OpenFlags.Sync))
        {
            synchronous.WriteAt("synced", 4096);
        }

        Assert.Equal(Errno.None, Libc.Sync(file.Value, dataOnly: false));
        Assert.Equal(Errno.None, Libc.Sync(file.Value, dataOnly: true));
        Assert.Equal(Errno.None, Libc.SyncRange(file.Value, 0, 0));
        using (Descriptor directory = Sys.Open(disk.Merged, OpenFlags.ReadOnly | OpenFlags.Directory))
        {
            Assert.Equal(Errno.None, Libc.Sync(directory.Value, dataOnly: false));
        }
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
    [MemberData(nameof(FailingDisk.Filesystems), MemberType = typeof(FailingDisk))]
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
                if (isMounted)
                {
                    Assert.Contains("\"path\":\"bad\\uFFFD\",\"path_base64\":\"YmFk/w==\",\"error\":\"ENOSPC\"", disk.Status(),
                        StringComparison.Ordinal);
                }
            }
            if (isMounted) { disk.Unmount(); }
            disk.RemountDisk(); // a btrfs that has given up may not even find what it has
            Assert.True(disk.DirtyMark.Exists);
            Assert.Equal(32, disk.TryMount("volatile").ExitCode);
        }
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_tree_to_sync_may_be_deeper_than_the_number_of_descriptors()
    {
        const int depth = 3000;
        FilePath upper = Scratch.New();
        Descriptor directory = Sys.OpenDirectoryAt(Libc.AtCwd, upper.Bytes);
        for (int i = 0; i < depth; i++)
        {
            Assert.Equal(Errno.None, Libc.MakeDirectoryAt(directory.Value, "d\0"u8, Oct(755)));
            Descriptor next = Sys.OpenDirectoryAt(directory.Value, "d\0"u8);
            directory.Dispose();
            directory = next;
        }
        Assert.Equal(Errno.None, Libc.MakeNodeAt(directory.Value, "file\0"u8, FileType.Regular | Oct(644), 0));
        directory.Dispose();
        try
        {
            Command.Result synced = Command.Run(["sh", "-c", $"ulimit -n 200; exec {Mounter.Binary} sync {upper}"]);

            Assert.Equal(
                (0, $"{depth + 2} files and directories synced",
                    $"veneer: {upper} has no mark of a volatile upper: if that is a mount point, name the upper."),
                (synced.ExitCode, synced.Output.Trim(), synced.Error.Trim()));
        }
        finally
        {
            Command.Require("rm", "-rf", upper);
        }
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
        FilePath said = disk.Beside("said");
        Command.Result? synced = null;
        var syncing = new Thread(() => synced = Command.Run(
            ["sh", "-c", $"exec {Mounter.Binary} sync --iops 10 {disk.Upper} 2>{said}"]));
        syncing.Start();
        // The command says how far it is as soon as the sync has taken a second; it takes four.
        Patience.Eventually(() => Assert.Matches(@"\d of \d", said.Exists ? Sys.ReadText(said) : ""));

        disk.FailToWrite();
        syncing.Join();

        string error = Sys.ReadText(said);
        Assert.True(synced!.ExitCode == 9, $"{synced.ExitCode}: {error}");
        Assert.True(error.Contains("writing to its filesystem failed", StringComparison.Ordinal), error);
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

        Command.Result synced = Command.Run(["script", "-qec", $"{Mounter.Binary} sync --iops 10 {disk.Upper}", "/dev/null"],
            environment: new Dictionary<string, string>(StringComparer.Ordinal) { ["TERM"] = "xterm" });

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
            (["sync", "/proc"], 3, "/proc is on a filesystem of type proc, which has no disk: name a mount point, or an upper directory."),
            (["sync", "--work", "/nothing", disk.Upper], 11,
                "The work directory /nothing cannot be opened (ENOENT): see whether it is there."),
            (["status"], 1, "No mount point is given: name the one to look at."),
            (["status", "/nothing"], 11, "/nothing does not exist: name a mount point."),
            (["status", "/proc"], 3,
                "/proc is not in a mount of Veneer, but in one of type proc: name the mount point of one, see findmnt -t fuse.veneer.")])
        {
            Command.Result refused = FailingDisk.Veneer(words);
            Assert.Equal((code, $"veneer: {sentence}"), (refused.ExitCode, refused.Error.Trim()));
        }
        Command.Result unmarked = FailingDisk.Veneer("sync", disk.Merged);
        Assert.Equal(
            (0, "1 file or directory synced",
                $"veneer: {disk.Merged} has no mark of a volatile upper: if that is a mount point, name the upper."),
            (unmarked.ExitCode, unmarked.Output.Trim(), unmarked.Error.Trim()));
        Command.Result without = FailingDisk.Veneer("mount", "-o", $"lowerdir={disk.Lower}", disk.Merged);
        Assert.True(without.ExitCode == 0, without.Text);
        Command.Result nothing = FailingDisk.Veneer("sync", disk.Merged);
        Assert.Equal((32, $"veneer: {disk.Merged} has no upper: there is nothing to sync."), (nothing.ExitCode, nothing.Error.Trim()));
        disk.Unmount();
        Command.Require("mount", "-t", "overlay", "overlay", "-o", $"lowerdir={disk.Lower}:{disk.Upper}", disk.Merged);
        Command.Result kernel = FailingDisk.Veneer("sync", disk.Merged);
        Assert.Equal(
            (
                3,
                $"veneer: {disk.Merged} is an overlay of the kernel, which is not asked to sync: "
                + $"name its upper directory, see veneer layers {disk.Merged}."),
            (kernel.ExitCode, kernel.Error.Trim()));
        Command.Require("umount", disk.Merged);
        disk.Mount("volatile");
        disk.Unmount();
        Sys.Rename(disk.Work, disk.Disk / "elsewhere");
        Assert.Equal($"veneer: The work directory of {disk.Upper} is not where it was (../work from there): name it with --work DIR.",
            FailingDisk.Veneer("sync", disk.Upper).Error.Trim());
        Assert.Equal(0, FailingDisk.Veneer("sync", "--work", disk.Disk / "elsewhere", disk.Upper).ExitCode);
    }
}
