namespace Veneer.Mount.Tests;

/// <summary>A filesystem that passes on the numbers of others may have two objects with one number: they stay two.</summary>
public sealed class EqualNumbersTests
{
    /// <summary>A FUSE filesystem over two of which each begins to count at the same number, as a lower.</summary>
    private sealed class TwoInOne : IDisposable
    {
        private readonly FilePath source = Scratch.New();
        private readonly List<FilePath> mounted = [];

        public TwoInOne(params (string Place, Tree Content)[] parts)
        {
            foreach ((string place, Tree content) in parts)
            {
                Sys.MakeDirectory(source / place);
                Command.Require("mount", "-t", "tmpfs", "-o", "inode64,size=4m", "none", source / place);
                mounted.Add(source / place);
                content.MakeAt(source / place);
            }
            Path = Scratch.New();
            Command.Require("bindfs", source, Path);
            mounted.Add(Path);
        }

        public FilePath Path { get; }

        public ulong Ino(string name) => Sys.Stat(Path / name).Ino;

        public void Dispose()
        {
            for (int i = mounted.Count - 1; i >= 0; i--) { Command.Run(["umount", "-l", mounted[i]]); }
        }
    }

    /// <summary>The same, as the filesystem of an upper: two filesystems are mounted inside of the upper directory.</summary>
    private sealed class TwoInUpper : IDisposable
    {
        private readonly FilePath source = Scratch.New(), seen = Scratch.New();
        private readonly List<FilePath> mounted = [];

        public TwoInUpper(Tree? lower, params (string Place, Tree Content)[] parts)
        {
            Command.Require("bindfs", source, seen);
            mounted.Add(seen);
            Overlay = Overlay.With(lower: lower, upperIn: seen, mounted: false);
            foreach ((string place, Tree content) in parts)
            {
                Sys.MakeDirectory(source / "upper" / place);
                Command.Require("mount", "-t", "tmpfs", "-o", "inode64,size=4m", "none", source / "upper" / place);
                mounted.Add(source / "upper" / place);
                content.MakeAt(source / "upper" / place);
            }
            Overlay.Mount();
        }

        public Overlay Overlay { get; }

        public ulong Ino(string name) => Sys.Stat(seen / "upper" / name).Ino;

        public void Dispose()
        {
            Overlay.Unmount();
            for (int i = mounted.Count - 1; i >= 0; i--) { Command.Run(["umount", "-l", mounted[i]]); }
            Overlay.Dispose();
        }
    }

    private static Tree Half(string name) =>
        Tree.Of(("file", "file of " + name), ("d/file", "below " + name), ("d/e/deep", "deep " + name), ("other", Node.HardLink("file")));

    [MountTheory]
    [InlineData("")]
    [InlineData("userxattr")]
    public void Each_object_keeps_its_content_and_what_happens_to_it(string options)
    {
        using var lower = new TwoInOne(("x", Half("x")), ("y", Half("y")));
        Assert.Equal(lower.Ino("x/file"), lower.Ino("y/file"));
        Assert.Equal(lower.Ino("x/d"), lower.Ino("y/d"));
        using var overlay = Overlay.With(over: [lower.Path], options: options);
        FilePath m = overlay.Merged;

        Assert.Equal(("file of x", "file of y"), (Sys.ReadText(m / "x/file"), Sys.ReadText(m / "y/file")));
        Assert.Equal(("deep x", "deep y"), (Sys.ReadText(m / "x/d/e/deep"), Sys.ReadText(m / "y/d/e/deep")));
        using Descriptor open = Sys.Open(m / "x/file", OpenFlags.ReadOnly);
        Sys.Write(m / "y/file", "written");
        Assert.Equal("file of x", open.ReadAllText());
        Assert.Equal(("file of x", "written"), (Sys.ReadText(m / "x/file"), Sys.ReadText(m / "y/file")));
        Assert.Equal(["y"], overlay.Upper.Entries());

        using Descriptor kept = Sys.Open(m / "y/d/file", OpenFlags.ReadOnly);
        Sys.Unlink(m / "x/d/file");
        Assert.Equal(("below y", "below y"), (kept.ReadAllText(), Sys.ReadText(m / "y/d/file")));
        Sys.ChangeMode(m / "x/d/e", Oct(700));
        Assert.Equal(Oct(755), Sys.Stat(m / "y/d/e").Mode & ModeBits.Mask);
        Sys.Rename(m / "x/other", m / "y/d/moved");
        Assert.Equal(("file of x", "file of y"), (Sys.ReadText(m / "y/d/moved"), Sys.ReadText(m / "y/other")));
        Sys.Link(m / "y/other", m / "x/linked");
        Sys.Append(m / "x/linked", "!");
        Assert.Equal(("file of y!", 2u, "file of x"),
            (Sys.ReadText(m / "y/other"), Sys.Stat(m / "y/other").Nlink, Sys.ReadText(m / "x/file")));
        Sys.RemoveTree(m / "x");
        Assert.Equal("deep y", Sys.ReadText(m / "y/d/e/deep"));
        Assert.Equal("file of x", open.ReadAllText());
    }

