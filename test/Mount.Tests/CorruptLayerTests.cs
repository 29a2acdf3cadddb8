namespace Veneer.Mount.Tests;

/// <summary>What is wrong in a layer is an error on that object; the rest goes on.</summary>
public sealed class CorruptLayerTests
{
    private static Tree Below =>
        Tree.Of(("d/old", "old"), ("other/x", "x"), ("secret/s", "s"), ("hidden/h", "h"), ("other/renamed", new string('r', 5000)),
            ("file", new string('f', 5000)));

    public static TheoryData<string, string> Redirects => new()
    {
        { "a way out", "/../secret" },
        { "a way out from here", "../secret" },
        { "dots", "/other/./x" },
        { "empty", "" },
        { "a slash", "/" },
        { "slashes", "/other//x" },
        { "a slash inside", "other/x" },
        { "a slash at the end", "/other/" },
        { "too long", "/" + new string('r', 300) },
        { "far too long", "/" + string.Join('/', Enumerable.Repeat("rrrr", 1000)) },
        { "nowhere", "/none" },
        { "to a file", "/file" },
        { "a NUL behind a name", "hidden\0x" },
        { "a NUL", "\0" },
        { "a NUL in a path", "/hidden\0/none" },
        { "up from nowhere", "/none/.." },
        { "a dot", "." },
        { "itself", "/d" },
        { "binary", "/\xFF\x01" },
    };

    [MountTheory]
    [MemberData(nameof(Redirects))]
    public void A_strange_redirect_gives_what_the_kernel_gives_and_the_mount_goes_on(string what, string redirect)
    {
        Assert.NotEmpty(what);
        using var overlay = Overlay.With(
            lower: Below,
            upper: Tree.Of(("d", Node.Directory().Attribute("trusted.overlay.redirect", redirect)), ("d/new", "new"),
                ("hidden", Node.Whiteout()), ("ok", "ok")),
            mounted: false);

        Assert.Equal(Seen(overlay, Mounter.Kernel), Seen(overlay, Mounter.UnderTest));
    }

    [MountTheory]
    [InlineData("")]
    [InlineData("redirect_dir=nofollow")]
    public void A_redirect_with_nothing_below_it_gives_what_the_kernel_gives(string options)
    {
        string[] redirects = ["..", ".", "/..", "/", "", "a/b", "/none", "\0"];
        using var overlay = Overlay.With(
            lower: Below,
            upper: Tree.Of([("pure", Node.Opaque()), ("ok", "ok"),
                .. redirects.Select((redirect, i) => ($"pure/{i}", Node.Directory().Attribute("trusted.overlay.redirect", redirect)))]),
            options: options,
            mounted: false);

        Assert.Equal(Seen(overlay, Mounter.Kernel), Seen(overlay, Mounter.UnderTest));
    }

    [MountTheory]
    [InlineData("no data below", "trusted.overlay.metacopy", "", null)]
    [InlineData("odd content", "trusted.overlay.metacopy", "nonsense", null)]
    [InlineData("a redirect to nowhere", "trusted.overlay.metacopy", "", "/none")]
    [InlineData("a redirect to a directory", "trusted.overlay.metacopy", "", "/d")]
    [InlineData("a redirect out", "trusted.overlay.metacopy", "", "/../file")]
    [InlineData("a redirect to another file", "trusted.overlay.metacopy", "", "/other/renamed")]
    public void A_metacopy_without_its_data_is_an_error_on_that_file(string what, string attribute, string content, string? redirect)
    {
        Assert.NotEmpty(what);
        Node meta = Node.Sparse(0, "", 5000).Attribute(attribute, content);
        if (redirect is not null) { meta = meta.Attribute("trusted.overlay.redirect", redirect); }
        using var overlay = Overlay.With(lower: Below, upper: Tree.Of(("meta", meta), ("other/renamed", Node.Whiteout()), ("ok", "ok")),
            options: "metacopy=on", mounted: false);

        Assert.Equal(Seen(overlay, Mounter.Kernel), Seen(overlay, Mounter.UnderTest));
    }

