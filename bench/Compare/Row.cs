using System.Text.Json.Serialization;

namespace Veneer.Compare;

[JsonConverter(typeof(JsonStringEnumConverter<Unit>))]
internal enum Unit
{
    NanosecondsPerOperation,
    Milliseconds,
    Mebibytes,
    Count,
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
    public const string Operations = "operations", Growth = "growth", Server = "server", RealWork = "work", Rootless = "rootless";

    /// <summary>What of the layers a plain copy needs.</summary>
    public string[] Parts { get; init; } = [];

    /// <summary>What the upper layer holds before, as <see cref="Stand.Layers"/> knows it; null: nothing.</summary>
    public string? Upper { get; init; }

    /// <summary>A program without which it is left out.</summary>
    public string? Program { get; init; }

    /// <summary>The line in a plot, and where on it; what is sampled over time has only the line.</summary>
    public (string Line, double X)? Point { get; init; }

    /// <summary>How often it is measured, if not in every round.</summary>
    public int Rounds { get; init; } = int.MaxValue;

    /// <summary>Seconds that it takes by itself.</summary>
    public int Seconds { get; init; }

    /// <summary>What a run of two minutes has: the operations, and a little of the others.</summary>
    public static string[] OfSmoke { get; } =
    [
        Operations, "walk-directory-10000", "stat-cold-64-lowers", "start-1-lowers", "idle-switches", "churn", "memory-walked-10000",
        "untar", "grep-r",
        "stat-cold-rootless", "create-rootless",
    ];

    /// <summary>Every row, in the order of the table.</summary>
    public static IReadOnlyList<Row> All(Sizes sizes, int churnSeconds = 60) =>
        [.. OperationRows(sizes), .. RootlessRows(sizes), .. GrowthRows(sizes), .. ServerRows(sizes, churnSeconds), .. WorkRows(sizes)];

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
            Main("readdir-10k", ["flat"], Abilities.None,
                bed => { bed.Work("readdir", "flat", 1); return bed.Work("readdir", "flat", 3); }),
            Main("create", [], Abilities.None, bed => bed.Work("create", "new", created)),
            Main("unlink-upper", [], Abilities.None,
                bed => { bed.Work("create", "new", created); return bed.Work("unlink", "new", created); }),
            OfTree("unlink-lower", bed => After(bed, "stat", created).Work("unlink", "t", created), Abilities.Whiteouts),
            Main("rename-upper", [], Abilities.None,
                bed => { bed.Work("create", "new", created); return bed.Work("rename", "new", created); }),
            OfTree("copyup-append", bed => After(bed, "stat", copied).Work("append", "t", copied), Abilities.CopyUp),
            OfTree("copyup-chmod", bed => After(bed, "stat", copied).Work("chmod", "t", copied), Abilities.CopyUp),
            Main("copyup-big", ["big"], Abilities.CopyUp, bed => bed.Work("randwrite", "big", 1)),
            Main("seqread", ["big"], Abilities.None, bed => Twice(bed, "seqread", "big", big)),
            Main("seqread-cold", ["big"], Abilities.None, bed => bed.Work("seqread", "big", big)),
            Main("randread", ["big"], Abilities.None,
                bed => { bed.Work("seqread", "big", big); return bed.Work("randread", "big", sizes.Blocks * 5 / 2); }),
            Main("mmapread", ["big"], Abilities.None, bed => { bed.Work("seqread", "big", big); return bed.Work("mmapread", "big", 1); }),
            Main("seqwrite", [], Abilities.None, bed => bed.Work("seqwrite", "out", big)),
            Main("randwrite", [], Abilities.None,
                bed => { bed.Work("seqwrite", "out", big); return bed.Work("randwrite", "out", sizes.Blocks); }),
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

    /// <summary>The operations once more, by those who have no privilege.</summary>
    private static IEnumerable<Row> RootlessRows(Sizes sizes) =>
        OperationRows(sizes).Select(row => row with { Name = $"{row.Name}-rootless", Group = Rootless });

