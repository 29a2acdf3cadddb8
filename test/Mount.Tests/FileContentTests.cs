namespace Veneer.Mount.Tests;

/// <summary>Calls on the content of files, on layers of each filesystem.</summary>
public sealed class FileContentTests
{
    public static TheoryData<Filesystem> Filesystems => [Filesystem.Tmpfs, Filesystem.Ext4, Filesystem.Xfs, Filesystem.Btrfs];

    [MountTheory]
    [MemberData(nameof(Filesystems))]
    public void Holes_are_found_punched_and_filled(Filesystem filesystem)
    {
        using var overlay = Overlay.With(on: filesystem, lower: Tree.Of(("sparse", Node.Sparse(1 << 20, "middle", 4 << 20))));
        using (Descriptor reader = Sys.Open(overlay.Merged / "sparse", OpenFlags.ReadOnly))
        {
            Assert.Equal(0, reader.Seek(0, SeekWhence.Hole));
            Assert.InRange(reader.Seek(0, SeekWhence.Data), 1, 1 << 20);
            Assert.Equal(Errno.ENXIO, Sys.ErrorOf(() => reader.Seek(4 << 20, SeekWhence.Data)));
        }
        using Descriptor file = Sys.Open(overlay.Merged / "sparse", OpenFlags.ReadWrite);

        file.Allocate(AllocateMode.PunchHole | AllocateMode.KeepSize, 1 << 20, 1 << 16);
        Assert.Equal("\0\0\0\0\0\0", file.TextAt(1 << 20, 6));
        file.Allocate(AllocateMode.KeepSize, 4 << 20, 1 << 20);
        Assert.Equal(4ul << 20, file.Stat().Size);
        file.Allocate(AllocateMode.Default, 4 << 20, 1 << 20);
        Assert.Equal(5ul << 20, file.Stat().Size);
        Assert.Equal(file.Stat().Size, Sys.Stat(overlay.Upper / "sparse").Size);
    }

    /// <summary>Without passthrough and io_uring, large reads go from the layers' pages to the kernel's.</summary>
    [MountTheory(OnlyVeneer = "The kernel has no such options.")]
    [MemberData(nameof(Filesystems))]
    public void What_is_read_in_large_pieces_is_what_the_layers_have(Filesystem filesystem)
    {
        int[] sizes = [32_767, 32_768, 100_000, 131_072, 131_073, (2 << 20) + 5];
        byte[] content = [.. Enumerable.Range(0, sizes[^1]).Select(i => (byte)(i * 7 + i / 4096))];
        using var overlay = Overlay.With(
            on: filesystem,
            options: "passthrough=off,io_uring=off",
            lower: Tree.Of([.. sizes.Select(size => ($"{size}", Node.File(content[..size]))),
                ("sparse", Node.Sparse(1 << 20, "middle", 4 << 20))]));
        foreach (int size in sizes)
        {
            Assert.Equal(content[..size], Sys.Read(overlay.Merged / $"{size}"));
            Sys.Append(overlay.Merged / $"{size}", "more");
            Sys.DropCaches();
            Assert.Equal([.. content[..size], .. "more"u8], Sys.Read(overlay.Merged / $"{size}"));
        }
        Assert.Equal([.. new byte[1 << 20], .. "middle"u8, .. new byte[(3 << 20) - 6]], Sys.Read(overlay.Merged / "sparse"));

        // Past the kernel's pages, in whole sectors.
        using Descriptor direct = Sys.Open(overlay.Merged / $"{sizes[^1]}", OpenFlags.ReadOnly | OpenFlags.Direct);
        foreach ((int offset, int length) in ((int, int)[])[(512, 391 * 512), (4096, 65_536), ((2 << 20) - 65_536, 65_536),
            (2 << 20, 4096)])
        {
            int end = Math.Min(offset + length, sizes[^1]);
            byte[] expected = [.. content[offset..end], .. offset + length > end ? "more"u8 : []];
            Assert.Equal(expected, direct.ReadAt(offset, length));
        }
    }

