namespace Veneer.Mount.Tests;

/// <summary>Layers that kernel overlayfs has written, with any of its options, show what they show there.</summary>
public sealed class KernelLayersTests
{
    private static Tree Old => Tree.Of(
        ("dir/a", "a"), ("dir/sub/b", Node.File("b").Mode(Oct(4755))), ("dir/sub/c", "c"), ("dir2/d", "d"), ("file", "file"),
        ("big", new string('x', 200_000)),
        ("one", Node.File("linked")), ("two", Node.HardLink("one")), ("other/link", Node.Link("../file")));

    [MountTheory]
    [InlineData("redirect_dir=on")]
    [InlineData("redirect_dir=on,metacopy=on")]
    [InlineData("redirect_dir=on,index=on")]
    [InlineData("redirect_dir=on,metacopy=on,index=on")]
    [InlineData("redirect_dir=off")]
    [InlineData("redirect_dir=on,metacopy=on,xino=on,index=on")]
    public void A_tree_that_the_kernel_has_changed_shows_the_same(string options)
    {
        using var overlay = Overlay.With(lower: Old, mounter: Mounter.Kernel, options: options);
        Change(overlay.Merged, renameDirectories: !options.Contains("redirect_dir=off", StringComparison.Ordinal));
        overlay.Unmount();
        Sys.DropCaches();

        // An index serves the next copy-up; it changes nothing of what is shown, but for the count of links.
        overlay.Options = options.Replace(",index=on", "", StringComparison.Ordinal);
        overlay.Mount(Mounter.UnderTest);
        (TreeImage shown, TreeImage expected) = overlay.ShownBesideKernel();

        Assert.Equal("", TreeImage.Difference(expected, shown));
    }

    [MountFact]
    public void Redirects_are_followed_also_when_none_would_be_written()
    {
        using var overlay = Overlay.With(lower: Old, mounter: Mounter.Kernel, options: "redirect_dir=on");
        Change(overlay.Merged, renameDirectories: true);
        overlay.Unmount();
        overlay.Options = "";
        overlay.Mount(Mounter.UnderTest);

        (TreeImage shown, TreeImage expected) = overlay.ShownBesideKernel();

        Assert.Equal("", TreeImage.Difference(expected, shown));
    }

    [MountTheory]
    [InlineData("redirect_dir=on")]
    [InlineData("redirect_dir=on,metacopy=on")]
    public void An_upper_of_the_kernel_can_be_a_lower_layer(string options)
    {
        using var first = Overlay.With(lower: Old, mounter: Mounter.Kernel, options: options);
        Change(first.Merged, renameDirectories: true);
        TreeImage expected = TreeImage.Of(first.Merged);
        first.Unmount();

        FilePath merged = first.Beside("again");
        Sys.MakeDirectory(merged);
        Mounter.UnderTest.Mount(new Layers([first.Upper, first.Lowers[0]], null, null, merged, options));
        try
        {
            Assert.Equal("", TreeImage.Difference(expected, TreeImage.Of(merged)));
        }
        finally
        {
            Mounter.UnderTest.Unmount(merged);
        }
    }

    [MountFact]
    public void What_is_changed_in_a_redirected_directory_is_shown_by_the_kernel_too()
    {
        using var overlay = Overlay.With(lower: Old, mounter: Mounter.Kernel, options: "redirect_dir=on,metacopy=on");
        Change(overlay.Merged, renameDirectories: true);
        overlay.Unmount();
        overlay.Mount(Mounter.UnderTest, "redirect_dir=on,metacopy=on");

        Sys.Append(overlay.Merged / "moved/sub/c", " more");
        Sys.Append(overlay.Merged / "big", "end");
        Sys.Rename(overlay.Merged / "moved", overlay.Merged / "dir2/again");
        Sys.Unlink(overlay.Merged / "dir2/again/a");
        Sys.MakeDirectory(overlay.Merged / "dir2/again/new");
        Assert.Equal("c more", Sys.ReadText(overlay.Merged / "dir2/again/sub/c"));

        (TreeImage shown, TreeImage expected) = overlay.ShownBesideKernel("redirect_dir=on,metacopy=on");
        Assert.Equal("", TreeImage.Difference(expected, shown));
    }

