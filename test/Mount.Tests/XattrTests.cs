namespace Veneer.Mount.Tests;

/// <summary>Extended attributes: the users' are theirs, the overlay's own are hidden.</summary>
public sealed class XattrTests
{
    [MountFact]
    public void The_overlays_own_attributes_are_seen_by_nobody()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/old", ""), ("file", Node.File("x").Attribute("user.mine", "1"))),
            options: "redirect_dir=on");
        Sys.Append(overlay.Merged / "file", "y");
        Sys.Rename(overlay.Merged / "d", overlay.Merged / "moved");
        Sys.MakeDirectory(overlay.Merged / "d");
        Assert.True(Sys.HasXattr(overlay.Upper / "d", "trusted.overlay.opaque"));

        Assert.Equal(["user.mine"], Sys.ListXattr(overlay.Merged / "file"));
        Assert.Empty(Sys.ListXattr(overlay.Merged / "d"));
        Assert.Empty(Sys.ListXattr(overlay.Merged / "moved"));
        Assert.Empty(Sys.ListXattr(overlay.Merged));
        foreach (string name in new[] { "opaque", "redirect", "origin", "impure", "upper", "nosuch" })
        {
            Assert.Equal(Errno.ENODATA, Sys.ErrorOf(() => Sys.GetXattr(overlay.Merged / "d", "trusted.overlay." + name)));
        }
    }

    [MountFact]
    public void An_attribute_with_the_overlays_name_is_the_users_own_and_means_nothing_here()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/old", "")));

        Sys.SetXattr(overlay.Merged / "d", "trusted.overlay.opaque", "y");

        Assert.Equal("y", Sys.GetXattrText(overlay.Merged / "d", "trusted.overlay.opaque"));
        Assert.Equal(["trusted.overlay.opaque"], Sys.ListXattr(overlay.Merged / "d"));
        Assert.Equal(["old"], (overlay.Merged / "d").Entries());
        Assert.False(Sys.HasXattr(overlay.Upper / "d", "trusted.overlay.opaque"));
        overlay.Remount();
        Assert.Equal(["old"], (overlay.Merged / "d").Entries());
    }

    [MountTheory]
    [InlineData("", "trusted.overlay.")]
    [InlineData("userxattr", "user.overlay.")]
    public void The_overlays_prefix_alone_is_no_name(string options, string prefix)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "")), options: options);

        Assert.Equal(Errno.EINVAL, Sys.ErrorOf(() => Sys.SetXattr(overlay.Merged / "file", prefix, "y")));
        Assert.Equal(Errno.EINVAL, Sys.ErrorOf(() => Sys.GetXattr(overlay.Merged / "file", prefix)));
        Assert.Equal(Errno.EINVAL, Sys.ErrorOf(() => Sys.RemoveXattr(overlay.Merged / "file", prefix)));
        Assert.False((overlay.Upper / "file").Exists);
    }

    [MountTheory]
    [InlineData(Filesystem.Tmpfs)]
    [InlineData(Filesystem.Ext4)]
    public void All_kinds_are_set_read_listed_and_removed(Filesystem filesystem)
    {
        using var overlay = Overlay.With(on: filesystem,
            lower: Tree.Of(("file", Node.File("x").Attribute("user.old", "old")), ("link", Node.Link("file")), ("d", Node.Directory())));
        foreach (string name in new[] { "file", "d" })
        {
            foreach (string attribute in new[] { "user.new", "trusted.new", "security.new" })
            {
                Sys.SetXattr(overlay.Merged / name, attribute, "value");
                Assert.Equal("value", Sys.GetXattrText(overlay.Merged / name, attribute));
            }
        }
        Sys.SetXattr(overlay.Merged / "link", "trusted.new", "on a link");

        Assert.Equal(["security.new", "trusted.new", "user.new", "user.old"], Sys.ListXattr(overlay.Merged / "file"));
        Assert.Equal(Errno.EEXIST, Sys.ErrorOf(() => Sys.SetXattr(overlay.Merged / "file", "user.old", "x"u8, XattrFlags.Create)));
        Assert.Equal(Errno.ENODATA, Sys.ErrorOf(() => Sys.SetXattr(overlay.Merged / "file", "user.none", "x"u8, XattrFlags.Replace)));
        Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.SetXattr(overlay.Merged / "link", "user.new", "x")));
        Sys.RemoveXattr(overlay.Merged / "file", "user.old");
        Assert.Equal(Errno.ENODATA, Sys.ErrorOf(() => Sys.RemoveXattr(overlay.Merged / "file", "user.old")));
        Assert.Equal(Errno.ENODATA, Sys.ErrorOf(() => Sys.GetXattr(overlay.Merged / "file", "user.old")));
        Assert.Equal(Errno.EOPNOTSUPP, Sys.ErrorOf(() => Sys.GetXattr(overlay.Merged / "file", "unknown.kind")));
        Assert.Equal("on a link", Sys.GetXattrText(overlay.Upper / "link", "trusted.new"));
    }

    [MountFact]
    public void An_attribute_that_is_not_there_brings_nothing_up()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "x")));

        Assert.Equal(Errno.ENODATA, Sys.ErrorOf(() => Sys.RemoveXattr(overlay.Merged / "file", "user.none")));

        Assert.Empty(overlay.Upper.Entries());
    }

    [MountFact]
    public void A_user_sees_no_trusted_attributes()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", Node.File("x").Attribute("trusted.t", "1").Attribute("user.u", "2"))));
        using Actor user = Actor.User();

        Assert.Equal(["user.u"], user.Do(() => Sys.ListXattr(overlay.Merged / "file")));
        Assert.Equal(Errno.ENODATA, user.ErrorOf(() => Sys.GetXattr(overlay.Merged / "file", "trusted.t")));
        Assert.Equal(Errno.EPERM, user.ErrorOf(() => Sys.SetXattr(overlay.Merged / "file", "trusted.t", "x")));
        Assert.Equal(Errno.EACCES, user.ErrorOf(() => Sys.SetXattr(overlay.Merged / "file", "user.u", "x")));
    }

    [MountFact]
    public void A_large_value_goes_through()
    {
        using var overlay = Overlay.With(on: Filesystem.Xfs,
            lower: Tree.Of(("file", Node.File("x").Attribute("user.large", new string('v', 60_000)))));

        Assert.Equal(60_000, Sys.GetXattr(overlay.Merged / "file", "user.large").Length);
        Sys.SetXattr(overlay.Merged / "file", "user.other", new string('w', 65_536));

        Assert.Equal(60_000, Sys.GetXattr(overlay.Upper / "file", "user.large").Length);
        Assert.Equal(65_536, Sys.GetXattr(overlay.Merged / "file", "user.other").Length);
    }

    [MountFact]
    public void An_access_list_is_obeyed_and_changes_with_the_mode()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", Node.File("x").Mode(Oct(600))), ("d", Node.Directory().Mode(Oct(700))),
            ("d/x", "")));
        using Actor user = Actor.User();
        Assert.Equal(Errno.EACCES, user.ErrorOf(() => Sys.Read(overlay.Merged / "file")));

        Sys.SetXattr(overlay.Merged / "file", "system.posix_acl_access", Acl.Of(owner: 6, user: (1000, 6), group: 0, mask: 6, other: 0));
        Sys.SetXattr(overlay.Merged / "d", "system.posix_acl_access", Acl.Of(owner: 7, user: (1000, 7), group: 0, mask: 7, other: 0));

        Assert.Equal(Oct(660), Sys.Stat(overlay.Merged / "file").Mode & ModeBits.Mask);
        user.Do(() => Sys.Append(overlay.Merged / "file", "by the user"));
        user.Do(() => Sys.Write(overlay.Merged / "d/his", ""));
        Sys.ChangeMode(overlay.Merged / "file", Oct(600));
        Assert.Equal(Acl.Of(owner: 6, user: (1000, 6), group: 0, mask: 0, other: 0),
            Sys.GetXattr(overlay.Merged / "file", "system.posix_acl_access"));
        Assert.Equal(Errno.EACCES, user.ErrorOf(() => Sys.Read(overlay.Merged / "file")));
        Sys.RemoveXattr(overlay.Merged / "file", "system.posix_acl_access");
        Assert.False(Sys.HasXattr(overlay.Upper / "file", "system.posix_acl_access"));
        Assert.Equal(Errno.EOPNOTSUPP, Sys.ErrorOf(() => Sys.SetXattr(overlay.Merged / "file", "system.posix_acl_access_", "x")));
    }

    [MountFact]
    public void An_access_list_of_a_lower_file_is_obeyed()
    {
        using var overlay = Overlay.With(lower: Tree.Of(
            ("yes", Node.File("x")
                .Mode(Oct(600))
                .Attribute("system.posix_acl_access", Acl.Of(owner: 6, user: (1000, 4), group: 0, mask: 4, other: 0))),
            ("no", Node.File("x")
                .Mode(Oct(644))
                .Attribute("system.posix_acl_access", Acl.Of(owner: 6, user: (1000, 0), group: 4, mask: 4, other: 4)))));
        using Actor user = Actor.User();

        Assert.Equal("x", user.Do(() => Sys.ReadText(overlay.Merged / "yes")));
        Assert.Equal(Errno.EACCES, user.ErrorOf(() => Sys.Read(overlay.Merged / "no")));
    }
}
