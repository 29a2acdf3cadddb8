using System.Formats.Tar;

namespace Veneer.Mount.Tests;

/// <summary>The layer that <c>veneer diff --tar</c> makes of an upper turns what the lowers show into what the mount shows.</summary>
public sealed class LayerTarTests
{
    private static readonly string LongName = new('n', 200);

    private static Tree Image => Tree.Of(
        ("dir/a", "a"), ("dir/b", "b"), ("dir/sub/c", "c"), ("dir/sub/deep/d", Node.File("d").Mode(Oct(4755)).OwnedBy(5, 6)),
        ("file", "file"), ("other", "other"), ("gone/x", "x"),
        ("link", Node.Link("file")), ("one", "linked"), ("two", Node.HardLink("one")), ("untouched/deep/x", "x"), ("was-dir/x", "x"),
        ("was-file", "x"));

    private static byte[] Make(Overlay overlay, int exitCode = 0, string notes = "", string epoch = "", params string[] more)
    {
        FilePath file = overlay.Beside($"layer-{Guid.NewGuid():N}.tar");
        Command.Result result = Command.Run(["env", $"SOURCE_DATE_EPOCH={epoch}", Mounter.Binary, "diff", "--upper", overlay.Upper,
            "--lower", string.Join(':', overlay.Lowers), "--tar", file, .. more]);
        Assert.Equal((exitCode, notes), (result.ExitCode, result.Error.Trim()));
        byte[] content = Sys.Read(file);
        Sys.Unlink(file);
        return content;
    }

    /// <summary>Applies the layer to a copy of what the lowers show, and compares that with the mount.</summary>
    private static LayerArchive AssertGivesTheMount(Overlay overlay, string notes = "")
    {
        byte[] archive = Make(overlay, notes: notes);
        Assert.Equal(archive, Make(overlay, notes: notes));
        LayerArchive layer = LayerArchive.Parse(archive);
        FilePath baseline = overlay.Beside($"baseline-{Guid.NewGuid():N}"), copy = overlay.Beside($"copy-{Guid.NewGuid():N}");
        Sys.MakeDirectory(baseline);
        if (overlay.Lowers.Count > 1) { Mounter.Kernel.Mount(new Layers(overlay.Lowers, null, null, baseline, "")); }
        Command.Require("cp", "-a", overlay.Lowers.Count > 1 ? baseline : overlay.Lower, copy);
        if (overlay.Lowers.Count > 1) { Mounter.Kernel.Unmount(baseline); }

        layer.ApplyTo(copy);

        Assert.Equal("", TreeImage.Difference(TreeImage.Of(overlay.Merged).Without("."), TreeImage.Of(copy).Without(".")));
        return layer;
    }

    [MountFact]
    public void A_layer_holds_every_kind_of_change()
    {
        using var overlay = Overlay.With(lower: Image);
        FilePath m = overlay.Merged;
        Sys.Write(m / "dir/new", new string('x', 200_000));
        Sys.Append(m / "dir/a", "more");
        Sys.ChangeMode(m / "dir/b", Oct(6755));
        Sys.ChangeOwner(m / "other", 3_000_000, 2_999_999);
        Sys.Unlink(m / "file");
        Sys.RemoveTree(m / "gone");
        Sys.MakeDirectory(m / "gone", Oct(1770));
        Sys.Write(m / "gone/y", "");
        Sys.RemoveTree(m / "was-dir");
        Sys.Write(m / "was-dir", "a file");
        Sys.Unlink(m / "was-file");
        Sys.MakeDirectory(m / "was-file");
        Sys.Write(m / "was-file/inside", "x");
        Sys.MakeNode(m / "fifo", FileType.Fifo, Oct(640));
        Sys.MakeNode(m / "device", FileType.BlockDevice, Oct(600), 259, 70_000);
        Sys.SymbolicLink(new string('t', 300), m / "long-target");
        Sys.MakeDirectory(m / LongName);
        Sys.Write(m / LongName / LongName, "far");
        Sys.Write(m / "not-utf8-\udcff", "bytes");
        Sys.Write(m / "links", "three names");
        Sys.Link(m / "links", m / "dir/links");
        Sys.Link(m / "links", m / LongName / "links");
        Sys.ChangeTimes(m / "links", Node.LongAgo, new TimeSpec { Seconds = -5, Nanoseconds = 250_000_000 });
        Sys.SetXattr(m / "links", "user.binary", [0, 1, (byte)'\n', 255]);
        Sys.SetXattr(m / "dir/new", "security.capability", Convert.FromHexString("0100000202000000000000000000000000000000"));
        Sys.SetXattr(m / "gone", "system.posix_acl_default", Acl.Of(7, (1000, 5), 0, 7, 0));

        LayerArchive layer = AssertGivesTheMount(overlay);

        Assert.DoesNotContain(layer.Entries, entry => entry.Path.StartsWith("untouched", StringComparison.Ordinal));
        Assert.Contains(layer.Entries,
            entry => entry is { Path: "dir/links", Kind: '0' } or { Path: "links", Kind: '1', Target: "dir/links" });
    }

