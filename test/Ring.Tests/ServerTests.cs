using Veneer.Mount.Tests;

[assembly: AssemblyFixture(typeof(Veneer.Ring.Tests.SeenLocks))]

namespace Veneer.Ring.Tests;

/// <summary>The server of these tests is what they need: it gets its requests over io_uring, and tells what it sees of locks.</summary>
public sealed class ServerTests
{
    [MountFact(OnlyVeneer = "It is about our server.")]
    public void Requests_come_over_io_uring()
    {
        Needs.That(OverIoUring.Missing is null, $"FUSE over io_uring: {OverIoUring.Missing} All tests here use /dev/fuse instead");
        using var overlay = Overlay.With(lower: Tree.Of(("file", "x")));
        Sys.ReadText(overlay.Merged / "file");

        string stats = Command.Require(Mounter.Binary, "stats", "--json", overlay.Merged);

        Assert.Matches("\"over_io_uring\": ?[1-9]", stats);
    }

    [MountFact(OnlyVeneer = "It is about our server.")]
    public void What_is_seen_of_locks_is_written()
    {
        Assert.SkipUnless(OverIoUring.IsChecked, "VENEER_TEST_BINARY names a server that may not check its locks.");
        using (var overlay = Overlay.With(lower: Tree.Of(("dir/file", "x"))))
        {
            Sys.Unlink(overlay.Merged / "dir/file");
            Sys.RemoveDirectory(overlay.Merged / "dir");
        }

        Assert.Contains("rename lock > names lock", LockRecord.Pairs);
        Assert.Contains("names lock > names lock", LockRecord.Pairs);
    }
}

/// <summary>
/// Compares, when all tests have run, the pairs of locks that the servers have seen with the chart of ARCHITECTURE.md, and writes
/// which pairs of the chart no server has seen into artifacts/lock-pairs.txt.
/// </summary>
public sealed class SeenLocks : IDisposable
{
    public void Dispose()
    {
        string[] seen = LockRecord.Pairs, allowed = [.. LockRecord.Chart.Pairs];
        File.WriteAllLines(LockRecord.Report, [
            "Seen while the tests ran, the first lock being held when the second was taken:", .. seen.Select(pair => $"  {pair}"),
            "Allowed by the chart of ARCHITECTURE.md, and not seen:", .. allowed.Except(seen).Select(pair => $"  {pair}"),
        ]);
        Assert.Empty(seen.Except(allowed));
    }
}
