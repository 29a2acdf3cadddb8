namespace Veneer.Mount.Tests;

/// <summary>st_ino and st_dev name one object for as long as the overlay is mounted.</summary>
public sealed class InodeNumberTests
{
    private static Tree Old =>
        Tree.Of(("d/file", "x"), ("d/e/f", ""), ("link", Node.Link("d")), ("fifo", Node.Fifo()),
            ("exe", Node.File("#!/bin/sh\n").Mode(Oct(755))));

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

    /// <summary>As <c>cp -a</c> inside an upper makes them, which copies where the first one came from.</summary>
    [MountFact(NotOfKernel = "The second one gives ESTALE, and a file of lower has the number of its copy.")]
    public void They_are_unique_where_copies_say_that_they_came_from_one_object()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "x"), ("other", "y"), ("d/inside", "z"), ("e/e", "")));
        Sys.Append(overlay.Merged / "file", "!");
        Sys.Rename(overlay.Merged / "other", overlay.Merged / "moved");
        Sys.Append(overlay.Merged / "d/inside", "!");
        ulong first = Sys.Stat(overlay.Merged / "file").Ino;
        overlay.Unmount();
        Command.Require("cp", "-a", overlay.Upper / "file", overlay.Upper / "file2");
        Command.Require("cp", "-a", overlay.Upper / "file", overlay.Upper / "file3");
        Command.Require("cp", "-a", overlay.Upper / "d", overlay.Upper / "d2");
        Sys.SetXattr(overlay.Upper / "d2", "trusted.overlay.redirect", "d");
        Sys.Unlink(overlay.Upper / "other"); // the whiteout: other is seen beside moved, which came from it
        overlay.Mount();
        FilePath root = overlay.Merged;
        string[] names = ["file", "file2", "file3", "moved", "other", "d", "d2", "d/inside", "d2/inside", "e", "e/e"];
        // An object that the kernel has forgotten may get the number of another.
        List<Descriptor> held = [.. names.Select(name => Sys.Open(root / name, OpenFlags.Path))];

        Dictionary<string, ulong> numbers = names.ToDictionary(name => name, name => Sys.Stat(root / name).Ino);

        Assert.Equal(names.Length, numbers.Values.Distinct().Count());
        Assert.Equal(first, numbers["file"]);
        foreach (DirectoryEntry entry in Sys.ReadDirectory(root).Where(entry => numbers.ContainsKey(entry.Name)))
        {
            Assert.Equal((entry.Name, numbers[entry.Name]), (entry.Name, entry.Ino));
        }
        Sys.Append(root / "file2", "2");
        Assert.Equal(("x!", "x!2", "y", "z!"),
            (Sys.ReadText(root / "file"), Sys.ReadText(root / "file2"), Sys.ReadText(root / "other"), Sys.ReadText(root / "d2/inside")));
        Assert.Equal(numbers, names.ToDictionary(name => name, name => Sys.Stat(root / name).Ino));
        held.ForEach(one => one.Dispose());
    }

    /// <summary>What the kernel wrote leads Veneer to the number, and the other way round, with two lowers of one type.</summary>
    [MountTheory]
    [InlineData(Filesystem.Ext4)]
    [InlineData(Filesystem.Xfs)]
    [InlineData(Filesystem.Btrfs)]
    public void They_stay_whoever_copied_up_and_whoever_mounts_then(Filesystem filesystem)
    {
        foreach ((Mounter first, Mounter second) in new[] { (Mounter.Kernel, Mounter.UnderTest), (Mounter.UnderTest, Mounter.Kernel) })
        {
            using var overlay = Overlay.With(lowers: [Tree.Of(("file", "x"), ("other", "")), Tree.Of(("more", ""))], on: Filesystem.Tmpfs,
                lowersOn: filesystem, mounter: first);
            ulong real = Sys.Stat(overlay.Lower / "file").Ino;
            Sys.Append(overlay.Merged / "file", "up");
            overlay.Unmount();
            overlay.Mount(second);

            // Veneer and the kernel tell by other bits which filesystem it is.
            Assert.Equal(real, Sys.Stat(overlay.Merged / "file").Ino & 0xFFFF_FFFF_FFFF);
        }
    }

    /// <summary>A filesystem's own way to tell its UUID is the only one before Linux 6.9, and for btrfs.</summary>
    [MountTheory]
    [InlineData(Filesystem.Ext4)]
    [InlineData(Filesystem.Xfs)]
    [InlineData(Filesystem.Btrfs)]
    public void An_origin_is_what_the_kernel_writes(Filesystem filesystem)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "x")), on: Filesystem.Tmpfs, lowersOn: filesystem, mounted: false);
        byte[] kernel = OriginBy(Mounter.Kernel);

        Assert.Equal(kernel, OriginBy(Mounter.UnderTest));
        if (Mounter.UnderTest.IsVeneer)
        {
            // ENOTTY from ioctl(FS_IOC_GETFSUUID)
            Assert.Equal(kernel, OriginBy(Mounter.VeneerUnder(OlderKernel.Without("16:0x80111500=25"), ",inuse=warn")));
        }

        byte[] OriginBy(Mounter mounter)
        {
            overlay.Mount(mounter);
            Sys.Append(overlay.Merged / "file", "up");
            byte[] origin = Sys.GetXattr(overlay.Upper / "file", "trusted.overlay.origin");
            overlay.Unmount();
            Sys.Unlink(overlay.Upper / "file");
            return origin;
        }
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
