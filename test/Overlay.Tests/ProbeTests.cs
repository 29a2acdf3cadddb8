using System.Diagnostics;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Tests;

/// <summary>Each test has directories of its own; the layers are checked, and nothing is mounted.</summary>
public sealed class ProbeTests : IDisposable
{
    private readonly string root = Directory.CreateTempSubdirectory("veneer-probe-").FullName;

    public void Dispose() => Directory.Delete(root, recursive: true);

    /// <summary>Makes the directories that the options name, and checks them; paths are relative to the test's own directory.</summary>
    private UpperFeatures Check(string lowers, string? upper = null, string? work = null, bool make = true, bool userXattr = true)
    {
        string[] lowerPaths = [.. lowers.Split(':').Select(Absolute)];
        if (make)
        {
            foreach (string path in lowerPaths) { Directory.CreateDirectory(path); }
            if (upper is not null) { Directory.CreateDirectory(Absolute(upper)); }
            if (work is not null) { Directory.CreateDirectory(Absolute(work)); }
        }
        var options = new OverlayOptions
        {
            LowerDirectories = lowerPaths,
            UpperDirectory = upper is null ? null : Absolute(upper),
            WorkDirectory = work is null ? null : Absolute(work),
            MountPoint = "/mnt",
            UserXattr = userXattr,
        };
        var opened = new List<int>();
        try
        {
            foreach (string path in lowerPaths) { opened.Add(LayerChecks.OpenDirectory(path, "lower")); }
            int[] lowerDescriptors = [.. opened];
            int upperDescriptor = -1, workDescriptor = -1;
            if (upper is not null)
            {
                opened.Add(upperDescriptor = LayerChecks.OpenDirectory(Absolute(upper), "upper"));
                opened.Add(workDescriptor = LayerChecks.OpenDirectory(Absolute(work!), "work"));
            }
            LayerChecks.CheckLayers(options, lowerDescriptors, upperDescriptor, workDescriptor);
            return upperDescriptor < 0 ? UpperFeatures.None : UpperProbe.Run(options, workDescriptor);
        }
        finally
        {
            opened.ForEach(Libc.Close);
        }
    }

    private string Absolute(string path) => path.StartsWith('/') ? path : root + "/" + path;

    private string Refusal(string lowers, string? upper = null, string? work = null, bool make = true)
    {
        string sentence = Assert.Throws<OverlayMountException>(() => Check(lowers, upper, work, make)).Message;
        return sentence.Replace(root + "/", "", StringComparison.Ordinal);
    }

    [Fact]
    public void Proc_is_no_layer() =>
        Assert.Equal(
            "The lower directory /proc/sys is on a proc filesystem, whose files change by themselves: leave it out, "
            + "and mount proc inside the overlay instead.",
            Refusal("a:/proc/sys"));

    [Fact]
    public void Layers_beside_each_other_are_accepted_and_left_as_they_were()
    {
        UpperFeatures features = Check("a:b", "u", "w");

        Assert.True(features.TemporaryFiles);
        Assert.True(features.RenameWhiteout);
        Assert.Empty(Directory.EnumerateFileSystemEntries(root + "/w"));
        Assert.Empty(Directory.EnumerateFileSystemEntries(root + "/u"));
    }

    [Theory]
    [InlineData("l", "l/upper", "w")]
    [InlineData("l", "l/upper", "l/work")]
    [InlineData("/", "u", "w")]
    [InlineData("a:ab", "abc", "abcd")]
    public void Upper_and_work_may_lie_in_a_lower(string lowers, string upper, string work)
    {
        Check(lowers, upper, work);
    }

