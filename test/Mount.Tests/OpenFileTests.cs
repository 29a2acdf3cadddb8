namespace Veneer.Mount.Tests;

/// <summary>A descriptor goes on working whatever becomes of the name it was opened by.</summary>
public sealed class OpenFileTests
{
    /// <summary>What becomes of the name.</summary>
    public static TheoryData<string, string> Fates
    {
        get
        {
            var data = new TheoryData<string, string>();
            foreach (string layer in new[] { "lower", "upper" })
            {
                foreach (string fate in new[] { "unlinked", "renamed", "replaced", "directory renamed" }) { data.Add(layer, fate); }
            }
            return data;
        }
    }

    [MountTheory]
    [MemberData(nameof(Fates))]
    public void A_writer_goes_on(string layer, string fate)
    {
        using Overlay overlay = Placed(layer);
        using Descriptor file = Sys.Open(overlay.Merged / "dir/file", OpenFlags.ReadWrite);
        ulong ino = file.Stat().Ino;

        Meet(overlay, fate);

        file.WriteAt("CONTENT", 0);
        Assert.Equal("CONTENT of a file", file.ReadAllText());
        file.Truncate(9);
        Assert.Equal(9ul, file.Stat().Size);
        file.Allocate(AllocateMode.Default, 0, 4096);
        Assert.Equal(4096ul, file.Stat().Size);
        file.ChangeMode(Oct(4711));
        file.ChangeOwner(1000, 1001);
        Assert.Equal((1000u, 1001u, Oct(711)), (file.Stat().Uid, file.Stat().Gid, file.Stat().Mode & ModeBits.Mask));
        file.ChangeTimes(Node.LongAgo, Node.LongAgo);
        Assert.Equal(Node.LongAgo.Nanoseconds, file.Stat().ModifyTime.Nanoseconds);
        file.SetXattr("user.x", "y");
        Assert.Equal("y"u8, file.GetXattr("user.x"));
        Assert.Equal(4096, file.Seek(0, SeekWhence.Hole));
        Assert.Equal(Errno.None, file.Flock(LockType.Write));
        Assert.Equal(Errno.None, file.Lock(LockType.Write));
        file.Sync();
        using (Map map = file.Map(4096, write: true))
        {
            map.Write(0, "mapped");
            Assert.Equal("mapped", file.TextAt(0, 6));
        }
        Assert.Equal(ino, file.Stat().Ino);
        Assert.Equal(fate is "unlinked" or "replaced" ? 0u : 1u, file.Stat().Nlink);
        if (fate == "renamed") { Assert.Equal("mapped", Sys.ReadText(overlay.Merged / "dir/other")[..6]); }
    }

    [MountTheory]
    [MemberData(nameof(Fates))]
    public void A_reader_goes_on(string layer, string fate)
    {
        using Overlay overlay = Placed(layer);
        using Descriptor file = Sys.Open(overlay.Merged / "dir/file", OpenFlags.ReadOnly);
        ulong ino = file.Stat().Ino;

        Meet(overlay, fate);
        Sys.DropCaches();

        Assert.Equal("content of a file", file.ReadAllText());
        Assert.Equal((17ul, ino), (file.Stat().Size, file.Stat().Ino));
        using Map map = file.Map(17);
        Assert.Equal("content", map.Text(0, 7));
        using Descriptor again = file.Reopen(OpenFlags.ReadOnly);
        Assert.Equal("content of a file", again.ReadAllText());
    }

    [MountTheory]
    [InlineData("unlinked")]
    [InlineData("replaced")]
    public void Who_has_read_nothing_yet_reads_what_was_written_before_the_file_went(string fate)
    {
        using Overlay overlay = Placed("lower");
        using Descriptor file = Sys.Open(overlay.Merged / "dir/file", OpenFlags.ReadOnly);

        Sys.Append(overlay.Merged / "dir/file", ", written since");
        Meet(overlay, fate);

        Assert.Equal("content of a file, written since", file.ReadAllText());
        using Descriptor again = file.Reopen(OpenFlags.ReadOnly);
        Assert.Equal("content of a file, written since", again.ReadAllText());
    }

