namespace Veneer.Mount.Tests;

/// <summary>Which layer a name is found in, and what hides what.</summary>
public sealed class LookupTests
{
    [MountFact]
    public void A_name_is_found_in_the_topmost_layer_that_has_it()
    {
        using var overlay = Overlay.With(
            lowers: [Tree.Of(("a", "middle"), ("b", "middle")), Tree.Of(("a", "bottom"), ("b", "bottom"), ("c", "bottom"))],
            upper: Tree.Of(("a", "top")));

        Assert.Equal("top", Sys.ReadText(overlay.Merged / "a"));
        Assert.Equal("middle", Sys.ReadText(overlay.Merged / "b"));
        Assert.Equal("bottom", Sys.ReadText(overlay.Merged / "c"));
    }

    [MountFact]
    public void Directories_of_the_same_name_are_merged_through_all_layers()
    {
        using var overlay = Overlay.With(
            lowers: [Tree.Of(("d/e/middle", "")), Tree.Of(("d/e/bottom", ""))],
            upper: Tree.Of(("d/e/top", "")));

        Assert.Equal(["bottom", "middle", "top"], (overlay.Merged / "d/e").Entries());
    }

    /// <summary>After some lookups the names of many lowers are remembered: what is found, hidden or missing stays what it was.</summary>
    [MountFact]
    public void Many_layers_show_the_same_when_their_names_are_remembered()
    {
        const int layers = 12, names = 60;
        using Overlay overlay = Overlay.With(lowers: [.. Enumerable.Repeat(Tree.Empty, layers)], mounted: false);
        for (int layer = 0; layer < layers; layer++) { Sys.MakeDirectory(overlay.Lowers[layer] / "d", Oct(755)); }
        for (int name = 0; name < names; name++)
        {
            // In the layer of its number and in those below; every fifth is hidden by a whiteout just above its topmost.
            int top = name % layers;
            for (int layer = top; layer < layers; layer += 4) { Sys.Write(overlay.Lowers[layer] / $"d/n{name}", $"{name} in {layer}"); }
            if (name % 5 == 0 && top > 0) { Sys.MakeWhiteout(overlay.Lowers[top - 1] / $"d/n{name}"); }
            Sys.MakeDirectory(overlay.Lowers[top] / $"d/sub{name}", Oct(755));
            Sys.Write(overlay.Lowers[top] / $"d/sub{name}/here", "");
            if (top < layers - 1) { Sys.MakeDirectory(overlay.Lowers[layers - 1] / $"d/sub{name}", Oct(755)); }
            Sys.Write(overlay.Lowers[layers - 1] / $"d/sub{name}/bottom", "");
        }
        overlay.Mount();
        FilePath d = overlay.Merged / "d";

        for (int time = 0; time < 3; time++)
        {
            for (int name = 0; name < names; name++)
            {
                int top = name % layers;
                bool isHidden = name % 5 == 0 && top > 0;
                Assert.Equal(isHidden ? Errno.ENOENT : Errno.None, Sys.ErrorOf(() => Sys.Stat(d / $"n{name}")));
                if (!isHidden) { Assert.Equal($"{name} in {top}", Sys.ReadText(d / $"n{name}")); }
                Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => Sys.Stat(d / $"missing{name}")));
                Assert.Equal(["bottom", "here"], (d / $"sub{name}").Entries());
            }
            Sys.DropCaches();
        }
        // What upper gets, hides or gives back is none of what is remembered.
        for (int name = 0; name < names; name++)
        {
            bool isHidden = name % 5 == 0 && name % layers > 0;
            if (!isHidden) { Sys.Unlink(d / $"n{name}"); }
            Assert.Equal(!isHidden, Sys.ErrorOf(() => Sys.Stat(overlay.Upper / $"d/n{name}")) == Errno.None);
            Sys.Write(d / $"n{name}", "new");
            Assert.Equal("new", Sys.ReadText(d / $"n{name}"));
            Sys.Rename(d / $"n{name}", d / $"missing{name}");
            Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => Sys.Stat(d / $"n{name}")));
            Assert.Equal("new", Sys.ReadText(d / $"missing{name}"));
            Sys.Unlink(d / $"missing{name}");
            Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => Sys.Stat(d / $"missing{name}")));
        }
        Sys.DropCaches();
        for (int name = 0; name < names; name++) { Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => Sys.Stat(d / $"n{name}"))); }
    }

    [MountFact]
    public void A_file_hides_a_directory_below_it_and_ends_the_merge()
    {
        using var overlay = Overlay.With(lowers:
        [
            Tree.Of(("x/top", "")),
            Tree.Of(("x", "a file between directories")),
            Tree.Of(("x/bottom", "")),
        ]);

        Assert.Equal(["top"], (overlay.Merged / "x").Entries());
    }

    [MountFact]
    public void A_whiteout_hides_the_layers_below_it_and_is_not_seen_itself()
    {
        using var overlay = Overlay.With(
            lowers: [Tree.Of(("file", Node.Whiteout()), ("dir/gone", Node.Whiteout())),
                Tree.Of(("file", ""), ("dir/gone", ""), ("dir/kept", ""))]);

        Assert.Equal(["dir"], overlay.Merged.Entries());
        Assert.Equal(["kept"], (overlay.Merged / "dir").Entries());
        Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => Sys.Stat(overlay.Merged / "file")));
    }

    [MountFact]
    public void A_directory_above_a_whiteout_does_not_merge_with_what_is_below_it()
    {
        using var overlay = Overlay.With(lowers: [Tree.Of(("d/new", "")), Tree.Of(("d", Node.Whiteout())), Tree.Of(("d/old", ""))]);

        Assert.Equal(["new"], (overlay.Merged / "d").Entries());
    }

    [MountFact]
    public void An_opaque_directory_shows_only_itself_and_what_is_above()
    {
        using var overlay = Overlay.With(
            lowers: [Tree.Of(("d", Node.Opaque()), ("d/middle", "")), Tree.Of(("d/bottom", ""))],
            upper: Tree.Of(("d/top", "")));

        Assert.Equal(["middle", "top"], (overlay.Merged / "d").Entries());
    }

    [MountFact]
    public void An_opaque_directory_hides_names_of_its_subdirectories_too()
    {
        using var overlay = Overlay.With(
            upper: Tree.Of(("d", Node.Opaque()), ("d/e/new", "")),
            lower: Tree.Of(("d/e/old", "")));

        Assert.Equal(["new"], (overlay.Merged / "d/e").Entries());
    }

    [MountFact]
    public void A_whiteout_in_form_of_an_attribute_hides_what_is_below()
    {
        // An empty file with the attribute, in a directory whose "opaque" says x: what tools write who may not mknod.
        using var overlay = Overlay.With(lowers:
        [
            Tree.Of(
                ("d", Node.Directory().Attribute("trusted.overlay.opaque", "x")),
                ("d/gone", Node.File().Attribute("trusted.overlay.whiteout", "y")),
                ("d/added", "")),
            Tree.Of(("d/gone", "old"), ("d/kept", "old")),
        ]);

        Assert.Equal(["added", "kept"], (overlay.Merged / "d").Entries());
        Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => Sys.Stat(overlay.Merged / "d/gone")));
    }

    [MountFact]
    public void User_attributes_are_the_overlays_own_with_userxattr_and_just_attributes_without()
    {
        Tree top = Tree.Of(("d", Node.Directory().Attribute("user.overlay.opaque", "y")), ("d/new", ""));
        using var with = Overlay.With(upper: top, lower: Tree.Of(("d/old", "")), options: "userxattr");
        using var without = Overlay.With(upper: top, lower: Tree.Of(("d/old", "")));

        Assert.Equal(["new"], (with.Merged / "d").Entries());
        Assert.Equal(["new", "old"], (without.Merged / "d").Entries());
    }

    [MountFact]
    public void Every_type_of_file_is_shown_with_its_type_in_listing_and_in_stat()
    {
        Tree types = Tree.Of(
            ("file", "x"), ("dir", Node.Directory()), ("link", Node.Link("file")), ("fifo", Node.Fifo()),
            ("socket", Node.Socket()), ("char", Node.Character(1, 3)), ("block", Node.Block(7, 200)));
        using var overlay = Overlay.With(lower: types, upper: Tree.Of(("more", Node.Fifo())));

        (TreeImage shown, TreeImage expected) = overlay.ShownBesideKernel(facets: Facets.Visible | Facets.EntryMatchesStat);

        Assert.Equal("", TreeImage.Difference(expected, shown));
        Assert.Equal(9, shown.Lines.Count);
    }

    [MountFact]
    public void Listing_and_stat_agree_on_inode_and_type_in_merged_and_plain_directories()
    {
        using var overlay = Overlay.With(
            lowers: [Tree.Of(("d/m", ""), ("d/sub/x", ""), ("only/f", "")),
                Tree.Of(("d/b", ""), ("d/link", Node.Link("b")), ("d/sub/y", ""), ("d/sub/z", ""))]);
        Sys.Write(overlay.Merged / "d/u", "");
        Sys.Append(overlay.Merged / "d/sub/z", "up");
        Sys.MakeDirectory(overlay.Merged / "mine");
        Sys.Write(overlay.Merged / "mine/f", "");

        TreeImage shown = TreeImage.Of(overlay.Merged, Facets.EntryMatchesStat);

        Assert.DoesNotContain(shown.Lines.Values, line => line.Contains("d_", StringComparison.Ordinal));
    }

    [MountFact]
    public void The_parent_entry_of_a_listing_names_the_parent_directory()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("a/b/file", "")), upper: Tree.Of(("a/c", "")));

        Assert.Equal(Sys.Stat(overlay.Merged / "a").Ino, Sys.Stat(overlay.Merged / "a/b/..").Ino);
        Assert.Equal(Sys.Stat(overlay.Merged).Ino, Sys.Stat(overlay.Merged / "a/..").Ino);
    }

    [MountFact]
    public void A_symbolic_link_of_a_lower_layer_is_followed_by_the_user_and_never_by_the_overlay()
    {
        using var overlay = Overlay.With(lower: Tree.Of(
            ("real/file", "content"), ("way", Node.Link("real")), ("out", Node.Link("/etc/hostname")), ("loop", Node.Link("loop"))));

        Assert.Equal("content", Sys.ReadText(overlay.Merged / "way/file"));
        Assert.Equal("/etc/hostname", Sys.ReadLink(overlay.Merged / "out"));
        Assert.Equal(Errno.ELOOP, Sys.ErrorOf(() => Sys.Read(overlay.Merged / "loop")));
        Sys.Write(overlay.Merged / "way/new", "x");
        Assert.Equal(["new"], (overlay.Upper / "real").Entries());
    }

    [MountFact]
    public void Names_that_are_not_utf8_are_names_like_any_other()
    {
        using var overlay = Overlay.With(lower: Tree.Of((PathText.Decode([0xFF, 0xFE, (byte)'x']), "odd")),
            upper: Tree.Of((PathText.Decode([0xC3, 0x28]), "odder")));
        FilePath name = overlay.Merged / [0xFF, 0xFE, (byte)'x'];

        Assert.Equal("odd", Sys.ReadText(name));
        Assert.Equal("odder", Sys.ReadText(overlay.Merged / [0xC3, 0x28]));
        Sys.Append(name, "!");
        Sys.Rename(name, overlay.Merged / [0x80]);
        Sys.Link(overlay.Merged / [0x80], overlay.Merged / [0xF8, 0x88]);

        Assert.Equal(new[] { PathText.Decode([0x80]), PathText.Decode([0xC3, 0x28]), PathText.Decode([0xF8, 0x88]) }.Order(),
            overlay.Merged.Entries());
        Assert.Equal("odd!", Sys.ReadText(overlay.Merged / [0xF8, 0x88]));
        Assert.True(Sys.Stat(overlay.Upper / [0xFF, 0xFE, (byte)'x']).IsWhiteoutDevice);
    }

    [MountFact]
    public void A_lower_file_that_is_read_keeps_its_access_time()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("dir/file", "content"), ("link", Node.Link("dir/file"))));

        Assert.Equal("content", Sys.ReadText(overlay.Merged / "link"));
        using (Descriptor file = Sys.Open(overlay.Merged / "dir/file", OpenFlags.ReadOnly))
        using (Map map = file.Map(7))
        {
            Assert.Equal("content", map.Text(0, 7));
        }
        _ = (overlay.Merged / "dir").Entries();
        // That nothing of the lower layer has changed is checked when the overlay is disposed.
    }
}
