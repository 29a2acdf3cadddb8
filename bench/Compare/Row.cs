namespace Veneer.Compare;

internal enum Unit
{
    NanosecondsPerOperation,
    Milliseconds,
    Mebibytes,
}

/// <summary>One thing that is measured.</summary>
/// <param name="Name">What it is called in the table.</param>
/// <param name="Group">A section of the table.</param>
/// <param name="Unit">What <paramref name="Measure"/> returns.</param>
/// <param name="Layers">The lower layers, as <see cref="Stand.Layers"/> knows them.</param>
/// <param name="Needs">What only some can do.</param>
/// <param name="Measure">Makes warm what is to be warm, then measures.</param>
internal sealed record Row(string Name, string Group, Unit Unit, string Layers, Abilities Needs, Func<Bed, double> Measure)
{
    public const string Operations = "operations", Growth = "growth", Server = "server", RealWork = "work";

    /// <summary>What of the layers a plain copy needs.</summary>
    public string[] Parts { get; init; } = [];

    /// <summary>A program without which it is left out.</summary>
    public string? Program { get; init; }

    /// <summary>The line in a plot, and where on it.</summary>
    public (string Line, double X)? Point { get; init; }

    /// <summary>What a run of two minutes has: the operations, and a little of the others.</summary>
    public static string[] OfSmoke { get; } = [Operations, "start-1-lowers", "memory-walked", "untar", "grep-r"];

    /// <summary>Every row, in the order of the table.</summary>
    public static IReadOnlyList<Row> All(Sizes sizes) => [.. OperationRows(sizes), .. GrowthRows(sizes), .. ServerRows(sizes), .. WorkRows(sizes)];

    private static IEnumerable<Row> OperationRows(Sizes sizes)
    {
        int files = sizes.Files, created = sizes.NewFiles, copied = sizes.CopyUps, big = sizes.BigFile;
        return
        [
            OfTree("walk-cold", bed => bed.Work("walk", "t", 1)),
            OfTree("walk-warm", bed => Twice(bed, "walk", "t", 1)),
            OfTree("stat-cold", bed => bed.Work("stat", "t", files)),
            OfTree("stat-warm", bed => Twice(bed, "stat", "t", files)),
            OfTree("missing-cold", bed => bed.Work("missing", "t", files)),
            OfTree("missing-warm", bed => Twice(bed, "missing", "t", files)),
            OfTree("open-warm", bed => After(bed, "stat", files).Work("open", "t", files)),
            OfTree("read-cold", bed => bed.Work("read", "t", files)),
            OfTree("read-warm", bed => Twice(bed, "read", "t", files)),
            OfTree("read-warm-2t", bed => After(bed, "read", files).Work("read", "t", files, 2)),
            OfTree("getxattr", bed => After(bed, "stat", files).Work("getxattr", "t", files)),
            Main("readdir-10k", ["flat"], Abilities.None, bed => { bed.Work("readdir", "flat", 1); return bed.Work("readdir", "flat", 3); }),
            Main("create", [], Abilities.None, bed => bed.Work("create", "new", created)),
            Main("unlink-upper", [], Abilities.None, bed => { bed.Work("create", "new", created); return bed.Work("unlink", "new", created); }),
            OfTree("unlink-lower", bed => After(bed, "stat", created).Work("unlink", "t", created), Abilities.Whiteouts),
            Main("rename-upper", [], Abilities.None, bed => { bed.Work("create", "new", created); return bed.Work("rename", "new", created); }),
            OfTree("copyup-append", bed => After(bed, "stat", copied).Work("append", "t", copied), Abilities.CopyUp),
            OfTree("copyup-chmod", bed => After(bed, "stat", copied).Work("chmod", "t", copied), Abilities.CopyUp),
            Main("copyup-big", ["big"], Abilities.CopyUp, bed => bed.Work("randwrite", "big", 1)),
            Main("seqread", ["big"], Abilities.None, bed => Twice(bed, "seqread", "big", big)),
            Main("seqread-cold", ["big"], Abilities.None, bed => bed.Work("seqread", "big", big)),
            Main("randread", ["big"], Abilities.None, bed => { bed.Work("seqread", "big", big); return bed.Work("randread", "big", sizes.Blocks * 5 / 2); }),
            Main("mmapread", ["big"], Abilities.None, bed => { bed.Work("seqread", "big", big); return bed.Work("mmapread", "big", 1); }),
            Main("seqwrite", [], Abilities.None, bed => bed.Work("seqwrite", "out", big)),
            Main("randwrite", [], Abilities.None, bed => { bed.Work("seqwrite", "out", big); return bed.Work("randwrite", "out", sizes.Blocks); }),
            OfTree("mixed-1t", bed => After(bed, "stat", created).Work("mixed", "t", created, 1)),
            OfTree("mixed-16t", bed => After(bed, "stat", created).Work("mixed", "t", created, 16)),
        ];

        static Row OfTree(string name, Func<Bed, double> measure, Abilities needs = Abilities.None) => Main(name, ["t"], needs, measure);

        static Row Main(string name, string[] parts, Abilities needs, Func<Bed, double> measure) =>
            new(name, Operations, Unit.NanosecondsPerOperation, "main", needs, measure) { Parts = parts };

        static double Twice(Bed bed, string operation, string path, int count)
        {
            bed.Work(operation, path, count);
            return bed.Work(operation, path, count);
        }

        static Bed After(Bed bed, string operation, int count)
        {
            bed.Work(operation, "t", count);
            return bed;
        }
    }