    [MountTheory]
    [InlineData("lower", "renamed")]
    [InlineData("lower", "directory renamed")]
    [InlineData("upper", "unlinked")]
    [InlineData("upper", "renamed")]
    [InlineData("upper", "replaced")]
    [InlineData("upper", "directory renamed")]
    public void A_file_opened_to_be_read_can_still_be_changed_through_its_descriptor(string layer, string fate) =>
        ChangeWhatWasOpenedToBeRead(layer, fate);

    [MountTheory(NotOfKernel = "There a lower file that is gone cannot be copied up any more: EEXIST or ENOENT.")]
    [InlineData("lower", "unlinked")]
    [InlineData("lower", "replaced")]
    public void A_lower_file_opened_to_be_read_can_be_changed_when_it_is_gone(string layer, string fate) =>
        ChangeWhatWasOpenedToBeRead(layer, fate);

    [MountFact(NotOfKernel = "As above.")]
    public void A_lower_file_that_was_unlinked_while_open_for_reading_leaves_nothing_behind_when_changed()
    {
        using Overlay overlay = Placed("lower");
        using (Descriptor file = Sys.Open(overlay.Merged / "dir/file", OpenFlags.ReadOnly))
        {
            Sys.Unlink(overlay.Merged / "dir/file");
            file.ChangeMode(Oct(600));
        }

        Assert.Equal(["file"], (overlay.Upper / "dir").Entries());
        Assert.True(Sys.Stat(overlay.Upper / "dir/file").IsWhiteoutDevice);
    }

    [MountFact]
    public void An_unlinked_directory_can_be_left_open()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d", Node.Directory())));
        using Descriptor directory = Sys.Open(overlay.Merged / "d", OpenFlags.ReadOnly | OpenFlags.Directory);

        Sys.RemoveDirectory(overlay.Merged / "d");

        Assert.True(directory.Stat().IsDirectory);
    }

    [MountFact]
    public void Many_open_files_that_are_gone_do_not_hinder_each_other()
    {
        using var overlay = Overlay.With(lower: Tree.Of([.. Enumerable.Range(0, 300).Select(i => ($"f{i}", (Node)$"content {i}"))]));
        Descriptor[] files = [
            .. Enumerable.Range(0, 300).Select(
                i => Sys.Open(overlay.Merged / $"f{i}", i % 2 == 0 ? OpenFlags.ReadWrite : OpenFlags.ReadOnly))];
        for (int i = 0; i < 300; i++) { Sys.Unlink(overlay.Merged / $"f{i}"); }
        for (int i = 0; i < 300; i++) { Sys.Write(overlay.Merged / $"f{i}", "another"); }

        for (int i = 0; i < 300; i++)
        {
            Assert.Equal($"content {i}", files[i].ReadAllText());
            files[i].Dispose();
        }
        Assert.Equal(300, overlay.Merged.Entries().Length);
    }

    private static Overlay Placed(string layer)
    {
        Tree files = Tree.Of(("dir/file", "content of a file"), ("dir/victim", "x"));
        return layer == "lower"
            ? Overlay.With(lower: files, options: "redirect_dir=on")
            : Overlay.With(upper: files, options: "redirect_dir=on");
    }

    private static void ChangeWhatWasOpenedToBeRead(string layer, string fate)
    {
        using Overlay overlay = Placed(layer);
        using Descriptor file = Sys.Open(overlay.Merged / "dir/file", OpenFlags.ReadOnly);

        Meet(overlay, fate);

        file.ChangeMode(Oct(600));
        file.ChangeOwner(1000, 1001);
        Assert.Equal((1000u, 1001u, Oct(600)), (file.Stat().Uid, file.Stat().Gid, file.Stat().Mode & ModeBits.Mask));
        file.ChangeTimes(TimeSpec.Now, TimeSpec.Now);
        file.SetXattr("user.x", "y");
        Assert.Equal("y"u8, file.GetXattr("user.x"));
        Assert.Equal("content of a file", file.ReadAllText());
    }

    private static void Meet(Overlay overlay, string fate)
    {
        FilePath file = overlay.Merged / "dir/file";
        switch (fate)
        {
            case "unlinked":
                Sys.Unlink(file);
                break;
            case "renamed":
                Sys.Rename(file, overlay.Merged / "dir/other");
                break;
            case "replaced":
                Sys.Rename(overlay.Merged / "dir/victim", file);
                break;
            default:
                Sys.Rename(overlay.Merged / "dir", overlay.Merged / "moved");
                break;
        }
    }
}
