namespace Veneer.Mount.Tests;

/// <summary>A file that has been changed by someone else gives nobody the rights of its owner.</summary>
public sealed class PrivilegeTests
{
    private static readonly byte[] Capability = Convert.FromHexString("0100000200200000000000000000000000000000");

    /// <summary>What a user does to a file, and the permissions it then has of 06777.</summary>
    public static TheoryData<string, string> Changes
    {
        get
        {
            var data = new TheoryData<string, string>();
            foreach (string layer in new[] { "lower", "upper" })
            {
                foreach (string change in new[] { "write", "append", "truncate", "open to truncate", "ftruncate", "mapped", "fallocate" })
                {
                    data.Add(layer, change);
                }
            }
            return data;
        }
    }

    [MountTheory]
    [MemberData(nameof(Changes))]
    public void A_write_of_another_user_clears_suid_sgid_and_capabilities(string layer, string change)
    {
        Tree files = Tree.Of(("file", Node.File("program").Mode(Oct(6777)).Attribute("security.capability", Capability)));
        using Overlay overlay = layer == "lower" ? Overlay.With(lower: files) : Overlay.With(upper: files);
        using Actor user = Actor.User();

        user.Do(() => Change(overlay.Merged / "file", change));

        bool keeps = change == "mapped"; // a store into a map is no call that could clear them
        Assert.Equal(Text(keeps ? Oct(6777) : Oct(777)), Text(Sys.Stat(overlay.Merged / "file").Mode));
        Assert.Equal(Text(keeps ? Oct(6777) : Oct(777)), Text(Sys.Stat(overlay.Upper / "file").Mode));
        if (change is not ("mapped" or "fallocate")) { Assert.False(Sys.HasXattr(overlay.Upper / "file", "security.capability")); }
    }

    [MountFact]
    public void A_write_of_root_keeps_suid_and_clears_capabilities()
    {
        using var overlay = Overlay.With(lower: Tree.Of(
            ("file", Node.File("program").Mode(Oct(6777)).Attribute("security.capability", Capability))));

        Sys.Append(overlay.Merged / "file", "more");

        Assert.Equal(Text(Oct(6777)), Text(Sys.Stat(overlay.Merged / "file").Mode));
        Assert.False(Sys.HasXattr(overlay.Merged / "file", "security.capability"));
    }

    [MountFact]
    public void A_change_of_owner_clears_suid_sgid_and_capabilities()
    {
        using var overlay = Overlay.With(lower: Tree.Of(
            ("file", Node.File("program").Mode(Oct(6777)).Attribute("security.capability", Capability))));

        Sys.ChangeOwner(overlay.Merged / "file", 1000, 1000);

        Assert.Equal(Text(Oct(777)), Text(Sys.Stat(overlay.Merged / "file").Mode));
        Assert.False(Sys.HasXattr(overlay.Merged / "file", "security.capability"));
    }

    public static TheoryData<string> NotDirectories => ["file", "fifo", "socket", "device"];

    [MountTheory]
    [MemberData(nameof(NotDirectories))]
    public void Only_the_owner_clears_suid_by_a_change_of_owner_that_changes_none(string name)
    {
        using var overlay = Overlay.With(lower: Tree.Of(
            ("file", Node.File("program").Mode(Oct(6777)).OwnedBy(1000, 1000)),
            ("fifo", Node.Fifo().Mode(Oct(6777)).OwnedBy(1000, 1000)),
            ("socket", Node.Socket().Mode(Oct(6777)).OwnedBy(1000, 1000)),
            ("device", Node.Character(1, 3).Mode(Oct(6777)).OwnedBy(1000, 1000))));
        using Actor owner = Actor.User(), other = Actor.User(1001, 1001);

        Assert.Equal(Errno.EPERM, other.ErrorOf(() => Sys.ChangeOwner(overlay.Merged / name, uint.MaxValue, uint.MaxValue)));
        Assert.Equal(Text(Oct(6777)), Text(Sys.Stat(overlay.Merged / name).Mode));
        owner.Do(() => Sys.ChangeOwner(overlay.Merged / name, uint.MaxValue, uint.MaxValue));
        Assert.Equal(Text(Oct(777)), Text(Sys.Stat(overlay.Merged / name).Mode));
    }

