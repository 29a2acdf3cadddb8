namespace Veneer.Mount.Tests;

/// <summary>What is removed stays removed, and what that looks like on disk.</summary>
public sealed class RemoveTests
{
    [MountFact]
    public void A_removed_lower_file_leaves_a_whiteout()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/file", "x"), ("d/kept", "")));

        Sys.Unlink(overlay.Merged / "d/file");

        Statx whiteout = Sys.Stat(overlay.Upper / "d/file");
        Assert.True(whiteout.IsWhiteoutDevice);
        Assert.Equal(0u, whiteout.Mode & ModeBits.Mask);
        Assert.Equal(["kept"], (overlay.Merged / "d").Entries());
        overlay.Remount();
        Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => Sys.Stat(overlay.Merged / "d/file")));
    }

    [MountFact]
    public void A_removed_upper_file_leaves_nothing_where_there_is_nothing_below()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/x", "")));
        Sys.Write(overlay.Merged / "d/new", "");
        Sys.MakeDirectory(overlay.Merged / "d/newdir");

        Sys.Unlink(overlay.Merged / "d/new");
        Sys.RemoveDirectory(overlay.Merged / "d/newdir");

        Assert.Empty((overlay.Upper / "d").Entries());
    }

    [MountFact]
    public void A_copied_up_file_that_is_removed_leaves_a_whiteout()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "x")));
        Sys.Append(overlay.Merged / "file", "y");

        Sys.Unlink(overlay.Merged / "file");

        Assert.True(Sys.Stat(overlay.Upper / "file").IsWhiteoutDevice);
        Assert.Empty(overlay.Merged.Entries());
    }

    [MountFact]
    public void A_merged_directory_that_is_empty_to_the_user_can_be_removed()
    {
        using var overlay = Overlay.With(lowers: [Tree.Of(("d/gone", Node.Whiteout())),
            Tree.Of(("d/a", ""), ("d/b/c", ""), ("d/gone", ""))]);
        Sys.Write(overlay.Merged / "d/new", "");

        Assert.Equal(Errno.ENOTEMPTY, Sys.ErrorOf(() => Sys.RemoveDirectory(overlay.Merged / "d")));
        foreach (string name in new[] { "a", "new", "b/c" }) { Sys.Unlink(overlay.Merged / "d" / name); }
        Sys.RemoveDirectory(overlay.Merged / "d/b");
        Sys.RemoveDirectory(overlay.Merged / "d");

        Assert.True(Sys.Stat(overlay.Upper / "d").IsWhiteoutDevice);
        Assert.Empty(overlay.Merged.Entries());
        Assert.Empty(overlay.Leftovers);
    }

    [MountTheory(
        NotOfKernel = "ENOTDIR, or EIO; and where another directory has taken its place, success, or on ext4 the change of that one.")]
    [InlineData("d")]
    [InlineData("parent/d")]
    [InlineData("made again")]
    [InlineData("a file now")]
    [InlineData("full")]
    public void A_lower_directory_that_was_removed_is_changed_by_who_has_it_open(string what)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d", Node.Directory()), ("parent/d", Node.Directory()), ("full/file", "")));
        FilePath path = overlay.Merged / (what is "made again" or "a file now" ? "d" : what);
        using Descriptor directory = Sys.Open(path, OpenFlags.ReadOnly | OpenFlags.Directory);
        Sys.RemoveTree(path);
        if (what == "parent/d") { Sys.RemoveDirectory(path.Parent); }
        if (what == "made again") { Sys.MakeDirectory(path, Oct(755)); }
        if (what == "a file now") { Sys.Write(path, "file"); }

        directory.ChangeMode(Oct(700));
        directory.ChangeOwner(5, 6);
        directory.SetXattr("user.a", "b");

        Statx stat = directory.Stat();
        Assert.Equal((Oct(700), 5u, 6u, 0u), (stat.Mode & ModeBits.Mask, stat.Uid, stat.Gid, stat.Nlink));
        if (what == "made again") { Assert.Equal((Oct(755), 0u), (Sys.Stat(path).Mode & ModeBits.Mask, Sys.Stat(path).Uid)); }
        if (what == "a file now") { Assert.Equal("file", Sys.ReadText(path)); }
        Assert.Empty(overlay.Leftovers);
    }

    [MountFact]
    public void A_directory_made_again_is_empty_and_opaque()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/old", ""), ("d/sub/old", "")));
        Directory.Delete(overlay.Merged / "d", recursive: true);

        Sys.MakeDirectory(overlay.Merged / "d");
        Sys.MakeDirectory(overlay.Merged / "d/sub");

        Assert.Equal("y", Sys.GetXattrText(overlay.Upper / "d", "trusted.overlay.opaque"));
        Assert.Equal(["sub"], (overlay.Merged / "d").Entries());
        Assert.Empty((overlay.Merged / "d/sub").Entries());
        overlay.Remount();
        Assert.Empty((overlay.Merged / "d/sub").Entries());
    }

    [MountFact]
    public void With_userxattr_the_marks_are_user_attributes()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/old", "")), options: "userxattr");
        Directory.Delete(overlay.Merged / "d", recursive: true);

        Sys.MakeDirectory(overlay.Merged / "d");

        Assert.Equal("y", Sys.GetXattrText(overlay.Upper / "d", "user.overlay.opaque"));
        Assert.False(Sys.HasXattr(overlay.Upper / "d", "trusted.overlay.opaque"));
        Assert.Empty(Sys.ListXattr(overlay.Merged / "d"));
    }

    [MountFact]
    public void Errors_are_those_of_any_filesystem()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", ""), ("dir/x", ""), ("empty", Node.Directory())));

        Assert.Equal(Errno.EISDIR, Sys.ErrorOf(() => Sys.Unlink(overlay.Merged / "empty")));
        Assert.Equal(Errno.ENOTDIR, Sys.ErrorOf(() => Sys.RemoveDirectory(overlay.Merged / "file")));
        Assert.Equal(Errno.ENOTEMPTY, Sys.ErrorOf(() => Sys.RemoveDirectory(overlay.Merged / "dir")));
        Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => Sys.Unlink(overlay.Merged / "none")));
        Assert.Equal(Errno.ENOTDIR, Sys.ErrorOf(() => Sys.Unlink(overlay.Merged / "file/x")));
        Assert.Equal(Errno.EINVAL, Sys.ErrorOf(() => Sys.RemoveDirectory(overlay.Merged / "empty/.")));
        Assert.Empty(overlay.Upper.Entries());
    }

    [MountFact]
    public void In_a_sticky_directory_only_the_owner_removes()
    {
        using var overlay = Overlay.With(lower: Tree.Of(
            ("d", Node.Directory().Mode(Oct(1777))), ("d/roots", ""), ("d/his", Node.File().OwnedBy(1000, 1000))));
        using Actor user = Actor.User();

        Assert.Equal(Errno.EPERM, user.ErrorOf(() => Sys.Unlink(overlay.Merged / "d/roots")));
        user.Do(() => Sys.Unlink(overlay.Merged / "d/his"));

        Assert.Equal(["roots"], (overlay.Merged / "d").Entries());
    }

    [MountFact]
    public void The_same_name_can_change_its_type_again_and_again()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("x/old", "old")));
        Directory.Delete(overlay.Merged / "x", recursive: true);
        for (int round = 0; round < 3; round++)
        {
            Sys.Write(overlay.Merged / "x", "file");
            Sys.Unlink(overlay.Merged / "x");
            Sys.MakeDirectory(overlay.Merged / "x");
            Sys.RemoveDirectory(overlay.Merged / "x");
            Sys.SymbolicLink("there", overlay.Merged / "x");
            Sys.Unlink(overlay.Merged / "x");
            Assert.True(Sys.Stat(overlay.Upper / "x").IsWhiteoutDevice);
        }
        Assert.Empty(overlay.Merged.Entries());
    }
}