    [MountFact(NotOfKernel = "Users see the equal numbers, and tell the objects by st_dev at best.")]
    public void Users_see_numbers_that_are_unique_and_stay()
    {
        using var lower = new TwoInOne(("x", Half("x")), ("y", Half("y")));
        using var overlay = Overlay.With(over: [lower.Path]);
        Dictionary<string, ulong> before = Numbers(overlay.Merged);
        Assert.Equal(before.Count, before.Values.Distinct().Count());

        Sys.DropCaches();
        Sys.ChangeMode(overlay.Merged / "x/file", Oct(600));
        Sys.ChangeMode(overlay.Merged / "y/d", Oct(700));
        Sys.DropCaches();

        Assert.Equal(before, Numbers(overlay.Merged));
        Assert.Equal(1u, Sys.Stat(overlay.Merged / "y/file").Nlink);
    }

    [MountFact]
    public void A_file_and_a_directory_with_one_number_are_two_things()
    {
        using var lower = new TwoInOne(("x", Tree.Of(("same", "a file"))), ("y", Tree.Of(("same/inside", "inside"))));
        Assert.Equal(lower.Ino("x/same"), lower.Ino("y/same"));
        using var overlay = Overlay.With(over: [lower.Path]);

        Assert.Equal(("a file", "inside"), (Sys.ReadText(overlay.Merged / "x/same"), Sys.ReadText(overlay.Merged / "y/same/inside")));
        Sys.Write(overlay.Merged / "y/same/new", "new");
        Assert.Equal("a file", Sys.ReadText(overlay.Merged / "x/same"));
    }

    [MountFact]
    public void Two_lowers_with_one_number_are_two_layers()
    {
        using var lower = new TwoInOne(("x", Half("x")), ("y", Half("y")));
        Assert.Equal(lower.Ino("x"), lower.Ino("y"));
        using var overlay = Overlay.With(over: [lower.Path / "x/d", lower.Path / "y"]);

        Assert.Equal(("below x", "deep y", "deep x"),
            (Sys.ReadText(overlay.Merged / "file"), Sys.ReadText(overlay.Merged / "d/e/deep"), Sys.ReadText(overlay.Merged / "e/deep")));
    }

