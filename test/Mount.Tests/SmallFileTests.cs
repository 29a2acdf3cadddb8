namespace Veneer.Mount.Tests;

/// <summary>Small lower files, whose content the kernel is given before it asks: see docs/adr/0003-lower-passthrough.md.</summary>
public sealed class SmallFileTests
{
    private const int Files = 300;

    /// <summary>Around the pages, and around the size from which on a file is not small.</summary>
    private static readonly int[] sizes = [1, 1024, 0, 4095, 4096, 4097, 8191, 8192, 8193];

    private static byte[] Content(int number) =>
        [.. Enumerable.Range(0, sizes[number % sizes.Length]).Select(i => (byte)((i * 7) + number))];

    private static Overlay WithFiles(string options = "")
    {
        Overlay overlay = Overlay.With(options: options, mounted: false);
        for (int i = 0; i < Files; i++) { Sys.Write(overlay.Lowers[0] / $"f{i}", Content(i)); }
        overlay.Mount();
        return overlay;
    }

    [MountTheory]
    [InlineData("")]
    [InlineData("passthrough=lower")]
    [InlineData("passthrough=off")]
    public void What_is_read_is_what_is_there(string options)
    {
        using Overlay overlay = WithFiles(options);
        for (int time = 0; time < 3; time++)
        {
            for (int i = 0; i < Files; i++)
            {
                using Descriptor file = Sys.Open(overlay.Merged / $"f{i}", OpenFlags.ReadOnly);
                Assert.Equal(Content(i), file.ReadAll());
                Assert.Equal((ulong)Content(i).Length, file.Stat().Size);
                if (Content(i).Length == 0) { continue; }
                using Map map = file.Map(Content(i).Length);
                Assert.Equal(Content(i), map.Read(0, Content(i).Length));
            }
            if (time == 1) { Sys.DropCaches(); }
        }
    }

    /// <summary>Who changes the file, only its size included, must not find the old content put back, nor the old size.</summary>
    [MountTheory]
    [InlineData(0, "passthrough=off")]
    [InlineData(1, "passthrough=off")]
    [InlineData(100, "")]
    [InlineData(8000, "passthrough=off")]
    public void A_file_that_is_cut_while_others_open_it_stays_cut(int length, string options)
    {
        using Overlay overlay = WithFiles(options);
        foreach (int i in Enumerable.Range(0, 20)) { Sys.Read(overlay.Merged / $"f{i}"); } // what follows is taken for reading
        byte[] Expected(int i) => [.. Content(i).Concat(new byte[length]).Take(length)];
        using var together = new Barrier(3);
        void Read()
        {
            for (int i = 20; i < Files; i++)
            {
                together.SignalAndWait();
                Sys.Read(overlay.Merged / $"f{i}");
            }
        }
        void Cut()
        {
            for (int i = 20; i < Files; i++)
            {
                together.SignalAndWait();
                Sys.Truncate(overlay.Merged / $"f{i}", length);
                for (int time = 0; time < 10; time++) { Assert.Equal(Expected(i), Sys.Read(overlay.Merged / $"f{i}")); }
            }
        }
        Parallel.Invoke(new ParallelOptions { MaxDegreeOfParallelism = 3 }, Read, Read, Cut);

        for (int i = 20; i < Files; i++)
        {
            Assert.Equal((ulong)length, Sys.Stat(overlay.Merged / $"f{i}").Size);
            Assert.Equal(Expected(i), Sys.Read(overlay.Merged / $"f{i}"));
            Assert.Equal(Expected(i), Sys.Read(overlay.Upper / $"f{i}"));
        }
    }

    /// <summary>Writers and appenders beside readers: all that was written is there, for whoever reads then.</summary>
    [MountTheory]
    [InlineData("")]
    [InlineData("passthrough=off")]
    public void What_is_written_while_others_open_the_file_is_seen(string options)
    {
        using Overlay overlay = WithFiles(options);
        foreach (int i in Enumerable.Range(0, 20)) { Sys.Read(overlay.Merged / $"f{i}"); }
        using var together = new Barrier(2);
        void Read()
        {
            for (int i = 20; i < Files; i++)
            {
                together.SignalAndWait();
                Sys.Read(overlay.Merged / $"f{i}");
            }
        }
        void Append()
        {
            for (int i = 20; i < Files; i++)
            {
                together.SignalAndWait();
                Sys.Append(overlay.Merged / $"f{i}", "more");
            }
        }
        Parallel.Invoke(new ParallelOptions { MaxDegreeOfParallelism = 2 }, Read, Append);

        for (int i = 20; i < Files; i++)
        {
            byte[] expected = [.. Content(i), .. "more"u8];
            Assert.Equal(expected, Sys.Read(overlay.Merged / $"f{i}"));
            Assert.Equal(expected, Sys.Read(overlay.Upper / $"f{i}"));
        }
    }
}
