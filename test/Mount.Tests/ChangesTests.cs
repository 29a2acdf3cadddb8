using System.Text;

namespace Veneer.Mount.Tests;

/// <summary>
/// What a diff says of an upper, whoever wrote it. Most of these tests change a mounted overlay and read its layers while it is
/// mounted.
/// </summary>
public sealed class ChangesTests
{
    private static Tree Image => Tree.Of(
        ("dir/a", "a"), ("dir/b", "b"), ("dir/sub/c", "c"), ("file", "file"), ("other", "other"), ("gone/x", "x"),
        ("link", Node.Link("file")), ("one", "linked"), ("two", Node.HardLink("one")));

    /// <summary>What <c>veneer diff</c> lists, and that nothing disturbed it.</summary>
    private static string[] Lines(Overlay overlay, params string[] words)
    {
        Command.Result result = Command.Run([Mounter.Binary, "diff", "--upper", overlay.Upper, "--lower", string.Join(':', overlay.Lowers),
            .. words]);
        Assert.Equal((0, ""), (result.ExitCode, result.Error.Trim()));
        return result.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
    }

    [MountFact]
    public void Nothing_has_changed_at_first()
    {
        using var overlay = Overlay.With(lower: Image);

        Assert.Empty(Lines(overlay));
    }

    [MountFact]
    public void Each_kind_of_change_is_told()
    {
        using var overlay = Overlay.With(lower: Image);
        FilePath m = overlay.Merged;
        Sys.Write(m / "dir/new", "new");
        Sys.Append(m / "dir/a", "more");
        Sys.ChangeMode(m / "dir/b", Oct(600));
        Sys.Unlink(m / "file");
        Sys.Unlink(m / "link");
        Sys.Write(m / "link", "now a file");
        Sys.Unlink(m / "other");
        Sys.Write(m / "other", "another");
        Sys.RemoveTree(m / "gone");
        Sys.MakeDirectory(m / "gone", Oct(755));
        Sys.Write(m / "gone/y", "y");

        Assert.Equal(
            ["M dir/a", "m dir/b", "A dir/new", "D file", "O gone", "A gone/y", "T link", "S other"],
            Lines(overlay));
    }

    [MountFact]
    public void What_was_copied_up_and_not_changed_is_not_listed()
    {
        using var overlay = Overlay.With(lower: Image);
        using (Sys.Open(overlay.Merged / "file", OpenFlags.ReadWrite)) { }
        Assert.Contains("file", overlay.Upper.Entries());

        Assert.Empty(Lines(overlay));
    }

    [MountFact]
    public void Content_is_compared_and_not_guessed_from_times()
    {
        using var overlay = Overlay.With(lower: Image);
        Sys.Write(overlay.Merged / "dir/a", "A");
        Sys.ChangeTimes(overlay.Merged / "dir/a", Node.LongAgo, Node.LongAgo);
        Sys.ChangeTimes(overlay.Merged / "dir/b", Node.LongAgo, TimeSpec.Now);
        Sys.SetXattr(overlay.Merged / "file", "user.mark", "1");
        Sys.ChangeOwner(overlay.Merged / "dir", 1, 1);

        Assert.Equal(["m dir", "M dir/a", "m dir/b", "m file"], Lines(overlay));
    }

    [MountTheory]
    [InlineData("redirect_dir=on")]
    [InlineData("redirect_dir=on,metacopy=on")]
    public void Renames_are_found(string options)
    {
        using var overlay = Overlay.With(lower: Image, options: options);
        FilePath m = overlay.Merged;
        Sys.Rename(m / "file", m / "renamed");
        Sys.Rename(m / "other", m / "dir/moved");
        Sys.Append(m / "dir/moved", "more");
        Sys.Rename(m / "dir", m / "gone/dir2");
        Sys.Append(m / "gone/dir2/a", "more");
        Sys.Unlink(m / "gone/dir2/b");
        Sys.Write(m / "gone/dir2/sub/new", "new");

        Assert.Equal(
            [
                "R dir -> gone/dir2", "M gone/dir2/a", "D gone/dir2/b",
                "RM other -> gone/dir2/moved", "A gone/dir2/sub/new", "R file -> renamed",
            ],
            Lines(overlay));
    }

    [MountFact]
    public void Renames_that_take_the_place_of_something_are_found()
    {
        using var overlay = Overlay.With(lower: Image, options: "redirect_dir=on");
        FilePath m = overlay.Merged;
        Sys.Rename(m / "file", m / "other");
        Sys.Write(m / "file", "new");
        Sys.Rename(m / "dir/a", m / "dir/b", RenameFlags.Exchange);
        Sys.Rename(m / "dir", m / "gone", RenameFlags.Exchange);

        Assert.Equal(
            ["R gone -> dir", "S file", "R dir -> gone", "R dir/b -> gone/a", "R dir/a -> gone/b", "R file -> other"],
            Lines(overlay));
    }

    [MountFact]
    public void A_directory_that_was_renamed_back_has_not_changed()
    {
        using var overlay = Overlay.With(lower: Image, options: "redirect_dir=on");
        Sys.Rename(overlay.Merged / "dir", overlay.Merged / "elsewhere");
        Sys.Rename(overlay.Merged / "elsewhere", overlay.Merged / "dir");

        Assert.Empty(Lines(overlay));
    }

