namespace Veneer.Mount.Tests;

/// <summary>Whose a new object is, and with what permissions.</summary>
public sealed class CreateTests
{
    /// <summary>Ways to make something, by name: each makes it at a path with mode 0777 less the umask.</summary>
    private static readonly Dictionary<string, Action<FilePath>> Makers = new()
    {
        ["file"] = path => Sys.Open(path, OpenFlags.WriteOnly | OpenFlags.Create | OpenFlags.Exclusive, Oct(777)).Dispose(),
        ["directory"] = path => Sys.MakeDirectory(path, Oct(777)),
        ["fifo"] = path => Sys.MakeNode(path, FileType.Fifo, Oct(777)),
        ["socket"] = path => Sys.MakeNode(path, FileType.Socket, Oct(777)),
        ["node"] = path => Sys.MakeNode(path, FileType.Regular, Oct(777)),
        ["link"] = path => Sys.SymbolicLink("target", path),
        ["unnamed file"] = path =>
        {
            using Descriptor file = Sys.Open(path.Parent, OpenFlags.TemporaryFile | OpenFlags.WriteOnly, Oct(777));
            file.LinkTo(path);
        },
    };

    public static TheoryData<string> Kinds => [.. Makers.Keys.Where(k => k != "unnamed file")];

    public static TheoryData<string> AllKinds => [.. Makers.Keys];

    [MountTheory]
    [MemberData(nameof(AllKinds))]
    public void What_a_user_makes_is_his_with_his_umask(string kind)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d", Node.Directory().Mode(Oct(777)))));
        using var user = new Actor(1000, 1001, umask: Oct(27));

        user.Do(() => Makers[kind](overlay.Merged / "d/new"));

