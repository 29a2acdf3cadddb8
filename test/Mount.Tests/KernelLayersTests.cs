namespace Veneer.Mount.Tests;

/// <summary>Layers that kernel overlayfs has written, with any of its options, show what they show there.</summary>
public sealed class KernelLayersTests
{
    private static Tree Old => Tree.Of(
        ("dir/a", "a"), ("dir/sub/b", Node.File("b").Mode(Oct(4755))), ("dir/sub/c", "c"), ("dir2/d", "d"), ("file", "file"), ("big", new string('x', 200_000)),
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

    [MountTheory(OnlyVeneer = "The kernel makes a metacopy where it is told to.")]
    [InlineData("metacopy=on", true)]
    [InlineData("metacopy=off", false)]
    public void No_metacopy_is_made_and_one_that_is_there_stays_if_told_to(string options, bool stays)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("before", "content"), ("file", "content")), mounter: Mounter.Kernel, options: "metacopy=on");
        Sys.ChangeMode(overlay.Merged / "before", Oct(600));
        overlay.Unmount();
        Assert.True(Sys.HasXattr(overlay.Upper / "before", "trusted.overlay.metacopy"));
        overlay.Mount(Mounter.UnderTest, options);

        Sys.ChangeMode(overlay.Merged / "before", Oct(640));
        Sys.ChangeMode(overlay.Merged / "file", Oct(640));

        Assert.Equal(stays, Sys.HasXattr(overlay.Upper / "before", "trusted.overlay.metacopy"));
        Assert.Equal(("content", Oct(640)), (Sys.ReadText(overlay.Merged / "before"), Sys.Stat(overlay.Merged / "before").Mode & ModeBits.Mask));
        Assert.False(Sys.HasXattr(overlay.Upper / "file", "trusted.overlay.metacopy"));
        Assert.Equal("content", Sys.ReadText(overlay.Upper / "file"));
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
        using var inner = Overlay.With(lower: Tree.Of(("d/old", "old")), upper: Tree.Of(("d/up", "up"), ("big", new string('y', 300_000))), mounter: Mounter.Kernel);
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
        using var inner = Overlay.With(lower: Tree.Of(("d/old", "old"), ("exe", Node.File(new string('e', 300_000)).Mode(Oct(755)))), upper: Tree.Of(("d/up", "up")));
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
