using Veneer.Mount.Tests;
using Veneer.Overlay;
using Veneer.Overlay.Changes;
using Veneer.Overlay.Control;
using Veneer.Overlay.Topology;
using Veneer.Overlay.Usage;

namespace Veneer.Library.Tests;

/// <summary>What a program can do that uses Veneer.Overlay as a library: these see no more than its public face.</summary>
public sealed class LibraryTests
{
    private static Tree Image => Tree.Of(("dir/a", "a"), ("dir/b", "b"), ("file", "file"));

    private static void Change(Rig.Overlay overlay)
    {
        Sys.Append(overlay.Merged / "dir/a", "more");
        Sys.Unlink(overlay.Merged / "dir/b");
        Sys.Write(overlay.Merged / "new", "12345");
    }

    [MountFact]
    public void Layers_of_a_mount_and_of_an_object()
    {
        using var overlay = Rig.Overlay.With(lower: Image);
        Change(overlay);

        MountedOverlay mounted = MountedOverlay.At(overlay.Merged.Text);
        OverlayTopology topology = mounted.Layers("dir/a");

        Assert.Equal(["upper", "lower", "work"], topology.Layers.Select(layer => layer.Role));
        Assert.Equal([overlay.Upper.Text, overlay.Lowers[0].Text, overlay.Work.Text], topology.Layers.Select(layer => layer.Path));
        Assert.Equal([(0, PartRoles.Upper, "dir/a"), (1, PartRoles.Origin, "dir/a")],
            topology.Parts.Select(part => (part.Layer, part.Roles, part.Path)));
        Assert.Equal(PartRoles.Whiteout, mounted.Layers("dir/b").Parts.Single().Roles);
        Assert.Equal(Sys.Stat(overlay.Lower / "dir/a").Ino, topology.Parts[1].Ino);
    }

    [MountFact]
    public void Changes_are_an_enumeration()
    {
        using var overlay = Rig.Overlay.With(lower: Image);
        Change(overlay);

        using OverlayDiff diff = MountedOverlay.At(overlay.Merged.Text).Diff();

        Assert.Equal(
            [(ChangeKind.Modified, "dir/a", 5L), (ChangeKind.Deleted, "dir/b", 0L), (ChangeKind.Added, "new", 5L)],
            diff.Changes().Select(change => (change.Kind, change.Path, change.Size)));
        Assert.Empty(diff.Disturbances);
        Assert.Equal("dir/a", diff.Changes().First().Path); // lazily, and as often as one likes
        Assert.True(diff.ReadsLayers);
        var archive = new MemoryStream();
        diff.WriteTar(archive);
        Assert.Equal(["dir", "dir/.wh.b", "dir/a", "new"],
            LayerArchive.Parse(archive.ToArray()).Entries.Select(entry => entry.Path).Order(StringComparer.Ordinal));
    }

    [MountFact]
    public void Layers_that_nobody_has_mounted_are_compared_by_name()
    {
        using var overlay = Rig.Overlay.With(lower: Image, upper: Tree.Of(("new", "x")), mounted: false);

        using OverlayDiff diff = OverlayDiff.Open(overlay.Upper.Text, [overlay.Lowers[0].Text]);

        Assert.Equal("new", Assert.Single(diff.Changes()).Path);
    }

    [MountFact]
    public void An_overlay_without_upper_has_no_changes()
    {
        using var overlay = Rig.Overlay.With(lowers: [Image, Tree.Empty], readOnly: true);

        using OverlayDiff diff = MountedOverlay.At(overlay.Merged.Text).Diff();

        Assert.Empty(diff.Changes());
        Assert.Empty(diff.Disturbances);
    }

    [MountFact(OnlyVeneer = "The kernel does not count.")]
    public void Statistics_are_numbers()
    {
        using var overlay = Rig.Overlay.With(lower: Image);
        Change(overlay);

        Stats stats = MountedOverlay.At(overlay.Merged.Text).Stats();

        Assert.Equal(2, stats.CopyUps.Count); // of the directory and of the file
        Assert.Contains(stats.Requests, request => request is { Opcode: "lookup", Count: > 0 });
    }

    [MountFact(OnlyVeneer = "The kernel does not tell.")]
    public void The_status_says_what_is_safe()
    {
        using var overlay = Rig.Overlay.With(lower: Image, options: "fsync=strict,errors=continue");
        Change(overlay);

        OverlayStatus status = MountedOverlay.At(overlay.Merged.Text).Status();

        Assert.Equal(("strict", "continue", null, null, null), (status.Fsync, status.Errors, status.Failure, status.Reusable, status.Sync));
    }

    [MountFact]
    public void Mounts_are_listed()
    {
        using var overlay = Rig.Overlay.With(lower: Image);
        using var other = Rig.Overlay.With(lower: Image, mounter: Mounter.Kernel);

        IReadOnlyList<MountedOverlay> all = MountedOverlay.List();

        Assert.Equal(Mounter.UnderTest.IsKernel, all.Single(one => one.MountPoint == overlay.Merged.Text).IsKernel);
        MountedOverlay kernel = all.Single(one => one.MountPoint == other.Merged.Text);
        Assert.True(kernel.IsKernel);
        Assert.Equal(other.Upper.Text, kernel.Layers().Layers[0].Path);
        Assert.Equal(QueryProblem.NotAnOverlay, Assert.Throws<OverlayQueryException>(kernel.Stats).Problem);
    }

    [MountFact(OnlyVeneer = "The kernel's have no server.")]
    public void Those_of_the_whole_machine_are_listed_with_their_servers()
    {
        using var overlay = Rig.Overlay.With(lower: Image);

        VeneerOverlay instance = Holders.Instances(out _)
            .Single(one => one.Mounts.Any(mount => mount.Mount.MountPoint == overlay.Merged.Text));

        Assert.Contains(instance.Pid, overlay.Servers);
        Assert.Contains(("upper", overlay.Upper.Text), instance.Layers);
    }

    [MountFact]
    public void What_is_wrong_is_a_sentence_and_a_kind()
    {
        using var overlay = Rig.Overlay.With(lower: Image);

        Assert.Equal((QueryProblem.NotAMount, $"{overlay.Lowers[0]} is not a mount point: name the mount point of an overlay."),
            Problem(overlay.Lowers[0].Text));
        Assert.Equal((QueryProblem.NotAMount, "/nowhere does not exist: name a mount point."), Problem("/nowhere"));
        Assert.Equal((QueryProblem.NotAnOverlay, "/proc is a mount of type proc, not an overlay: name the mount point of an overlay."),
            Problem("/proc"));

        static (QueryProblem, string) Problem(string path)
        {
            OverlayQueryException problem = Assert.Throws<OverlayQueryException>(() => MountedOverlay.At(path));
            return (problem.Problem, problem.Message);
        }
    }
}
