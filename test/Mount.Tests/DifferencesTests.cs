namespace Veneer.Mount.Tests;

/// <summary>Rows of docs/differences.md, side by side: what the kernel answers, and what Veneer does.</summary>
/// <remarks>Rows that need more than a few lines have tests where their subject is.</remarks>
public sealed class DifferencesTests
{
    private const string OnlyVeneer = "It mounts the kernel's beside Veneer.";

    private const string PassLower = "passthrough=lower";

    /// <summary>Asks the same of an overlay of the kernel and of Veneer, over the same layers.</summary>
    private static void Compare(
        string kernel, string veneer, Func<Overlay, string> ask, Tree? lower = null, Tree? upper = null, string options = "",
        string own = "",
        Filesystem on = Filesystem.Tmpfs, Filesystem? lowersOn = null, UpperOn upperOn = UpperOn.Same, FilePath[]? over = null)
    {
        foreach (Mounter mounter in (Mounter[])[Mounter.Kernel, Mounter.UnderTest])
        {
            string given = mounter.IsKernel ? options : string.Join(',', new[] { options, own }.Where(one => one.Length > 0));
            using var overlay = Overlay.With(lower: lower, upper: upper, options: given, on: on, lowersOn: lowersOn, upperOn: upperOn,
                over: over, mounter: mounter);
            Assert.Equal($"{mounter}: {(mounter.IsKernel ? kernel : veneer)}", $"{mounter}: {ask(overlay)}");
        }
    }

    /// <summary>What a call answers: the name of its error, or what it gives.</summary>
    private static string Said(Func<string> call)
    {
        try { return call(); }
        catch (SysException problem) { return problem.Errno.ToString(); }
    }

    private static string Said(Action call) => Sys.ErrorOf(call).ToString();

    private static string Run(params string[] words) => Command.Run(words).ExitCode == 0 ? "done" : "refused";

    private static string Numbers(FilePath one, FilePath other) =>
        Said(() => Sys.Stat(one).Ino == Sys.Stat(other).Ino ? "equal" : "different");

    // Better than the kernel.

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Hard_links_of_a_lower_file() => Compare("old, 3 and 1", "old!, 3 and 3", overlay =>
    {
        using Descriptor known = Sys.Open(overlay.Merged / "a", OpenFlags.Path);
        Sys.Append(overlay.Merged / "b", "!");
        return $"{Sys.ReadText(overlay.Merged / "a")}, {Sys.Stat(overlay.Merged / "a").Nlink} and {Sys.Stat(overlay.Merged / "b").Nlink}";
    }, Tree.Of(("a", "old"), ("b", Node.HardLink("a")), ("c", Node.HardLink("a"))));

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void St_nlink_of_what_is_open_and_has_no_name() => Compare("2 1 2 0", "0 0 0 0", overlay =>
    {
        FilePath m = overlay.Merged;
        Sys.MakeDirectory(m / "upper");
        using Descriptor two = Sys.Open(m / "a", OpenFlags.ReadOnly),
            one = Sys.Open(m / "one", OpenFlags.ReadOnly),
            lower = Sys.Open(m / "d", OpenFlags.ReadOnly),
            upper = Sys.Open(m / "upper", OpenFlags.ReadOnly);
        foreach (string name in (string[])["a", "b", "one"]) { Sys.Unlink(m / name); }
        foreach (string name in (string[])["d", "upper"]) { Sys.RemoveDirectory(m / name); }
        return string.Join(' ', new[] { two, one, lower, upper }.Select(file => file.Stat().Nlink));
    }, Tree.Of(("a", ""), ("b", Node.HardLink("a")), ("one", ""), ("d", Node.Directory())));

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_shared_map_of_a_lower_file_from_before_its_copy_up()
    {
        Assert.SkipWhen(Mounter.UnderTest.PassesLower, "With passthrough=lower it is as with the kernel.");
        Compare("old", "new", MapAfterWrite, Tree.Of(("file", Node.File(Large("old")))));
    }

    private static byte[] Large(string begin)
    {
        byte[] content = new byte[2 << 20];
        System.Text.Encoding.Latin1.GetBytes(begin, content);
        return content;
    }

