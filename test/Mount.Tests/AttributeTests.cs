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

        Eventually(() => Assert.Equal(Seen(overlay.Upper / "file"), Seen(overlay.Merged / "file")));
    }

    private static (long Seconds, uint Nanoseconds, ulong Size) Seen(FilePath path)
    {
        Statx stat = Sys.Stat(path);
        return (stat.ChangeTime.Seconds, stat.ChangeTime.Nanoseconds, stat.Size);
    }

    /// <summary>The kernel hears of it from another thread than the one that answers.</summary>
    private static void Eventually(Action assertion)
    {
        var waited = System.Diagnostics.Stopwatch.StartNew();
        while (true)
        {
            try
            {
                assertion();
                return;
            }
            catch (Xunit.Sdk.XunitException) when (waited.Elapsed < TimeSpan.FromSeconds(5)) { Thread.Sleep(1); }
        }
    }
}
