namespace Veneer.Mount.Tests;

/// <summary>Uppers on filesystems that lack something: what is shown is what the kernel shows with an ordinary upper.</summary>
public sealed class OddUpperTests
{
    private const string OnlyVeneer = "The kernel takes no such upper, or does less with it.";

    private static Tree Old => Tree.Of(
        ("a", "a"), ("b", "b"), ("one", "linked"), ("link", Node.Link("a")), ("fifo", Node.Fifo()),
        ("d/x", "x"), ("d/sub/y", "y"), ("e", Node.Directory()), ("full/f", "f"), ("full/g", "g"), ("deep/er/z", "z"), ("r/1", "1"),
        ("r/2", "2"), ("s/1", "1"), ("untouched/u", "u"));

    public static TheoryData<UpperOn> Odd =>
        [UpperOn.KernelOverlay, UpperOn.Veneer, UpperOn.VeneerOnKernelOverlay, UpperOn.Bindfs, UpperOn.Ramfs];

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Odd))]
    public void All_changes_are_those_of_the_kernel_in_this_mount_and_the_next(UpperOn upperOn)
    {
        // Said, since options that the tests are run with may imply another value, and the kernel is not given these.
        using var expected = Overlay.With(lower: Old, options: "redirect_dir=off", mounter: Mounter.Kernel);
        using var overlay = Overlay.With(lower: Old, options: "redirect_dir=off", upperOn: upperOn);

        string[] wanted = Change(expected.Merged), answers = Change(overlay.Merged);

        Assert.Equal(wanted, answers);
        TreeImage kernel = TreeImage.Of(expected.Merged, Shown), shown = TreeImage.Of(overlay.Merged, Shown);
        Assert.Equal("", TreeImage.Difference(kernel, shown));
        Assert.Empty(UpperFormat.ProblemsOf(overlay.Upper));
        overlay.Remount();
        Assert.Equal("", TreeImage.Difference(kernel, TreeImage.Of(overlay.Merged, Shown)));
    }

    private const Facets Shown = Facets.Content | Facets.Mode | Facets.Owner | Facets.Nlink;

    /// <summary>Each kind of change of names.</summary>
    /// <returns>The answers.</returns>
    private static string[] Change(FilePath m)
    {
        var answers = new List<string>();
        Do("create", () => Sys.Write(m / "new", "new"));
        Do("append", () => Sys.Append(m / "b", " more"));
        Do("unlink", () => Sys.Unlink(m / "a"));
        Do("rename of a lower file", () => Sys.Rename(m / "b", m / "b2"));
        Do("rename into a lower directory", () => Sys.Rename(m / "new", m / "d/new"));
        Do("unlink in it", () => Sys.Unlink(m / "d/x"));
        Do("mkdir over a whiteout of a file", () => Sys.MakeDirectory(m / "d/x"));
        Do("create in that", () => Sys.Write(m / "d/x/in", "in"));
        Do("rmdir", () => Sys.RemoveDirectory(m / "e"));
        Do("mkdir over that", () => Sys.MakeDirectory(m / "e"));
        Do("rmdir of what is not empty", () => Sys.RemoveDirectory(m / "full"));
        Do("unlink all", () => Sys.Unlink(m / "full/f"));
        Do("unlink all", () => Sys.Unlink(m / "full/g"));
        Do("rmdir with whiteouts", () => Sys.RemoveDirectory(m / "full"));
        Do("create over it", () => Sys.Write(m / "full", "file"));
        Do("unlink", () => Sys.Unlink(m / "full"));
        Do("mkdir over it", () => Sys.MakeDirectory(m / "full"));
        Do("create the old name in it", () => Sys.Write(m / "full/f", "again"));
        Do("unlink that", () => Sys.Unlink(m / "full/f"));
        Do("mkdir", () => Sys.MakeDirectory(m / "n1"));
        Do("mkdir", () => Sys.MakeDirectory(m / "n2"));
        Do("rename a directory over an empty one", () => Sys.Rename(m / "n1", m / "n2"));
        foreach (string one in (string[])["r/1", "r/2", "s/1"]) { Do("unlink", () => Sys.Unlink(m / one)); }
        Do("mkdir", () => Sys.MakeDirectory(m / "n3"));
        Do("create in it", () => Sys.Write(m / "n3/1", "n3"));
        Do("unlink that", () => Sys.Unlink(m / "n3/1"));
        Do("rename over a directory that holds whiteouts", () => Sys.Rename(m / "n3", m / "n4"));
        Do("rename of a lower directory", () => Sys.Rename(m / "untouched", m / "touched"));
        Do("exchange of files", () => Sys.Rename(m / "d/new", m / "b2", RenameFlags.Exchange));
        Do("exchange of a file and a directory", () => Sys.Rename(m / "n2", m / "b2", RenameFlags.Exchange));
        Do("rename to a name that is there", () => Sys.Rename(m / "d/new", m / "b2", RenameFlags.NoReplace));
        Do("rename of a link", () => Sys.Rename(m / "link", m / "link2"));
        Do("rename of a FIFO over a whiteout", () => Sys.Rename(m / "fifo", m / "a"));
        Do("chmod", () => Sys.ChangeMode(m / "one", Oct(600)));
        Do("link", () => Sys.Link(m / "one", m / "three"));
        Do("link over a whiteout", () => Sys.Link(m / "one", m / "fifo"));
        Do("unlink of a name", () => Sys.Unlink(m / "one"));
        Do("append by another", () => Sys.Append(m / "three", " more"));
        Do("append to a lower file", () => Sys.Append(m / "deep/er/z", " more"));
        Do("truncate", () => Sys.Truncate(m / "deep/er/z", 2));
        Do("directory into itself", () => Sys.Rename(m / "deep", m / "deep/er/in"));
        return [.. answers];

        void Do(string what, Action action) => answers.Add($"{what}: {Sys.ErrorOf(action)}");
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Odd))]
    public void A_directory_may_take_the_place_of_one_that_holds_whiteouts(UpperOn upperOn)
    {
        using var overlay = Overlay.With(lower: Old, upperOn: upperOn);
        foreach (string one in (string[])["r/1", "r/2"]) { Sys.Unlink(overlay.Merged / one); }
        Sys.MakeDirectory(overlay.Merged / "d/new");
        Sys.Write(overlay.Merged / "d/new/in", "in");

        Errno answer = Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "d/new", overlay.Merged / "r"));

        // Without the mark of an opaque directory what moves would show what lies below its new name.
        Assert.Equal(upperOn == UpperOn.Ramfs ? Errno.EXDEV : Errno.None, answer);
        overlay.Remount();
        Assert.Equal(answer.IsError ? [] : ["in"], (overlay.Merged / "r").Entries());
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Odd))]
    public void A_file_that_is_unlinked_while_open_stays_whole_and_leaves_no_name(UpperOn upperOn)
    {
        using var overlay = Overlay.With(lower: Old, upperOn: upperOn);
        Sys.MakeDirectory(overlay.Merged / "own");
        Sys.Write(overlay.Merged / "own/file", "own");
        foreach (string path in (string[])["own/file", "deep/er/z"])
        {
            using Descriptor file = Sys.Open(overlay.Merged / path, OpenFlags.ReadWrite);
            file.WriteAt("!"u8, 0);

            Sys.Unlink(overlay.Merged / path);

            Assert.Empty((overlay.Merged / path).Parent.Entries());
            Sys.RemoveDirectory((overlay.Merged / path).Parent);
            file.WriteAt("?"u8, 1);
            Assert.StartsWith("!?", System.Text.Encoding.Latin1.GetString(file.ReadAll()), StringComparison.Ordinal);
        }
        Sys.Write(overlay.Merged / "other", "other");
        Sys.Write(overlay.Merged / "target", "target");
        using (Descriptor replaced = Sys.Open(overlay.Merged / "target", OpenFlags.ReadOnly))
        {
            Sys.Rename(overlay.Merged / "other", overlay.Merged / "target");
            Assert.Equal("target", System.Text.Encoding.Latin1.GetString(replaced.ReadAll()));
            Assert.DoesNotContain((overlay.Merged).Entries(), name => name.StartsWith('.'));
        }
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Without_O_TMPFILE_users_are_told_so()
    {
        using var overlay = Overlay.With(lower: Old, upperOn: UpperOn.Bindfs);

        Assert.Equal(Errno.EOPNOTSUPP,
            Sys.ErrorOf(() => Sys.Open(overlay.Merged, OpenFlags.TemporaryFile | OpenFlags.ReadWrite, Oct(600)).Dispose()));
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void What_no_attribute_can_hold_is_refused_when_it_is_asked_for()
    {
        using var overlay = Overlay.With(
            lower: Tree.Of(("file", ""),
                ("acl", Node.File().Attribute("system.posix_acl_access", Acl.Of(owner: 6, user: (1001, 6), group: 4, mask: 6, other: 4)))),
            upperOn: UpperOn.Ramfs);

        Assert.Equal(Errno.EOPNOTSUPP, Sys.ErrorOf(() => Sys.SetXattr(overlay.Merged / "file", "user.a", "b")));
        // A copy without it would let others in.
        Assert.Equal(Errno.EOPNOTSUPP, Sys.ErrorOf(() => Sys.Append(overlay.Merged / "acl", "x")));
    }

    /// <summary>As the kernel does: it falls back to metacopy=off.</summary>
    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Where_no_attribute_can_mark_a_metacopy_the_data_is_copied()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("mode", "data"), ("owner", "data"), ("renamed", "data"), ("linked", "data")),
            options: "metacopy=on,redirect_dir=on", upperOn: UpperOn.Ramfs);
        FilePath m = overlay.Merged;

        Sys.ChangeMode(m / "mode", Oct(600));
        Sys.ChangeOwner(m / "owner", 5, 5);
        Sys.Rename(m / "renamed", m / "new");
        Sys.Link(m / "linked", m / "more");

        foreach (string name in (string[])["mode", "owner", "new", "linked", "more"])
        {
            Assert.Equal("data", Sys.ReadText(overlay.Upper / name));
        }
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData(UpperOn.KernelOverlay)]
    [InlineData(UpperOn.Veneer)]
    public void Whiteouts_as_files_hide_for_the_kernel_too_when_upper_is_a_lower_layer(UpperOn upperOn)
    {
        using var overlay = Overlay.With(lower: Old, upperOn: upperOn);
        Sys.Unlink(overlay.Merged / "a");
        Sys.Unlink(overlay.Merged / "d/x");
        TreeImage expected = TreeImage.Of(overlay.Merged, Shown);
        overlay.Unmount();

        FilePath merged = overlay.Beside("again");
        Sys.MakeDirectory(merged);
        foreach (Mounter by in (Mounter[])[Mounter.Kernel, Mounter.UnderTest])
        {
            by.Mount(new Layers([overlay.Upper, overlay.Lowers[0]], null, null, merged, ""));
            try { Assert.Equal("", TreeImage.Difference(expected, TreeImage.Of(merged, Shown))); }
            finally { by.Unmount(merged); }
        }
    }
}
