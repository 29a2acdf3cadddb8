using System.Diagnostics;

namespace Veneer.Mount.Tests;

/// <summary>A shutdown ends the overlay, not the mount: the layers are free, whoever still has a copy of the mount gets EIO.</summary>
[Collection<Alone>] // what leaks keeps the mounts of all
public sealed class ShutdownTests
{
    private const string OnlyVeneer = "Nobody else can be shut down.";

    private static Command.Result ShutDown(FilePath merged) => Command.Run([Mounter.Binary, "shutdown", merged]);

    private static void RequireShutdown(FilePath merged)
    {
        Command.Result result = ShutDown(merged);
        Assert.True(result.ExitCode == 0, result.Text);
    }

    /// <summary>A process that sleeps in a mount namespace of its own, and so has copies of all mounts.</summary>
    private sealed class Leak : IDisposable
    {
        private readonly Process process;

        public Leak()
        {
            process = Programs.Start("unshare", "--mount", "--propagation", "private", "sleep", "1000");
            string own = Sys.ReadLink("/proc/self/ns/mnt");
            while (Sys.ErrorOf(() => Sys.ReadLink($"/proc/{process.Id}/ns/mnt")) != Errno.None
                || Sys.ReadLink($"/proc/{process.Id}/ns/mnt") == own)
            {
                Thread.Sleep(2);
            }
            while (!Sys.ReadText($"/proc/{process.Id}/cmdline").StartsWith("sleep", StringComparison.Ordinal)) { Thread.Sleep(2); }
        }

        public int Id => process.Id;

        /// <summary>A path in that namespace.</summary>
        public FilePath See(FilePath path) => $"/proc/{process.Id}/root{path}";

        /// <summary>Runs a program there.</summary>
        public Command.Result Run(params string[] words) => Command.Run(["nsenter", "-t", $"{process.Id}", "-m", .. words]);