    [MountTheory]
    [InlineData("redirect_dir=on")]
    [InlineData("redirect_dir=on,metacopy=on")]
    public void A_renamed_directory_is_whole(string options)
    {
        using var overlay = Overlay.With(lower: Image, options: options);
        FilePath m = overlay.Merged;
        Sys.Rename(m / "dir", m / "gone/dir2");
        Sys.Append(m / "gone/dir2/a", "more");
        Sys.Unlink(m / "gone/dir2/b");
        Sys.ChangeMode(m / "gone/dir2/sub/c", Oct(600));
        Sys.Rename(m / "gone/dir2/sub/deep", m / "deep");
        Sys.Rename(m / "untouched", m / "was-dir2");
        Sys.RemoveTree(m / "was-dir");
        Sys.Rename(m / "was-dir2", m / "was-dir");
        Sys.Rename(m / "file", m / "other");

        LayerArchive layer = AssertGivesTheMount(overlay);

        Assert.Contains(layer.Entries, entry => entry.Path == ".wh.dir");
        Assert.Contains(layer.Entries, entry => entry.Path == "was-dir/.wh..wh..opq");
        Assert.Contains(layer.Entries, entry => entry.Path == "deep/d" && entry.Mode == Oct(4755));
    }

    [MountFact]
    public void Several_lowers_are_one_baseline()
    {
        Tree top = Tree.Of(("dir/a", "top"), ("dir/w", Node.Whiteout()), ("opaque", Node.Opaque()), ("opaque/t", "t"),
            ("moved", Node.Directory().Attribute("trusted.overlay.redirect", "/below")), ("below", Node.Whiteout()));
        Tree bottom = Tree.Of(("dir/a", "bottom"), ("dir/b", "b"), ("dir/w", "w"), ("opaque/u", "u"), ("below/x", "x"), ("below/y", "y"));
        using var overlay = Overlay.With(lowers: [top, bottom], options: "redirect_dir=on");
        FilePath m = overlay.Merged;
        Sys.Rename(m / "dir", m / "dir2");
        Sys.Unlink(m / "dir2/b");
        Sys.Write(m / "opaque/u", "new");
        Sys.Rename(m / "moved", m / "moved2");
        Sys.Unlink(m / "moved2/x");

        AssertGivesTheMount(overlay);
    }

    [MountFact]
    public void What_cannot_be_in_a_layer_is_named()
    {
        using var overlay = Overlay.With(lower: Image);
        Sys.MakeNode(overlay.Merged / "socket", FileType.Socket, Oct(600));
        Sys.SetXattr(overlay.Merged / "file", "user.overlay.opaque", "y");

        LayerArchive layer = LayerArchive.Parse(Make(overlay, notes:
            "veneer: file has the attribute user.overlay.opaque, which whoever unpacks the layer would misunderstand: "
            + "the attribute is left out.\n"
            + "veneer: socket is a socket, which a layer cannot hold: left out."));
        Sys.Unlink(overlay.Merged / "socket");
        Sys.RemoveXattr(overlay.Merged / "file", "user.overlay.opaque");
        Sys.Write(overlay.Merged / ".wh.file", "");
        byte[] other = Make(overlay, 6, "veneer: .wh.file cannot be in a layer, where such a name deletes: left out.");

        Assert.Equal(["file"], layer.Entries.Select(entry => entry.Path));
        Assert.Empty(layer.Entries[0].Attributes);
        Assert.DoesNotContain(LayerArchive.Parse(other).Entries, entry => entry.Path == ".wh.file");
    }

    /// <summary>To those who unpack layers ".wh..wh." begins names with other meanings.</summary>
    [MountFact]
    public void Deleting_a_name_that_would_itself_delete_is_not_silently_lost()
    {
        using var overlay = Overlay.With(lower: Tree.Of((".wh.file", ""), ("file", "")));
        Sys.Unlink(overlay.Merged / ".wh.file");

        byte[] layer = Make(overlay, 6, "veneer: .wh.file cannot be deleted by a layer, where such a name deletes: left out.");

        Assert.Empty(LayerArchive.Parse(layer).Entries);
    }