    private static IEnumerable<Row> GrowthRows(Sizes sizes)
    {
        foreach (int entries in (int[])[1_000, 10_000, 100_000])
        {
            yield return Of($"list-{entries}", $"entries-{entries}", Abilities.None, ("Listing, for each entry, by size of the directory", entries), bed => bed.Work("readdir", "flat", 1)) with { Parts = ["flat"] };
            yield return Of($"lookup-{entries}", $"entries-{entries}", Abilities.None, ("Looking a name up, by size of the directory", entries), bed => bed.Work("stat-flat", "flat", 1000)) with { Parts = ["flat"] };
        }
        foreach (int layers in (int[])[1, 8, 64])
        {
            yield return Of($"stat-cold-{layers}-lowers", $"layers-{layers}", Abilities.Layers, ("Looking a name up, by count of lower layers", layers), bed => bed.Work("stat", "t", Math.Min(sizes.Files, 2000)));
        }
        foreach (int depth in (int[])[1, 10, 100])
        {
            yield return Of($"copyup-depth-{depth}", $"depth-{depth}", Abilities.CopyUp | Abilities.Layers, ("Copying a file up, by its depth", depth), bed => bed.Work("append-each", "t", 1));
        }

        static Row Of(string name, string layers, Abilities needs, (string, double) point, Func<Bed, double> measure) =>
            new(name, Growth, Unit.NanosecondsPerOperation, layers, needs, measure) { Point = point };
    }

    private static IEnumerable<Row> ServerRows(Sizes sizes)
    {
        foreach (int lowers in (int[])[1, 128])
        {
            yield return new($"start-{lowers}-lowers", Server, Unit.Milliseconds, $"layers-{lowers}", Abilities.Layers, bed => bed.MountTime);
        }
        yield return new("mount-50", Server, Unit.Milliseconds, "layers-10", Abilities.Layers, MountFifty);
        yield return Memory("memory-idle", sizes.MemoryFiles, bed => bed.ServerMemory);
        foreach (int files in (int[])[sizes.MemoryFiles / 100, sizes.MemoryFiles / 10, sizes.MemoryFiles])
        {
            yield return Memory(files == sizes.MemoryFiles ? "memory-walked" : $"memory-walked-{files}", files, bed =>
            {
                bed.Work("walk", "t", 1);
                return bed.ServerMemory;
            }) with { Point = ("Memory after a walk, by count of files", files) };
        }
        yield return Memory("memory-forgotten", sizes.MemoryFiles, bed =>
        {
            bed.Work("walk", "t", 1);
            Sys.DropCaches();
            Thread.Sleep(2000); // what is forgotten arrives, and is given back, a little later
            return bed.ServerMemory;
        });

        static Row Memory(string name, int files, Func<Bed, double> measure) => new(name, Server, Unit.Mebibytes, $"files-{files}", Abilities.Server, measure);

        static double MountFifty(Bed bed)
        {
            var beds = new List<Bed>();
            try
            {
                return Bed.Clock(() => { while (beds.Count < 50) { beds.Add(bed.Another()); } });
            }
            finally
            {
                foreach (Bed each in beds) { each.Dispose(); }
            }
        }
    }

    private static IEnumerable<Row> WorkRows(Sizes sizes) =>
    [
        OfSource("untar", bed => bed.Shell("mkdir new; tar -xf $beside/source.tar -C new")) with { Parts = [] },
        OfSource("find-ls", bed => bed.Shell("find src -ls >/dev/null")),
        OfSource("du", bed => bed.Shell("du -s src >/dev/null")),
        OfSource("grep-r", bed => bed.Shell($"test $(grep -rl needle src | wc -l) = {(sizes.SourceFiles + 999) / 1000}")),
        OfSource("git-clone-status", bed => bed.Shell("git clone -q --no-local $beside/repository clone; test -z \"$(git -C clone status --porcelain)\"")) with { Parts = [], Program = "git" },
        OfSource("rm-rf", bed => { bed.Shell("cp -r src/part0/unit0 src/copy"); return bed.Shell("rm -rf src"); }) with { Needs = Abilities.Whiteouts },
        OfSource("sqlite-full", bed => bed.Shell("for i in $(seq 300); do echo 'insert into t(x) values(1);'; done | { echo 'pragma synchronous=full; create table t(x);'; cat; } | sqlite3 db")) with { Parts = [], Program = "sqlite3" },
    ];

    private static Row OfSource(string name, Func<Bed, double> measure) =>
        new(name, RealWork, Unit.Milliseconds, "source", Abilities.None, measure) { Parts = ["src"] };
}
