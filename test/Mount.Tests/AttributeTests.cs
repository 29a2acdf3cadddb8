namespace Veneer.Mount.Tests;

/// <summary>What stat says is true at once, also of what changed without a request that named it.</summary>
public sealed class AttributeTests
{
    [MountTheory]
    [InlineData(Filesystem.Tmpfs)]
    [InlineData(Filesystem.Ext4)]
    public void A_copy_up_shows_in_the_directories_above(Filesystem filesystem)
    {
        using var overlay = Overlay.With(on: filesystem, lower: Tree.Of(("a/b/file", "x"), ("a/b/other", "y"), ("a/c", "z")));
        string[] directories = [".", "a", "a/b"];
        foreach (string change in new[] { "a/b/file", "a/b/other", "a/c" })
        {
            foreach (string directory in directories) { _ = Sys.Stat(overlay.Merged / directory); } // now the kernel knows

            Sys.Open(overlay.Merged / change, OpenFlags.WriteOnly).Dispose();

            foreach (string directory in directories) { Assert.Equal(Seen(overlay.Upper / directory), Seen(overlay.Merged / directory)); }
        }
    }

    [MountFact]
    public void A_copy_up_shows_in_the_file_itself()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "x")));
        _ = Sys.Stat(overlay.Merged / "file");

        Sys.Open(overlay.Merged / "file", OpenFlags.WriteOnly).Dispose();

        // The kernel hears of it from another thread than the one that answers.
        Patience.Eventually(() => Assert.Equal(Seen(overlay.Upper / "file"), Seen(overlay.Merged / "file")));
    }

    [MountTheory]
    [InlineData("", "ftruncate", true)]
    [InlineData("five", "ftruncate", true)]
    [InlineData("", "O_TRUNC", true)]
    [InlineData("", "truncate", false)]
    [InlineData("five", "truncate", true)]
    public void A_length_that_stays_sets_the_time_as_the_call_does(string content, string call, bool sets)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", content)));
        var old = new TimeSpec { Seconds = 1_000_000 };
        Sys.ChangeTimes(overlay.Merged / "file", old, old);
        for (int round = 0; round < 2; round++)
        {
            switch (call)
            {
                case "truncate":
                    Sys.Truncate(overlay.Merged / "file", content.Length);
                    break;
                default:
                    using (Descriptor file = Sys.Open(overlay.Merged / "file", OpenFlags.WriteOnly | (call == "O_TRUNC" ? OpenFlags.Truncate : 0)))
                    {
                        if (call == "ftruncate") { file.Truncate(content.Length); }
                        Assert.True(file.Stat().ModifyTime.Seconds > 1_000_000);
                    }
                    break;
            }
            Assert.Equal(sets, Sys.Stat(overlay.Merged / "file").ModifyTime.Seconds > 1_000_000);
        }
    }

    [MountTheory]
    [InlineData("lower")]
    [InlineData("upper")]
    [InlineData("created")]
    public void What_is_written_through_a_map_has_a_time(string name)
    {
        using var overlay = Overlay.With(on: Filesystem.Ext4, lower: Tree.Of(("lower", "old text")), upper: Tree.Of(("upper", "old text")));
        FilePath path = overlay.Merged / name;
        using Descriptor file = name == "created" ? Sys.Open(path, OpenFlags.ReadWrite | OpenFlags.Create, Oct(644)) : Sys.Open(path, OpenFlags.ReadWrite);
        _ = file.WriteAt("old text", 0);
        using Map map = file.Map(8, write: true);
        Patience.Eventually(() => Assert.Equal(Seen(overlay.Upper / name), Seen(path)));

        foreach (string word in new[] { "first", "other" })
        {
            (long, uint, ulong) before = Seen(path);
            Thread.Sleep(20); // so that it is another time
            map.Write(0, word);
            map.Sync();

            Assert.NotEqual(before, Seen(overlay.Upper / name));
            Assert.Equal(Seen(overlay.Upper / name), Seen(path));
            file.Dispose(); // the map stays
        }
    }

    private static (long Seconds, uint Nanoseconds, ulong Size) Seen(FilePath path)
    {
        Statx stat = Sys.Stat(path);
        return (stat.ChangeTime.Seconds, stat.ChangeTime.Nanoseconds, stat.Size);
    }
}