    private static void ChangeAttributes(FilePath path, string how)
    {
        switch (how)
        {
            case "chmod": Sys.ChangeMode(path, Oct(4711)); break;
            case "chown": Sys.ChangeOwner(path, 7, 8); break;
            case "utimensat": Sys.ChangeTimes(path, Node.LongAgo, Node.LongAgo); break;
            case "setxattr": Sys.SetXattr(path, "user.new", "value"); break;
            default: Sys.RemoveXattr(path, "user.old"); break;
        }
    }

    [MountTheory]
    [InlineData("chmod")]
    [InlineData("chown")]
    [InlineData("utimensat")]
    [InlineData("setxattr")]
    [InlineData("removexattr")]
    public void A_change_of_attributes_leaves_the_data_below_where_that_is_wanted(string how)
    {
        byte[] content = [.. Enumerable.Range(0, 3 << 20).Select(i => (byte)(i * 7))];
        using var overlay = Overlay.With(
            lower: Tree.Of(("dir/file", Node.File(content).Attribute("user.old", "old")), ("empty", Node.File().Attribute("user.old", ""))),
            options: "metacopy=on");
        FilePath merged = overlay.Merged / "dir/file", upper = overlay.Upper / "dir/file";
        ulong number = Sys.Stat(merged).Ino;
        using (Descriptor reader = Sys.Open(merged, OpenFlags.ReadOnly))
        {
            ChangeAttributes(merged, how);
            Assert.Equal(content, reader.ReadAll());
        }
        ChangeAttributes(overlay.Merged / "empty", how);

        Statx seen = Sys.Stat(merged), copy = Sys.Stat(upper), lower = Sys.Stat(overlay.Lowers[0] / "dir/file");
        Assert.All([upper, overlay.Upper / "empty"], path => Assert.Equal("", Sys.GetXattrText(path, "trusted.overlay.metacopy")));
        Assert.Equal(((ulong)content.Length, 0UL), (copy.Size, copy.Blocks));
        Assert.Equal((copy.Mode, copy.Uid, copy.Gid, copy.ModifyTime, copy.Size),
            (seen.Mode, seen.Uid, seen.Gid, seen.ModifyTime, seen.Size));
        Assert.Equal((lower.Blocks, number), (seen.Blocks, seen.Ino));
        Assert.Equal(content, Sys.Read(merged));
        Sys.DropCaches();
        Assert.Equal(content, Sys.Read(merged));
        (TreeImage shown, TreeImage expected) = overlay.ShownBesideKernel();
        Assert.Equal("", TreeImage.Difference(expected, shown));
    }

    [MountTheory]
    [InlineData(10)]
    [InlineData(3 << 20)]
    public void A_file_that_has_its_attributes_alone_in_upper_gets_its_data_when_it_is_written(int size)
    {
        string content = new('x', size);
        using var overlay = Overlay.With(lower: Tree.Of(("written", content), ("cut", content), ("cut to nothing", content)),
            options: "metacopy=on");
        foreach (string name in (string[])["written", "cut", "cut to nothing"]) { Sys.ChangeMode(overlay.Merged / name, Oct(600)); }
        using Descriptor reader = Sys.Open(overlay.Merged / "written", OpenFlags.ReadOnly);
        Assert.Equal(content, reader.TextAt(0, size));

        Sys.Append(overlay.Merged / "written", "more");
        Sys.Truncate(overlay.Merged / "cut", 5);
        Sys.Open(overlay.Merged / "cut to nothing", OpenFlags.WriteOnly | OpenFlags.Truncate).Dispose();

        foreach ((string name, string expected) in ((string, string)[])[("written", content + "more"), ("cut", "xxxxx"),
            ("cut to nothing", "")])
        {
            Assert.False(Sys.HasXattr(overlay.Upper / name, "trusted.overlay.metacopy"));
            Assert.Equal((expected, expected), (Sys.ReadText(overlay.Merged / name), Sys.ReadText(overlay.Upper / name)));
            Assert.Equal(Oct(600), Sys.Stat(overlay.Merged / name).Mode & ModeBits.Mask);
        }
        Assert.Equal(content, reader.TextAt(0, size)[..size]);
    }