    private static string MapAfterWrite(Overlay overlay)
    {
        using Descriptor reader = Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly);
        using Map map = reader.Map(4096);
        _ = map.Text(0, 3);
        using Descriptor writer = Sys.Open(overlay.Merged / "file", OpenFlags.WriteOnly);
        writer.WriteAt("new", 0);
        return map.Text(0, 3);
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void RWF_NOAPPEND_on_a_descriptor_that_appends() => Compare("0123@@", "0@@3", overlay =>
        {
            using (Descriptor file = Sys.Open(overlay.Merged / "file", OpenFlags.ReadWrite | OpenFlags.Append))
            {
                file.WriteAt("@@"u8, 1, 0x20);
            }
            return Sys.ReadText(overlay.Merged / "file");
        }, Tree.Of(("file", "0123")));

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(Filesystem.Tmpfs, Filesystem.Tmpfs, "copied")]
    [InlineData(Filesystem.Tmpfs, Filesystem.Ext4, "EXDEV")]
    [InlineData(Filesystem.Ext4, Filesystem.Tmpfs, "EXDEV")]
    public void Copy_file_range_from_a_lower_on_another_filesystem(Filesystem lower, Filesystem upper, string kernel) =>
        Compare(kernel, "copied", overlay =>
        {
            using Descriptor source = Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly),
                target = Sys.Open(overlay.Merged / "new", OpenFlags.ReadWrite | OpenFlags.Create, Oct(600));
            return Said(() => source.CopyRangeTo(target, 0, 0, 7) == 7 && target.ReadAllText() == "content" ? "copied" : "other");
        }, Tree.Of(("file", "content")), on: upper, lowersOn: lower);

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(false, "EEXIST")]
    [InlineData(true, "ENOENT")]
    public void Attributes_of_an_open_lower_file_that_was_removed(bool withDirectory, string kernel) =>
        Compare($"{kernel} {kernel} {kernel}", "None None None", overlay =>
        {
            using Descriptor file = Sys.Open(overlay.Merged / "d/file", OpenFlags.ReadOnly);
            Sys.Unlink(overlay.Merged / "d/file");
            if (withDirectory) { Sys.RemoveDirectory(overlay.Merged / "d"); }
            return
                $"{Said(() => file.ChangeMode(Oct(600)))} {Said(() => file.ChangeOwner(1, 1))} "
                + $"{Said(() => file.ChangeTimes(Node.LongAgo, Node.LongAgo))}";
        }, Tree.Of(("d/file", "")));

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData("file")]
    [InlineData("directory")]
    public void Two_names_in_upper_that_came_from_one_object(string what) => Compare("ESTALE", "different", overlay =>
    {
        FilePath m = overlay.Merged;
        Sys.Append(m / "file", "!");
        Sys.Rename(m / "directory", m / "moved");
        string first = what == "file" ? "file" : "moved";
        overlay.Remount(() => Command.Require("cp", "-a", overlay.Upper / first, overlay.Upper / "second"));
        return Numbers(m / first, m / "second");
    }, Tree.Of(("file", "x"), ("directory/x", "x")), options: "redirect_dir=on");

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(true, "equal")]
    [InlineData(false, "ESTALE")]
    public void A_copy_in_upper_beside_the_lower_file_that_it_came_from(bool copyFirst, string kernel) =>
        Compare(kernel, "different", overlay =>
        {
            FilePath m = overlay.Merged;
            Sys.Rename(m / "old", m / "new");
            overlay.Remount(() => Sys.Unlink(overlay.Upper / "old")); // the whiteout
            return copyFirst ? Numbers(m / "new", m / "old") : Numbers(m / "old", m / "new");
        }, Tree.Of(("old", "x")));

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Subvolumes_of_a_btrfs_lower_count_their_inodes_alike()
    {
        FilePath lower = Scratch.New(Filesystem.Btrfs);
        foreach (string name in (string[])["one", "two"])
        {
            Command.Require("btrfs", "subvolume", "create", lower / name);
            Sys.Write(lower / name / "file", name);
        }
        Compare("equal", "different", overlay => Numbers(overlay.Merged / "one/file", overlay.Merged / "two/file"), over: [lower]);
        foreach (string name in (string[])["one", "two"]) { Command.Require("btrfs", "subvolume", "delete", lower / name); }
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_directory_that_has_a_name_with_garbage_attributes() => Compare("EINVAL, EINVAL", "bad bad2 good low, EINVAL", overlay =>
    {
        string listed = Said(() =>
        {
            // The kernel forgets the error where one answer has a name before it: with two in a row, and a name at a time, it does not.
            using Descriptor directory = Sys.Open(overlay.Merged / "d", OpenFlags.ReadOnly | OpenFlags.Directory);
            return string.Join(' ', directory.ReadDirectory(chunk: 32).Select(entry => entry.Name).Order(StringComparer.Ordinal));
        });
        return $"{listed}, {Said(() => Sys.Stat(overlay.Merged / "d/bad"))}";
    }, Tree.Of(("d/low", "")), Tree.Of(
        ("d", Node.Directory().Attribute("trusted.overlay.impure", "y")),
        ("d/bad", Node.Directory().Attribute("trusted.overlay.redirect", "a/b")),
        ("d/bad2", Node.Directory().Attribute("trusted.overlay.redirect", "a/b")),
        ("d/good", "")), "redirect_dir=on");

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_whiteout_with_nothing_below_it() => Compare("whiteout ENOENT", " ENOENT", overlay =>
        $"{string.Join(' ', (overlay.Merged / "d").Entries())} {Said(() => Sys.Stat(overlay.Merged / "d/whiteout"))}",
        upper: Tree.Of(("d/whiteout", Node.Whiteout())));

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void The_number_of_a_symbolic_link_with_userxattr() => Compare("changes", "stays", overlay =>
    {
        ulong before = Sys.Stat(overlay.Merged / "link").Ino;
        Sys.ChangeOwner(overlay.Merged / "link", 1, 1);
        Sys.DropCaches();
        return Sys.Stat(overlay.Merged / "link").Ino == before ? "stays" : "changes";
    }, Tree.Of(("link", Node.Link("x"))), options: "userxattr");

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_metacopy_that_is_opened_to_be_written() => Compare("changes", "stays", overlay =>
    {
        Sys.ChangeMode(overlay.Merged / "file", Oct(600));
        Assert.True(Sys.HasXattr(overlay.Upper / "file", "trusted.overlay.metacopy"));
        Sys.Open(overlay.Merged / "file", OpenFlags.WriteOnly).Dispose();
        return Sys.Stat(overlay.Merged / "file").ModifyTime.Seconds == Node.LongAgo.Seconds ? "stays" : "changes";
    }, Tree.Of(("file", "x")), options: "metacopy=on,redirect_dir=on");

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_metacopy_too_deep_for_a_redirect_that_gets_another_name()
    {
        string deep = string.Join('/', Enumerable.Repeat(new string('n', 100), 3));
        Compare("EXDEV EXDEV", "None None", overlay =>
        {
            FilePath m = overlay.Merged;
            foreach (string name in (string[])["moved", "linked"]) { Sys.ChangeMode(m / deep / name, Oct(600)); }
            return $"{Said(() => Sys.Rename(m / deep / "moved", m / "moved"))} {Said(() => Sys.Link(m / deep / "linked", m / "linked"))}";
        }, Tree.Of(($"{deep}/moved", "data"), ($"{deep}/linked", "data")), options: "metacopy=on,redirect_dir=on");
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Attributes_of_a_lower_file_with_several_names_with_metacopy() => Compare("a metacopy, 644", "whole, 600", overlay =>
    {
        _ = Sys.Stat(overlay.Merged / "b");
        Sys.ChangeMode(overlay.Merged / "a", Oct(600));
        return
            $"{(Sys.HasXattr(overlay.Upper / "a", "trusted.overlay.metacopy") ? "a metacopy" : "whole")}, "
            + $"{Convert.ToString(Sys.Stat(overlay.Merged / "b").Mode & 0x1FF, 8)}";
    }, Tree.Of(("a", "x"), ("b", Node.HardLink("a"))), options: "metacopy=on,redirect_dir=on");

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void An_ACL_for_a_file_of_a_lower_that_has_none()
    {
        byte[] list = Acl.Of(owner: 6, user: (1001, 6), group: 4, mask: 6, other: 4);
        CompareOverSquashfs("EOPNOTSUPP, None", "None, None", overlay =>
        {
            string first = Said(() => Sys.SetXattr(overlay.Merged / "file", "system.posix_acl_access", list));
            Sys.ChangeMode(overlay.Merged / "file", Oct(600));
            return $"{first}, {Said(() => Sys.SetXattr(overlay.Merged / "file", "system.posix_acl_access", list))}";
        });
    }

    private static void CompareOverSquashfs(string kernel, string veneer, Func<Overlay, string> ask)
    {
        FilePath source = Scratch.New(), image = Scratch.New() / "image", lower = Scratch.New();
        Sys.Write(source / "file", "x");
        Command.Require("mksquashfs", source, image, "-quiet", "-no-progress");
        Command.Require("mount", "-t", "squashfs", "-o", "loop,ro", image, lower);
        try { Compare(kernel, veneer, ask, over: [lower]); }
        finally { Command.Require("umount", lower); }
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_work_directory_that_can_only_be_added_to()
    {
        foreach (Mounter mounter in (Mounter[])[Mounter.Kernel, Mounter.UnderTest])
        {
            // A volatile upper has its mark in work, which then could not be made.
            using var overlay = Overlay.With(on: Filesystem.Ext4, options: mounter.IsVeneer ? "fsync=auto" : "", mounted: false);
            Sys.MakeDirectory(overlay.Work / "work");
            Sys.Write(overlay.Work / "work/left", "");
            Command.Require("chattr", "+a", overlay.Work);
            try
            {
                overlay.Mount(mounter);
                Assert.Equal(mounter.IsKernel ? Errno.EROFS : Errno.None, Sys.ErrorOf(() => Sys.Write(overlay.Merged / "new", "")));
                Assert.Empty(overlay.Leftovers);
                overlay.Unmount();
            }
            finally
            {
                Command.Require("chattr", "-a", overlay.Work);
            }
        }
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_rename_of_a_lower_directory_that_fails() =>
        Compare("ENOTEMPTY changed d full marked", "ENOTEMPTY same full unmarked", overlay =>
        {
            FilePath m = overlay.Merged;
            Sys.Write(m / "from/full/x", "");
            Sys.ChangeTimes(m / "from", Node.LongAgo, Node.LongAgo);
            Errno error = Sys.ErrorOf(() => Sys.Rename(m / "from/d", m / "from/full"));
            _ = Sys.ErrorOf(() => Sys.Rename(m / "from/d", m / "to/full"));
            string time = Sys.Stat(m / "from").ModifyTime.Seconds == Node.LongAgo.Seconds ? "same" : "changed";
            return
                $"{error} {time} {string.Join(' ', (overlay.Upper / "from").Entries())} "
                + $"{(Sys.HasXattr(overlay.Upper / "to", "trusted.overlay.impure") ? "marked" : "unmarked")}";
        }, Tree.Of(("from/d/x", "")), Tree.Of(("from/full", Node.Directory()), ("to/full/y", "")), "redirect_dir=on", on: Filesystem.Ext4);

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void An_upper_without_attributes() => Compare("EIO EEXIST", "None None", overlay =>
    {
        Sys.Unlink(overlay.Merged / "d/x");
        return $"{Said(() => Sys.RemoveDirectory(overlay.Merged / "d"))} {Said(() => Sys.MakeDirectory(overlay.Merged / "d"))}";
    }, Tree.Of(("d/x", "")), upperOn: UpperOn.Ramfs);

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_rename_of_a_lower_file_where_upper_has_no_RENAME_WHITEOUT() =>
        Compare("EINVAL", "None", overlay => Said(() => Sys.Rename(overlay.Merged / "file", overlay.Merged / "new")), Tree.Of(("file", "")),
            upperOn: UpperOn.Ramfs);

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_redirect_between_lowers_where_upper_has_no_attributes()
    {
        FilePath top = Scratch.New(), bottom = Scratch.New();
        Tree.Of(("new", Node.Directory().Attribute("trusted.overlay.redirect", "old"))).MakeAt(top);
        Tree.Of(("old/file", "")).MakeAt(bottom);
        Compare(
            "EPERM", "file", overlay => Said(() => string.Join(' ', Sys.ReadDirectory(overlay.Merged / "new").Select(entry => entry.Name))),
            upperOn: UpperOn.Ramfs, over: [top, bottom]);
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(UpperOn.KernelOverlay)]
    [InlineData(UpperOn.Veneer)]
    [InlineData(UpperOn.Bindfs)]
    public void Uppers_that_the_kernel_refuses(UpperOn upperOn)
    {
        Assert.Equal(Errno.EINVAL, Sys.ErrorOf(() => Overlay.With(upperOn: upperOn, mounter: Mounter.Kernel).Dispose()));
        Overlay.With(upperOn: upperOn).Dispose();
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void One_lower_without_an_upper()
    {
        Assert.Equal(Errno.EINVAL, Sys.ErrorOf(() => Overlay.With(readOnly: true, mounter: Mounter.Kernel).Dispose()));
        using var overlay = Overlay.With(Tree.Of(("file", "x")), readOnly: true);
        Assert.Equal("x", Sys.ReadText(overlay.Merged / "file"));
    }

    // Without effect on users.

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Numbers_of_what_was_copied_up_where_work_is_immutable() => Compare("as before", "of the copy", overlay =>
    {
        Sys.Append(overlay.Merged / "file", "!");
        ulong before = Sys.Stat(overlay.Merged / "file").Ino;
        try
        {
            overlay.Remount(() => Command.Require("chattr", "+i", overlay.Work));
            ulong now = Sys.Stat(overlay.Merged / "file").Ino;
            overlay.Unmount();
            return now == before ? "as before" : now == Sys.Stat(overlay.Upper / "file").Ino ? "of the copy" : "another";
        }
        finally
        {
            Command.Require("chattr", "-i", overlay.Work);
        }
    }, Tree.Of(("file", "x")), on: Filesystem.Ext4);

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void The_uuid_of_a_new_upper() =>
        Compare("True", "False", overlay => $"{Sys.HasXattr(overlay.Upper, "trusted.overlay.uuid")}", on: Filesystem.Ext4);

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void The_longest_name_where_a_lower_allows_longer_ones() =>
        CompareOverSquashfs("256", "255", overlay => $"{Sys.StatFileSystem(overlay.Merged).NameLength}");

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Holes_of_a_copy() => Compare("12288, after more than the data", "12288, after the data", overlay =>
    {
        Sys.Append(overlay.Merged / "file", "");
        using Descriptor copy = Sys.Open(overlay.Upper / "file", OpenFlags.ReadOnly);
        return
            $"{copy.Seek(0, SeekWhence.Data)}, "
            + $"{(copy.Seek(12288, SeekWhence.Hole) == 16384 ? "after the data" : "after more than the data")}";
    }, Tree.Of(("file", Node.Sparse(12288, "data", 4 << 20))), on: Filesystem.Ext4);

    // What FUSE imposes.

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

    // Uppers that lack something.

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_file_with_an_access_list_where_upper_has_no_attributes() => Compare("None", "EOPNOTSUPP", overlay =>
        Said(() => Sys.Append(overlay.Merged / "file", "!")),
        Tree.Of(("file", Node.File("x").Attribute(
            "system.posix_acl_access", Acl.Of(owner: 6, user: (1001, 6), group: 4, mask: 6, other: 4)))),
        upperOn: UpperOn.Ramfs);

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void An_upper_whose_whiteouts_are_files() => Compare("gone ENOENT", " ENOENT", overlay =>
        $"{string.Join(' ', (overlay.Merged / "d").Entries())} {Said(() => Sys.Stat(overlay.Merged / "d/gone"))}",
        Tree.Of(("d/gone", "")),
        Tree.Of(("d", Node.Directory().Attribute("trusted.overlay.opaque", "x")),
            ("d/gone", Node.File().Attribute("trusted.overlay.whiteout", "y"))));

    // Not there yet.

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Whiteouts_of_AUFS_are_ordinary_files() =>
        Compare(".wh.file d file, .wh..wh..opq x", ".wh.file d file, .wh..wh..opq x", overlay =>
            $"{string.Join(' ', overlay.Merged.Entries())}, {string.Join(' ', (overlay.Merged / "d").Entries())}",
            Tree.Of(("file", ""), ("d/x", "")), Tree.Of((".wh.file", ""), ("d/.wh..wh..opq", "")));
}
