using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Tests;

public sealed class SmallReadsTests
{
    /// <summary>Opens so many files and reads those that it must; says for how many it was taken to read.</summary>
    private static int Open(SmallReads reads, int files, bool andReads)
    {
        int likely = 0;
        for (int i = 0; i < files; i++)
        {
            if (reads.IsLikely()) { likely++; }
            else if (andReads) { reads.CountRead(); }
        }
        return likely;
    }

    [Fact]
    public void Who_only_opens_is_not_taken_to_read() => Assert.Equal(0, Open(new SmallReads(), 1000, andReads: false));

    [Fact]
    public void Who_reads_is_soon_taken_to_read() => Assert.InRange(Open(new SmallReads(), 1000, andReads: true), 950, 999);

    [Fact]
    public void Who_stops_reading_is_noticed()
    {
        var reads = new SmallReads();
        Open(reads, 1000, andReads: true);

        Assert.InRange(Open(reads, 100_000, andReads: false), 1, 300);
    }

    [Fact]
    public void Who_begins_to_read_is_noticed()
    {
        var reads = new SmallReads();
        Open(reads, 1000, andReads: false);

        Assert.InRange(Open(reads, 100, andReads: true), 80, 99);
    }
}
