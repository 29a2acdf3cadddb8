namespace Veneer.Mount.Tests;

/// <summary>
/// The flags of the overlay's mount decide how access times of upper are kept, whatever upper's own mount says. Access times of a
/// lower never change.
/// </summary>
public sealed class AccessTimeTests
{
    private static readonly TimeSpec Past = new() { Seconds = 1_000_000_000 };
    private static readonly TimeSpec Future = new() { Seconds = DateTimeOffset.UtcNow.ToUnixTimeSeconds() + 100_000 };

    /// <summary>Options, and what is moved of objects last read long ago, and of those that seem to be read after every change.</summary>
    public static TheoryData<string, string, string> Options => new()
    {
        { "relatime", "dir file link map", "" },
        { "strictatime", "dir file link map", "dir file link map" },
        { "noatime", "", "" },
        { "nodiratime", "file link map", "" },
        { "nodiratime,strictatime", "file link map", "file link map" },
        { "ro", "", "" },
        { "ro,strictatime", "", "" },
    };

    [MountTheory]
    [MemberData(nameof(Options))]
    public void Reading_moves_what_the_options_of_the_overlay_say(string options, string stale, string recent)
    {
        foreach (string upperMount in (string[])["noatime", "strictatime", "nodiratime"])
        {
            FilePath place = Scratch.New();
            Command.Require("mount", "-t", "tmpfs", "-o", upperMount, "none", place);
            try { Assert.Equal((upperMount, stale, recent), (upperMount, Moved(place, options, Past), Moved(place, options, Future))); }
            finally { _ = Libc.Unmount(place.Bytes, lazy: true); } // best effort: a leftover fails the next test
        }
    }

    /// <summary>Options at first, those of the remounts, and what is moved then, as above.</summary>
    public static TheoryData<string, string[], string, string> Remounts => new()
    {
        { "relatime", ["noatime"], "", "" },
        { "noatime", ["atime,relatime"], "dir file link map", "" },
        { "relatime", ["strictatime"], "dir file link map", "dir file link map" },
        { "strictatime", ["relatime,nodiratime"], "file link map", "" },
        { "strictatime", ["ro"], "", "" },
        { "strictatime", ["ro,strictatime", "rw"], "dir file link map", "dir file link map" },
        { "ro", ["rw"], "dir file link map", "" },
        { "noatime", ["ro", "rw"], "", "" },
    };

    [MountTheory]
    [MemberData(nameof(Remounts))]
    public void After_a_remount_it_moves_what_the_new_options_say(string options, string[] remounts, string stale, string recent)
    {
        FilePath place = Scratch.New();

        Assert.Equal((stale, recent), (Moved(place, options, Past, remounts), Moved(place, options, Future, remounts)));
    }

    private static string Moved(FilePath place, string options, TimeSpec before, params string[] remounts)
    {
        FilePath own = place / (before.Seconds == Past.Seconds ? "past" : "future");
        Sys.MakeDirectory(own, Oct(755));
        using var overlay = Overlay.With(
            lower: Tree.Of(("below/file", "x")),
            upper: Tree.Of(("file", "file"), ("map", "map"), ("link", Node.Link("file")), ("dir/in", "")), upperIn: own, options: options,
            mounted: false);
        string[] names = ["dir", "file", "link", "map"];
        foreach (string name in names) { Sys.ChangeTimes(overlay.Upper / name, before, Past); }
        overlay.Mount();
        foreach (string remount in remounts) { overlay.RemountAs(remount); }

        _ = Sys.ReadText(overlay.Merged / "file");
        _ = Sys.ReadText(overlay.Merged / "below/file");
        _ = (overlay.Merged / "below").Entries();
        _ = (overlay.Merged / "dir").Entries();
        _ = Sys.ReadLink(overlay.Merged / "link");
        using (Descriptor file = Sys.Open(overlay.Merged / "map", OpenFlags.ReadOnly))
        using (Map map = file.Map(3)) { Assert.Equal((byte)'m', map.Memory[0]); }

        foreach (string name in names)
        {
            Assert.Equal(Sys.Stat(overlay.Upper / name).AccessTime.Seconds, Sys.Stat(overlay.Merged / name).AccessTime.Seconds);
        }
        return string.Join(' ', names.Where(name => Sys.Stat(overlay.Upper / name).AccessTime.Seconds != before.Seconds));
    }
}