    [MountFact]
    public void The_order_is_that_of_the_bytes_of_whole_paths()
    {
        using var overlay = Overlay.With();
        foreach (string directory in (string[])["a", "b"]) { Sys.MakeDirectory(overlay.Merged / directory); }
        foreach (string file in (string[])["a/x", "a-b", "a.b", "a0", "b/\udcff", "b/é", "b/z", "B"])
        {
            Sys.Write(overlay.Merged / file, "");
        }

        string[] paths = [.. Lines(overlay).Select(line => line[2..])];

        Assert.Equal(["B", "a", "a-b", "a.b", "a/x", "a0", "b", "b/z", "b/é", "b/\\xff"], paths);
    }

    [MountFact]
    public void Several_lowers_are_one_baseline()
    {
        Tree top = Tree.Of(("dir/a", "top"), ("whiteout", Node.Whiteout()), ("opaque", Node.Opaque()), ("opaque/t", "t"));
        Tree bottom = Tree.Of(("dir/a", "bottom"), ("dir/b", "b"), ("whiteout", "w"), ("opaque/u", "u"));
        using var overlay = Overlay.With(lowers: [top, bottom]);
        FilePath m = overlay.Merged;
        Sys.Unlink(m / "dir/b");
        Sys.Append(m / "dir/a", "more");
        Sys.Write(m / "whiteout", "is new");
        Sys.Write(m / "opaque/u", "is new");

        Assert.Equal(["M dir/a", "D dir/b", "A opaque/u", "A whiteout"], Lines(overlay));
    }

    [MountFact]
    public void Hard_links_are_modified_and_not_replaced()
    {
        using var overlay = Overlay.With(lower: Image);
        Sys.Append(overlay.Merged / "one", "more");
        Sys.Link(overlay.Merged / "file", overlay.Merged / "file2");
        Sys.Unlink(overlay.Merged / "file");

        Assert.Equal(["R file -> file2", "M one"], Lines(overlay).Where(line => !line.Contains("two", StringComparison.Ordinal)));
    }

    [MountFact]
    public void Attributes_of_users_are_read_where_the_mount_has_them()
    {
        using var overlay = Overlay.With(lower: Image, options: "userxattr");
        Sys.RemoveTree(overlay.Merged / "gone");
        Sys.MakeDirectory(overlay.Merged / "gone");
        Sys.Append(overlay.Merged / "file", "more");

        Assert.Equal(["M file", "O gone"], Lines(overlay, "--userxattr"));
    }

    [MountFact]
    public void Whiteouts_in_the_form_of_attributes_and_escaped_attributes_are_understood()
    {
        Tree upper = Tree.Of(
            ("dir", Node.Directory().Attribute("trusted.overlay.opaque", "x").Attribute("trusted.overlay.overlay.opaque", "y")),
            ("dir/a", Node.File().Attribute("trusted.overlay.whiteout", "")),
            ("file", Node.File("file").Attribute("trusted.overlay.origin", "").Attribute("trusted.overlay.overlay.opaque", "y")),
            ("other", Node.File("other").Attribute("trusted.overlay.origin", "").Attribute("trusted.overlay.impure", "y")));
        using var overlay = Overlay.With(lower: Image, upper: upper, mounted: false);

        Assert.Equal(["m dir", "D dir/a", "m file"], Lines(overlay));
    }

    [MountFact]
    public void Reading_leaves_no_trace_and_follows_no_link()
    {
        Tree upper = Tree.Of(("dir/a", "A"), ("away", Node.Link("/etc")), ("file/x", "x"));
        using var overlay = Overlay.With(lower: Image, upper: upper, mounted: false);
        TreeImage upperBefore = TreeImage.OfLayer(overlay.Upper), lowerBefore = TreeImage.OfLayer(overlay.Lowers[0]);

        string[] lines = Lines(overlay);

        Assert.Equal(["A away", "S dir/a", "T file", "A file/x"], lines);
        Assert.Equal("", TreeImage.Difference(upperBefore, TreeImage.OfLayer(overlay.Upper)));
        Assert.Equal("", TreeImage.Difference(lowerBefore, TreeImage.OfLayer(overlay.Lowers[0])));
    }

    [MountFact]
    public void Trees_may_be_deep_and_paths_long()
    {
        using var overlay = Overlay.With();
        string name = new('d', 200);
        int depth = 40;
        Descriptor at = Sys.Open(overlay.Upper, OpenFlags.Path);
        for (int i = 0; i < depth; i++)
        {
            SysException.ThrowIf(Libc.MakeDirectoryAt(at.Value, Encoding.ASCII.GetBytes(name + "\0"), Oct(755)), "mkdir");
            SysException.ThrowIf(
                Libc.OpenAt(at.Value, Encoding.ASCII.GetBytes(name + "\0"), OpenFlags.Path, 0, ResolveFlags.None, out int below), "open");
            at.Dispose();
            at = new Descriptor(below);
        }
        at.Dispose();

        string[] lines = Lines(overlay);
        Command.Require("rm", "-r", overlay.Upper / name); // which knows paths of this length, too

        Assert.Equal(depth, lines.Length);
        Assert.Equal("A ".Length + depth * 201 - 1, lines[^1].Length);
    }
}
