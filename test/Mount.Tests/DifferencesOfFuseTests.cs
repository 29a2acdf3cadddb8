using static Veneer.Mount.Tests.BesideTheKernel;

namespace Veneer.Mount.Tests;

/// <summary>Rows of docs/differences.md that FUSE imposes: what the kernel answers, and what Veneer does.</summary>
/// <remarks>Rows that need more than a few lines have tests where their subject is.</remarks>
public sealed class DifferencesOfFuseTests
{
    private const string PassLower = "passthrough=lower";

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData("file", "old, None, EAGAIN", "old, ESTALE, None")]
    [InlineData("small", "old, None, EAGAIN", "new, None, EAGAIN")]
    public void Lower_files_that_are_passed_through(string name, string kernel, string veneer) => Compare(kernel, veneer, overlay =>
    {
        FilePath path = overlay.Merged / name;
        using Descriptor reader = Sys.Open(path, OpenFlags.ReadOnly);
        using Map map = reader.Map(3);
        _ = map.Text(0, 3);
        Assert.Equal(Errno.None, reader.Flock(LockType.Write));
        Sys.Append(path, "!");
        using (Descriptor writer = Sys.Open(path, OpenFlags.WriteOnly)) { writer.WriteAt("new", 0); }
        string shown = map.Text(0, 3), reopened = Said(() => reader.Reopen(OpenFlags.ReadOnly).Dispose());
        using Descriptor later = Sys.Open(path, OpenFlags.ReadOnly);
        return $"{shown}, {reopened}, {later.Flock(LockType.Write)}";
    }, Tree.Of(("file", Node.File(Large("old"))), ("small", "old")), own: PassLower);

    [MountFact(OnlyVeneer = OnlyVeneer, PassesThrough = true)]
    public void O_DIRECT_that_is_set_later() => Compare("EINVAL", "None", overlay =>
    {
        using Descriptor file = Sys.Open(overlay.Merged / "file", OpenFlags.ReadWrite | OpenFlags.Create, Oct(600));
        file.SetStatus(OpenFlags.Direct);
        return Said(() => { file.WriteAt("five!", 7); });
    }, on: Filesystem.Ext4);

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_descriptor_of_an_append_only_file() => Compare("EACCES EPERM None", "ENODEV None EPERM", overlay =>
    {
        FilePath path = overlay.Merged / "file";
        Command.Require("chattr", "+a", path);
        using Descriptor file = Sys.Open(path, OpenFlags.ReadWrite | OpenFlags.Append);
        string answers =
            $"{Said(() => file.Map(4, write: true).Dispose())} {Said(() => file.SetStatus(0))} {Said(() => { file.WriteAt("@", 0); })}";
        Command.Require("chattr", "-a", path);
        return answers;
    }, upper: Tree.Of(("file", "0123")), on: Filesystem.Ext4);

    [MountFact(OnlyVeneer = OnlyVeneer, PassesThrough = true)]
    public void A_descriptor_from_before_a_file_became_append_only() => Compare("None EACCES None None", "None None EBUSY None", overlay =>
    {
        FilePath path = overlay.Merged / "file";
        using Descriptor file = Sys.Open(path, OpenFlags.ReadWrite);
        Command.Require("chattr", "+a", path);
        string answers = $"{Said(() => { file.WriteAt("@", 0); })} {Said(() => file.Map(4, write: true).Dispose())} "
            + $"{Said(() => Sys.Open(path, OpenFlags.ReadWrite | OpenFlags.Append).Dispose())} "
            + $"{Said(() => Sys.Open(path, OpenFlags.WriteOnly | OpenFlags.Append).Dispose())}";
        Command.Require("chattr", "-a", path);
        return answers;
    }, upper: Tree.Of(("file", "0123")), on: Filesystem.Ext4);

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void The_space_of_a_copy_whose_lower_has_more_names()
    {
        foreach (Mounter mounter in (Mounter[])[Mounter.Kernel, Mounter.UnderTest])
        {
            using var overlay = Overlay.With(Tree.Of(("a", Node.File(Large("x"))), ("b", Node.HardLink("a")), ("c", Node.HardLink("a"))),
                upperSize: "8m", mounter: mounter);
            long before = Free(overlay);
            Sys.Append(overlay.Merged / "a", "!");
            Sys.Unlink(overlay.Merged / "a");
            long used = before - Free(overlay);
            overlay.Unmount();
            Assert.Equal((mounter, !mounter.IsKernel, false), (mounter, used >= 2 << 20, before - Free(overlay) >= 2 << 20));
        }
    }

    private static long Free(Overlay overlay)
    {
        StatFs upper = Sys.StatFileSystem(overlay.Upper);
        return (long)upper.BlocksFree * upper.FragmentSize;
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(false, "EPERM 6755", "EPERM 6755")]
    [InlineData(true, "EPERM 6755", "None 755")]
    public void Chown_that_changes_nothing_by_somebody_else(bool isWritten, string kernel, string veneer) =>
        Compare(kernel, veneer, overlay =>
    {
        using Descriptor? writer = isWritten ? Sys.Open(overlay.Merged / "file", OpenFlags.WriteOnly) : null;
        return ChownAs(overlay, 6755);
    }, upper: Tree.Of(("file", Node.File("x").Mode(Oct(6755)))));

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(1000, "None 644", "None 2644")]
    [InlineData(5, "EPERM 2644", "None 2644")]
    public void Chown_from_outside_of_the_group_of_a_file_with_set_group_id(uint owner, string kernel, string veneer) =>
        Compare(kernel, veneer, overlay => ChownAs(overlay, 2644),
            upper: Tree.Of(("file", Node.File("x").OwnedBy(owner, 7).Mode(Oct(2644)))));

    private static string ChownAs(Overlay overlay, int mode)
    {
        FilePath path = overlay.Merged / "file";
        Assert.Equal(Oct(mode), Sys.Stat(path).Mode & ModeBits.Mask);
        using Actor user = Actor.User();
        return
            $"{user.ErrorOf(() => Sys.ChangeOwner(path, uint.MaxValue, uint.MaxValue))} "
            + $"{Convert.ToString(Sys.Stat(path).Mode & ModeBits.Mask, 8)}";
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(false)]
    [InlineData(true)]
    public void An_owner_outside_of_the_group_who_removes_the_access_list(bool isDirectory)
    {
        Node node = (isDirectory ? Node.Directory() : Node.File("x"))
            .OwnedBy(1000, 7)
            .Mode(Oct(2755))
            .Attribute("system.posix_acl_access", Acl.Of(owner: 7, user: (5, 5), group: 5, mask: 5, other: 5));
        Compare("755", "2755", overlay =>
        {
            using Actor owner = Actor.User();
            owner.Do(() => Sys.RemoveXattr(overlay.Merged / "object", "system.posix_acl_access"));
            return Convert.ToString(Sys.Stat(overlay.Merged / "object").Mode & ModeBits.Mask, 8);
        }, upper: Tree.Of(("object", node)));
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Trusted_attributes_without_the_capability() => Compare("not listed", "listed", overlay =>
        Command.Require("setpriv", "--bounding-set=-sys_admin", "getfattr", "-m", "-", "--absolute-names", overlay.Merged / "file")
            .Contains("trusted.a", StringComparison.Ordinal) ? "listed" : "not listed",
        upper: Tree.Of(("file", Node.File("x").Attribute("trusted.a", "1"))));

    [MountFact(OnlyVeneer = "The option is Veneer's.", PassesThrough = true)]
    public void What_was_open_is_written_after_errors_have_made_the_overlay_read_only()
    {
        foreach (string option in (string[])["", "revocable"])
        {
            using var overlay = Overlay.With(upper: Tree.Of(("file", "x")),
                options: $"errors=remount-ro{(option.Length > 0 ? "," : "")}{option}");
            using Descriptor file = Sys.Open(overlay.Merged / "file", OpenFlags.WriteOnly);
            FilePath moved = overlay.Beside("moved");
            Sys.Rename(overlay.Upper, moved);
            Patience.Eventually(() => Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Write(overlay.Merged / "new", ""))));

            Assert.Equal(option.Length > 0 ? Errno.EROFS : Errno.None, Sys.ErrorOf(() => file.WriteAt("y", 0)));
            Sys.Rename(moved, overlay.Upper);
        }
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Access_times_of_what_the_kernel_remembers() => Compare("True True", "False False", overlay =>
    {
        FilePath m = overlay.Merged;
        // Held, so that the kernel does not forget them when another test drops all caches.
        using Descriptor directory = Sys.Open(m / "d", OpenFlags.Path), link = Sys.Open(m / "link", OpenFlags.Path | OpenFlags.NoFollow);
        return $"{Moves(m / "d", () => _ = (m / "d").Entries())} {Moves(m / "link", () => _ = Sys.ReadLink(m / "link"))}";
    }, upper: Tree.Of(("d/x", ""), ("link", Node.Link("x"))), options: "strictatime");

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData("passthrough=auto", "True")]
    [InlineData("passthrough=off", "False")]
    public void Access_times_of_a_file_of_upper_that_is_read_again(string own, string veneer) => Compare("True", veneer, overlay =>
    {
        using Descriptor file = Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly);
        return $"{Moves(overlay.Merged / "file", () => _ = file.ReadAllText())}";
    }, upper: Tree.Of(("file", "x")), options: "strictatime", own: own);

    [MountFact(OnlyVeneer = OnlyVeneer, PassesThrough = true)]
    public void Access_times_after_a_remount_as_read_only() => Compare("True False", "True True", overlay =>
    {
        FilePath file = overlay.Merged / "file", real = overlay.Upper / "file";
        bool before = Moves(real, () => _ = Sys.ReadText(file));
        overlay.RemountAs(readOnly: true);
        return $"{before} {Moves(real, () => _ = Sys.ReadText(file))}";
    }, upper: Tree.Of(("file", "x")), options: "strictatime");

    private static bool Moves(FilePath path, Action read)
    {
        read();
        StatxTime before = Sys.Stat(path).AccessTime;
        Thread.Sleep(20);
        read();
        StatxTime after = Sys.Stat(path).AccessTime;
        return (after.Seconds, after.Nanoseconds) != (before.Seconds, before.Nanoseconds);
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void What_statx_tells_of_file_flags() => Compare("60", "0", overlay =>
    {
        Command.Require("chattr", "+ad", overlay.Merged / "file");
        ulong told = Sys.Stat(overlay.Merged / "file").Attributes & 0x70;
        Assert.Contains("-----ad", Command.Require("lsattr", overlay.Merged / "file"), StringComparison.Ordinal);
        Command.Require("chattr", "-ad", overlay.Merged / "file");
        return told.ToString("x");
    }, upper: Tree.Of(("file", "x")), on: Filesystem.Ext4);

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Calls_that_FUSE_does_not_send()
    {
        (string Done, string[] Words)[] calls =
        [
            ("fallocate --collapse-range", ["fallocate", "--collapse-range", "-o", "4096", "-l", "4096"]),
            ("fallocate --insert-range", ["fallocate", "--insert-range", "-o", "4096", "-l", "4096"]),
            ("FICLONE", ["cp", "--reflink=always", "--no-preserve=all"]),
        ];
        foreach ((string what, string[] words) in calls)
        {
            Compare($"{what} done", $"{what} refused", overlay =>
            {
                FilePath file = overlay.Merged / "file";
                Assert.Equal("done", Run("fallocate", "--zero-range", "-o", "4096", "-l", "4096", file));
                return $"{what} {Run([.. words, file, .. words[0] == "cp" ? [overlay.Merged / "new"] : (string[])[]])}";
            }, upper: Tree.Of(("file", Node.File(new byte[16384]))), on: Filesystem.Xfs);
        }
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void F_fsid() => Compare("True", "False", overlay =>
        (Sys.StatFileSystem(overlay.Merged).FsId != 0).ToString());

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Hard_links_of_a_lower_whose_numbers_tell_nothing()
    {
        FilePath source = Scratch.New(), lower = Scratch.New();
        Sys.Write(source / "a", "x");
        Sys.Link(source / "a", source / "b");
        Command.Require("bindfs", source, lower);
        try
        {
            Compare("2 equal", "1 different",
                overlay => $"{Sys.Stat(overlay.Merged / "a").Nlink} {Numbers(overlay.Merged / "a", overlay.Merged / "b")}", over: [lower]);
        }
        finally { Command.Require("umount", lower); }
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_metacopy_that_is_shorter_than_its_data() => Compare("0123", "01", overlay =>
    {
        Sys.ChangeMode(overlay.Merged / "file", Oct(600));
        overlay.Remount(() => Sys.Truncate(overlay.Upper / "file", 2));
        using Descriptor file = Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly);
        return System.Text.Encoding.Latin1.GetString(file.ReadAt(0, 100));
    }, Tree.Of(("file", "0123")), options: "metacopy=on,redirect_dir=on");

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void St_dev_where_layers_are_on_two_filesystems() => Compare("3, 0", "1, 1", overlay =>
    {
        Sys.Write(overlay.Merged / "upper", "");
        Statx[] seen = [.. new[] { "lower", "upper", "." }.Select(name => Sys.Stat(overlay.Merged / name))];
        return $"{seen.Select(one => (one.DevMajor, one.DevMinor)).Distinct().Count()}, {seen[0].Ino >> 48}";
    }, Tree.Of(("lower", "")), lowersOn: Filesystem.Ext4);

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_remount_as_writable_without_an_upper()
    {
        foreach (Mounter mounter in (Mounter[])[Mounter.Kernel, Mounter.UnderTest])
        {
            using var overlay = Overlay.With(lowers: [Tree.Empty, Tree.Empty], readOnly: true, mounter: mounter);
            Assert.Equal((mounter, mounter.IsKernel ? Errno.EROFS : Errno.None),
                (mounter, Sys.ErrorOf(() => overlay.RemountAs(readOnly: false))));
            Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Write(overlay.Merged / "new", "")));
        }
    }

    private static string Run(params string[] words) => Command.Run(words).ExitCode == 0 ? "done" : "refused";
}