    [Theory]
    [InlineData("a:b:a", null, null, "The lower directory a is given twice: take one out, a layer counts once.")]
    [InlineData("a:b:b/../a", null, null, "The lower directory a is given twice (as b/../a): take one out, a layer counts once.")]
    [InlineData("a:a/b", null, null,
        "The lower directory a/b lies inside the lower directory a: move one of them, layers must not overlap.")]
    [InlineData("a/x/b:a", null, null,
        "The lower directory a/x/b lies inside the lower directory a: move one of them, layers must not overlap.")]
    [InlineData("a", "a", "w", "The upper directory a is also a lower directory: give each role a directory of its own.")]
    [InlineData("a:w", "u", "w", "The work directory w is also a lower directory: give each role a directory of its own.")]
    [InlineData("u/a", "u", "w", "The lower directory u/a lies inside the upper directory u: move one of them, layers must not overlap.")]
    [InlineData("w/a", "u", "w", "The lower directory w/a lies inside the work directory w: move one of them, layers must not overlap.")]
    [InlineData("a", "u", "u", "The upper directory u is also the work directory: give workdir an empty directory beside it.")]
    [InlineData("a", "u", "u/w", "The work directory u/w lies inside the upper directory u: put work beside upper.")]
    [InlineData("a", "w/u", "w", "The upper directory w/u lies inside the work directory w: put upper beside work.")]
    [InlineData("a", "u", "/proc/self/fd",
        "The upper directory u and the work directory /proc/self/fd are on different filesystems: put work beside upper.")]
    public void Layers_that_overlap_are_refused_as_the_kernel_does(string lowers, string? upper, string? work, string sentence)
    {
        Assert.Equal(sentence, Refusal(lowers, upper, work));
    }

    [Fact]
    public void A_missing_layer_is_named()
    {
        Directory.CreateDirectory(root + "/l");
        Directory.CreateDirectory(root + "/u");

        Assert.Equal("The lower directory none does not exist: create it, or correct lowerdir.", Refusal("l:none", make: false));
        Assert.Equal("The upper directory none does not exist: create it, or correct upperdir.", Refusal("l", "none", "w", make: false));
        Assert.Equal("The work directory none does not exist: create it, or correct workdir.", Refusal("l", "u", "none", make: false));
    }

    [Fact]
    public void A_layer_that_is_not_a_directory_is_named()
    {
        File.WriteAllText(root + "/file", "");

        Assert.Equal("The lower directory file is not a directory: correct lowerdir.", Refusal("file", make: false));
    }

    [Fact]
    public void A_path_leads_through_symbolic_links()
    {
        Directory.CreateDirectory(root + "/elsewhere/l");
        Directory.CreateDirectory(root + "/elsewhere/diff");
        Directory.CreateSymbolicLink(root + "/link", root + "/elsewhere/l");

        Check("link/../diff", make: false);
        Assert.Equal("The lower directory link is given twice (as elsewhere/l): take one out, a layer counts once.",
            Refusal("link:elsewhere/l", make: false));
    }

    [Fact]
    public void More_than_500_lowers_are_refused()
    {
        Assert.Equal(
            "501 lower directories are given, and an overlay has at most 500: merge some of them.",
            Refusal(string.Join(':', Enumerable.Range(0, 501).Select(i => $"l{i}"))));
    }

    [Fact]
    public void Five_hundred_lowers_are_checked_in_little_time()
    {
        string lowers = string.Join(':', Enumerable.Range(0, 500).Select(i => $"deep/er/l{i}"));
        Check(lowers);
        var watch = Stopwatch.StartNew();
        Check(lowers, make: false);
        Assert.InRange(watch.ElapsedMilliseconds, 0, 250);
    }

    [Fact]
    public void What_a_killed_probe_left_is_taken_away()
    {
        Directory.CreateDirectory(root + "/w/#veneer-probe/one");
        File.WriteAllText(root + "/w/#veneer-probe/two", "");

        Check("l", "u", "w");

        Assert.Empty(Directory.EnumerateFileSystemEntries(root + "/w"));
    }

    [Fact]
    public void A_filesystem_without_what_an_upper_needs_is_named()
    {
        // proc takes no directories at all.
        string sentence = Assert.Throws<OverlayMountException>(() => Check("l", "/proc/self/task", "/proc/self/fd", make: true)).Message;
        Assert.StartsWith("Nothing can be created in the work directory /proc/self/fd (", sentence, StringComparison.Ordinal);
    }
}
