namespace Veneer.Mount.Tests;

/// <summary>What comes up when a lower object is changed, and with what.</summary>
public sealed class CopyUpTests
{
    private static readonly byte[] Capability = Convert.FromHexString("0100000200200000000000000000000000000000");
    private static readonly byte[] AccessList = Acl.Of(owner: 6, user: (1001, 4), group: 4, mask: 4, other: 0);

    public static TheoryData<string> Types => ["file", "link", "fifo", "socket", "char", "block", "dir"];

    /// <summary>Where nothing can be written statx(2) may say immutable of every file; the copy is not.</summary>
    [MountFact]
    public void A_file_of_a_filesystem_that_is_made_once_comes_up()
    {
        Needs.FileSystem("erofs");
        // mkfs.erofs of a directory d with a file: "content".
        const string image =
            "H4sIAAAAAAACA2NgGAWjYBSMVPDo4dcHB6yMeJmBbB4GFQZmmMSpWdYwJiOSekEgUFIyNnZxCQUDSu1nAeK3jswMGlD+fyBAlleB00xwtiqQrQ"
            + "5lqwPZenp6KfjNZ2LQRjIf2T/qOMzXgsszgsxPy8xJxWn+kkZGBg4k85mQ5JPz80pS80q4RlPaKBgFo2AUjIJRMApGwSgYDAAAIDuCggAQAAA=";
        FilePath home = Scratch.New(), lower = home / "lower";
        using (var compressed = new MemoryStream(Convert.FromBase64String(image)))
        using (var packed = new System.IO.Compression.GZipStream(compressed, System.IO.Compression.CompressionMode.Decompress))
        {
            byte[] content = new byte[4096];
            packed.ReadExactly(content);
            Sys.Write(home / "image", content);
        }
        Sys.MakeDirectory(lower);
        Command.Require("mount", "-t", "erofs", "-o", "loop,ro", home / "image", lower);
        try
        {
            using var overlay = Overlay.With(over: [lower], options: "redirect_dir=on");

            Sys.Append(overlay.Merged / "d/file", "!");
            Sys.ChangeMode(overlay.Merged / "d", Oct(700));
            Sys.Rename(overlay.Merged / "d/file", overlay.Merged / "moved");
            Sys.Rename(overlay.Merged / "d", overlay.Merged / "e");

            Assert.Equal("content\n!", Sys.ReadText(overlay.Merged / "moved"));
            Assert.Empty((overlay.Merged / "e").Entries());
        }
        finally
        {
            Command.Require("umount", lower);
        }
    }

    [MountTheory]
    [MemberData(nameof(Types))]
    public void Every_type_comes_up_as_it_is(string name)
    {
        using var overlay = Overlay.With(lower: Tree.Of(
            ("p/file", Node.File("content").Mode(Oct(640)).OwnedBy(1000, 1001)),
            ("p/link", Node.Link("some/target").OwnedBy(1000, 1001)),
            ("p/fifo", Node.Fifo().Mode(Oct(622)).OwnedBy(1000, 1001)),
            ("p/socket", Node.Socket().OwnedBy(1000, 1001)),
            ("p/char", Node.Character(1, 3).Mode(Oct(666)).OwnedBy(1000, 1001)),
            ("p/block", Node.Block(7, 300).OwnedBy(1000, 1001)),
            ("p/dir", Node.Directory().Mode(Oct(1777)).OwnedBy(1000, 1001))), options: "metacopy=off");
        Facets facets = Facets.Content | Facets.Mode | Facets.ModifyTime | Facets.Nlink;
        string before = TreeImage.Of(overlay.Merged, facets).Lines[$"p/{name}"];

        Sys.ChangeOwner(overlay.Merged / "p" / name, 0, uint.MaxValue);

        Assert.Equal(before, TreeImage.Of(overlay.Upper, facets).Lines[$"p/{name}"]);
        Assert.Equal(before, TreeImage.Of(overlay.Merged, facets).Lines[$"p/{name}"]);
        Assert.Equal((0u, 1001u), (Sys.Stat(overlay.Upper / "p" / name).Uid, Sys.Stat(overlay.Upper / "p" / name).Gid));
    }