    private const string OnlyVeneer = "The kernel takes no such upper.";

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void In_upper_no_file_is_taken_for_another()
    {
        using var two = new TwoInUpper(null, ("x", Half("x")), ("y", Half("y")));
        Assert.Equal(two.Ino("x/d/file"), two.Ino("y/d/file"));
        FilePath m = two.Overlay.Merged;
        using (Descriptor open = Sys.Open(m / "x/d/file", OpenFlags.ReadWrite))
        {
            Assert.Equal(Errno.EIO, Sys.ErrorOf(() => Sys.ReadText(m / "y/d/file")));
            Assert.Equal(Errno.EIO, Sys.ErrorOf(() => Sys.Write(m / "y/d/file", "written")));
            Assert.Equal(Errno.EIO, Sys.ErrorOf(() => Sys.Unlink(m / "y/d/file")));
            Assert.Contains("file", (m / "y/d").Entries());
            open.WriteAt("B"u8, 0);
            Assert.Equal("Below x", open.ReadAllText());
        }
        Assert.Equal(("Below x", "below y"), (Sys.ReadText(two.Overlay.Upper / "x/d/file"), Sys.ReadText(two.Overlay.Upper / "y/d/file")));
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void In_upper_what_is_made_is_not_taken_for_what_is_known()
    {
        using var two = new TwoInUpper(null, ("x", Half("x")), ("y", Tree.Of(("file", "file of y"))));
        FilePath m = two.Overlay.Merged;
        var numbers = new Dictionary<ulong, string>();
        foreach (string name in (string[])["x/file", "x/d/file", "x/d/e/deep"]) { numbers[two.Ino(name)] = name; }
        using Descriptor file = Sys.Open(m / "x/file", OpenFlags.ReadOnly),
            below = Sys.Open(m / "x/d/file", OpenFlags.ReadOnly),
            deep = Sys.Open(m / "x/d/e/deep", OpenFlags.ReadOnly);
        bool haveMet = false;
        for (int i = 0; i < 8; i++)
        {
            Sys.Write(m / $"y/new{i}", $"new {i}");
            haveMet |= numbers.ContainsKey(two.Ino($"y/new{i}"));
        }
        Assert.True(haveMet);

        for (int i = 0; i < 8; i++) { Assert.Equal($"new {i}", Sys.ReadText(m / $"y/new{i}")); }
        Assert.Equal(("file of x", "below x", "deep x"), (file.ReadAllText(), below.ReadAllText(), deep.ReadAllText()));
        Assert.Equal(("file of x", "below x", "deep x"),
            (Sys.ReadText(m / "x/file"), Sys.ReadText(m / "x/d/file"), Sys.ReadText(m / "x/d/e/deep")));
        Assert.Equal("d file other", Names(two.Overlay.Upper / "x"));
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void In_upper_directories_of_one_number_are_two()
    {
        using var two = new TwoInUpper(null, ("x", Tree.Of(("d/x", Node.Directory()))), ("y", Tree.Of(("d/y", Node.Directory()))));
        Assert.Equal(two.Ino("x/d"), two.Ino("y/d"));
        FilePath m = two.Overlay.Merged;
        Assert.Equal(("x", "y"), (Names(m / "x/d"), Names(m / "y/d")));

        using (Descriptor open = Sys.Open(m / "x/d", OpenFlags.ReadOnly | OpenFlags.Directory))
        {
            Sys.Rename(m / "x/d", m / "x/moved");
            Assert.Equal("x", Names(m / "x/moved"));
            Sys.MakeDirectory(m / "x/d");
            Sys.Write(m / "x/d/new", "");
            Assert.Equal(("x", "new", "y"), (Names(m / "x/moved"), Names(m / "x/d"), Names(m / "y/d")));
            Sys.ChangeMode(m / "x/moved", Oct(700));
            Assert.Equal(Oct(700), open.Stat().Mode & ModeBits.Mask);
            Assert.Equal(Oct(755), Sys.Stat(m / "x/d").Mode & ModeBits.Mask);
        }
        Sys.RemoveTree(m / "y/d");
        Assert.Equal(("d moved", ""), (Names(m / "x"), Names(m / "y")));
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void In_upper_the_names_of_a_hard_link_are_one_file()
    {
        using var two = new TwoInUpper(Tree.Of(("lower", "lower")));
        FilePath m = two.Overlay.Merged;
        Sys.MakeDirectory(m / "d");
        Sys.Write(m / "d/0", "content");
        for (int i = 1; i < 20; i++) { Sys.Link(m / "d/0", m / $"d/{i}"); }
        two.Overlay.Remount();

        using (Descriptor open = Sys.Open(m / "d/3", OpenFlags.ReadWrite))
        {
            Assert.Equal(20u, open.Stat().Nlink);
            for (int i = 0; i < 20; i++) { Assert.Equal(open.Stat().Ino, Sys.Stat(m / $"d/{i}").Ino); }
            open.WriteAt("C"u8, 0);
            for (int i = 0; i < 20; i++) { Assert.Equal("Content", Sys.ReadText(m / $"d/{i}")); }
            Sys.Rename(m / "d/7", m / "moved");
            Sys.Unlink(m / "d/4"); // not the name that it is open by: libfuse keeps that one
            Sys.Rename(m / "lower", m / "d/19");
            Assert.Equal(18u, open.Stat().Nlink);
            for (int i = 8; i < 19; i++) { Sys.Unlink(m / $"d/{i}"); }
            Assert.Equal(7u, open.Stat().Nlink);
        }
        Assert.Equal(("Content", "lower"), (Sys.ReadText(m / "moved"), Sys.ReadText(m / "d/19")));
    }

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void In_upper_what_one_name_of_a_file_has_seen_is_seen_by_another_at_once()
    {
        using var two = new TwoInUpper(null);
        FilePath m = two.Overlay.Merged;
        Sys.Write(m / "a", "short");
        Sys.Link(m / "a", m / "b");
        Assert.Equal((5ul, 5ul), (Sys.Stat(m / "a").Size, Sys.Stat(m / "b").Size));
        _ = Sys.Stat(two.Overlay.Upper / "b"); // the kernel remembers it for a second
        Sys.Write(m / "a", "much longer than that");

        Sys.Unlink(m / "a");

        Assert.Equal((1u, "much longer than that"), (Sys.Stat(m / "b").Nlink, Sys.ReadText(m / "b")));
    }

    private static string Names(FilePath directory) => string.Join(' ', directory.Entries().Order());

    private static Dictionary<string, ulong> Numbers(FilePath root)
    {
        var numbers = new Dictionary<string, ulong>(StringComparer.Ordinal);
        var directories = new Queue<string>(["."]);
        while (directories.TryDequeue(out string? directory))
        {
            foreach (DirectoryEntry entry in Sys.ReadDirectory(root / directory).Where(entry => entry.Name is not ("." or "..")))
            {
                string name = directory + "/" + entry.Name;
                Statx stat = Sys.Stat(root / name);
                Assert.Equal((name, entry.Ino), (name, stat.Ino));
                numbers.Add(name, stat.Ino);
                if (stat.IsDirectory) { directories.Enqueue(name); }
            }
        }
        return numbers;
    }
}