    [MountFact]
    public void Anybody_may_change_nothing_of_a_directory()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("dir", Node.Directory().Mode(Oct(6777)))));
        using Actor user = Actor.User();

        user.Do(() => Sys.ChangeOwner(overlay.Merged / "dir", uint.MaxValue, uint.MaxValue));

        Assert.Equal(Text(Oct(6777)), Text(Sys.Stat(overlay.Merged / "dir").Mode));
    }

    /// <summary>Since Linux 6.2, unless the writer is in the file's group.</summary>
    [MountTheory]
    [InlineData("append")]
    [InlineData("write")]
    [InlineData("overwrite")]
    [InlineData("truncate")]
    public void A_setgid_bit_without_group_execution_is_cleared_too(string how)
    {
        using var overlay = Overlay.With(lower: Tree.Of(
            ("file", Node.File("xx").Mode(Oct(2666))),
            ("own", Node.File("xx").Mode(Oct(2666)).OwnedBy(0, 1000)),
            ("supplementary", Node.File("xx").Mode(Oct(2666)).OwnedBy(0, 500)),
            ("setuid", Node.File("xx").Mode(Oct(6666)).OwnedBy(0, 500))));
        using var user = new Actor(1000, 1000, groups: [500]);

        foreach (string name in (string[])["file", "own", "supplementary", "setuid"])
        {
            FilePath path = overlay.Merged / name;
            user.Do(() =>
            {
                switch (how)
                {
                    case "append": Sys.Append(path, "y"); break;
                    case "write": using (Descriptor file = Sys.Open(path, OpenFlags.WriteOnly)) { _ = file.WriteAt("y", 0); } break;
                    case "overwrite": using (Sys.Open(path, OpenFlags.WriteOnly | OpenFlags.Truncate)) { } break;
                    default: Sys.Truncate(path, 1); break;
                }
            });
        }

        Assert.Equal(Text(Oct(666)), Text(Sys.Stat(overlay.Merged / "file").Mode));
        Assert.Equal(Text(Oct(2666)), Text(Sys.Stat(overlay.Merged / "own").Mode));
        Assert.Equal(Text(Oct(2666)), Text(Sys.Stat(overlay.Merged / "supplementary").Mode));
        Assert.Equal(Text(Oct(2666)), Text(Sys.Stat(overlay.Merged / "setuid").Mode));
    }

    [MountFact]
    public void A_setuid_program_runs_with_the_rights_of_its_owner()
    {
        using var overlay = Overlay.With(lower: Tree.Of(
            ("id", Node.File(File.ReadAllBytes("/usr/bin/id")).Mode(Oct(4755)).OwnedBy(1234, 1234))));

        Assert.Equal("1234", Command.Require(overlay.Merged / "id", "-u").Trim());
    }

    [MountFact]
    public void Chmod_by_a_user_outside_of_the_group_drops_sgid()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", Node.File("x").Mode(Oct(755)).OwnedBy(1000, 500))));
        using Actor user = Actor.User();

        user.Do(() => Sys.ChangeMode(overlay.Merged / "file", Oct(2755)));

        Assert.Equal(Text(Oct(755)), Text(Sys.Stat(overlay.Merged / "file").Mode));
    }

    private static void Change(FilePath file, string change)
    {
        if (change == "truncate")
        {
            Sys.Truncate(file, 3);
            return;
        }
        OpenFlags flags = change switch { "append" => OpenFlags.Append, "open to truncate" => OpenFlags.Truncate, _ => 0 };
        using Descriptor opened = Sys.Open(file, OpenFlags.ReadWrite | flags);
        switch (change)
        {
            case "write" or "append":
                opened.Write("x");
                break;
            case "ftruncate":
                opened.Truncate(3);
                break;
            case "fallocate":
                opened.Allocate(AllocateMode.Default, 0, 100);
                break;
            case "mapped":
                using (Map map = opened.Map(4, write: true)) { map.Write(0, "x"); }
                break;
            default:
                break;
        }
    }
}
