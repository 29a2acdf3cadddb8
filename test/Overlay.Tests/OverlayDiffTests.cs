using System.Buffers;
using System.Text;
using Veneer.Linux;
using Veneer.Overlay.Changes;

namespace Veneer.Overlay.Tests;

/// <summary>A diff of directories that nobody has mounted, so that they can change at a chosen moment.</summary>
public sealed class OverlayDiffTests : IDisposable
{
    private readonly string root = Directory.CreateTempSubdirectory("veneer-diff-").FullName;

    public OverlayDiffTests()
    {
        foreach (string name in (string[])["lower", "upper"]) { Directory.CreateDirectory(Path.Combine(root, name)); }
    }

    public void Dispose() => Directory.Delete(root, recursive: true);

    private string Upper(string path) => Path.Combine(root, "upper", path);

    private OverlayDiff Open() => OverlayDiff.Open(Path.Combine(root, "upper"), [Path.Combine(root, "lower")], userXattr: true);

    private static string Json(Change change)
    {
        var output = new ArrayBufferWriter<byte>();
        ChangeJson.Write(output, change);
        return Encoding.UTF8.GetString(output.WrittenSpan);
    }

    [Fact]
    public void What_changes_meanwhile_is_named()
    {
        foreach (string directory in (string[])["early", "late", "quiet"]) { Directory.CreateDirectory(Upper(directory)); }
        foreach (string file in (string[])["early/a", "late/a", "late/b", "quiet/a"]) { File.WriteAllText(Upper(file), ""); }
        using OverlayDiff diff = Open();
        var paths = new List<string>();
        foreach (Change change in diff.Changes())
        {
            paths.Add(change.Path);
            if (change.Path != "early/a") { continue; }
            File.WriteAllText(Upper("early/b"), "");
            File.AppendAllText(Upper("late/a"), "more");
            File.Delete(Upper("late/b"));
        }

        Assert.Equal(["early", "early/a", "late", "late/a", "quiet", "quiet/a"], paths);
        Assert.Equal(["early", "late", "late/a"], diff.Disturbances.Select(d => d.Path).Order(StringComparer.Ordinal));
        Assert.All(diff.Disturbances, d => Assert.Equal((DisturbanceKind.Moved, "changed while it was read"), (d.Kind, d.Reason)));
        Assert.Equal(7, diff.Changes().Count());
        Assert.Empty(diff.Disturbances);
    }

    [Fact]
    public void Not_a_moment_is_missed_between_before_and_meanwhile()
    {
        foreach (string file in (string[])["a", "b"]) { File.WriteAllText(Upper(file), ""); }
        using OverlayDiff diff = Open();
        for (int i = 0; i < 30; i++)
        {
            File.AppendAllText(Upper("a"), "just before");
            File.AppendAllText(Upper("b"), "just before");
            foreach (Change change in diff.Changes())
            {
                if (change.Path == "a") { File.AppendAllText(Upper("b"), "just after"); }
            }

            Assert.Equal(["b"], diff.Disturbances.Select(d => d.Path));
        }
    }

    [Fact]
    public void A_file_that_changes_while_it_is_compared_is_not_said_to_be_the_same()
    {
        foreach (string layer in (string[])["lower", "upper"]) { File.WriteAllText(Path.Combine(root, layer, "f"), "same"); }
        var descriptors = new[] { "upper", "lower" }.Select(layer => (OverlayDiff.OpenLayer(Path.Combine(root, layer), layer), layer))
            .ToArray();
        using LayerSet layers = LayerSet.Hold(descriptors[0], descriptors[1..], userXattr: true);
        Step step = Assert.Single(new UpperWalk(layers, DiffPosition.Begin(), forArchive: false, (_, _) => { }).Run());
        var comparison = new Comparison(layers);

        Assert.Equal((Errno.None, false), (comparison.Run(step, step.Base!, out bool content, out _), content));
        using (FileStream file = File.OpenWrite(Upper("f"))) { file.Write("else"u8); }
        using (FileStream file = File.OpenWrite(Upper("f"))) { file.Write("same"u8); }

        Assert.Equal(Errno.ESTALE, comparison.Run(step, step.Base!, out _, out _));
        foreach ((int descriptor, _) in descriptors) { Libc.Close(descriptor); }
    }

    [Fact]
    public void A_file_that_goes_after_it_was_listed_is_named()
    {
        foreach (string file in (string[])["a", "b"]) { File.WriteAllText(Upper(file), ""); }
        using OverlayDiff diff = Open();
        var paths = new List<string>();
        foreach (Change change in diff.Changes())
        {
            paths.Add(change.Path);
            File.Delete(Upper("b"));
        }

        Assert.Equal(["a"], paths);
        Assert.Equal([".", "b"], diff.Disturbances.Select(d => d.Path).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Names_that_are_not_text_have_their_bytes_in_json()
    {
        Assert.Equal(
            "{\"change\":\"added\",\"path\":\"caf\uFFFD/x\",\"path_base64\":\"Y2Fm6S94\",\"type\":\"link\"}\n",
            Json(new Change { Kind = ChangeKind.Added, Path = "caf\udce9/x", Type = ObjectType.SymbolicLink }));
        Assert.Equal(
            "{\"change\":\"renamed\",\"path\":\"\uFFFD\\n\\\"é\",\"from\":\"b\",\"type\":\"file\","
                + "\"content\":false,\"attributes\":true,\"size\":3}\n",
            Json(new Change
            {
                Kind = ChangeKind.Renamed,
                Path = "\uFFFD\n\"é",
                From = "b",
                Type = ObjectType.File,
                AttributesChanged = true,
                Size = 3,
            }));
    }

    [Fact]
    public void A_layer_that_is_not_there_is_named()
    {
        string sentence = Assert.Throws<OverlayMountException>(() => OverlayDiff.Open(Upper("none"), [root])).Message;

        Assert.Equal($"The upper directory {Upper("none")} does not exist: name the one of the overlay.", sentence);
    }
}