    [MountTheory]
    [InlineData(Filesystem.Tmpfs)]
    [InlineData(Filesystem.Ext4)]
    [InlineData(Filesystem.Xfs)]
    [InlineData(Filesystem.Btrfs)]
    public void A_file_keeps_all_that_it_has(Filesystem filesystem)
    {
        using var overlay = Overlay.With(on: filesystem, lower: Tree.Of(
            ("d", Node.Directory().Mode(Oct(2775)).OwnedBy(7, 8).Attribute("user.of", "directory")),
            ("d/file", Node.File(new string('c', 70_000)).Mode(Oct(6755)).OwnedBy(1000, 1001)
                .Attribute("user.one", "1").Attribute("user.empty", "").Attribute("user.binary", [0, 255, 10])
                .Attribute("trusted.x", "y").Attribute("security.capability", Capability)),
            ("d/listed", Node.File("x").Attribute("system.posix_acl_access", AccessList))));
        TreeImage before = TreeImage.Of(overlay.Merged, Facets.Visible);

        // The same permissions again: a change that changes nothing, but for where the file is.
        Sys.ChangeMode(overlay.Merged / "d/file", Oct(6755));
        Sys.SetXattr(overlay.Merged / "d/listed", "user.touched", "");
        Sys.RemoveXattr(overlay.Merged / "d/listed", "user.touched");

        Assert.Equal("", TreeImage.Difference(before, TreeImage.Of(overlay.Merged, Facets.Visible)));
        Assert.True((overlay.Upper / "d/file").Exists);
        Assert.Equal(Capability, Sys.GetXattr(overlay.Upper / "d/file", "security.capability"));
        Assert.Equal(AccessList, Sys.GetXattr(overlay.Upper / "d/listed", "system.posix_acl_access"));
        Assert.Equal(Oct(6755), Sys.Stat(overlay.Upper / "d/file").Mode & ModeBits.Mask);
        Assert.Equal(123_456_789u, Sys.Stat(overlay.Upper / "d/file").ModifyTime.Nanoseconds);
        overlay.Remount();
        Assert.Equal("", TreeImage.Difference(before, TreeImage.Of(overlay.Merged, Facets.Visible)));
    }

    [MountTheory]
    [InlineData(Filesystem.Ext4, Filesystem.Tmpfs)]
    [InlineData(Filesystem.Tmpfs, Filesystem.Xfs)]
    [InlineData(Filesystem.Btrfs, Filesystem.Ext4)]
    public void A_file_comes_up_onto_another_filesystem(Filesystem lower, Filesystem upper)
    {
        byte[] content = new byte[3_000_001];
        new Random(1).NextBytes(content);
        using var overlay = Overlay.With(on: upper, lowersOn: lower,
            lower: Tree.Of(("d/file", Node.File(content).Attribute("user.x", "y")), ("d/f2", "2")), options: "metacopy=off");

        Sys.ChangeOwner(overlay.Merged / "d/file", 5, 6);

        Assert.Equal(content, Sys.Read(overlay.Merged / "d/file"));
        Assert.Equal("y", Sys.GetXattrText(overlay.Upper / "d/file", "user.x"));
        (TreeImage shown, TreeImage expected) = overlay.ShownBesideKernel();
        Assert.Equal("", TreeImage.Difference(expected, shown));
    }

    [MountTheory]
    [InlineData(Filesystem.Tmpfs)]
    [InlineData(Filesystem.Ext4)]
    [InlineData(Filesystem.Xfs)]
    [InlineData(Filesystem.Btrfs)]
    public void Holes_stay_holes(Filesystem filesystem)
    {
        using var overlay = Overlay.With(
            on: filesystem, lower: Tree.Of(("sparse", Node.Sparse(8 << 20, "middle", 64L << 20)), ("all", Node.Sparse(0, "", 32L << 20))),
            options: "metacopy=off");

        Sys.ChangeMode(overlay.Merged / "sparse", Oct(600));
        Sys.ChangeMode(overlay.Merged / "all", Oct(600));

        using Descriptor file = Sys.Open(overlay.Upper / "sparse", OpenFlags.ReadOnly);
        Assert.Equal(64ul << 20, file.Stat().Size);
        Assert.Equal("middle", file.TextAt(8 << 20, 6));
        Assert.True(file.Stat().Blocks <= 2048, $"{file.Stat().Blocks} blocks");
        Assert.True(Sys.Stat(overlay.Upper / "all").Blocks < 64);
        using Descriptor merged = Sys.Open(overlay.Merged / "sparse", OpenFlags.ReadOnly);
        Assert.Equal(0, merged.Seek(0, SeekWhence.Hole));
        Assert.InRange(merged.Seek(0, SeekWhence.Data), 1, 8 << 20);
    }

