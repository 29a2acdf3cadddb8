namespace Veneer.Mount.Tests;

/// <summary>Where an overlay may be mounted, and what may be mounted around it.</summary>
public sealed class MountPointTests
{
    [MountFact]
    public void The_mount_point_may_lie_inside_the_lower_tree()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("mnt/inside", ""), ("d/file", "x")), inLower: "mnt");

        Assert.Equal(["d", "mnt"], overlay.Merged.Entries());
        Assert.Equal(["inside"], (overlay.Merged / "mnt").Entries());
        Sys.Append(overlay.Merged / "d/file", "y");
        Sys.Unlink(overlay.Merged / "mnt/inside");

        Assert.Equal("xy", Sys.ReadText(overlay.Merged / "d/file"));
        Assert.Empty((overlay.Merged / "mnt").Entries());
        overlay.Unmount();
        Assert.Equal(["inside"], (overlay.Lower / "mnt").Entries());
    }

    [MountFact]
    public void Mounts_below_a_lower_layer_are_not_seen_through_it()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/own", "")), mounted: false);
        FilePath below = overlay.Lowers[0] / "d";
        Scratch.MountTmpfs(below, "1m");
        try
        {
            Sys.Write(below / "foreign", "");
            overlay.Mount();

            Assert.Equal(["own"], (overlay.Merged / "d").Entries());
            overlay.Unmount();
        }
        finally
        {
            Libc.Unmount(below.Bytes, lazy: true);
        }
    }

    [MountFact]
    public void Something_can_be_mounted_on_it_and_taken_away_again()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/own", "")));
        Scratch.MountTmpfs(overlay.Merged / "d", "1m");
        Sys.Write(overlay.Merged / "d/foreign", "");

        Assert.Equal(Errno.EBUSY, Sys.ErrorOf(() => Sys.Rename(overlay.Merged / "d", overlay.Merged / "e")));
        Libc.Unmount((overlay.Merged / "d").Bytes, lazy: false);

        Assert.Equal(["own"], (overlay.Merged / "d").Entries());
        Assert.Empty(overlay.Upper.Entries());
    }

    [MountFact]
    public void The_layers_filesystem_is_free_when_it_is_unmounted()
    {
        using var scratch = Overlay.With(mounted: false);
        FilePath place = scratch.Beside("own");
        Sys.MakeDirectory(place);
        for (int round = 0; round < 5; round++)
        {
            Scratch.MountTmpfs(place, "1m");
            foreach (string name in new[] { "lower", "upper", "work", "merged" }) { Sys.MakeDirectory(place / name); }
            Sys.Write(place / "lower/file", "x");
            FilePath merged = scratch.Merged;
            Mounter.UnderTest.Mount(new Layers([place / "lower"], place / "upper", place / "work", merged, ""));
            Sys.Append(merged / "file", "y");
            Mounter.UnderTest.Unmount(merged);

            Assert.Equal(Errno.None, Libc.Unmount(place.Bytes, lazy: false));
        }
    }

    [MountFact]
    public void Names_of_layers_may_hold_colons_and_backslashes()
    {
        using var scratch = Overlay.With(mounted: false);
        FilePath odd = scratch.Beside("a:b\\c"), second = scratch.Beside("d e\tf");
        Sys.MakeDirectory(odd);
        Sys.MakeDirectory(second);
        Sys.Write(odd / "one", "1");
        Sys.Write(second / "two", "2");
        var layers = new Layers([odd, second], scratch.Upper, scratch.Work, scratch.Merged, "");
        Mounter.UnderTest.Mount(layers);
        try
        {
            Assert.Equal(["one", "two"], scratch.Merged.Entries());
        }
        finally
        {
            Mounter.UnderTest.Unmount(scratch.Merged);
        }
    }

    [MountFact]
    public void Many_lower_layers_are_one_tree()
    {
        using var overlay = Overlay.With(lowers: [.. Enumerable.Range(0, 60).Select(i => Tree.Of(($"d/f{i}", $"{i}"), ("d/top", $"{i}")))]);

        Assert.Equal(61, (overlay.Merged / "d").Entries().Length);
        Assert.Equal("0", Sys.ReadText(overlay.Merged / "d/top"));
        Assert.Equal("59", Sys.ReadText(overlay.Merged / "d/f59"));
    }

    [MountFact]
    public void Two_overlays_may_share_a_lower_layer()
    {
        using var one = Overlay.With(lower: Tree.Of(("d/file", "x"), ("big", new string('b', 3 << 20))));
        using var other = Overlay.With(over: [one.Lowers[0]]);

        Sys.Append(one.Merged / "d/file", "1");
        Sys.Append(other.Merged / "d/file", "2");
        Sys.Unlink(one.Merged / "big");

        Assert.Equal(("x1", "x2"), (Sys.ReadText(one.Merged / "d/file"), Sys.ReadText(other.Merged / "d/file")));
        Assert.Equal(3 << 20, Sys.Read(other.Merged / "big").Length);
    }
}
