namespace Veneer.Mount.Tests;

public sealed class LowerStaysTests
{
    [MountFact]
    public void Writing_a_lower_file_leaves_lower_as_it_was()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("dir/file", "old")));

        Sys.Append(overlay.Merged / "dir/file", " new");

        Assert.Equal("old", Sys.ReadText(overlay.Lower / "dir/file"));
        Assert.Equal("old new", Sys.ReadText(overlay.Upper / "dir/file"));
        Assert.Empty(overlay.Leftovers);
    }
}