    [MountFact]
    public void What_is_in_a_directory_that_cannot_be_in_a_layer_is_not_in_it_either()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/.wh.old/file", "old"), ("d/.wh.old/gone", ""), ("moved/.wh.x/y", "y")),
            options: "redirect_dir=on");
        FilePath m = overlay.Merged;
        Sys.MakeDirectory(m / ".wh.dir");
        Sys.MakeDirectory(m / ".wh.dir/sub");
        Sys.Write(m / ".wh.dir/sub/file", "x");
        Sys.Write(m / ".wh.dir/file", "x");
        Sys.Write(m / "whole", "x");
        Sys.Link(m / ".wh.dir/file", m / "z");
        Sys.Unlink(m / "d/.wh.old/gone");
        Sys.Append(m / "d/.wh.old/file", "more");
        Sys.Rename(m / "moved", m / "moved2");
        const string why = "cannot be in a layer, where such a name deletes: left out, with all that is in it.";

        LayerArchive layer = LayerArchive.Parse(
            Make(overlay, 6, $"veneer: .wh.dir {why}\nveneer: d/.wh.old {why}\nveneer: moved2/.wh.x {why}"));

        Assert.Equal([".wh.moved", "d", "moved2", "whole", "z"], layer.Entries.Select(entry => entry.Path).Order(StringComparer.Ordinal));
        Assert.Equal('0', layer.Entries.Single(entry => entry.Path == "z").Kind);
    }

    [MountFact]
    public void A_sparse_file_has_its_zeros()
    {
        using var overlay = Overlay.With(lower: Image);
        using (Descriptor file = Sys.Open(overlay.Merged / "sparse", OpenFlags.WriteOnly | OpenFlags.Create))
        {
            file.WriteAt("begin"u8, 0);
            file.WriteAt("middle"u8, 3_000_000);
            file.Truncate(9_000_001);
        }
        Sys.Truncate(overlay.Merged / "file", 700_000);
        byte[] sparse = Sys.Read(overlay.Merged / "sparse"), longer = Sys.Read(overlay.Merged / "file");

        LayerArchive layer = LayerArchive.Parse(Make(overlay));

        Assert.Equal(sparse, layer.Entries.Single(entry => entry.Path == "sparse").Content);
        Assert.Equal(longer, layer.Entries.Single(entry => entry.Path == "file").Content);
    }

    [MountFact]
    public void Times_are_those_of_the_source_where_they_are_later()
    {
        using var overlay = Overlay.With(lower: Image);
        Sys.Write(overlay.Merged / "early", "");
        Sys.Write(overlay.Merged / "late", "");
        Sys.ChangeTimes(overlay.Merged / "early", Node.LongAgo, new TimeSpec { Seconds = 999, Nanoseconds = 5 });
        string[] Times(string epoch, params string[] more)
        {
            FilePath file = overlay.Beside("timed.tar");
            Sys.Write(file, Make(overlay, epoch: epoch, more: more));
            return Command.Require("tar", "--utc", "--full-time", "-tvf", file)
                .Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Select(line => string.Join(' ', line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[3..])).ToArray();
        }

        const string early = "1970-01-01 00:16:39.000000005 early";
        Assert.Equal([early, "1970-01-01 00:16:40 late"], Times("1000"));
        Assert.Equal([early, "1970-01-01 00:16:40 late"], Times("1000", "--clamp-mtime"));
        Assert.Equal([early, "1970-01-01 00:33:20 late"], Times("1000", "--clamp-mtime", "--mtime", "@2000"));
        Assert.Equal(["1970-01-02 00:00:00 early", "1970-01-02 00:00:00 late"], Times("", "--mtime", "1970-01-02"));
    }

    /// <summary>To pax(1) the text of its records is UTF-8, if they do not say otherwise.</summary>
    [MountFact]
    public void Long_names_that_are_not_text_say_so()
    {
        using var overlay = Overlay.With(lower: Image);
        Sys.Write(overlay.Merged / $"{LongName}-é", "");
        byte[] text = Make(overlay);
        Sys.Write(overlay.Merged / $"{LongName}-\udcfe", "x");
        Sys.SymbolicLink(new string('t', 200) + "\udcff", overlay.Merged / "to");
        byte[] bytes = Make(overlay);
        FilePath file = overlay.Beside("layer.tar"), there = overlay.Beside("unpacked");
        Sys.Write(file, bytes);
        Sys.MakeDirectory(there);

        Command.Require("python3", "-c", "import tarfile,sys; tarfile.open(sys.argv[1]).extractall(sys.argv[2])", file, there);

        Assert.Equal((0, 2), (Count(text), Count(bytes)));
        Assert.Equal("x", Sys.ReadText(there / $"{LongName}-\udcfe"));
        Assert.Equal([$"{LongName}-é", $"{LongName}-\udcfe", "to"], there.Entries());

        static int Count(ReadOnlySpan<byte> archive)
        {
            int count = 0;
            for (int at; (at = archive.IndexOf("21 hdrcharset=BINARY\n"u8)) >= 0; count++) { archive = archive[(at + 1)..]; }
            return count;
        }
    }

    [MountFact]
    public void Others_read_it_too()
    {
        using var overlay = Overlay.With(lower: Image);
        Sys.Append(overlay.Merged / "dir/a", "more");
        Sys.MakeDirectory(overlay.Merged / LongName);
        Sys.Write(overlay.Merged / LongName / "é", "new");
        Sys.Unlink(overlay.Merged / "file");
        byte[] archive = Make(overlay);
        FilePath file = overlay.Beside("layer.tar"), there = overlay.Beside("unpacked");
        Sys.Write(file, archive);
        Sys.MakeDirectory(there);

        Command.Require("tar", "-xpf", file, "-C", there);

        Assert.Equal("amore", Sys.ReadText(there / "dir/a"));
        Assert.Equal("new", Sys.ReadText(there / LongName / "é"));
        Assert.Equal(Sys.Stat(overlay.Merged / "dir/a").ModifyTime, Sys.Stat(there / "dir/a").ModifyTime);
        using var reader = new TarReader(new MemoryStream(archive));
        var names = new List<string>();
        while (reader.GetNextEntry() is { } entry) { names.Add(entry.Name); }
        Assert.Equal([".wh.file", "dir/", "dir/a", LongName + "/", LongName + "/é"], names.Order(StringComparer.Ordinal));
    }

    /// <summary>Whiteouts are for whoever unpacks layers; all else is tar's.</summary>
    [MountFact]
    public void GNU_tar_unpacks_all_of_it()
    {
        using var overlay = Overlay.With(lower: Image, options: "redirect_dir=on");
        FilePath m = overlay.Merged;
        Sys.Append(m / "dir/a", "more");
        Sys.Unlink(m / "dir/b");
        Sys.Rename(m / "untouched", m / "touched");
        Sys.MakeDirectory(m / LongName);
        Sys.MakeDirectory(m / LongName / LongName);
        Sys.Write(m / LongName / LongName / "far", "far");
        Sys.SymbolicLink(new string('t', 300), m / "long-target");
        Sys.Write(m / "not-utf8-\udcff", "bytes");
        Sys.Write(m / $"{LongName}-\udcfe", "bytes");
        Sys.Write(m / "line\nbreak", "x");
        Sys.Link(m / "line\nbreak", m / LongName / "link");
        Sys.MakeNode(m / "device", FileType.CharacterDevice, Oct(600), 259, 70_000);
        Sys.MakeNode(m / "fifo", FileType.Fifo, Oct(640));
        using (Descriptor sparse = Sys.Open(m / "sparse", OpenFlags.WriteOnly | OpenFlags.Create)) { sparse.WriteAt("end"u8, 20_000_000); }
        Sys.ChangeOwner(m / "device", 3_000_000, 2_999_999);
        Sys.ChangeTimes(m / "fifo", Node.LongAgo, new TimeSpec { Seconds = -5, Nanoseconds = 250_000_000 });
        Sys.ChangeTimes(m / "device", Node.LongAgo, new TimeSpec { Seconds = 20_000_000_000, Nanoseconds = 1 });
        Sys.SetXattr(m / "sparse", "user.binary", [0, 1, (byte)'\n', 255, (byte)'=']);
        Sys.SetXattr(m / "dir/a", "security.capability", Convert.FromHexString("0100000202000000000000000000000000000000"));
        byte[] archive = Make(overlay);
        FilePath file = overlay.Beside("layer.tar"), there = overlay.Beside("unpacked");
        Sys.Write(file, archive);
        Command.Require("cp", "-a", overlay.Lower, there);

        LayerArchive.Parse(archive).DeleteFrom(there);
        Command.Require("tar", "--xattrs", "--xattrs-include=*", "--exclude=.wh.*", "-xpf", file, "-C", there);

        Assert.Equal("", TreeImage.Difference(TreeImage.Of(m).Without("."), TreeImage.Of(there).Without(".")));
    }

    [MountFact]
    public void A_file_that_cannot_be_written_is_left_as_it_was()
    {
        using var overlay = Overlay.With(lower: Image);
        Sys.Write(overlay.Merged / "big", new string('x', 3_000_000));
        FilePath small = overlay.Beside("small");
        Sys.MakeDirectory(small);
        Scratch.MountTmpfs(small, "1m");
        Sys.Write(small / "layer.tar", "what was there");

        Command.Result result = Command.Run([Mounter.Binary, "diff", "--upper", overlay.Upper, "--lower", overlay.Lowers[0], "--tar",
            small / "layer.tar"]);

        Assert.Equal((2, $"veneer: {small}/layer.tar cannot be written to its end: see whether there is space left, and ulimit -f."),
            (result.ExitCode, result.Error.Trim()));
        Assert.Equal(["layer.tar"], small.Entries());
        Assert.Equal("what was there", Sys.ReadText(small / "layer.tar"));
        Command.Require("umount", small);
    }
}