    [MountTheory]
    [MemberData(nameof(Filesystems))]
    public void Ranges_are_copied_between_files_of_any_layer(Filesystem filesystem)
    {
        string content = string.Concat(Enumerable.Range(0, 20_000).Select(i => $"{i:D6}"));
        using var overlay = Overlay.With(on: filesystem, lower: Tree.Of(("low", content), ("target", "")));
        using Descriptor low = Sys.Open(overlay.Merged / "low", OpenFlags.ReadOnly);
        using Descriptor up = Sys.Open(overlay.Merged / "up", OpenFlags.ReadWrite | OpenFlags.Create, Oct(600));
        using Descriptor target = Sys.Open(overlay.Merged / "target", OpenFlags.ReadWrite);

        Assert.Equal(60_000, low.CopyRangeTo(up, 6_000, 0, 60_000));
        Assert.Equal(content.Substring(6_000, 60_000), up.ReadAllText());
        Assert.Equal(30_000, up.CopyRangeTo(target, 12_000, 100, 30_000));
        Assert.Equal(content.Substring(18_000, 30_000), target.TextAt(100, 30_000));
        Assert.Equal(0, up.CopyRangeTo(target, 1 << 20, 0, 10));
        Assert.Equal(30_100ul, Sys.Stat(overlay.Upper / "target").Size);
    }

    [MountTheory]
    [MemberData(nameof(Filesystems))]
    public void What_is_written_in_one_way_is_read_in_every_other(Filesystem filesystem)
    {
        using var overlay = Overlay.With(on: filesystem, lower: Tree.Of(("file", new string('o', 20_000))));
        using Descriptor one = Sys.Open(overlay.Merged / "file", OpenFlags.ReadWrite),
            other = Sys.Open(overlay.Merged / "file", OpenFlags.ReadWrite);
        using Map map = one.Map(20_000, write: true);

        other.WriteAt("written", 5_000);
        Assert.Equal("written", map.Text(5_000, 7));
        map.Write(9_000, "mapped");
        Assert.Equal("mapped", other.TextAt(9_000, 6));
        one.Allocate(AllocateMode.PunchHole | AllocateMode.KeepSize, 4096, 4096);
        Assert.Equal("\0\0", map.Text(5_000, 2));
        other.Truncate(10_000);
        other.Truncate(12_000);
        Assert.Equal("o\0", map.Text(9_999, 2));
        one.Sync();
        Assert.Equal(12_000ul, Sys.Stat(overlay.Upper / "file").Size);
        Assert.Equal("mapped", Sys.ReadText(overlay.Upper / "file").Substring(9_000, 6));
    }

