using static Veneer.Mount.Tests.BesideTheKernel;

namespace Veneer.Mount.Tests;

/// <summary>Rows of docs/differences.md in which Veneer is better than the kernel: what the kernel answers, and what Veneer does.</summary>
/// <remarks>Rows that need more than a few lines have tests where their subject is.</remarks>
public sealed class DifferencesForTheBetterTests
{
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
}