        AssertIs(overlay, "d/new", 1000, 1001, kind == "link" ? Oct(777) : Oct(750));
        if (kind == "directory") { Assert.Equal([], Sys.ListXattr(overlay.Merged / "d/new")); }
    }

    [MountTheory]
    [MemberData(nameof(Kinds))]
    public void What_a_user_makes_over_a_whiteout_is_his_too_and_shows_nothing_old(string kind)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d", Node.Directory().Mode(Oct(777))), ("d/new/old", "old")));
        using var user = new Actor(1000, 1001, umask: Oct(27));
        Sys.Unlink(overlay.Merged / "d/new/old");
        Sys.RemoveDirectory(overlay.Merged / "d/new");
        Assert.True(Sys.Stat(overlay.Upper / "d/new").IsWhiteoutDevice);

        user.Do(() => Makers[kind](overlay.Merged / "d/new"));

        AssertIs(overlay, "d/new", 1000, 1001, kind == "link" ? Oct(777) : Oct(750));
        if (kind == "directory")
        {
            Assert.Equal("y", Sys.GetXattrText(overlay.Upper / "d/new", "trusted.overlay.opaque"));
            Assert.Empty((overlay.Merged / "d/new").Entries());
            overlay.Remount();
            Assert.Empty((overlay.Merged / "d/new").Entries());
        }
        Assert.Empty(overlay.Leftovers);
    }

    [MountTheory]
    [MemberData(nameof(Kinds))]
    public void In_a_setgid_directory_the_group_is_the_directorys(string kind)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d", Node.Directory().Mode(Oct(2777)).OwnedBy(0, 500)), ("d/gone", "")));
        using var user = new Actor(1000, 1001, umask: Oct(22));
        Sys.Unlink(overlay.Merged / "d/gone");

        user.Do(() => Makers[kind](overlay.Merged / "d/new"));
        user.Do(() => Makers[kind](overlay.Merged / "d/gone"));

        uint mode = kind switch { "directory" => Oct(2755), "link" => Oct(777), _ => Oct(755) };
        AssertIs(overlay, "d/new", 1000, 500, mode);
        AssertIs(overlay, "d/gone", 1000, 500, mode);
    }

    [MountFact]
    public void A_setgid_bit_that_the_user_may_not_give_is_dropped()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d", Node.Directory().Mode(Oct(2777)).OwnedBy(0, 500))));
        using var stranger = new Actor(1000, 1001, umask: 0);
        using var member = new Actor(1000, 1001, groups: [500], umask: 0);

        stranger.Do(() => Sys.Open(overlay.Merged / "d/stranger", OpenFlags.WriteOnly | OpenFlags.Create, Oct(2775)).Dispose());
        member.Do(() => Sys.Open(overlay.Merged / "d/member", OpenFlags.WriteOnly | OpenFlags.Create, Oct(2775)).Dispose());

        AssertIs(overlay, "d/stranger", 1000, 500, Oct(775));
        AssertIs(overlay, "d/member", 1000, 500, Oct(2775));
    }

    [MountTheory]
    [InlineData("file")]
    [InlineData("directory")]
    [InlineData("fifo")]
    public void A_default_access_list_of_the_directory_replaces_the_umask(string kind)
    {
        byte[] list = Acl.Of(owner: 7, user: (1005, 6), group: 5, mask: 7, other: 0);
        using var overlay = Overlay.With(lower: Tree.Of(("d", Node.Directory().Mode(Oct(777)).Attribute("system.posix_acl_default", list)),
            ("d/gone", "")));
        using var user = new Actor(1000, 1001, umask: Oct(77));
        Sys.Unlink(overlay.Merged / "d/gone");

        user.Do(() => Makers[kind](overlay.Merged / "d/new"));
        user.Do(() => Makers[kind](overlay.Merged / "d/gone"));

        foreach (string name in new[] { "d/new", "d/gone" })
        {
            AssertIs(overlay, name, 1000, 1001, Oct(770));
            Assert.Equal(list, Sys.GetXattr(overlay.Merged / name, "system.posix_acl_access"));
            Assert.Equal(kind == "directory", Sys.HasXattr(overlay.Upper / name, "system.posix_acl_default"));
        }
    }

    [MountFact]
    public void Root_makes_devices_and_a_user_does_not()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d", Node.Directory().Mode(Oct(777)))));
        using Actor user = Actor.User();

        Sys.MakeNode(overlay.Merged / "d/null", FileType.CharacterDevice, Oct(666), 1, 3);
        Sys.MakeNode(overlay.Merged / "d/disk", FileType.BlockDevice, Oct(660), 259, 70000);

        Assert.Equal(Errno.EPERM, user.ErrorOf(() => Sys.MakeNode(overlay.Merged / "d/no", FileType.CharacterDevice, Oct(666), 1, 3)));
        Assert.Equal((259u, 70000u), (Sys.Stat(overlay.Merged / "d/disk").RdevMajor, Sys.Stat(overlay.Merged / "d/disk").RdevMinor));
        Assert.Equal((259u, 70000u), (Sys.Stat(overlay.Upper / "d/disk").RdevMajor, Sys.Stat(overlay.Upper / "d/disk").RdevMinor));
        Sys.Write(overlay.Merged / "d/null", "into the void");
    }

    [MountFact]
    public void Nobody_makes_a_whiteout_by_hand()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/file", "")));

        Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.MakeWhiteout(overlay.Merged / "d/white")));

        Assert.Equal(["file"], (overlay.Merged / "d").Entries());
    }

    [MountTheory]
    [MemberData(nameof(Kinds))]
    public void What_is_there_is_not_made_again(string kind)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "old"), ("dir/x", "")), upper: Tree.Of(("up", "")));

        foreach (string name in new[] { "file", "dir", "up" })
        {
            Assert.Equal(Errno.EEXIST, Sys.ErrorOf(() => Makers[kind](overlay.Merged / name)));
        }
        Assert.Equal("old", Sys.ReadText(overlay.Merged / "file"));
    }

    [MountFact]
    public void Making_something_changes_the_directorys_times()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/x", "")));

        Sys.Write(overlay.Merged / "d/new", "");

        Assert.NotEqual(Node.LongAgo.Seconds, Sys.Stat(overlay.Merged / "d").ModifyTime.Seconds);
        Assert.Equal(Sys.Stat(overlay.Upper / "d").ModifyTime, Sys.Stat(overlay.Merged / "d").ModifyTime);
        Assert.Equal(Node.LongAgo.Seconds, Sys.Stat(overlay.Merged).ModifyTime.Seconds);
    }

    [MountFact]
    public void An_unnamed_file_lives_until_it_is_closed_or_gets_a_name()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/x", "")));
        using (Descriptor lost = Sys.Open(overlay.Merged / "d", OpenFlags.TemporaryFile | OpenFlags.ReadWrite, Oct(600)))
        {
            lost.Write("lost");
            Assert.Equal("lost", lost.ReadAllText());
            Assert.Equal(0u, lost.Stat().Nlink);
        }
        using Descriptor kept = Sys.Open(overlay.Merged / "d", OpenFlags.TemporaryFile | OpenFlags.ReadWrite, Oct(640));
        kept.Write("kept");

        kept.LinkTo(overlay.Merged / "d/name");
        kept.Write(" and more");

        Assert.Equal(["name", "x"], (overlay.Merged / "d").Entries());
        Assert.Equal("kept and more", Sys.ReadText(overlay.Merged / "d/name"));
        Assert.Equal((1u, kept.Stat().Ino), (Sys.Stat(overlay.Merged / "d/name").Nlink, Sys.Stat(overlay.Merged / "d/name").Ino));
        kept.Dispose();
        overlay.Unmount();
        overlay.Mount();
        Assert.Equal("kept and more", Sys.ReadText(overlay.Merged / "d/name"));
    }

    [MountFact]
    public void An_exclusive_unnamed_file_gets_no_name()
    {
        using var overlay = Overlay.With();
        using Descriptor file = Sys.Open(overlay.Merged, OpenFlags.TemporaryFile | OpenFlags.ReadWrite | OpenFlags.Exclusive, Oct(600));

        Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => file.LinkTo(overlay.Merged / "name")));
    }

    private static void AssertIs(Overlay overlay, string name, uint uid, uint gid, uint mode)
    {
        foreach (FilePath root in new[] { overlay.Merged, overlay.Upper })
        {
            Statx stat = Sys.Stat(root / name);
            Assert.Equal($"{uid}:{gid} {Text(mode)}", $"{stat.Uid}:{stat.Gid} {Text(stat.Mode)}");
        }
    }
}
