namespace Veneer.Mount.Tests;

/// <summary>st_ino and st_dev name one object for as long as the overlay is mounted.</summary>
public sealed class InodeNumberTests
{
    private static Tree Old => Tree.Of(("d/file", "x"), ("d/e/f", ""), ("link", Node.Link("d")), ("fifo", Node.Fifo()), ("exe", Node.File("#!/bin/sh\n").Mode(Oct(755))));

    [MountTheory]
    [InlineData(Filesystem.Tmpfs, "")]
    [InlineData(Filesystem.Tmpfs, "userxattr")] // a link and a FIFO take no user.* attribute
    [InlineData(Filesystem.Ext4, "")]
    [InlineData(Filesystem.Xfs, "")]
    [InlineData(Filesystem.Btrfs, "")]
    public void They_stay_through_copy_up_rename_and_a_drop_of_caches(Filesystem filesystem, string options)
    {
        using var overlay = Overlay.With(lower: Old, on: filesystem, options: options);
        FilePath root = overlay.Merged;
        var before = Identities(root);

        foreach (string name in new[] { "d/file", "d/e/f", "d/e", "d", "link", "fifo", "exe", "." })
        {
            Sys.ChangeOwner(root / name, 5, 6);
            Sys.DropCaches();
            Assert.Equal(before[name], Identity(root / name));
        }
        Sys.Rename(root / "d/file", root / "d/e/renamed");
        Sys.MakeDirectory(root / "made");
        Sys.Rename(root / "link", root / "made/link");
        Sys.DropCaches();

        Assert.Equal(before["d/file"], Identity(root / "d/e/renamed"));
        Assert.Equal(before["link"], Identity(root / "made/link"));
        Assert.Equal(before["link"].Ino, Sys.ReadDirectory(root / "made").Single(e => e.Name == "link").Ino);
        Assert.Equal(before["exe"], Identity(root / "exe"));
    }

    /// <summary>The UUID in an origin does not tell then which of them its handle is of.</summary>
    [MountFact]
    public void They_stay_where_two_lowers_are_copies_of_one_image()
    {
        FilePath home = Scratch.New();
        using (Descriptor image = Sys.Open(home / "image", OpenFlags.WriteOnly | OpenFlags.Create, Oct(600))) { image.Truncate(8 << 20); }
        Command.Require("mkfs.ext4", "-Fq", home / "image");
        FilePath one = home / "one", two = home / "two";
        Sys.MakeDirectory(one);
        Sys.MakeDirectory(two);
        Command.Require("mount", "-o", "loop", home / "image", one);
        Sys.MakeDirectory(one / "a");
        Sys.MakeDirectory(one / "b");
        Sys.Write(one / "b/file", "");
        Command.Require("umount", one);
        Command.Require("cp", home / "image", home / "copy");
        Command.Require("mount", "-o", "loop", home / "image", one);
        try
        {
            Command.Require("mount", "-o", "loop", home / "copy", two);
            try
            {
                using var overlay = Overlay.With(over: [one / "a", two / "b"]);
                var before = Identity(overlay.Merged / "file");

                Sys.Append(overlay.Merged / "file", "up");
                Sys.DropCaches();

                Assert.Equal(before, Identity(overlay.Merged / "file"));
            }
            finally
            {
                Command.Require("umount", two);
            }
        }
        finally
        {
            Command.Require("umount", one);
        }
    }

    [MountFact]
    public void They_are_the_same_in_an_open_file_and_in_the_listing()
    {
        using var overlay = Overlay.With(lower: Old);
        using Descriptor file = Sys.Open(overlay.Merged / "d/file", OpenFlags.ReadOnly);
        ulong before = file.Stat().Ino;

        Sys.Append(overlay.Merged / "d/file", "y");

        Assert.Equal(before, file.Stat().Ino);
        Assert.Equal(before, Sys.Stat(overlay.Merged / "d/file").Ino);
        Assert.Equal(before, Sys.ReadDirectory(overlay.Merged / "d").Single(e => e.Name == "file").Ino);
    }

    [MountTheory]
    [InlineData(Filesystem.Tmpfs, Filesystem.Tmpfs)]
    [InlineData(Filesystem.Ext4, Filesystem.Xfs)]
    public void No_two_objects_share_them(Filesystem upper, Filesystem lower)
    {
        using var overlay = Overlay.With(on: upper, lowersOn: lower, lowers: [Old, Tree.Of(("d2/x", ""), ("d/low", ""), ("f2", ""))]);
        Sys.Write(overlay.Merged / "new", "");
        Sys.Append(overlay.Merged / "d/file", "up");
        Sys.MakeDirectory(overlay.Merged / "d/made");

        var identities = Identities(overlay.Merged);

        Assert.Equal(14, identities.Count);
        Assert.Equal(identities.Count, identities.Values.Distinct().Count());
    }

    [MountTheory]
    [InlineData(Filesystem.Tmpfs)]
    [InlineData(Filesystem.Ext4)]
    public void They_are_the_same_after_a_remount(Filesystem filesystem)
    {
        using var overlay = Overlay.With(lower: Old, on: filesystem);
        Sys.Append(overlay.Merged / "d/file", "up");
        Sys.Write(overlay.Merged / "new", "");
        var before = Identities(overlay.Merged).ToDictionary(i => i.Key, i => i.Value.Ino);

        overlay.Remount();

        Assert.Equal(before, Identities(overlay.Merged).ToDictionary(i => i.Key, i => i.Value.Ino));
    }

    [MountFact]
    public void They_are_the_same_after_a_remount_whatever_filesystem_is_seen_first()
    {
        FilePath one = Scratch.New(Filesystem.Ext4), two = Scratch.New(Filesystem.Btrfs);
        Sys.Write(one / "one", "");
        Sys.Write(two / "two", "");
        using var overlay = Overlay.With(over: [one, two], options: Mounter.UnderTest.IsKernel ? "xino=on" : "");
        var before = (Sys.Stat(overlay.Merged / "one").Ino, Sys.Stat(overlay.Merged / "two").Ino);

        overlay.Remount();
        ulong second = Sys.Stat(overlay.Merged / "two").Ino;

        Assert.Equal(before, (Sys.Stat(overlay.Merged / "one").Ino, second));
    }

    [MountFact]
    public void All_is_on_one_device_when_all_layers_are()
    {
        using var overlay = Overlay.With(lowers: [Old, Old]);
        Sys.Append(overlay.Merged / "d/file", "up");

        Assert.Single(Identities(overlay.Merged).Values.Select(i => i.Device).Distinct());
    }

    private static Dictionary<string, (ulong Device, ulong Ino)> Identities(FilePath root) =>
        TreeImage.Of(root, Facets.None).Lines.Keys.ToDictionary(path => path, path => Identity(root / path));

    private static (ulong Device, ulong Ino) Identity(FilePath path)
    {
        Statx stat = Sys.Stat(path);
        return (stat.Dev, stat.Ino);
    }
}