    private static IEnumerable<Row> GrowthRows(Sizes sizes)
    {
        int[] counts = [sizes.Most / 100, sizes.Most / 10, sizes.Most];
        foreach (int entries in counts)
        {
            string layers = $"entries-{entries}";
            yield return Of($"list-{entries}", layers, "Listing a directory, for each entry, by its size", entries,
                bed => bed.Work("readdir", "flat", 1));
            yield return Of($"walk-directory-{entries}", layers, "Listing and stat, for each entry, by size of the directory", entries,
                bed => bed.Work("walk", "flat", 1));
            yield return Of($"lookup-{entries}", layers, "Looking a name up, by size of the directory", entries,
                bed => bed.Work("stat-flat", "flat", 1000));
        }
        foreach (int files in counts)
        {
            yield return Of($"walk-files-{files}", $"files-{files}", "Walking a tree, for each file, by count of files", files,
                bed => bed.Work("walk", "t", 1));
        }
        foreach (int files in counts)
        {
            const string line = "Listing 100 changes, for each, by count of files in lower";
            yield return Of($"diff-100-of-{files}", $"files-{files}", line, files, bed =>
            {
                bed.Shell("find t -type f | head -n 100 | while read -r file; do echo x >>\"$file\"; done");
                return bed.Diff() * 1e6 / 100;
            }) with { Needs = Abilities.Layers | Abilities.CopyUp | Abilities.Format, Program = Mounter.Binary };
        }
        foreach (int whiteouts in counts)
        {
            yield return Of(
                $"list-whiteouts-{whiteouts}", $"entries-{whiteouts}",
                "Listing a directory that upper hides, for each whiteout, by their count", whiteouts,
                bed => bed.Work("list", "flat", whiteouts))
                with { Needs = Abilities.Layers | Abilities.Format, Upper = $"whiteouts-{whiteouts}" };
        }
        foreach (int layers in (int[])[1, 8, 64, 128])
        {
            yield return Of($"stat-cold-{layers}-lowers", $"layers-{layers}", "Looking a name up, by count of lower layers", layers,
                bed => bed.Work("stat", "t", Math.Min(sizes.Files, 2000)));
        }
        foreach (int depth in (int[])[1, 10, 100])
        {
            yield return Of($"copyup-depth-{depth}", $"depth-{depth}", "Copying a file up, by its depth", depth,
                bed => bed.Work("append-each", "t", 1))
                with { Needs = Abilities.CopyUp | Abilities.Layers };
        }

        // A plain copy of a million files would take longer than all else.
        static Row Of(string name, string layers, string line, int x, Func<Bed, double> measure) =>
            new(name, Growth, Unit.NanosecondsPerOperation, layers, Abilities.Layers, measure)
            {
                Point = (line, x),
                Rounds = x > 100_000 ? 2 : int.MaxValue,
            };
    }

    private static IEnumerable<Row> ServerRows(Sizes sizes, int churnSeconds)
    {
        foreach (int lowers in (int[])[1, 128, 500])
        {
            // mount(2) takes a page of options: the kernel's overlayfs is not asked for 500 in this way.
            Abilities needs = lowers > 128 ? Abilities.Layers | Abilities.Server : Abilities.Layers;
            yield return new($"start-{lowers}-lowers", Server, Unit.Milliseconds, $"layers-{lowers}", needs, bed => bed.MountTime)
            {
                Point = ("Mounting until the first stat, by count of lower layers", lowers),
            };
        }
        yield return new("idle-switches", Server, Unit.Count, "main", Abilities.Server, bed =>
        {
            bed.Work("walk", "t", 1);
            Thread.Sleep(1000); // threads that wait for the next request a little go to sleep
            double before = bed.ServerSwitches;
            Thread.Sleep(sizes.IdleSeconds * 1000);
            return bed.ServerSwitches - before;
        }) { Rounds = 2 };
        yield return new("churn", Server, Unit.Mebibytes, "main", Abilities.Server, bed => Churn(bed, churnSeconds))
        {
            Rounds = 1, Seconds = churnSeconds, Point = ("Memory while files come and go, by seconds", 0),
        };
        foreach (int files in (int[])[sizes.Most / 100, sizes.Most / 10, sizes.Most])
        {
            if (files == sizes.Most / 100) { yield return Memory("memory-idle", files, bed => bed.ServerMemory); }
            yield return Memory($"memory-walked-{files}", files, bed =>
            {
                bed.Work("walk", "t", 1);
                return bed.ServerMemory;
            }) with { Point = ("Memory after a walk, by count of files", files) };
            yield return Memory($"memory-forgotten-{files}", files, bed =>
            {
                bed.Work("walk", "t", 1);
                bed.Forget();
                return bed.ServerMemory;
            }) with { Point = ("Memory after the kernel has forgotten what was walked, by count of files", files) };
        }

        static Row Memory(string name, int files, Func<Bed, double> measure) =>
            new(name, Server, Unit.Mebibytes, $"files-{files}", Abilities.Server, measure) { Rounds = 2 };
    }