        public void Dispose()
        {
            process.Kill();
            process.WaitForExit();
            process.Dispose();
        }
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_leaked_copy_of_the_mount_does_not_keep_the_layers()
    {
        using var disk = new FailingDisk(Filesystem.Ext4);
        disk.Mount("fsync=auto");
        Sys.Write(disk.Merged / "new", "kept");
        using var leak = new Leak();
        // It has the mount of the overlay, not that of the disk.
        Command.Result left = leak.Run("umount", disk.Disk);
        Assert.True(left.ExitCode == 0, left.Text);
        Libc.Unmount(disk.Merged.Bytes, lazy: true);
        Assert.Equal("kept", Sys.ReadText(leak.See(disk.Merged / "new")));
        Command.Result refused = disk.TryMount("fsync=auto");
        Assert.Equal(32, refused.ExitCode);
        Assert.StartsWith($"veneer: The upper directory {disk.Upper} is ", refused.Error, StringComparison.Ordinal);
        Assert.NotEqual(0, Command.Run(["umount", disk.Disk]).ExitCode);

        Command.Result shut = leak.Run(Mounter.Binary, "shutdown", disk.Merged);
        Assert.True(shut.ExitCode == 0, shut.Text);

        Assert.Equal(Errno.EIO, Sys.ErrorOf(() => Sys.ReadText(leak.See(disk.Merged / "new"))));
        disk.RemountDisk();
        disk.Mount("fsync=auto");
        Assert.Equal("kept", Sys.ReadText(disk.Merged / "new"));
        Sys.Write(disk.Merged / "new", "written again");
        Assert.Equal(Errno.EIO, Sys.ErrorOf(() => Sys.ReadText(leak.See(disk.Merged / "new"))));
        disk.Unmount();
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData("")]
    [InlineData("passthrough=off")]
    [InlineData("revocable")]
    public void Every_operation_gives_EIO(string options)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("dir/file", Node.File("lower")), ("link", Node.Link("dir"))), options: options);
        FilePath merged = overlay.Merged;
        Sys.Write(merged / "new", "new");
        using Descriptor file = Sys.Open(merged / "new", OpenFlags.ReadWrite);
        using Descriptor lower = Sys.Open(merged / "dir/file", OpenFlags.ReadOnly);
        using Descriptor directory = Sys.Open(merged / "dir", OpenFlags.ReadOnly | OpenFlags.Directory);
        using Descriptor link = Sys.Open(merged / "link", OpenFlags.Path | OpenFlags.NoFollow);
        using Descriptor nameless = Sys.Open(merged / "gone", OpenFlags.ReadWrite | OpenFlags.Create, Oct(600));
        Sys.Unlink(merged / "gone");
        nameless.Write("nameless");
        // What the kernel remembers is no longer used.
        _ = TreeImage.Of(merged);

        RequireShutdown(merged);

        (string What, Action Do)[] operations =
        [
            ("stat of the root", () => Sys.Stat(merged)),
            ("stat", () => Sys.Stat(merged / "new")),
            ("stat of nothing", () => Sys.Stat(merged / "nothing")),
            ("statfs", () => Sys.StatFileSystem(merged)),
            ("read", () => Sys.Read(merged / "dir/file")),
            ("write", () => Sys.Write(merged / "new", "x")),
            ("create", () => Sys.Write(merged / "other", "x")),
            ("mkdir", () => Sys.MakeDirectory(merged / "d")),
            ("unlink", () => Sys.Unlink(merged / "new")),
            ("rmdir", () => Sys.RemoveDirectory(merged / "dir")),
            ("rename", () => Sys.Rename(merged / "new", merged / "newer")),
            ("link", () => Sys.Link(merged / "new", merged / "newer")),
            ("symlink", () => Sys.SymbolicLink("x", merged / "s")),
            ("readlink", () => Sys.ReadLink(merged / "link")),
            ("chmod", () => Sys.ChangeMode(merged / "new", 0)),
            ("getxattr", () => Sys.GetXattr(merged / "new", "user.x")),
            ("listxattr", () => Sys.ListXattr(merged / "new")),
            ("readdir", () => Sys.ReadDirectory(merged)),
            ("fstat", () => file.Stat()),
            ("pread", () => file.ReadAt(0, 3)),
            ("pread of a lower file", () => lower.ReadAt(0, 3)),
            ("pread of a file without a name", () => nameless.ReadAt(0, 3)),
            ("pwrite", () => file.WriteAt("x", 0)),
            ("fsync", file.Sync),
            ("ftruncate", () => file.Truncate(0)),
            ("fallocate", () => file.Allocate(AllocateMode.Default, 0, 10)),
            ("fchmod of a directory", () => directory.ChangeMode(0)),
            ("readdir of an open directory", () => Sys.ReadDirectory(directory.Proc)),
            ("stat of a link", () => link.Stat()),
        ];
        Assert.All(operations, operation => Assert.Equal((operation.What, Errno.EIO), (operation.What, Sys.ErrorOf(operation.Do))));
        // A map of a passed-through file is one of the real file, also a new one.
        using (Map map = file.Map(3))
        {
            Assert.Equal(options == "" && Mounter.UnderTest.PassesUpper ? Errno.None : Errno.EFAULT, map.Populate());
        }
        Assert.Equal("new", Sys.ReadText(overlay.Upper / "new"));
        string[] marks = Mounter.UnderTest.LeavesMark ? ["veneer-volatile", "incompat"] : [];
        Assert.Equal(["work"], overlay.Work.Entries().Except(marks));
        Assert.Empty((overlay.Work / "work").Entries().Except(marks));
    }

    /// <summary>
    /// What a shutdown cannot take from those who have a passed-through file open since before. docs/lifecycle.md says so.
    /// </summary>
    [MountFact(OnlyVeneer = OnlyVeneer, PassesThrough = true)]
    public void Maps_and_sendfile_of_passed_through_files_go_on()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("large", new string('x', 2 << 20))), options: "passthrough=lower");
        Sys.Write(overlay.Merged / "new", "new");
        using Descriptor file = Sys.Open(overlay.Merged / "new", OpenFlags.ReadWrite);
        using Descriptor large = Sys.Open(overlay.Merged / "large", OpenFlags.ReadOnly);
        using Map map = file.Map(3, write: true);

        RequireShutdown(overlay.Merged);

        map.Write(0, "NEW");
        Assert.Equal("NEW", Sys.ReadText(overlay.Upper / "new"));
        using Descriptor target = Sys.Open(overlay.Beside("target"), OpenFlags.WriteOnly | OpenFlags.Create, Oct(600));
        large.SendAllTo(target);
        Assert.Equal(2ul << 20, target.Stat().Size);
        Assert.Equal(Errno.EIO, Sys.ErrorOf(() => large.ReadAt(0, 1)));
        Assert.Equal(Errno.EIO, Sys.ErrorOf(() => file.ReadAt(0, 1)));
    }

    /// <summary>Where the mount is found nowhere, nobody can look the names up by which the kernel learns of it.</summary>
    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Files_that_cannot_be_taken_away_are_told_of()
    {
        const ulong request = 0x8004587D;
        using var disk = new FailingDisk(Filesystem.Ext4);
        disk.Mount("fsync=auto");
        Sys.Write(disk.Merged / "new", "new");
        using (Descriptor file = Sys.Open(disk.Merged / "new", OpenFlags.ReadWrite))
        {
            Libc.Unmount(disk.Merged.Bytes, lazy: true);
            uint flags = 0;

            Assert.Equal(Errno.EBUSY, Libc.Ioctl(file.Value, request, ref flags, out _));

            file.WriteAt("NEW", 0);
            Assert.Equal("NEW", Sys.ReadText(disk.Upper / "new"));
        }
        Patience.Eventually(() => Assert.Empty(Overlay.ServersOf(disk.Merged)));
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void With_revocable_nothing_is_left_to_those_who_have_files_open()
    {
        using var disk = new FailingDisk(Filesystem.Ext4);
        disk.Mount("revocable");
        Sys.Write(disk.Merged / "new", "new");
        using Descriptor file = Sys.Open(disk.Merged / "new", OpenFlags.ReadWrite);
        using Map map = file.Map(4096, write: true);
        map.Write(0, "NEW");

        RequireShutdown(disk.Merged);

        Assert.Equal(Errno.EFAULT, map.Populate());
        Assert.Equal(Errno.EIO, Sys.ErrorOf(() => file.ReadAt(0, 1)));
        disk.RemountDisk(); // which fails while anything of it is in use
        Assert.Equal("NEW", Sys.ReadText(disk.Upper / "new"));
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void What_a_map_has_changed_is_written_first()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", new string('x', 1 << 20))), options: "passthrough=off");
        using Descriptor file = Sys.Open(overlay.Merged / "file", OpenFlags.ReadWrite);
        using Map map = file.Map(1 << 20, write: true);
        for (int page = 0; page < 256; page++) { map.Write(page * 4096, $"page {page:D3}"); }

        RequireShutdown(overlay.Merged);

        string text = Sys.ReadText(overlay.Upper / "file");
        Assert.All(Enumerable.Range(0, 256), page => Assert.Equal($"page {page:D3}", text.Substring(page * 4096, 8)));
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Any_file_or_directory_takes_the_ioctl()
    {
        const ulong request = 0x8004587D;
        foreach (string name in (string[])["", "dir", "dir/file", "new"])
        {
            using var overlay = Overlay.With(lower: Tree.Of(("dir/file", "x")));
            Sys.Write(overlay.Merged / "new", "passed through");
            using Descriptor opened = Sys.Open(overlay.Merged / name, OpenFlags.ReadOnly);
            uint flags = 0;
            Assert.Equal(Errno.None, Libc.Ioctl(opened.Value, request, ref flags, out _));
            Assert.Equal(Errno.EIO, Libc.Ioctl(opened.Value, request, ref flags, out _));
            Assert.Equal(Errno.EIO, Sys.ErrorOf(() => Sys.Stat(overlay.Merged)));
        }
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Only_administrators_of_the_mounts_user_namespace_may()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "x")));
        string[][] others =
        [
            ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"],
            ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"],
            ["unshare", "--user", "--map-root-user"],
        ];
        foreach (string[] other in others)
        {
            Command.Result refused = Command.Run([.. other, Mounter.Binary, "shutdown", overlay.Merged]);
            Assert.True(refused.ExitCode == 4, $"{other[0]} {refused.ExitCode} {refused.Text}");
            Assert.StartsWith("veneer: Only a process with CAP_SYS_ADMIN in the user namespace of", refused.Error,
                StringComparison.Ordinal);
        }
        Assert.Equal("x", Sys.ReadText(overlay.Merged / "file"));
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Who_mounted_in_a_user_namespace_may()
    {
        using var disk = new FailingDisk(Filesystem.Ext4);

        Command.Result result = Command.Run(["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private", "sh", "-c",
            $"{Mounter.Binary} mount -o {disk.Layers},userxattr {disk.Merged} && echo new > {disk.Merged}/new && exec 5< {disk.Merged}/new "
            + $"&& {Mounter.Binary} shutdown {disk.Merged}; echo $?; cat <&5; cat {disk.Merged}/new"]);

        Assert.Equal("0", result.Output.Trim());
        Assert.Equal(2, result.Error.Split("Input/output error").Length - 1);
        Assert.Equal("new\n", Sys.ReadText(disk.Upper / "new"));
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void What_cannot_be_shut_down_is_refused_in_a_sentence()
    {
        using var overlay = Overlay.With();
        foreach ((string place, int code, string sentence) in (ReadOnlySpan<(string, int, string)>)[
            (
                "/proc", 3,
                "veneer: /proc is not in a mount of Veneer, but in one of type proc: "
                + "name the mount point of one, see findmnt -t fuse.veneer."),
            ("/nothing", 11, "veneer: /nothing does not exist: name a mount point."),
            ("", 1, "veneer: A word is empty: name a file or a directory.")])
        {
            Command.Result refused = ShutDown(place);
            Assert.Equal((code, sentence), (refused.ExitCode, refused.Error.Trim()));
        }
        RequireShutdown(overlay.Merged);
        Command.Result again = ShutDown(overlay.Merged);
        Assert.Equal((32, $"veneer: {overlay.Merged} gives EIO, as after a shutdown: unmount it with veneer umount."),
            (again.ExitCode, again.Error.Trim()));
    }
}