    [MountTheory]
    [InlineData("metacopy=on")]
    [InlineData("metacopy=on,redirect_dir=on")]
    [InlineData("metacopy=off")]
    [InlineData("redirect_dir=nofollow")]
    [InlineData("userxattr")]
    public void The_data_of_a_metacopy_is_a_regular_file_or_an_error(string options)
    {
        string prefix = options == "userxattr" ? "user.overlay." : "trusted.overlay.";
        string[] below = ["device", "block", "fifo", "socket", "link", "directory", "whiteout", "plain", "none"];
        Node Metacopy(string data) => Node.Sparse(0, "", 5000)
            .Attribute(prefix + "metacopy", "")
            .Attribute(prefix + "redirect", "/" + data);
        using var overlay = Overlay.With(
            lowers: [
                Tree.Of([("ok", "ok"), ("other/x", "x"), .. below.Select(data => ("middle_" + data, Metacopy(data)))]),
                Tree.Of(("device", Node.Character(1, 5)), ("block", Node.Block(7, 77)), ("fifo", Node.Fifo()), ("socket", Node.Socket()),
                    ("link", Node.Link("plain")),
                    ("directory/x", ""), ("whiteout", Node.Whiteout()), ("plain", new string('p', 5000))),
            ],
            upper: Tree.Of([.. below.Select(data => ("top_" + data, Metacopy(data)))]),
            options: options,
            mounted: false);
        string[] names = [.. below.SelectMany(data => new[] { "top_" + data, "middle_" + data })];

        string kernel = Opened(Mounter.Kernel);

        Assert.Contains(options.StartsWith("metacopy=on", StringComparison.Ordinal) ? "top_device: EIO EIO" : "top_device: EPERM EPERM",
            kernel, StringComparison.Ordinal);
        Assert.Equal(kernel, Opened(Mounter.UnderTest));

        string Opened(Mounter mounter)
        {
            overlay.Mount(mounter);
            try
            {
                return string.Join('\n', names.Select(name =>
                    $"{name}: {Sys.ErrorOf(() => Sys.Open(overlay.Merged / name, OpenFlags.ReadOnly).Dispose())} "
                    + $"{Sys.ErrorOf(() => Sys.Open(overlay.Merged / name, OpenFlags.WriteOnly).Dispose())}"));
            }
            finally
            {
                overlay.Unmount();
            }
        }
    }

    [MountTheory]
    [InlineData("x")]
    [InlineData("xyz")]
    [InlineData("\0\x04\0\0")]
    [InlineData("\x01\x04\0\0")]
    [InlineData("\0\x05\0\0\0")]
    [InlineData("\0\x24\0\x01aaaabbbbccccddddeeeeffffgggghhhh")]
    [InlineData("a value that is longer than any digest that fs-verity knows, with its four bytes of header")]
    public void A_strange_value_of_a_metacopy_gives_what_the_kernel_gives(string value)
    {
        using var overlay = Overlay.With(
            lower: Below,
            upper: Tree.Of(("file", Node.Sparse(0, "", 5000).Attribute("trusted.overlay.metacopy", value)), ("ok", "ok")),
            options: "metacopy=on",
            mounted: false);

        Assert.Equal(Seen(overlay, Mounter.Kernel), Seen(overlay, Mounter.UnderTest));
    }

    public static TheoryData<string, string> Odd => new()
    {
        { "trusted.overlay.opaque", "" },
        { "trusted.overlay.opaque", "n" },
        { "trusted.overlay.opaque", "yes" },
        { "trusted.overlay.opaque", "x" },
        { "trusted.overlay.origin", "" },
        { "trusted.overlay.origin", "nonsense" },
        { "trusted.overlay.origin", "\0\xFB\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" },
        { "trusted.overlay.impure", "" },
        { "trusted.overlay.impure", "z" },
        { "trusted.overlay.nlink", "U+9999" },
        { "trusted.overlay.whiteout", "y" },
        { "trusted.overlay.metacopy", "" },
        { "trusted.overlay.unknown", "?" },
        { "trusted.overlay.protattr", "ia" },
        { "trusted.overlay.uuid", "short" },
    };