    /// <summary>Creates and removes files for some time, and looks at the server's memory meanwhile.</summary>
    /// <returns>By how many MiB it has grown since a fifth of the time was over.</returns>
    private static double Churn(Bed bed, int seconds)
    {
        long start = System.Diagnostics.Stopwatch.GetTimestamp();
        using var tick = new Timer(_ => Sample(), null, 1000, Math.Max(1000, seconds * 10));
        bed.Work("churn", "new", seconds);
        tick.Change(Timeout.Infinite, Timeout.Infinite);
        Sample();
        lock (bed.Samples)
        {
            double first = bed.Samples.First(sample => sample[0] >= seconds / 5.0)[1];
            return bed.Samples[^1][1] - first;
        }

        void Sample()
        {
            lock (bed.Samples) { bed.Samples.Add([System.Diagnostics.Stopwatch.GetElapsedTime(start).TotalSeconds, bed.ServerMemory]); }
        }
    }

    private static IEnumerable<Row> WorkRows(Sizes sizes) =>
    [
        OfSource("untar", bed => bed.Shell("mkdir new; tar -xf $beside/source.tar -C new")) with { Parts = [] },
        OfSource("find-ls", bed => bed.Shell("find src -ls >/dev/null")),
        OfSource("ls-lR", bed => bed.Shell("ls -lR src >/dev/null")),
        OfSource("du", bed => bed.Shell("du -s src >/dev/null")),
        OfSource("grep-r", bed => bed.Shell($"test $(grep -rl needle src | wc -l) = {(sizes.SourceFiles + 999) / 1000}")),
        OfSource("git-clone-status",
            bed => bed.Shell("git clone -q --no-local $beside/repository clone; test -z \"$(git -C clone status --porcelain)\""))
            with { Parts = [], Program = "git" },
        OfSource("git-status", bed => bed.Shell("test -z \"$(git -C repository status --porcelain)\""))
            with { Parts = ["repository"], Program = "git" },
        OfSource("rm-rf", bed => { bed.Shell("cp -r src/part0/unit0 src/copy"); return bed.Shell("rm -rf src"); })
            with { Needs = Abilities.Whiteouts },
        OfSource(
            "sqlite-full",
            bed => bed.Shell(
                "for i in $(seq 300); do echo 'insert into t(x) values(1);'; done | { echo 'pragma synchronous=full; create table t(x);'; "
                + "cat; } | sqlite3 db"))
            with { Parts = [], Program = "sqlite3" },
        OfSource(
            "fio-randwrite",
            bed => bed.Shell(
                $"fio --name=job --filename=out --size={sizes.BigFile}M --rw=randwrite --bs=4k --ioengine=psync --randseed=1 --end_fsync=1 "
                + "--output=/dev/null"))
            with { Parts = [], Program = "fio" },
        Of("mount-50", "layers-10", Abilities.Layers, bed => Bed.Clock(() => { for (int i = 0; i < 50; i++) { bed.AddAnother(); } })),
        Of("npm-ci", "npm", Abilities.None,
            bed => bed.Shell("cd project; npm ci --offline --cache $beside/npm --no-audit --no-fund --ignore-scripts --silent"))
            with { Parts = ["project"], Rounds = 3, Program = "npm" },
        Of(
            "dotnet-build", "dotnet", Abilities.None,
            bed => bed.Shell(
                $"cd app/App; {Stand.DotNetSettings} dotnet build --nologo -nodeReuse:false --verbosity quiet; "
                + "test -s bin/Debug/net*/App.dll"))
            with { Parts = ["app"], Rounds = 3, Program = "dotnet" },
        Of("apt-install", "debian", Abilities.CopyUp | Abilities.Whiteouts | Abilities.Layers, bed => bed.Shell(Stand.InstallPackages))
            with { Rounds = 3, Program = "debootstrap" },
    ];

    private static Row OfSource(string name, Func<Bed, double> measure) =>
        Of(name, "source", Abilities.None, measure) with { Parts = ["src"] };

    private static Row Of(string name, string layers, Abilities needs, Func<Bed, double> measure) =>
        new(name, RealWork, Unit.Milliseconds, layers, needs, measure);
}
