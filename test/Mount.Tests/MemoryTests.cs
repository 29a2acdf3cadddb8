namespace Veneer.Mount.Tests;

/// <summary>What the server takes and gives back.</summary>
[Collection<Alone>] // memory is given back when no requests come, and others would delay that
public sealed class MemoryTests
{
    /// <summary>So many that their memory, 6 MB, is worth giving back: from 4 MiB on it is.</summary>
    private const int Directories = 50, FilesInEach = 1000;

    [MountFact(OnlyVeneer = "It is about our server.")]
    public void What_the_kernel_forgets_is_given_back()
    {
        var files =
            from d in Enumerable.Range(0, Directories)
            from f in Enumerable.Range(0, FilesInEach)
            select ($"d{d}/file-{f}", (Node)"");
        using var overlay = Overlay.With(lower: Tree.Of([.. files]), seconds: 300);
        int server = Assert.Single(overlay.Servers);
        long before = ResidentOf(server);
        Assert.InRange(before, 1, 10_000); // with the code that only starting needs it would be more

        var held = new List<Descriptor>(Directories * FilesInEach);
        // As long as they are held the kernel forgets none, though others on this machine may drop the caches of all. A table of
        // descriptors may have too few for all of them, so each actor holds a part.
        Actor[] holders = [.. Enumerable.Range(0, 5).Select(_ => Actor.Process())];
        long grown;
        try
        {
            for (int directory = 0; directory < Directories; directory++)
            {
                FilePath path = overlay.Merged / $"d{directory}";
                holders[directory % holders.Length].Do(() =>
                {
                    foreach (DirectoryEntry entry in Sys.ReadDirectory(path)) { held.Add(Sys.Open(path / entry.Name, OpenFlags.Path)); }
                });
            }
            grown = ResidentOf(server) - before;
            Assert.InRange(grown, 2_500, 20_000); // 50,000 inodes of 120 bytes, less what was there and empty
        }
        finally
        {
            foreach (Actor holder in holders) { holder.Dispose(); } // with its descriptors
        }

        Sys.DropCaches();

        Patience.Eventually(() => Assert.InRange(ResidentOf(server) - before, long.MinValue, grown / 2));
    }

    /// <summary>Resident memory in kibibytes.</summary>
    private static long ResidentOf(int process) =>
        long.Parse(
            File.ReadLines($"/proc/{process}/status")
                .First(line => line.StartsWith("VmRSS:", StringComparison.Ordinal))
                .Split(' ', StringSplitOptions.RemoveEmptyEntries)[^2]);
}