    [MountTheory]
    [MemberData(nameof(Odd))]
    public void A_strange_attribute_of_a_directory_or_file_gives_what_the_kernel_gives(string attribute, string value)
    {
        using var overlay = Overlay.With(
            lower: Below,
            upper: Tree.Of(("d", Node.Directory().Attribute(attribute, value)), ("d/new", "new"),
                ("file", Node.File(new string('u', 5000)).Attribute(attribute, value)), ("ok", "ok")),
            options: "metacopy=on",
            mounted: false);

        Assert.Equal(Seen(overlay, Mounter.Kernel), Seen(overlay, Mounter.UnderTest));
    }

    [MountFact]
    public void A_whiteout_with_attributes_and_permissions_is_a_whiteout()
    {
        using var overlay = Overlay.With(lower: Below, upper: Tree.Of(
            ("file", Node.Whiteout().Attribute("trusted.odd", "y").OwnedBy(5, 6)),
            ("d/old", Node.Whiteout().Attribute("trusted.overlay.whiteout", "?"))));
        Sys.ChangeMode(overlay.Upper / "file", Oct(777));

        Assert.Equal(["d", "hidden", "other", "secret"], overlay.Merged.Entries());
        Assert.Empty((overlay.Merged / "d").Entries());
        Sys.Write(overlay.Merged / "file", "new");
        Assert.Equal("new", Sys.ReadText(overlay.Merged / "file"));
        Assert.Empty(Sys.ListXattr(overlay.Merged / "file"));
        Sys.RemoveDirectory(overlay.Merged / "d");
    }

    [MountFact]
    public void Layers_may_hold_names_that_an_overlay_uses_itself()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("work/x", "1"), ("index", "2"), ("#1", "3"), (".wh.file", "4"),
            (".wh..wh..opq", "5"), ("file", "6")));

        Assert.Equal(["#1", ".wh..wh..opq", ".wh.file", "file", "index", "work"], overlay.Merged.Entries());
        foreach (string name in overlay.Merged.Entries().Where(n => n != "work"))
        {
            Sys.Append(overlay.Merged / name, "!");
            Assert.EndsWith("!", Sys.ReadText(overlay.Merged / name), StringComparison.Ordinal);
        }
    }

    /// <summary>What can be found out about the overlay, errors and all, and that it goes on afterwards.</summary>
    private static string Seen(Overlay overlay, Mounter mounter)
    {
        overlay.Mount(mounter);
        try
        {
            TreeImage image = TreeImage.Of(overlay.Merged, Facets.Content);
            // The kernel leaves out of a listing what it cannot look up; both give the error for the name itself.
            string lines = string.Join('\n', image.Lines.Where(l => !l.Value.StartsWith('E')).Select(l => $"{l.Key}: {l.Value}"));
            string[] names = ["d", "meta", "file", "d/old", "d/new", "d/s", "d/x", .. Enumerable.Range(0, 8).Select(i => $"pure/{i}")];
            string direct = string.Join('\n', names.Select(name =>
                $"{name}: {Sys.ErrorOf(() => Sys.Stat(overlay.Merged / name))} "
                + $"{Sys.ErrorOf(() => Sys.Open(overlay.Merged / name, OpenFlags.ReadOnly).Dispose())}"));
            Assert.Equal("ok", Sys.ReadText(overlay.Merged / "ok"));
            Assert.Equal("x", Sys.ReadText(overlay.Merged / "other/x"));
            return lines + "\n" + direct;
        }
        finally
        {
            overlay.Unmount();
        }
    }
}
