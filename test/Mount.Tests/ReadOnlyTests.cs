namespace Veneer.Mount.Tests;

/// <summary>Mounts that cannot be written.</summary>
public sealed class ReadOnlyTests
{
    private static Tree Old => Tree.Of(("d/file", "content"), ("link", Node.Link("d")));

    public static TheoryData<string> Ways => ["no upper", "ro", "remounted"];

    [MountTheory]
    [MemberData(nameof(Ways))]
    public void Everything_can_be_read_and_nothing_written(string way)
    {
        using Overlay overlay = ReadOnly(way);
        FilePath root = overlay.Merged;

        Assert.Equal("content", Sys.ReadText(root / "d/file"));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Open(root / "d/file", OpenFlags.WriteOnly)));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Write(root / "new", "")));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.MakeDirectory(root / "new")));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Unlink(root / "d/file")));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Rename(root / "d/file", root / "x")));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.ChangeMode(root / "d/file", Oct(600))));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.SetXattr(root / "d", "user.x", "y")));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.ChangeTimes(root / "d", TimeSpec.Now, TimeSpec.Now)));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Truncate(root / "d/file", 0)));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Open(root, OpenFlags.TemporaryFile | OpenFlags.ReadWrite, Oct(600))));
        Assert.Equal(Errno.EROFS, Sys.Access(root / "d/file", AccessMode.Write));
        if (overlay.Upper.Text is not null) { Assert.Empty(overlay.Upper.Entries()); }
    }

    /// <summary>Before a snapshot, or at the end of a machine: whoever has upper is not in the way, if nobody is writing.</summary>
    [MountTheory]
    [InlineData(Filesystem.Tmpfs)]
    [InlineData(Filesystem.Ext4)]
    [InlineData(Filesystem.Xfs)]
    [InlineData(Filesystem.Btrfs)]
    public void The_filesystem_of_upper_can_be_made_read_only_and_writable_again(Filesystem filesystem)
    {
        FilePath home = Scratch.New(), disk = home / "disk";
        if (filesystem == Filesystem.Tmpfs)
        {
            Sys.MakeDirectory(disk);
            Scratch.MountTmpfs(disk, "16m");
        }
        else { Scratch.MountImage(filesystem, home / "image", disk, 512L << 20, "loop"); }
        try
        {
            Sys.MakeDirectory(disk / "own");
            CheckThatItCanBeMadeReadOnly(disk);
        }
        finally
        {
            _ = Libc.Unmount(disk.Bytes, lazy: true); // best effort: it goes with the namespace
        }
    }

    private static void CheckThatItCanBeMadeReadOnly(FilePath disk)
    {
        using var overlay = Overlay.With(upperIn: disk / "own", lower: Old, upper: Tree.Of(("up", "upper"), ("other", "")));
        FilePath root = overlay.Merged;
        Sys.Write(root / "new", "new");
        Sys.Unlink(root / "d/file");
        Sys.Unlink(root / "other");

        // Who was writing is done when the server has heard of it.
        Patience.Eventually(() => Assert.Equal(0, Command.Run(["mount", "-o", "remount,ro", disk]).ExitCode));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Write(root / "newer", "")));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Append(root / "up", "")));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Unlink(root / "link")));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.ChangeMode(root / "new", Oct(600))));
        Assert.Equal(("upper", "new"), (Sys.ReadText(root / "up"), Sys.ReadText(root / "new")));

        Command.Require("mount", "-o", "remount,rw", disk);
        Sys.Append(root / "up", "r");
        overlay.Unmount();
        Assert.Equal("upperr", Sys.ReadText(overlay.Upper / "up"));
        Assert.Equal(["work"], overlay.Work.Entries());
    }

    public static TheoryData<string> Flagged => ["", "work", "work/left", "a file"];

    /// <summary>Of the work directory, or of what is in it.</summary>
    [MountTheory]
    [MemberData(nameof(Flagged))]
    public void Where_work_is_immutable_the_overlay_is_read_only(string what)
    {
        using var overlay = Overlay.With(on: Filesystem.Ext4, lower: Old, upper: Tree.Of(("up", "upper")), mounted: false);
        FilePath flagged = what.Length == 0 ? overlay.Work : overlay.Work / (what == "a file" ? "work" : what);
        if (what == "a file") { Sys.Write(flagged, ""); }
        else if (what.Length > 0) { Sys.MakeDirectory(overlay.Work / "work"); }
        if (what.EndsWith("left", StringComparison.Ordinal)) { Sys.Write(flagged, ""); }
        Command.Require("chattr", "+i", flagged);
        try
        {
            overlay.Mount();

            Assert.Equal(("content", "upper"), (Sys.ReadText(overlay.Merged / "d/file"), Sys.ReadText(overlay.Merged / "up")));
            Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Write(overlay.Merged / "new", "")));
            Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Append(overlay.Merged / "up", "")));
            overlay.Unmount();
        }
        finally
        {
            Command.Require("chattr", "-i", flagged);
            if (what.Length > 0) { Sys.RemoveTree(overlay.Work / "work"); }
        }
        Assert.Equal(["up"], overlay.Upper.Entries());

        overlay.Mount();
        Sys.Write(overlay.Merged / "new", "");
    }

    [MountFact]
    public void Where_no_inode_is_left_for_work_the_overlay_is_read_only()
    {
        using var overlay = Overlay.With(lower: Old, upperSize: "1m,nr_inodes=12", mounted: false);
        for (int i = 0; Sys.ErrorOf(() => Sys.Write(overlay.Upper / $"{i}", "upper")) == Errno.None; i++) { }

        overlay.Mount();

        Assert.Equal(("content", "upper"), (Sys.ReadText(overlay.Merged / "d/file"), Sys.ReadText(overlay.Merged / "0")));
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Unlink(overlay.Merged / "0")));
    }

    /// <summary>The directory itself cannot be changed; what is below can.</summary>
    [MountFact]
    public void Where_upper_is_immutable_its_root_cannot_be_changed()
    {
        // A volatile mount marks upper.
        using var overlay = Overlay.With(on: Filesystem.Ext4, lower: Old, upper: Tree.Of(("u/x", "")),
            options: Mounter.UnderTest.IsVeneer ? "fsync=auto" : "", mounted: false);
        Command.Require("chattr", "+i", overlay.Upper);
        try
        {
            overlay.Mount();

            Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.Write(overlay.Merged / "new", "")));
            Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.Append(overlay.Merged / "d/file", "more")));
            Sys.Write(overlay.Merged / "u/new", "new");
            Assert.Equal("new", Sys.ReadText(overlay.Upper / "u/new"));
            overlay.Unmount();
        }
        finally
        {
            Command.Require("chattr", "-i", overlay.Upper);
        }
    }

    [MountFact]
    public void It_can_be_made_read_only_and_writable_again()
    {
        using var overlay = Overlay.With(lower: Old);
        overlay.RemountAs(readOnly: true);
        Assert.Equal(Errno.EROFS, Sys.ErrorOf(() => Sys.Write(overlay.Merged / "new", "")));

        overlay.RemountAs(readOnly: false);

        Sys.Write(overlay.Merged / "new", "x");
        Assert.Equal("x", Sys.ReadText(overlay.Upper / "new"));
    }

    [MountFact]
    public void It_cannot_be_made_read_only_while_a_file_is_being_written()
    {
        using var overlay = Overlay.With(lower: Old);
        using Descriptor writer = Sys.Open(overlay.Merged / "d/file", OpenFlags.WriteOnly);

        Assert.Equal(Errno.EBUSY, Sys.ErrorOf(() => overlay.RemountAs(readOnly: true)));

        writer.WriteAt("C", 0);
        Assert.Equal("Content", Sys.ReadText(overlay.Merged / "d/file"));
    }

    [MountFact]
    public void Several_layers_are_merged_without_an_upper_too()
    {
        using var overlay = Overlay.With(
            lowers: [Tree.Of(("d/a", "1"), ("gone", Node.Whiteout())), Tree.Of(("d/a", "2"), ("d/b", "2"), ("gone", ""))], readOnly: true);

        Assert.Equal("1", Sys.ReadText(overlay.Merged / "d/a"));
        Assert.Equal("2", Sys.ReadText(overlay.Merged / "d/b"));
        Assert.Equal(["d"], overlay.Merged.Entries());
    }

    [MountFact]
    public void Large_files_and_programs_are_read_and_mapped_without_an_upper_too()
    {
        byte[] content = new byte[5 << 20];
        new Random(3).NextBytes(content);
        "\u007FELF"u8.CopyTo(content);
        using var overlay = Overlay.With(lowers: [Tree.Of(("a", Node.File(content).Mode(Oct(755)))), Tree.Empty], readOnly: true);

        using Descriptor file = Sys.Open(overlay.Merged / "a", OpenFlags.ReadOnly);
        using Map map = file.Map(content.Length);

        Assert.Equal(content, file.ReadAll());
        Assert.Equal(content[^100..], map.Read(content.Length - 100, 100));
    }

    private static Overlay ReadOnly(string way)
    {
        Overlay overlay = way switch
        {
            "no upper" => Overlay.With(lowers: [Old, Tree.Empty], readOnly: true),
            "ro" => Overlay.With(lower: Old, options: "ro"),
            _ => Overlay.With(lower: Old),
        };
        if (way == "remounted") { overlay.RemountAs(readOnly: true); }
        return overlay;
    }
}
