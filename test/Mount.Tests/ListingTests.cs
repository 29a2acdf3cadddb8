using System.Diagnostics;

namespace Veneer.Mount.Tests;

/// <summary>Reading directories in parts, while they change, and when they are large.</summary>
public sealed class ListingTests
{
    private static readonly string[] Names = [.. Enumerable.Range(0, 600).Select(i => $"name{i:D4}")];

    private static Tree Every(int step, int from) =>
        Tree.Of([.. Names.Where((_, i) => i % step == from).Select(n => ($"d/{n}", (Node)""))]);

    /// <summary>It may be a whiteout, which nobody can tell.</summary>
    [MountTheory]
    [InlineData(Errno.EACCES)]
    [InlineData(Errno.ENOENT)]
    public void A_device_that_a_lower_lists_and_does_not_show_is_listed(Errno error)
    {
        FilePath home = Scratch.New();
        Sys.MakeDirectory(home / "far");
        Sys.MakeDirectory(home / "shown");
        Sys.MakeNode(home / "far/device", FileType.CharacterDevice, Oct(666), 1, 3);
        using (var lower = new HangingMount(home / "far", home / "shown"))
        {
            lower.Refuse("device", error);
            using var overlay = Overlay.With(over: [home / "shown"], upper: Tree.Of(("new", "")));

            Assert.Equal(["device", "new"], overlay.Merged.Entries());
            Assert.Equal(error, Sys.ErrorOf(() => Sys.Stat(overlay.Merged / "device")));
        }
        Sys.RemoveTree(home);
    }

    [MountTheory]
    [InlineData("merged of two layers")]
    [InlineData("one lower layer")]
    [InlineData("only in upper")]
    public void A_listing_can_go_on_from_any_entry(string where)
    {
        using Overlay overlay = Placed(where);
        using Descriptor directory = Sys.Open(overlay.Merged / "d", OpenFlags.ReadOnly | OpenFlags.Directory);
        List<DirectoryEntry> all = directory.ReadDirectory(chunk: 512);
        Assert.Equal(Names, all.Select(e => e.Name).Order());

        foreach (int index in new[] { 0, 1, 17, 299, 598 })
        {
            directory.SeekDirectory(all[index].NextOffset);
            Assert.Equal(all.Skip(index + 1).Select(e => e.Name), directory.ReadDirectory(chunk: 1024).Select(e => e.Name));
        }
        directory.SeekDirectory(0);
        Assert.Equal(all.Count, directory.ReadDirectory().Count);
    }

    [MountTheory]
    [InlineData("merged of two layers")]
    [InlineData("one lower layer")]
    [InlineData("only in upper")]
    public void Entries_that_come_and_go_do_not_repeat_or_hide_others(string where)
    {
        using Overlay overlay = Placed(where);
        FilePath place = overlay.Merged / "d";
        using Descriptor directory = Sys.Open(place, OpenFlags.ReadOnly | OpenFlags.Directory);
        var seen = new List<DirectoryEntry>();
        while (seen.Count < 200) { Assert.True(directory.ReadSomeEntries(seen, 1024)); }
        string[] removed = [.. seen.Take(50).Select(e => e.Name), .. Names.Except(seen.Select(e => e.Name)).Take(50)];
        long middle = seen[99].NextOffset;
        HashSet<string> before = [.. seen.Take(100).Select(e => e.Name)];

        foreach (string name in removed) { Sys.Unlink(place / name); }
        for (int i = 0; i < 100; i++) { Sys.Write(place / $"added{i}", ""); }

        List<string> rest = [.. directory.ReadDirectory(1024).Select(e => e.Name)];
        AssertEachOnce(Names.Except(removed), [.. seen.Select(e => e.Name), .. rest]);
        directory.SeekDirectory(middle);
        AssertEachOnce(Names.Except(removed).Except(before), [.. directory.ReadDirectory(1024).Select(e => e.Name)]);
        directory.SeekDirectory(0);
        AssertEachOnce(Names.Except(removed).Concat(Enumerable.Range(0, 100).Select(i => $"added{i}")),
            [.. directory.ReadDirectory().Select(e => e.Name)]);
    }

    [MountFact]
    public void A_tree_can_be_removed_while_it_is_listed()
    {
        using Overlay overlay = Placed("merged of two layers");
        using Descriptor directory = Sys.Open(overlay.Merged / "d", OpenFlags.ReadOnly | OpenFlags.Directory);
        int removed = 0;
        var some = new List<DirectoryEntry>();
        while (directory.ReadSomeEntries(some, 512))
        {
            foreach (DirectoryEntry entry in some) { Sys.Unlink(overlay.Merged / "d" / entry.Name); }
            removed += some.Count;
            some.Clear();
        }

        Assert.Equal(Names.Length, removed);
        Sys.RemoveDirectory(overlay.Merged / "d");
        Assert.Empty(overlay.Merged.Entries());
    }

    [MountFact]
    public void An_open_listing_begins_anew_with_what_is_there_after_a_rewind()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/a", ""), ("d/b", "")), upper: Tree.Of(("d/c", "")));
        using Descriptor directory = Sys.Open(overlay.Merged / "d", OpenFlags.ReadOnly | OpenFlags.Directory);
        Assert.Equal(3, directory.ReadDirectory().Count);

        Sys.Unlink(overlay.Merged / "d/a");
        Sys.Rename(overlay.Merged / "d/b", overlay.Merged / "d/z");
        directory.SeekDirectory(0);