    [MountFact]
    public void Opening_to_read_brings_nothing_up()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/file", "x"), ("d/fifo", Node.Fifo()), ("d/null", Node.Character(1, 3))));

        _ = Sys.Read(overlay.Merged / "d/file");
        _ = Sys.Access(overlay.Merged / "d/file", AccessMode.Write);
        _ = Sys.ListXattr(overlay.Merged / "d/file");
        Sys.Open(overlay.Merged / "d/null", OpenFlags.ReadWrite).Dispose();
        Sys.Open(overlay.Merged / "d/fifo", OpenFlags.ReadWrite | OpenFlags.NonBlock).Dispose();

        Assert.Empty(overlay.Upper.Entries());
    }

    [MountTheory]
    [InlineData("open to write")]
    [InlineData("truncate")]
    [InlineData("chmod")]
    [InlineData("chown")]
    [InlineData("utimes")]
    [InlineData("setxattr")]
    [InlineData("removexattr")]
    [InlineData("link")]
    [InlineData("rename")]
    public void Directories_above_keep_their_times_when_something_comes_up(string change)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("a/b/file", Node.File("content").Attribute("user.x", "y")), ("elsewhere/x", "")));
        FilePath file = overlay.Merged / "a/b/file";

        Action act = change switch
        {
            "open to write" => () => Sys.Open(file, OpenFlags.WriteOnly).Dispose(),
            "truncate" => () => Sys.Truncate(file, 3),
            "chmod" => () => Sys.ChangeMode(file, Oct(600)),
            "chown" => () => Sys.ChangeOwner(file, 1, 1),
            "utimes" => () => Sys.ChangeTimes(file, TimeSpec.Now, TimeSpec.Now),
            "setxattr" => () => Sys.SetXattr(file, "user.y", "z"),
            "removexattr" => () => Sys.RemoveXattr(file, "user.x"),
            "link" => () => Sys.Link(file, overlay.Merged / "elsewhere/linked"),
            _ => () => Sys.Rename(file, overlay.Merged / "elsewhere/renamed"),
        };
        act();

        Assert.Equal(Node.LongAgo.Seconds, Sys.Stat(overlay.Merged / "a").ModifyTime.Seconds);
        Assert.Equal(Node.LongAgo.Nanoseconds, Sys.Stat(overlay.Upper / "a").ModifyTime.Nanoseconds);
        if (change is not "rename") { Assert.Equal(Node.LongAgo.Seconds, Sys.Stat(overlay.Upper / "a/b").ModifyTime.Seconds); }
        Assert.Equal(Node.LongAgo.Seconds, Sys.Stat(overlay.Merged).ModifyTime.Seconds);
        Assert.Empty(overlay.Leftovers);
    }

    [MountFact]
    public void A_file_opened_to_be_overwritten_comes_up_empty_with_its_attributes()
    {
        using var overlay = Overlay.With(lower: Tree.Of(
            ("file", Node.File(new string('x', 100_000)).Mode(Oct(640)).OwnedBy(5, 6).Attribute("user.x", "y"))));

        Sys.Write(overlay.Merged / "file", "new");

        Assert.Equal("new", Sys.ReadText(overlay.Upper / "file"));
        Assert.Equal(
            (5u, 6u, Oct(640)),
            (Sys.Stat(overlay.Upper / "file").Uid, Sys.Stat(overlay.Upper / "file").Gid,
                Sys.Stat(overlay.Upper / "file").Mode & ModeBits.Mask));
        Assert.Equal("y", Sys.GetXattrText(overlay.Upper / "file", "user.x"));
    }

    [MountFact]
    public void A_user_who_may_not_write_brings_nothing_up()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", Node.File("x").Mode(Oct(644))), ("dir", Node.Directory().Mode(Oct(755))),
            ("dir/f", Node.File("").Mode(Oct(600)))));
        using Actor user = Actor.User();

        Assert.Equal(Errno.EACCES, user.ErrorOf(() => Sys.Open(overlay.Merged / "file", OpenFlags.WriteOnly)));
        Assert.Equal(Errno.EPERM, user.ErrorOf(() => Sys.ChangeMode(overlay.Merged / "file", Oct(777))));
        Assert.Equal(Errno.EPERM, user.ErrorOf(() => Sys.ChangeOwner(overlay.Merged / "file", 1000, 1000)));
        Assert.Equal(Errno.EACCES, user.ErrorOf(() => Sys.Read(overlay.Merged / "dir/f")));
        Assert.Equal(Errno.EACCES, user.ErrorOf(() => Sys.Unlink(overlay.Merged / "dir/f")));
        Assert.Equal(Errno.EACCES, user.ErrorOf(() => Sys.Rename(overlay.Merged / "dir/f", overlay.Merged / "dir/g")));
        Assert.Equal(Errno.EPERM, user.ErrorOf(() => Sys.ChangeTimes(overlay.Merged / "file", Node.LongAgo, Node.LongAgo)));

        Assert.Empty(overlay.Upper.Entries());
    }

    [MountFact]
    public void A_users_change_brings_up_what_only_the_mounter_may_make()
    {
        using var overlay = Overlay.With(lower: Tree.Of(
            ("a", Node.Directory().OwnedBy(0, 0)),
            ("a/file", Node.File("x").Mode(Oct(660)).OwnedBy(1001, 1000).Attribute("trusted.t", "kept"))));
        using Actor user = Actor.User();

        user.Do(() => Sys.Append(overlay.Merged / "a/file", "y"));

        Statx up = Sys.Stat(overlay.Upper / "a/file");
        Assert.Equal((1001u, 1000u), (up.Uid, up.Gid));
        Assert.Equal("kept", Sys.GetXattrText(overlay.Upper / "a/file", "trusted.t"));
        Assert.Equal("xy", Sys.ReadText(overlay.Merged / "a/file"));
    }

    [MountFact]
    public void Many_who_write_the_same_lower_file_at_once_find_one_copy()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/file", new string('-', 500_000))));

        Parallel.For(0, 16, new ParallelOptions { MaxDegreeOfParallelism = 8 }, i =>
        {
            using Descriptor file = Sys.Open(overlay.Merged / "d/file", OpenFlags.WriteOnly);
            file.WriteAt($"{i:X}", i);
        });

        Assert.Equal("0123456789ABCDEF--", Sys.ReadText(overlay.Merged / "d/file")[..18]);
        Assert.Equal(500_000ul, Sys.Stat(overlay.Upper / "d/file").Size);
    }

    [MountFact(DisableParallelization = true, NotOfKernel = "The kernel holds the directory's lock, and a stat of the same file waits.")]
    public void A_long_copy_up_does_not_delay_a_stat_of_another_file()
    {
        using var overlay = Overlay.With(on: Filesystem.Ext4, lowersOn: Filesystem.Tmpfs,
            lower: Tree.Of(("d/large", Node.File(new byte[200 << 20])), ("d/small", "x")));
        using Actor other = Actor.Process();
        Task<int> copy = other.Begin(() =>
        {
            Sys.Append(overlay.Merged / "d/large", "x");
            return 0;
        });
        var whole = System.Diagnostics.Stopwatch.StartNew();
        var slowest = TimeSpan.Zero;
        int stats = 0;
        while (!copy.IsCompleted)
        {
            var watch = System.Diagnostics.Stopwatch.StartNew();
            _ = Sys.Stat(overlay.Merged / "d/small");
            Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => Sys.Stat(overlay.Merged / $"d/none{stats++}")));
            slowest = watch.Elapsed > slowest ? watch.Elapsed : slowest;
        }
        copy.GetAwaiter().GetResult();

        // The disk is the same, so one may have to wait for it; but none for the copy.
        Assert.True(stats > 20 && slowest < whole.Elapsed / 2, $"The slowest of {stats} took {slowest}, and the copy {whole.Elapsed}.");
    }

    [MountFact(OnlyVeneer = "It has servers.")]
    public void Many_long_copy_ups_on_one_processor_run_at_the_same_time()
    {
        const int copies = 12;
        var content = Node.File(new byte[100 << 20]);
        using var overlay = Overlay.With(on: Filesystem.Tmpfs,
            lower: Tree.Of([.. Enumerable.Range(0, copies).Select(i => ($"large{i}", content))]));
        for (int i = 0; i < copies; i++) { Sys.Stat(overlay.Merged / $"large{i}"); }
        using var together = new Barrier(copies);
        var errors = new Errno[copies]; // an exception in a thread would have xunit wait for the test, which waits for the thread
        Thread[] copiers = [.. Enumerable.Range(0, copies).Select(i => new Thread(() =>
        {
            _ = Libc.PinThread(0); // best effort: where it is not to be had, the test asks for less
            together.SignalAndWait();
            errors[i] = Sys.ErrorOf(() => Sys.Append(overlay.Merged / $"large{i}", "x"));
        }))];

        foreach (Thread copier in copiers) { copier.Start(); }
        int most = 0;
        while (copiers.Any(copier => copier.IsAlive)) { most = Math.Max(most, CopiesIn(overlay)); }
        foreach (Thread copier in copiers) { copier.Join(); }

        Assert.All(errors, error => Assert.Equal(Errno.None, error));
        Assert.True(most > copies / 2, $"At most {most} were seen at a time.");
    }

    /// <summary>How many copies the server is making: each is a file without a name in work that it has open.</summary>
    private static int CopiesIn(Overlay overlay)
    {
        return Overlay.ServersOf(overlay.Merged).Sum(
            server => Sys.ReadDirectory($"/proc/{server}/fd").Count(entry => IsCopy(server, entry.Name)));

        bool IsCopy(int server, string descriptor)
        {
            try { return Sys.ReadLink($"/proc/{server}/fd/{descriptor}").Contains("/work/#", StringComparison.Ordinal); }
            catch (SysException) { return false; } // closed meanwhile
        }
    }

    /// <summary>Whoever looks while the copy appears must not take it for another file.</summary>
    [MountTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_file_that_is_looked_at_while_it_comes_up_stays_one_file(bool isLinked)
    {
        const int files = 300;
        Tree lower = Tree.Of([
            .. Enumerable.Range(0, files).SelectMany(
                i => isLinked ? new[] { ($"d/f{i}", (Node)"old"), ($"d/g{i}", Node.HardLink($"d/f{i}")) } : [($"d/f{i}", "old")])]);
        using var overlay = Overlay.With(lower: lower);
        FilePath d = overlay.Merged / "d";
        bool done = false;
        var problems = new System.Collections.Concurrent.ConcurrentBag<Errno>();
        Thread[] lookers = [.. Enumerable.Range(0, 2).Select(looker => new Thread(() =>
        {
            while (!Volatile.Read(ref done))
            {
                Note(Sys.ErrorOf(() =>
                {
                    Sys.DropCaches();
                    foreach (DirectoryEntry entry in Sys.ReadDirectory(d))
                    {
                        Note(Libc.StatAt(Libc.AtCwd, (d / entry.Name).Bytes, StatxMask.Basic, out Statx _));
                    }
                }));
            }
        }))];
        foreach (Thread looker in lookers) { looker.Start(); }
        try
        {
            for (int i = 0; i < files; i++)
            {
                FilePath file = d / $"f{i}";
                Sys.ChangeMode(file, Oct(600));
                using Descriptor old = Sys.Open(file, OpenFlags.ReadWrite);
                Sys.Unlink(file);
                Sys.Write(file, "new");
                old.Truncate(1);
                Assert.Equal("new", Sys.ReadText(file));
                Assert.Equal(1UL, old.Stat().Size);
            }
        }
        finally
        {
            Volatile.Write(ref done, true);
            foreach (Thread looker in lookers) { looker.Join(); }
        }
        Assert.Empty(problems);

        void Note(Errno error)
        {
            if (error is not (Errno.None or Errno.ENOENT)) { problems.Add(error); }
        }
    }

    /// <summary>Of the flags of chattr(1), these two are the copy's own.</summary>
    [MountFact]
    public void The_flags_sync_and_noatime_come_up_too()
    {
        const uint sync = 0x8, noAccessTime = 0x80;
        FilePath lower = Scratch.New(Filesystem.Ext4);
        Sys.Write(lower / "file", "x");
        Sys.MakeDirectory(lower / "d");
        foreach (string name in new[] { "file", "d" })
        {
            using Descriptor real = Sys.Open(lower / name, OpenFlags.ReadOnly);
            real.SetFlags(real.GetFlags() | sync | noAccessTime);
        }
        using var overlay = Overlay.With(over: [lower], on: Filesystem.Ext4);

        foreach (string name in new[] { "file", "d" })
        {
            Sys.ChangeMode(overlay.Merged / name, Oct(700));
            using Descriptor copy = Sys.Open(overlay.Upper / name, OpenFlags.ReadOnly);
            Assert.Equal(sync | noAccessTime, copy.GetFlags() & (sync | noAccessTime));
        }
    }

    /// <summary>Copies, and what takes a whiteout's place, are built in work.</summary>
    [MountFact]
    public void What_the_work_directory_would_hand_on_stays_there()
    {
        byte[] list = Acl.Of(owner: 7, user: (1005, 7), group: 7, mask: 7, other: 0);
        using var overlay = Overlay.With(lower: Tree.Of(("file", Node.File("x").Mode(Oct(660))), ("d/x", ""), ("gone", "")),
            mounted: false);
        Sys.SetXattr(overlay.Work, "system.posix_acl_default", list);
        Sys.ChangeOwner(overlay.Work, 0, 77);
        Sys.ChangeMode(overlay.Work, Oct(2777));
        overlay.Mount();

        Sys.Append(overlay.Merged / "file", "y");
        Sys.ChangeMode(overlay.Merged / "d", Oct(700));
        Sys.Unlink(overlay.Merged / "gone");
        Sys.Write(overlay.Merged / "gone", "new");

        foreach (string name in new[] { "file", "d", "gone" })
        {
            Assert.False(Sys.HasXattr(overlay.Upper / name, "system.posix_acl_access"), name);
            Assert.False(Sys.HasXattr(overlay.Upper / name, "system.posix_acl_default"), name);
            Assert.Equal(0u, Sys.Stat(overlay.Upper / name).Gid);
        }
        Assert.Equal(Oct(660), Sys.Stat(overlay.Merged / "file").Mode & 0xFFFu);
    }

    /// <summary>The option is grpid, or bsdgroups: a new object gets the group of its directory.</summary>
    [MountFact]
    public void Where_directories_hand_their_group_on_a_copy_has_its_own_all_the_same()
    {
        FilePath home = Scratch.New(), place = home / "place";
        Scratch.MountImage(Filesystem.Ext4, home / "image", place, 32 << 20, "loop,grpid");
        try
        {
            foreach (string name in new[] { "lower", "upper", "work", "merged" }) { Sys.MakeDirectory(place / name, Oct(755)); }
            Sys.Write(place / "lower/file", "content");
            Sys.MakeDirectory(place / "lower/d");
            Sys.ChangeOwner(place / "work", 0, 500);
            Mounter.UnderTest.Mount(new Layers([place / "lower"], place / "upper", place / "work", place / "merged", ""));
            try
            {
                foreach (string name in new[] { "file", "d" })
                {
                    Sys.ChangeMode(place / "merged" / name, Oct(700));
                    Assert.Equal(0u, Sys.Stat(place / "upper" / name).Gid);
                }
            }
            finally { Mounter.UnderTest.Unmount(place / "merged"); }
        }
        finally { _ = Command.Require("umount", place); }
    }
}
