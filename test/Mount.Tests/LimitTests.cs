namespace Veneer.Mount.Tests;

/// <summary>Where things end: names, space, links, filesystems.</summary>
public sealed class LimitTests
{
    private static readonly string Longest = new('n', 255), TooLong = new('n', 256);

    [MountFact]
    public void The_longest_name_works_everywhere()
    {
        using var overlay = Overlay.With(lower: Tree.Of((Longest, "content"), ("d/x", "")));

        Sys.Append(overlay.Merged / Longest, "!");
        Sys.Rename(overlay.Merged / Longest, overlay.Merged / "d" / Longest);
        Sys.Link(overlay.Merged / "d" / Longest, overlay.Merged / Longest);
        Sys.Unlink(overlay.Merged / "d" / Longest);
        Sys.MakeDirectory(overlay.Merged / "d" / Longest);

        Assert.Equal("content!", Sys.ReadText(overlay.Merged / Longest));
        Assert.Equal(255, Sys.StatFileSystem(overlay.Merged).NameLength);
        Assert.Empty(overlay.Leftovers);
    }

    [MountFact]
    public void A_longer_name_is_too_long_for_every_call()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", ""), ("d/x", "")));
        FilePath name = overlay.Merged / TooLong;

        Assert.Equal(Errno.ENAMETOOLONG, Sys.ErrorOf(() => Sys.Stat(name)));
        Assert.Equal(Errno.ENAMETOOLONG, Sys.ErrorOf(() => Sys.Write(name, "")));
        Assert.Equal(Errno.ENAMETOOLONG, Sys.ErrorOf(() => Sys.MakeDirectory(name)));
        Assert.Equal(Errno.ENAMETOOLONG, Sys.ErrorOf(() => Sys.SymbolicLink("x", name)));
        Assert.Equal(Errno.ENAMETOOLONG, Sys.ErrorOf(() => Sys.Link(overlay.Merged / "file", name)));
        Assert.Equal(Errno.ENAMETOOLONG, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "file", name)));
        Assert.Equal(Errno.ENAMETOOLONG, Sys.ErrorOf(() => Sys.Unlink(name)));
        Assert.Equal(Errno.ENAMETOOLONG, Sys.ErrorOf(() => Sys.MakeNode(overlay.Merged / "d" / TooLong, FileType.Fifo, Oct(600))));
        Assert.DoesNotContain(TooLong, overlay.Merged.Entries());
    }

    [MountFact]
    public void A_long_symbolic_link_comes_up_whole()
    {
        string target = string.Concat(Enumerable.Repeat("long/", 800));
        using var overlay = Overlay.With(lower: Tree.Of(("link", Node.Link(target))));

        Sys.ChangeOwner(overlay.Merged / "link", 1, 1);
        Sys.SymbolicLink(target, overlay.Merged / "new");

        Assert.Equal(target, Sys.ReadLink(overlay.Merged / "link"));
        Assert.Equal(target, Sys.ReadLink(overlay.Upper / "link"));
        Assert.Equal(target, Sys.ReadLink(overlay.Merged / "new"));
    }

    [MountTheory]
    [InlineData("open to write")]
    [InlineData("chmod")]
    [InlineData("rename")]
    [InlineData("link")]
    public void On_a_full_disk_a_copy_up_fails_whole(string change)
    {
        using var overlay = Overlay.With(lower: BigAndSmall, upperSize: "1m", options: "metacopy=off");

        AssertFailsWhole(overlay, change, Errno.ENOSPC);
    }

    [MountTheory]
    [InlineData("open to write")]
    [InlineData("chmod")]
    [InlineData("rename")]
    [InlineData("link")]
    public void Beyond_a_quota_a_copy_up_fails_whole(string change)
    {
        using var overlay = Overlay.With(lower: BigAndSmall, on: Filesystem.Btrfs, lowersOn: Filesystem.Tmpfs, upperQuota: "2M",
            options: "metacopy=off");

        AssertFailsWhole(overlay, change, Errno.EDQUOT);
    }

    private static Tree BigAndSmall => Tree.Of(("d/big", new string('b', 3 << 20)), ("d/small", "small"));

    private static void AssertFailsWhole(Overlay overlay, string change, Errno expected)
    {
        TreeImage before = TreeImage.Of(overlay.Merged);
        FilePath big = overlay.Merged / "d/big";

        Assert.Equal(expected, change switch
        {
            "open to write" => Sys.ErrorOf(() => Sys.Open(big, OpenFlags.WriteOnly)),
            "chmod" => Sys.ErrorOf(() => Sys.ChangeMode(big, Oct(600))),
            "rename" => Sys.ErrorOf(() => Sys.Rename(big, overlay.Merged / "other")),
            _ => Sys.ErrorOf(() => Sys.Link(big, overlay.Merged / "other")),
        });

        Assert.Empty((overlay.Upper / "d").Entries());
        Assert.Empty(overlay.Leftovers);
        Assert.Equal("", TreeImage.Difference(before, TreeImage.Of(overlay.Merged)));
        Sys.Append(overlay.Merged / "d/small", "!");
        Assert.Equal("small!", Sys.ReadText(overlay.Upper / "d/small"));
    }

    [MountFact]
    public void Beyond_a_quota_a_write_writes_what_fits_and_nothing_new_is_made()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/a", "a")), on: Filesystem.Btrfs, lowersOn: Filesystem.Tmpfs, upperQuota: "2M");
        FilePath full = overlay.Merged / "full";
        byte[] much = new byte[4 << 20];
        Array.Fill(much, (byte)'m');

        Assert.Equal(Errno.EDQUOT, Sys.ErrorOf(() => Sys.Write(full, much)));
        while (Sys.ErrorOf(() => Sys.Append(full, new string('m', 4096))) == Errno.None) { } // to the last block
        Assert.Equal(Errno.EDQUOT, Sys.ErrorOf(() => Sys.Append(full, "more")));
        Assert.Equal(Errno.EDQUOT, Sys.ErrorOf(() => Sys.Write(overlay.Merged / "d/new", "")));
        Assert.Equal(Errno.EDQUOT, Sys.ErrorOf(() => Sys.MakeDirectory(overlay.Merged / "d/dir")));
        Assert.Equal(Errno.EDQUOT, Sys.ErrorOf(() => Sys.SymbolicLink("x", overlay.Merged / "d/link")));
        Assert.Equal(Errno.EDQUOT, Sys.ErrorOf(() => Sys.Append(overlay.Merged / "d/a", "!")));

        Assert.Equal(["a"], (overlay.Merged / "d").Entries());
        Assert.Equal("a", Sys.ReadText(overlay.Merged / "d/a"));
        byte[] written = Sys.Read(full);
        Assert.InRange(written.Length, 1, 2 << 20);
        Assert.Equal(much[..written.Length], written);
        Assert.Equal(["full"], overlay.Upper.Entries());
        Assert.Empty(overlay.Leftovers);
        Sys.Unlink(full);
        Patience.Eventually(() => Assert.Equal(Errno.None, Sys.ErrorOf(() => Sys.Append(overlay.Merged / "d/a", "!"))));
        Assert.Equal("a!", Sys.ReadText(overlay.Merged / "d/a"));
    }

    [MountFact]
    public void On_a_full_disk_a_write_writes_what_fits_and_a_removal_makes_room()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("x", "")), upperSize: "1m");
        byte[] much = new byte[2 << 20];

        Assert.Equal(Errno.ENOSPC, Sys.ErrorOf(() => Sys.Write(overlay.Merged / "new", much)));
        Assert.Equal(Errno.ENOSPC, Sys.ErrorOf(() => Sys.Append(overlay.Merged / "new", "more")));
        Sys.Unlink(overlay.Merged / "new");
        AwaitRoom(overlay, blocks: 101);
        Sys.Write(overlay.Merged / "again", "fits");

        Assert.Equal("fits", Sys.ReadText(overlay.Merged / "again"));
    }

    [MountFact]
    public void Where_no_inode_is_left_nothing_half_made_is_seen()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/a", "a"), ("d/gone", "")), upperSize: "1m,nr_inodes=12", options: "fsync=auto");
        int made = 0;
        while (Sys.ErrorOf(() => Sys.Write(overlay.Merged / $"new{made}", "")) == Errno.None) { made++; }
        Assert.InRange(made, 1, 10);

        Assert.Equal(Errno.ENOSPC, Sys.ErrorOf(() => Sys.MakeDirectory(overlay.Merged / "dir")));
        Assert.Equal(Errno.ENOSPC, Sys.ErrorOf(() => Sys.Append(overlay.Merged / "d/a", "!")));

        Assert.Equal(["a", "gone"], (overlay.Merged / "d").Entries());
        Assert.Equal("a", Sys.ReadText(overlay.Merged / "d/a"));
        for (int i = 0; i < 4; i++) { Sys.Unlink(overlay.Merged / $"new{i}"); }
        AwaitRoom(overlay, files: 4);
        Sys.Append(overlay.Merged / "d/a", "!");
        Assert.Equal("a!", Sys.ReadText(overlay.Merged / "d/a"));
    }

    /// <summary>The whiteout that others are links to takes the place of one, so that something can be removed to make room.</summary>
    [MountFact]
    public void Where_no_inode_is_left_a_lower_file_can_still_be_removed()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("a", ""), ("b", ""), ("c", "")), upperSize: "1m,nr_inodes=12",
            options: "fsync=auto");
        Sys.Unlink(overlay.Merged / "a");
        for (int i = 0; Sys.ErrorOf(() => Sys.Write(overlay.Merged / $"new{i}", "")) == Errno.None; i++) { }

        Sys.Unlink(overlay.Merged / "b");
        Assert.Equal(Errno.ENOSPC, Sys.ErrorOf(() => Sys.Unlink(overlay.Merged / "c")));

        Assert.False((overlay.Merged / "b").Exists);
        Assert.True(Sys.Stat(overlay.Upper / "b").IsWhiteoutDevice);
        Assert.True((overlay.Merged / "c").Exists);
        Sys.Unlink(overlay.Merged / "new0");
        AwaitRoom(overlay, files: 1);
        Sys.Unlink(overlay.Merged / "c");
    }

    [MountFact]
    public void A_removal_that_finds_no_room_for_its_whiteout_changes_nothing()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "lower"), ("linked", "lower"), ("directory", Node.Directory())),
            upperSize: "1m,nr_inodes=16", options: "fsync=auto");
        Sys.Append(overlay.Merged / "file", "+");
        Sys.Append(overlay.Merged / "linked", "+");
        Sys.Link(overlay.Merged / "linked", overlay.Merged / "other");
        Sys.ChangeMode(overlay.Merged / "directory", Oct(700));
        for (int i = 0; Sys.ErrorOf(() => Sys.Write(overlay.Merged / $"new{i}", "")) == Errno.None; i++) { }

        for (int i = 0; i < 3; i++)
        {
            Assert.Equal(Errno.ENOSPC, Sys.ErrorOf(() => Sys.Unlink(overlay.Merged / "file")));
            Assert.Equal(Errno.ENOSPC, Sys.ErrorOf(() => Sys.Unlink(overlay.Merged / "linked")));
            Assert.Equal(Errno.ENOSPC, Sys.ErrorOf(() => Sys.RemoveDirectory(overlay.Merged / "directory")));
            Assert.Equal(Errno.ENOSPC, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "file", overlay.Merged / "moved")));
        }

        Assert.Equal(["file", "linked"], new[] { "file", "linked" }.Where(name => Sys.ReadText(overlay.Merged / name) == "lower+"));
        Assert.Equal((1u, 2u), (Sys.Stat(overlay.Merged / "file").Nlink, Sys.Stat(overlay.Merged / "linked").Nlink));
        Assert.Empty(HeldByServers(overlay));
        Sys.Unlink(overlay.Merged / "other");
        Assert.Equal("lower+", Sys.ReadText(overlay.Merged / "linked"));
        foreach (string name in (string[])["new0", "new1", "new2"]) { Sys.Unlink(overlay.Merged / name); }
        AwaitRoom(overlay, files: 3);
        Sys.Link(overlay.Merged / "file", overlay.Merged / "second");
        Sys.Unlink(overlay.Merged / "second");
        Assert.Equal("lower+", Sys.ReadText(overlay.Merged / "file"));
        Sys.Unlink(overlay.Merged / "file");
        Sys.Unlink(overlay.Merged / "linked");
        Sys.RemoveDirectory(overlay.Merged / "directory");
        Assert.All(overlay.Merged.Entries(), name => Assert.StartsWith("new", name, StringComparison.Ordinal));
    }

    /// <summary>The files of upper that the servers have open.</summary>
    private static string[] HeldByServers(Overlay overlay) =>
        [.. overlay.Servers.SelectMany(pid => ((FilePath)$"/proc/{pid}/fd").Entries().Select(fd => Sys.ReadLink($"/proc/{pid}/fd/{fd}")))
            .Where(
                path => path.EndsWith("/upper/file", StringComparison.Ordinal)
                    || path.EndsWith("/upper/linked", StringComparison.Ordinal)
                    || path is "/file" or "/linked")];

    /// <summary>Who opens too much, or walks through many directories, does not take the descriptors that others need.</summary>
    [MountFact(OnlyVeneer = "A limit of the server's.")]
    public void A_server_with_few_descriptors_serves_many_directories_and_open_files()
    {
        using var overlay = Overlay.With(lower: Tree.Of([.. Enumerable.Range(0, 300).Select(i => ($"d{i}/s/file", (Node)"content"))]),
            mounted: false);
        overlay.Mount(Mounter.VeneerUnder("prlimit --nofile=256"));
        for (int i = 0; i < 300; i++) { Sys.ChangeMode(overlay.Merged / $"d{i}/s/file", Oct(600)); }

        var open = new List<Descriptor>();
        Errno error;
        while ((error = Sys.ErrorOf(() => open.Add(Sys.Open(overlay.Merged / $"d{open.Count}/s/file", OpenFlags.ReadWrite)))) == Errno.None)
        {
        }

        Assert.Equal(Errno.ENFILE, error);
        Assert.InRange(open.Count, 100, 250);
        Assert.Equal(Errno.ENFILE, Sys.ErrorOf(() => Sys.Write(overlay.Merged / "new", "")));
        for (int i = 0; i < 300; i++)
        {
            Assert.Equal(["file"], (overlay.Merged / $"d{i}/s").Entries());
            Sys.Rename(overlay.Merged / $"d{i}/s/file", overlay.Merged / $"d{i}/moved");
            Sys.MakeDirectory(overlay.Merged / $"d{i}/new");
        }
        foreach (Descriptor file in open)
        {
            file.WriteAt("C", 0);
            file.Dispose();
        }
        Patience.Eventually(() => Assert.Equal(Errno.None, Sys.ErrorOf(() => Sys.Write(overlay.Merged / "new", ""))));
        Assert.Equal("Content", Sys.ReadText(overlay.Merged / "d0/moved"));
    }

    /// <summary>The limit of who mounts is not that of who writes, and no reason for the server to end.</summary>
    [MountFact(OnlyVeneer = "A limit of the server's.")]
    public void A_server_with_a_limit_of_file_size_goes_on_serving()
    {
        string content = new('x', 10_000);
        using var overlay = Overlay.With(lower: Tree.Of(("a", content), ("b", content)), mounted: false);

        overlay.Mount(Mounter.VeneerUnder("prlimit --fsize=4096:unlimited"));
        Sys.Append(overlay.Merged / "a", "!");
        Assert.Equal(content + "!", Sys.ReadText(overlay.Merged / "a"));
        overlay.Unmount();

        overlay.Mount(Mounter.VeneerUnder("prlimit --fsize=4096"));
        Errno error = Sys.ErrorOf(() => Sys.ChangeMode(overlay.Merged / "b", Oct(600)));
        Assert.True(error is Errno.EFBIG or Errno.None, $"{error}"); // who has the privilege raises the limit
        Assert.Equal(content, Sys.ReadText(overlay.Merged / "b"));
        Assert.Equal(error == Errno.None, (overlay.Upper / "b").Exists);
        Assert.Empty(overlay.Leftovers);
    }

    [MountFact]
    public void Statfs_is_that_of_the_upper()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("x", "")), upperSize: "8m");

        StatFs merged = Sys.StatFileSystem(overlay.Merged), upper = Sys.StatFileSystem(overlay.Upper);

        Assert.Equal(upper.Blocks * (ulong)upper.BlockSize, merged.Blocks * (ulong)merged.BlockSize);
        Assert.Equal(upper.BlocksAvailable * (ulong)upper.BlockSize, merged.BlocksAvailable * (ulong)merged.BlockSize);
        Assert.Equal((upper.Files, upper.NameLength), (merged.Files, merged.NameLength));
    }

    [MountFact]
    public void Too_many_links_are_too_many()
    {
        using var overlay = Overlay.With(on: Filesystem.Ext4, lower: Tree.Of(("x", "")), seconds: 60);
        Sys.Write(overlay.Merged / "file", "");
        for (int i = 1; i < 65000; i++) { Sys.Link(overlay.Upper / "file", overlay.Upper / $"link{i}"); }

        Assert.Equal(Errno.EMLINK, Sys.ErrorOf(() => Sys.Link(overlay.Merged / "file", overlay.Merged / "one more")));
    }

    [MountFact]
    public void Files_are_not_moved_or_linked_across_mounts()
    {
        using var one = Overlay.With(lower: Tree.Of(("file", "")));
        using var other = Overlay.With(lower: Tree.Of(("file", "")));

        Assert.Equal(Errno.EXDEV, Sys.ErrorOf(() => Sys.Rename(one.Merged / "file", other.Merged / "moved")));
        Assert.Equal(Errno.EXDEV, Sys.ErrorOf(() => Sys.Link(one.Merged / "file", other.Merged / "linked")));
    }

    [MountFact]
    public void Deep_trees_come_up_with_all_their_directories()
    {
        string deep = string.Join('/', Enumerable.Range(0, 200).Select(i => $"d{i}"));
        using var overlay = Overlay.With(lower: Tree.Of((deep + "/file", "deep")));

        Sys.Append(overlay.Merged / deep / "file", "!");

        Assert.Equal("deep!", Sys.ReadText(overlay.Upper / deep / "file"));
        Assert.Equal(Node.LongAgo.Seconds, Sys.Stat(overlay.Upper / deep).ModifyTime.Seconds);
    }

    [MountFact]
    public void A_tree_may_be_deeper_than_a_stack_a_path_or_the_number_of_descriptors()
    {
        const int depth = 6000;
        using var overlay = Overlay.With(seconds: 120);
        Descriptor deepest = Sys.OpenDirectoryAt(Libc.AtCwd, overlay.Merged.Bytes);
        try
        {
            for (int i = 0; i < depth; i++)
            {
                Assert.Equal(Errno.None, Libc.MakeDirectoryAt(deepest.Value, "d\0"u8, Oct(755)));
                Descriptor next = Sys.OpenDirectoryAt(deepest.Value, "d\0"u8);
                deepest.Dispose();
                deepest = next;
            }
            // Whatever the server kept of the way down, it has now forgotten.
            Sys.MakeDirectory(overlay.Merged / "wide", Oct(755));
            for (int i = 0; i < 2500; i++)
            {
                Sys.MakeDirectory(overlay.Merged / "wide" / $"{i}", Oct(755));
                Sys.MakeDirectory(overlay.Merged / "wide" / $"{i}/x", Oct(755));
            }

            Assert.Equal(Errno.None, Libc.MakeDirectoryAt(deepest.Value, "last\0"u8, Oct(755)));

            Assert.Equal(Errno.None, Libc.StatAt(deepest.Value, "last\0"u8, StatxMask.Basic, out _));
        }
        finally
        {
            deepest.Dispose();
        }
        Command.Require(["rm", "-rf", overlay.Merged / "d"]);
        Assert.Equal(["wide"], overlay.Merged.Entries());
    }

    [MountFact]
    public void Many_who_wait_for_one_copy_up_do_not_keep_others_waiting()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("large", ""), ("dir/small", "")), seconds: 120, mounted: false);
        Command.Require(["fallocate", "-l", "600M", overlay.Lowers[0] / "large"]);
        Command.Require(["dd", "if=/dev/zero", $"of={overlay.Lowers[0] / "large"}", "bs=1M", "count=600", "conv=notrunc"]);
        overlay.Mount();
        Actor[] writers = [.. Enumerable.Range(0, 8).Select(_ => Actor.Process())];
        try
        {
            Task<int>[] opens = [.. writers.Select(writer => writer.Begin(() =>
            {
                using Descriptor file = Sys.Open(overlay.Merged / "large", OpenFlags.WriteOnly);
                return 0;
            }))];
            foreach (Actor writer in writers) { writer.AwaitInKernel(Actor.SysOpenAt2); }

            _ = Sys.Stat(overlay.Merged / "dir/small");

            Assert.DoesNotContain(opens, open => open.IsCompleted);
            foreach (Task<int> open in opens) { Assert.Equal(0, open.GetAwaiter().GetResult()); }
        }
        finally
        {
            foreach (Actor writer in writers) { writer.Dispose(); }
        }
    }

    /// <summary>On a FUSE mount room comes a moment after the unlink, when the server is told to forget the inode.</summary>
    private static void AwaitRoom(Overlay overlay, ulong blocks = 0, ulong files = 0) => Patience.Eventually(() =>
    {
        StatFs free = Sys.StatFileSystem(overlay.Merged);
        Assert.InRange(free.BlocksAvailable, blocks, ulong.MaxValue);
        Assert.InRange(free.FilesFree, files, ulong.MaxValue);
    });

    /// <summary>Such as a network filesystem whose server is away: here another overlay, whose server is stopped.</summary>
    [MountFact(OnlyVeneer = "It has servers.")]
    public void A_lower_that_does_not_answer_delays_only_those_who_ask_it()
    {
        using var lower = Overlay.With(lower: Tree.Of([.. Enumerable.Range(0, 4).Select(i => ($"below{i}", (Node)""))]));
        using var overlay = Overlay.With(over: [lower.Merged], upper: Tree.Of(("known", ""), ("one", ""), ("two", ""), ("d/three", "")));
        using Descriptor known = Sys.Open(overlay.Merged / "known", OpenFlags.ReadOnly);
        // Keeps the directory in the kernel's cache: otherwise the lower would be asked for it.
        using Descriptor d = Sys.Open(overlay.Merged / "d", OpenFlags.ReadOnly | OpenFlags.Directory);
        Errno error = Errno.EIO;
        Actor[] waiting = [.. Enumerable.Range(0, 4).Select(_ => new Actor())];
        var others = new Thread(() => error = Sys.ErrorOf(() =>
        {
            _ = Libc.PinThread(0); // best effort: where it is not to be had, the test asks for less
            foreach (string name in new[] { "one", "two", "d/three" }) { Sys.Stat(overlay.Merged / name); }
        }));
        Task<Errno>[] answers;
        lower.HoldServer();
        try
        {
            answers = [.. waiting.Select((one, i) => one.Begin(() => Sys.ErrorOf(() =>
            {
                _ = Libc.PinThread(0);
                Sys.Stat(overlay.Merged / $"below{i}");
            })))];
            foreach (Actor one in waiting) { one.AwaitInKernel(Actor.SysStatx); } // they ask first
            others.Start();
            Assert.True(others.Join(5_000), "They waited.");
            Assert.All(answers, answer => Assert.False(answer.IsCompleted));
        }
        finally
        {
            lower.HoldServer(false);
        }
        foreach (Task<Errno> answer in answers) { Assert.Equal(Errno.None, answer.GetAwaiter().GetResult()); }
        foreach (Actor one in waiting) { one.Dispose(); }
        Assert.Equal(Errno.None, error);
    }
}