    [MountFact]
    public void Those_who_append_at_the_same_time_lose_nothing()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("log", "begin\n")));

        Parallel.For(0, 8, new ParallelOptions { MaxDegreeOfParallelism = 8 }, writer =>
        {
            using Descriptor file = Sys.Open(overlay.Merged / "log", OpenFlags.WriteOnly | OpenFlags.Append);
            for (int i = 0; i < 100; i++) { file.Write($"{writer}:{i}\n"); }
        });

        string[] lines = Sys.ReadText(overlay.Merged / "log").Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(801, lines.Length);
        Assert.Equal(801, lines.Distinct().Count());
    }

    [MountFact]
    public void Direct_io_reads_and_writes_what_others_see()
    {
        using var overlay = Overlay.With(on: Filesystem.Ext4, lower: Tree.Of(("file", new string('o', 16_384))));
        using (Descriptor direct = Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly | OpenFlags.Direct))
        using (Map buffer = Map.Anonymous(16_384))
        {
            Assert.Equal(16_384, direct.ReadInto(buffer, 0));
            Assert.Equal("oooo", buffer.Text(0, 4));
        }
        using Descriptor writer = Sys.Open(overlay.Merged / "file", OpenFlags.ReadWrite | OpenFlags.Direct);
        using Map content = Map.Anonymous(4096);
        content.Write(0, new string('d', 4096));

        Assert.Equal(4096, writer.WriteFrom(content, 8192));

        Assert.Equal(new string('d', 4096), Sys.ReadText(overlay.Merged / "file").Substring(8192, 4096));
        Assert.Equal("o", Sys.ReadText(overlay.Upper / "file")[..1]);
    }

    [MountFact]
    public void Inode_flags_are_kept_and_obeyed()
    {
        const uint noDump = 0x40, append = 0x20, immutable = 0x10;
        using var overlay = Overlay.With(on: Filesystem.Ext4, lower: Tree.Of(("file", "content"), ("d/x", "")));
        using (Descriptor file = Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly))
        {
            file.SetFlags(file.GetFlags() | noDump);
            Assert.Equal(noDump, file.GetFlags() & noDump);
            file.SetFlags(file.GetFlags() | append);
            Assert.Equal(append, file.GetFlags() & append);
        }
        Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.Open(overlay.Merged / "file", OpenFlags.WriteOnly)));
        Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.Unlink(overlay.Merged / "file")));
        Sys.Append(overlay.Merged / "file", "!");
        using (Descriptor file = Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly))
        {
            file.SetFlags((file.GetFlags() & ~append) | immutable);
            Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.Append(overlay.Merged / "file", "?")));
            Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.ChangeMode(overlay.Merged / "file", Oct(600))));
            file.SetFlags(file.GetFlags() & ~(immutable | noDump));
        }
        Sys.Unlink(overlay.Merged / "file");
        using Descriptor directory = Sys.Open(overlay.Merged / "d", OpenFlags.ReadOnly | OpenFlags.Directory);
        directory.SetFlags(directory.GetFlags() | noDump | append);
        Assert.Equal(noDump | append, directory.GetFlags() & (noDump | append));
        Sys.Write(overlay.Merged / "d/new", "");
        Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.Unlink(overlay.Merged / "d/x")));
        using (Descriptor real = Sys.Open(overlay.Upper / "d", OpenFlags.ReadOnly | OpenFlags.Directory))
        {
            Assert.Equal(noDump, real.GetFlags() & noDump);
        }
        directory.SetFlags(directory.GetFlags() & ~(noDump | append));
        Sys.Unlink(overlay.Merged / "d/x");
    }

    [MountFact]
    public void Extended_inode_flags_bring_a_file_up()
    {
        const uint noAccessTime = 0x40, noDump = 0x80;
        using var overlay = Overlay.With(on: Filesystem.Ext4, lower: Tree.Of(("file", "content"), ("d/x", "")));
        foreach (string name in (string[])["file", "d"])
        {
            using Descriptor opened = Sys.Open(overlay.Merged / name, OpenFlags.ReadOnly);
            uint[] attributes = opened.GetExtendedFlags();
            Assert.Equal(0u, attributes[0] & (noAccessTime | noDump));

            attributes[0] |= noAccessTime | noDump;
            opened.SetExtendedFlags(attributes);

            Assert.Equal(attributes, opened.GetExtendedFlags());
            using Descriptor real = Sys.Open(overlay.Upper / name, OpenFlags.ReadOnly);
            Assert.Equal(noAccessTime | noDump, real.GetExtendedFlags()[0] & (noAccessTime | noDump));
        }
    }

    [MountFact]
    public void Synchronising_works_on_files_and_directories_of_any_layer()
    {
        using var overlay = Overlay.With(on: Filesystem.Ext4, lower: Tree.Of(("d/file", "x"), ("d/other", "")));
        using Descriptor lowDirectory = Sys.Open(overlay.Merged / "d", OpenFlags.ReadOnly | OpenFlags.Directory);
        using Descriptor lowFile = Sys.Open(overlay.Merged / "d/other", OpenFlags.ReadOnly);
        lowDirectory.Sync();
        lowFile.Sync();
        Sys.Append(overlay.Merged / "d/file", "y");
        using Descriptor file = Sys.Open(overlay.Merged / "d/file", OpenFlags.ReadWrite | OpenFlags.DataSync);
        file.WriteAt("z", 0);
        file.Sync();
        lowDirectory.Sync();

        Assert.Equal("zy", Sys.ReadText(overlay.Upper / "d/file"));
    }
}
