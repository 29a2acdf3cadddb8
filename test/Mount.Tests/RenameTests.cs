namespace Veneer.Mount.Tests;

/// <summary>rename(2) and renameat2(2) over layers.</summary>
public sealed class RenameTests
{
    [MountFact]
    public void A_lower_file_is_renamed_and_its_old_name_whited_out()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("a/file", "content"), ("b/x", "")));

        Sys.Rename(overlay.Merged / "a/file", overlay.Merged / "b/renamed");

        Assert.True(Sys.Stat(overlay.Upper / "a/file").IsWhiteoutDevice);
        Assert.Equal("content", Sys.ReadText(overlay.Merged / "b/renamed"));
        Assert.Empty((overlay.Merged / "a").Entries());
        Assert.Equal(Node.LongAgo.Nanoseconds, Sys.Stat(overlay.Merged / "b/renamed").ModifyTime.Nanoseconds);
    }

    [MountFact]
    public void A_file_that_only_the_upper_has_leaves_nothing_behind()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("a/x", "")));
        Sys.Write(overlay.Merged / "a/new", "content");

        Sys.Rename(overlay.Merged / "a/new", overlay.Merged / "moved");

        Assert.Empty((overlay.Upper / "a").Entries());
        Assert.Equal("content", Sys.ReadText(overlay.Merged / "moved"));
    }

    [MountFact]
    public void A_file_replaces_a_lower_one()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("new", "new"), ("old", "old")));

        Sys.Rename(overlay.Merged / "new", overlay.Merged / "old");

        Assert.Equal(["old"], overlay.Merged.Entries());
        Assert.Equal("new", Sys.ReadText(overlay.Merged / "old"));
        overlay.Remount();
        Assert.Equal(["old"], overlay.Merged.Entries());
    }

    [MountFact]
    public void A_directory_of_the_upper_is_renamed_over_an_emptied_merged_one_and_shows_nothing_of_it()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("target/old", "")));
        Sys.MakeDirectory(overlay.Merged / "source");
        Sys.Write(overlay.Merged / "source/new", "");
        Assert.Equal(Errno.ENOTEMPTY, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "source", overlay.Merged / "target")));
        Sys.Unlink(overlay.Merged / "target/old");

        Sys.Rename(overlay.Merged / "source", overlay.Merged / "target");

        Assert.Equal(["new"], (overlay.Merged / "target").Entries());
        Assert.Equal("y", Sys.GetXattrText(overlay.Upper / "target", "trusted.overlay.opaque"));
        Assert.Equal(["target"], overlay.Upper.Entries());
        Assert.Empty(overlay.Leftovers);
        overlay.Remount();
        Assert.Equal(["new"], (overlay.Merged / "target").Entries());
    }

    [MountFact]
    public void A_directory_that_a_lower_layer_has_gives_exdev()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/x", ""), ("other/y", "")), options: "redirect_dir=off");

        Assert.Equal(Errno.EXDEV, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "d", overlay.Merged / "e")));
        Sys.Write(overlay.Merged / "d/new", "");
        Assert.Equal(Errno.EXDEV, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "d", overlay.Merged / "other/e")));

        Assert.Equal(["new", "x"], (overlay.Merged / "d").Entries());
        Command.Require("mv", overlay.Merged / "d", overlay.Merged / "e");
        Assert.Equal(["new", "x"], (overlay.Merged / "e").Entries());
    }

    [MountFact]
    public void With_redirect_dir_a_lower_directory_is_renamed_without_its_content()
    {
        using var overlay = Overlay.With(lowers: [Tree.Of(("d/top", "")), Tree.Of(("d/sub/x", "x"), ("d/bottom", ""), ("other/y", ""))],
            options: "redirect_dir=on");

        Sys.Rename(overlay.Merged / "d", overlay.Merged / "renamed");
        Assert.Equal("d", Sys.GetXattrText(overlay.Upper / "renamed", "trusted.overlay.redirect"));
        Sys.Rename(overlay.Merged / "renamed", overlay.Merged / "other/moved");
        Assert.Equal("/d", Sys.GetXattrText(overlay.Upper / "other/moved", "trusted.overlay.redirect"));
        Sys.Rename(overlay.Merged / "other/moved/sub", overlay.Merged / "other/moved/sub2");
        Sys.MakeDirectory(overlay.Merged / "d");

        Assert.Empty((overlay.Merged / "d").Entries());
        Assert.Equal(["bottom", "sub2", "top"], (overlay.Merged / "other/moved").Entries());
        Assert.Equal(["sub", "sub2"], (overlay.Upper / "other/moved").Entries());
        Assert.Empty((overlay.Upper / "other/moved/sub2").Entries());
        Assert.Equal("x", Sys.ReadText(overlay.Merged / "other/moved/sub2/x"));
        overlay.Remount();
        Assert.Equal("x", Sys.ReadText(overlay.Merged / "other/moved/sub2/x"));
        (TreeImage shown, TreeImage expected) = overlay.ShownBesideKernel();
        Assert.Equal("", TreeImage.Difference(expected, shown));
    }

    [MountFact(NotOfKernel = "There a copy is made and marked first, and ext4 sets the time before it refuses.")]
    public void A_rename_onto_a_directory_that_is_not_empty_leaves_no_trace()
    {
        using var overlay = Overlay.With(
            lower: Tree.Of(("from/dir/file", "x")), upper: Tree.Of(("to/full/file", "y")), options: "redirect_dir=on", on: Filesystem.Ext4);
        TreeImage before = TreeImage.Of(overlay.Merged);

        Assert.Equal(Errno.ENOTEMPTY, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "from/dir", overlay.Merged / "to/full")));

        Assert.Equal("", TreeImage.Difference(before, TreeImage.Of(overlay.Merged)));
        Assert.Equal(["to"], overlay.Upper.Entries());
    }

    [MountFact]
    public void A_redirect_that_would_be_too_long_gives_exdev()
    {
        string name = new('n', 120);
        using var overlay = Overlay.With(lower: Tree.Of(($"{name}/{name}/{name}/d/x", ""), ("other/y", "")), options: "redirect_dir=on");

        Assert.Equal(Errno.EXDEV, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / name / name / name / "d", overlay.Merged / "other/d")));
        Sys.Rename(overlay.Merged / name / name / name / "d", overlay.Merged / name / name / name / "e");

        Assert.Equal("d", Sys.GetXattrText(overlay.Upper / name / name / name / "e", "trusted.overlay.redirect"));
    }

    [MountFact]
    public void Noreplace_refuses_what_is_there_in_any_layer_and_takes_a_whiteouts_place()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("a", "a"), ("b", "b"), ("gone", "")), upper: Tree.Of(("u", "u")));
        Sys.Unlink(overlay.Merged / "gone");

        Assert.Equal(Errno.EEXIST, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "a", overlay.Merged / "b", RenameFlags.NoReplace)));
        Assert.Equal(Errno.EEXIST, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "a", overlay.Merged / "u", RenameFlags.NoReplace)));
        Sys.Rename(overlay.Merged / "a", overlay.Merged / "gone", RenameFlags.NoReplace);

        Assert.Equal(["b", "gone", "u"], overlay.Merged.Entries());
        Assert.Equal("a", Sys.ReadText(overlay.Merged / "gone"));
    }

    [MountTheory]
    [InlineData("low1", "low2")]
    [InlineData("low1", "up1")]
    [InlineData("up1", "up2")]
    [InlineData("low1", "updir")]
    [InlineData("updir", "low1")]
    public void Exchange_swaps_two_names_of_any_layers(string one, string other)
    {
        using var overlay = Overlay.With(
            lower: Tree.Of(("low1", "low1"), ("low2", "low2")), upper: Tree.Of(("up1", "up1"), ("up2", "up2"), ("updir/up", "")));
        TreeImage before = TreeImage.Of(overlay.Merged);

        Sys.Rename(overlay.Merged / one, overlay.Merged / other, RenameFlags.Exchange);

        TreeImage after = TreeImage.Of(overlay.Merged);
        Assert.Equal(before.Lines[one], after.Lines[other]);
        Assert.Equal(before.Lines[other], after.Lines[one]);
        overlay.Remount();
        Assert.Equal("", TreeImage.Difference(after, TreeImage.Of(overlay.Merged)));
        Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / one, overlay.Merged / "none", RenameFlags.Exchange)));
    }

    [MountFact]
    public void Exchange_of_directories_below_needs_redirects()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("a/x", "a"), ("b/y", "b")), options: "redirect_dir=on");

        Sys.Rename(overlay.Merged / "a", overlay.Merged / "b", RenameFlags.Exchange);

        Assert.Equal("a", Sys.ReadText(overlay.Merged / "b/x"));
        Assert.Equal("b", Sys.ReadText(overlay.Merged / "a/y"));
        overlay.Remount();
        Assert.Equal(["y"], (overlay.Merged / "a").Entries());
        Assert.Equal(["x"], (overlay.Merged / "b").Entries());
    }

    [MountFact]
    public void Whiteout_renames_are_refused_as_the_kernel_does()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("a", "a")));

        Assert.Equal(Errno.EINVAL, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "a", overlay.Merged / "b", RenameFlags.Whiteout)));
        Assert.Equal(Errno.EINVAL,
            Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "a", overlay.Merged / "b", RenameFlags.NoReplace | RenameFlags.Exchange)));
        Assert.Equal(["a"], overlay.Merged.Entries());
    }

    [MountFact]
    public void Two_names_of_one_file_renamed_onto_each_other_both_stay()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("x", "")));
        Sys.Write(overlay.Merged / "a", "content");
        Sys.Link(overlay.Merged / "a", overlay.Merged / "b");

        Sys.Rename(overlay.Merged / "a", overlay.Merged / "b");

        Assert.Equal(["a", "b", "x"], overlay.Merged.Entries());
    }

    [MountFact]
    public void Types_must_fit()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", ""), ("dir", Node.Directory()), ("full/x", "")));
        Sys.MakeDirectory(overlay.Merged / "new");

        Assert.Equal(Errno.EISDIR, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "file", overlay.Merged / "dir")));
        Assert.Equal(Errno.ENOTDIR, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "new", overlay.Merged / "file")));
        Assert.Equal(Errno.ENOTEMPTY, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "new", overlay.Merged / "full")));
        Assert.Equal(Errno.EINVAL, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "new", overlay.Merged / "new/sub")));
        Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "none", overlay.Merged / "x")));
    }

    [MountFact]
    public void A_name_inside_a_renamed_directory_is_found_at_once_by_its_new_path()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("x", "")));
        Sys.MakeDirectory(overlay.Merged / "a");
        Sys.MakeDirectory(overlay.Merged / "a/b");
        Sys.Write(overlay.Merged / "a/b/file", "content");
        using Descriptor open = Sys.Open(overlay.Merged / "a/b/file", OpenFlags.ReadWrite);

        Sys.Rename(overlay.Merged / "a", overlay.Merged / "z");
        Sys.MakeDirectory(overlay.Merged / "a");

        Assert.Equal("content", Sys.ReadText(overlay.Merged / "z/b/file"));
        Assert.Empty((overlay.Merged / "a").Entries());
        open.WriteAt("C", 0);
        Assert.Equal("Content", Sys.ReadText(overlay.Upper / "z/b/file"));
    }

    /// <summary>The whiteouts in a directory that is removed or replaced may be many; they go when nobody waits for them.</summary>
    [MountTheory]
    [InlineData("rmdir")]
    [InlineData("rename")]
    public void Whiteouts_of_a_directory_that_goes_delay_nobody(string change)
    {
        // A busy machine may delay anybody once, but not each time.
        Assert.True(Enumerable.Range(0, 8).Any(_ => IsDoneBeforeTheWhiteoutsAreGone(change)),
            "Another rename had to wait until the whiteouts were gone.");
    }

    private static bool IsDoneBeforeTheWhiteoutsAreGone(string change)
    {
        const int count = 100_000;
        using var overlay = Overlay.With(lower: Tree.Of(("full/x", ""), ("gone/x", ""), ("other/x", "")), seconds: 120, mounted: false);
        Sys.MakeDirectory(overlay.Upper / "full");
        Sys.MakeWhiteout(overlay.Upper / "full/x");
        for (int i = 0; i < count; i++) { Sys.Link(overlay.Upper / "full/x", overlay.Upper / $"full/{i}"); }
        overlay.Mount();
        Sys.Rename(overlay.Merged / "other/x", overlay.Merged / "other/y");
        Sys.Unlink(overlay.Merged / "gone/x");
        Sys.RemoveDirectory(overlay.Merged / "gone");
        Sys.MakeDirectory(overlay.Merged / "gone");
        ulong before = Sys.Stat(overlay.Upper / "full").Ino;
        // Another test that drops the caches would have it looked up again, in the directory that the kernel has locked.
        using Descriptor other = Sys.Open(overlay.Merged / "other", OpenFlags.Path | OpenFlags.Directory);

        Task changer = Task.Factory.StartNew(() =>
        {
            if (change == "rmdir") { Sys.RemoveDirectory(overlay.Merged / "full"); }
            else { Sys.Rename(overlay.Merged / "gone", overlay.Merged / "full"); }
        }, default, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        while (!changer.IsCompleted && Sys.Stat(overlay.Upper / "full").Ino == before) { Thread.Yield(); }
        Sys.Rename(overlay.Merged / "other/y", overlay.Merged / "other/x");
        bool areWhiteoutsThere = overlay.Leftovers.Length > 0;
        changer.GetAwaiter().GetResult();

        Assert.Empty(overlay.Leftovers);
        return areWhiteoutsThere;
    }

    /// <summary>The directory to be replaced is made empty first, and upper has no room for what comes then.</summary>
    [MountFact(NotOfKernel = "The whiteouts are removed before, which makes room.")]
    public void A_directory_that_could_not_be_replaced_is_there_as_before()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("moved/x", ""), ("kept/x", "")), upperSize: "1m,nr_inodes=60");
        Sys.Unlink(overlay.Merged / "moved/x");
        Sys.RemoveDirectory(overlay.Merged / "moved");
        Sys.MakeDirectory(overlay.Merged / "moved");
        Sys.Unlink(overlay.Merged / "kept/x");
        ulong number = Sys.Stat(overlay.Merged / "kept").Ino;
        int filled = 0;
        while (Sys.ErrorOf(() => Sys.Write(overlay.Merged / $"fill{filled}", "")) == Errno.None) { filled++; }
        Sys.Unlink(overlay.Merged / "fill0"); // for the empty directory, not for the whiteout

        Errno error = Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "moved", overlay.Merged / "kept"));

        Assert.Equal(Errno.ENOSPC, error);
        Assert.Equal(number, Sys.Stat(overlay.Merged / "kept").Ino);
        for (int i = 1; i < filled; i++) { Sys.Unlink(overlay.Merged / $"fill{i}"); }
        Sys.Write(overlay.Merged / "kept/new", "content");
        Assert.Equal(["new"], (overlay.Merged / "kept").Entries());
        Assert.Empty(overlay.Leftovers);
        overlay.Remount();
        Assert.Equal(["new"], (overlay.Merged / "kept").Entries());
        Assert.Empty((overlay.Merged / "moved").Entries());
    }

    public static TheoryData<Filesystem, Errno> WordsForNotEmpty =>
        new()
        {
            { Filesystem.Tmpfs, Errno.ENOTEMPTY },
            { Filesystem.Ext4, Errno.ENOTEMPTY },
            { Filesystem.Xfs, Errno.EEXIST },
            { Filesystem.Btrfs, Errno.ENOTEMPTY },
        };

    /// <summary>The overlay has a word of its own where a lower is involved; else it is that of upper's filesystem.</summary>
    [MountTheory]
    [MemberData(nameof(WordsForNotEmpty))]
    public void A_directory_that_is_not_empty_is_not_replaced(Filesystem on, Errno pure)
    {
        using var overlay = Overlay.With(on: on, lower: Tree.Of(("merged/x", ""), ("low/x", "")),
            upper: Tree.Of(("merged/y", ""), ("pure/x", ""), ("a", Node.Directory())));

        Assert.Equal(pure, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "a", overlay.Merged / "pure")));
        Assert.Equal(Errno.ENOTEMPTY, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "a", overlay.Merged / "merged")));
        Assert.Equal(Errno.ENOTEMPTY, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "a", overlay.Merged / "low")));
        Assert.Equal(Errno.ENOTEMPTY, Sys.ErrorOf(() => Sys.RemoveDirectory(overlay.Merged / "pure")));
        Assert.Equal(["a", "low", "merged", "pure"], overlay.Merged.Entries());
    }
}
