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
        Assert.Equal(("file of y!", 2u, "file of x"), (Sys.ReadText(m / "y/other"), Sys.Stat(m / "y/other").Nlink, Sys.ReadText(m / "x/file")));
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

        Assert.Equal(("below x", "deep y", "deep x"), (Sys.ReadText(overlay.Merged / "file"), Sys.ReadText(overlay.Merged / "d/e/deep"), Sys.ReadText(overlay.Merged / "e/deep")));
    }

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