    [MountFact]
    public void A_file_that_has_its_attributes_alone_in_upper_finds_its_data_from_every_name_that_it_gets()
    {
        using var overlay = Overlay.With(
            lower: Tree.Of(("d/aside", "aside"), ("d/there", "there"), ("d/linked", "linked"), ("d/one", "one"), ("two", "two"),
                ("other", Node.Directory())), options: "metacopy=on");
        foreach (string name in (string[])["d/aside", "d/linked", "two"]) { Sys.ChangeMode(overlay.Merged / name, Oct(600)); }

        Sys.Rename(overlay.Merged / "d/aside", overlay.Merged / "d/moved");
        Sys.Rename(overlay.Merged / "d/there", overlay.Merged / "other/there"); // which was not in upper
        Sys.Link(overlay.Merged / "d/linked", overlay.Merged / "other/also");
        Sys.Rename(overlay.Merged / "d/one", overlay.Merged / "two", RenameFlags.Exchange);
        Sys.Rename(overlay.Merged / "d", overlay.Merged / "other/d");
        Sys.Rename(overlay.Merged / "other/d/moved", overlay.Merged / "again");

        (string Name, string Content, string Redirect)[] expected =
            [("again", "aside", "/d/aside"), ("other/there", "there", "/d/there"), ("other/d/linked", "linked", "/d/linked"),
                ("other/also", "linked", "/d/linked"), ("other/d/one", "two", "/two"), ("two", "one", "/d/one")];
        Assert.All(
            expected,
            one => Assert.Equal((one.Content, one.Redirect),
                (Sys.ReadText(overlay.Merged / one.Name), Sys.GetXattrText(overlay.Upper / one.Name, "trusted.overlay.redirect"))));
        (TreeImage shown, TreeImage image) = overlay.ShownBesideKernel();
        Assert.Equal("", TreeImage.Difference(image, shown));
        Sys.Append(overlay.Merged / "again", " more");
        Assert.All(expected[1..], one => Assert.Equal(one.Content, Sys.ReadText(overlay.Merged / one.Name)));
        Assert.Equal("aside more", Sys.ReadText(overlay.Upper / "again"));
    }

    [MountFact(OnlyVeneer = "The kernel gives EXDEV.")]
    public void A_file_too_deep_for_a_redirect_gets_its_data_when_it_moves()
    {
        string deep = string.Join('/', Enumerable.Repeat(new string('d', 60), 5)) + "/";
        using var overlay = Overlay.With(
            lower: Tree.Of((deep + "moved", "moved"), (deep + "linked", "linked"), (deep + "one", "one"), (deep + "same", "same"),
                ("two", "two")), options: "metacopy=on");

        Sys.Rename(overlay.Merged / (deep + "moved"), overlay.Merged / "moved");
        Sys.Link(overlay.Merged / (deep + "linked"), overlay.Merged / "linked");
        Sys.Rename(overlay.Merged / "two", overlay.Merged / (deep + "one"), RenameFlags.Exchange);
        Sys.Rename(overlay.Merged / (deep + "same"), overlay.Merged / (deep + "renamed"));

        foreach ((string name, string content) in ((string, string)[])[("moved", "moved"), ("linked", "linked"), ("two", "one")])
        {
            Assert.False(Sys.HasXattr(overlay.Upper / name, "trusted.overlay.metacopy"));
            Assert.Equal((content, content), (Sys.ReadText(overlay.Merged / name), Sys.ReadText(overlay.Upper / name)));
        }
        Assert.Equal("same", Sys.GetXattrText(overlay.Upper / (deep + "renamed"), "trusted.overlay.redirect"));
        (TreeImage shown, TreeImage expected) = overlay.ShownBesideKernel();
        Assert.Equal("", TreeImage.Difference(expected, shown));
    }