        Assert.Equal(["c", "z"], directory.ReadDirectory().Select(e => e.Name).Order());
    }

    [MountFact]
    public void A_removed_directory_that_is_still_open_lists_nothing_and_takes_nothing()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/a", "")));
        using Descriptor directory = Sys.Open(overlay.Merged / "d", OpenFlags.ReadOnly | OpenFlags.Directory);
        Sys.Unlink(overlay.Merged / "d/a");
        Sys.RemoveDirectory(overlay.Merged / "d");

        Assert.Equal(Errno.ENOENT,
            Libc.OpenAt(directory.Value, "new\0"u8, OpenFlags.WriteOnly | OpenFlags.Create, Oct(644), ResolveFlags.None, out _));
        Assert.Empty(Sys.ErrorOf(() => directory.ReadDirectory()) == Errno.None ? directory.ReadDirectory() : []);
    }

    /// <summary>
    /// A directory that is not marked impure is listed without asking where each entry came from. The mark comes back with the
    /// next entry that came from a lower.
    /// </summary>
    [MountTheory]
    [InlineData("file", "")]
    [InlineData("link", "")]
    [InlineData("d", "redirect_dir=on")]
    public void An_upper_directory_is_no_longer_impure_once_it_is_read_and_holds_nothing_from_below(string name, string options)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "x"), ("link", Node.Link("file")), ("d/inside", "")), options: options);
        FilePath root = overlay.Merged, made = root / "made";
        ulong ino = Sys.Stat(root / name).Ino;
        Sys.MakeDirectory(made);
        Sys.Write(made / "new", "");
        Sys.Rename(root / name, made / name);
        _ = Sys.ReadDirectory(made);
        Assert.True(IsImpure());

        Sys.Rename(made / name, root / name);
        Assert.True(IsImpure());
        _ = Sys.ReadDirectory(made);
        Assert.False(IsImpure());
        Assert.Equal(Sys.Stat(overlay.Upper / "made").ChangeTime, Sys.Stat(made).ChangeTime);

        Sys.Rename(root / name, made / name);
        Assert.True(IsImpure());
        Assert.Equal(ino, Sys.ReadDirectory(made).Single(entry => entry.Name == name).Ino);

        bool IsImpure() => Sys.HasXattr(overlay.Upper / "made", "trusted.overlay.impure");
    }

    /// <summary>
    /// Entries that were in upper before any overlay, or that another overlay made, are asked for their origin and not for their
    /// number.
    /// </summary>
    [MountTheory]
    [InlineData("trusted.overlay.origin", true)]
    [InlineData("user.origin", false)]
    public void An_upper_directory_stays_impure_for_as_long_as_something_in_it_says_that_it_came_from_below(string attribute, bool stays)
    {
        Tree upper = Tree.Of(("made", Node.Directory().Attribute("trusted.overlay.impure", "y")), ("made/a", ""), ("made/b", ""),
            ("made/c", ""));
        using var overlay = Overlay.With(lower: Tree.Of(("file", "x")), upper: upper, mounted: false);
        overlay.Mount();
        Sys.Append(overlay.Merged / "file", "y");
        byte[] origin = Sys.GetXattr(overlay.Upper / "file", "trusted.overlay.origin");
        overlay.Unmount();
        Sys.SetXattr(overlay.Upper / "made/b", attribute, origin);
        Sys.Unlink(overlay.Upper / "file");
        overlay.Mount();

        Assert.Equal(3, Sys.ReadDirectory(overlay.Merged / "made").Count);

        Assert.Equal(stays, Sys.HasXattr(overlay.Upper / "made", "trusted.overlay.impure"));
    }

    [MountFact]
    public void A_hundred_thousand_entries_are_listed_and_found_quickly()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d", Node.Directory())), upper: Tree.Of(("d", Node.Directory())), mounted: false,
            seconds: 90);
        for (int i = 0; i < 50_000; i++)
        {
            Sys.MakeNode(overlay.Lowers[0] / $"d/low{i}", FileType.Regular, Oct(644));
            Sys.MakeNode(overlay.Upper / $"d/up{i}", FileType.Regular, Oct(644));
        }
        overlay.Mount();

        var watch = Stopwatch.StartNew();
        List<DirectoryEntry> all = Sys.ReadDirectory(overlay.Merged / "d");
        TimeSpan listed = watch.Elapsed;
        Assert.Equal(100_000, all.Select(e => e.Name).Distinct().Count());
        Assert.True(listed < TimeSpan.FromSeconds(5), $"Listing took {listed}.");

        using Descriptor directory = Sys.Open(overlay.Merged / "d", OpenFlags.ReadOnly | OpenFlags.Directory);
        var part = new List<DirectoryEntry>();
        watch.Restart();
        for (int i = 0; i < 100_000; i += 1000)
        {
            directory.SeekDirectory(all[i].NextOffset);
            part.Clear();
            Assert.True(directory.ReadSomeEntries(part, 512));
            Assert.Equal(all[i + 1].Name, part[0].Name);
            Assert.Equal(part[0].Ino, Sys.Stat(overlay.Merged / "d" / part[0].Name).Ino);
        }
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(10), $"Seeking took {watch.Elapsed}.");
    }

    private static Overlay Placed(string where) => where switch
    {
        "merged of two layers" => Overlay.With(lower: Every(2, 0), upper: Every(2, 1)),
        "one lower layer" => Overlay.With(lower: Every(1, 0)),
        _ => Overlay.With(upper: Every(1, 0)),
    };

    private static void AssertEachOnce(IEnumerable<string> expected, IReadOnlyList<string> actual)
    {
        var counts = actual.GroupBy(n => n).ToDictionary(g => g.Key, g => g.Count());
        Assert.Empty(
            expected.Where(name => counts.GetValueOrDefault(name) != 1).Select(name => $"{name}: {counts.GetValueOrDefault(name)} times"));
    }
}