    [MountFact(OnlyVeneer = "The kernel breaks the link.")]
    public void A_file_with_several_names_has_its_data_in_the_copy_from_the_beginning()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("one", Node.File("both")), ("two", Node.HardLink("one"))), options: "metacopy=on");

        Sys.ChangeMode(overlay.Merged / "one", Oct(600));

        Assert.False(Sys.HasXattr(overlay.Upper / "one", "trusted.overlay.metacopy"));
        Assert.Equal("both", Sys.ReadText(overlay.Upper / "one"));
        Assert.Equal(("both", Oct(600)), (Sys.ReadText(overlay.Merged / "two"), Sys.Stat(overlay.Merged / "two").Mode & ModeBits.Mask));
    }

    [MountFact(OnlyVeneer = "The kernel does not look again.")]
    public void What_has_its_data_in_upper_never_gets_that_from_below_again()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "lower")), options: "metacopy=on");
        Sys.ChangeMode(overlay.Merged / "file", Oct(600));
        // As when the server has kept an old view of the file.
        Sys.RemoveXattr(overlay.Upper / "file", "trusted.overlay.metacopy");
        Sys.Write(overlay.Upper / "file", "newer");

        Sys.Append(overlay.Merged / "file", " and more");

        Assert.Equal("newer and more", Sys.ReadText(overlay.Upper / "file"));
    }

    [MountFact]
    public void Metacopies_are_not_followed_when_that_is_forbidden()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "content")), mounter: Mounter.Kernel, options: "metacopy=on");
        Sys.ChangeMode(overlay.Merged / "file", Oct(600));
        overlay.Unmount();
        Assert.True(Sys.HasXattr(overlay.Upper / "file", "trusted.overlay.metacopy"));

        overlay.Mount(Mounter.UnderTest, "metacopy=off");

        Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.Stat(overlay.Merged / "file")));
        overlay.Unmount();
        overlay.Mount(Mounter.UnderTest, "metacopy=on");
        Assert.Equal("content", Sys.ReadText(overlay.Merged / "file"));
    }

    [MountFact]
    public void Redirects_are_not_followed_when_that_is_forbidden()
    {
        using var overlay = Overlay.With(lower: Old, mounter: Mounter.Kernel, options: "redirect_dir=on");
        Change(overlay.Merged, renameDirectories: true);
        overlay.Unmount();
        overlay.Mount(options: "redirect_dir=nofollow");

        overlay.Options = "redirect_dir=nofollow";
        Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.Stat(overlay.Merged / "moved")));
        (TreeImage shown, TreeImage expected) = overlay.ShownBesideKernel();

        // The kernel leaves a name that cannot be looked up out of its listing.
        Assert.Equal("", TreeImage.Difference(expected.Without("moved"), shown.Without("moved")));
    }

    [MountFact]
    public void Attributes_of_an_overlay_inside_an_overlay_are_kept_apart_by_their_escape()
    {
        // What an overlay looks like whose upper lies inside another overlay: its own attributes are escaped once.
        using var overlay = Overlay.With(
            lower: Tree.Of(
                ("d", Node.Directory().Attribute("trusted.overlay.overlay.opaque", "y")),
                ("d/x", Node.File("x").Attribute("trusted.overlay.overlay.metacopy", "")),
                ("e", Node.Directory().Attribute("trusted.overlay.overlay.overlay.redirect", "/d"))));

        Assert.Equal("y", Sys.GetXattrText(overlay.Merged / "d", "trusted.overlay.opaque"));
        Assert.Equal(["trusted.overlay.opaque"], Sys.ListXattr(overlay.Merged / "d"));
        Assert.Equal("", Sys.GetXattrText(overlay.Merged / "d/x", "trusted.overlay.metacopy"));
        Assert.Equal("/d", Sys.GetXattrText(overlay.Merged / "e", "trusted.overlay.overlay.redirect"));

        Sys.SetXattr(overlay.Merged / "d", "trusted.overlay.redirect", "/elsewhere");
        Assert.Equal("/elsewhere", Sys.GetXattrText(overlay.Upper / "d", "trusted.overlay.overlay.redirect"));
        Assert.Equal("y", Sys.GetXattrText(overlay.Upper / "d", "trusted.overlay.overlay.opaque"));
        Sys.RemoveXattr(overlay.Merged / "d", "trusted.overlay.opaque");
        Assert.False(Sys.HasXattr(overlay.Upper / "d", "trusted.overlay.overlay.opaque"));
    }

    [MountFact]
    public void A_kernel_overlay_can_have_it_as_a_lower_layer()
    {
        using var outer = Overlay.With(lower: Tree.Of(("d/old", "old"), ("d/other", "")), upper: Tree.Of(("d/up", "up")));
        using var inner = Overlay.With(over: [outer.Merged], mounter: Mounter.Kernel);

        Sys.Append(inner.Merged / "d/old", " new");
        Sys.Unlink(inner.Merged / "d/up");

        Assert.Equal(["old", "other"], (inner.Merged / "d").Entries());
        Assert.Equal("old new", Sys.ReadText(inner.Merged / "d/old"));
        Assert.Equal("old", Sys.ReadText(outer.Merged / "d/old"));
    }

    [MountFact]
    public void It_can_have_a_kernel_overlay_as_a_lower_layer()
    {
        using var inner = Overlay.With(lower: Tree.Of(("d/old", "old")), upper: Tree.Of(("d/up", "up"), ("big", new string('y', 300_000))),
            mounter: Mounter.Kernel);
        using var outer = Overlay.With(over: [inner.Merged]);

        Assert.Equal(300_000, Sys.Read(outer.Merged / "big").Length);
        Sys.Append(outer.Merged / "d/old", " new");
        Sys.Unlink(outer.Merged / "d/up");

        Assert.Equal("old new", Sys.ReadText(outer.Merged / "d/old"));
        Assert.Equal(["old"], (outer.Merged / "d").Entries());
        Assert.Equal(["old", "up"], (inner.Merged / "d").Entries());
    }

    [MountFact]
    public void It_can_have_another_of_its_kind_as_a_lower_layer()
    {
        using var inner = Overlay.With(lower: Tree.Of(("d/old", "old"), ("exe", Node.File(new string('e', 300_000)).Mode(Oct(755)))),
            upper: Tree.Of(("d/up", "up")));
        using var outer = Overlay.With(over: [inner.Merged]);

        Sys.Append(outer.Merged / "d/old", " new");
        Sys.Append(outer.Merged / "exe", "x");
        Sys.Unlink(outer.Merged / "d/up");

        Assert.Equal("old new", Sys.ReadText(outer.Merged / "d/old"));
        Assert.Equal(300_001, Sys.Read(outer.Merged / "exe").Length);
        Assert.Equal(["old"], (outer.Merged / "d").Entries());
        Assert.Equal(["old", "up"], (inner.Merged / "d").Entries());
        Assert.Equal(300_000, Sys.Read(inner.Merged / "exe").Length);
    }

    private static void Change(FilePath merged, bool renameDirectories)
    {
        if (renameDirectories)
        {
            Sys.Rename(merged / "dir", merged / "moved");
            Sys.Rename(merged / "moved/sub", merged / "moved/renamed");
            Sys.Rename(merged / "moved/renamed", merged / "dir2/sub");
            Sys.Rename(merged / "dir2/sub", merged / "moved/sub");
            Sys.MakeDirectory(merged / "dir");
            Sys.Write(merged / "dir/new", "new");
        }
        Sys.ChangeMode(merged / "big", Oct(600));
        Sys.ChangeOwner(merged / "file", 1000, 1001);
        Sys.ChangeMode(merged / "one", Oct(640));
        Sys.Rename(merged / "big", merged / "other/big");
        Sys.Rename(merged / "other/big", merged / "big");
        Sys.Append(merged / "two", " more");
        Sys.Unlink(merged / "other/link");
        Sys.SetXattr(merged / "dir2", "user.x", "y");
        Sys.Unlink(merged / "dir2/d");
        Sys.RemoveDirectory(merged / "dir2");
        Sys.MakeDirectory(merged / "dir2");
    }
}
