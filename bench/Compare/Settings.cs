namespace Veneer.Compare;

/// <summary>What is asked for on the command line.</summary>
internal sealed record Settings
{
    public required Filesystem Filesystem { get; init; }

    public required int Rounds { get; init; }

    /// <summary>Names of rows or of groups; empty: all.</summary>
    public required string[] Rows { get; init; }

    /// <summary>Names; empty: all.</summary>
    public required string[] Contenders { get; init; }

    /// <summary>No row is begun after so long.</summary>
    public required TimeSpan Time { get; init; }

    /// <summary>A measurement that takes longer is given up.</summary>
    public required int Limit { get; init; }

    public required DirectoryInfo Output { get; init; }

    public required Sizes Sizes { get; init; }
}

/// <summary>How much is done in a row. The cost of an operation hardly depends on it, how sure it is does.</summary>
internal sealed record Sizes
{
    /// <summary>Files of the tree in the lower layers.</summary>
    public int Files { get; init; } = 10_000;

    /// <summary>Files that are created.</summary>
    public int NewFiles { get; init; } = 5_000;

    /// <summary>Files that are copied up.</summary>
    public int CopyUps { get; init; } = 2_000;

    /// <summary>Entries of the flat directory.</summary>
    public int Entries { get; init; } = 10_000;

    /// <summary>MiB of the large file.</summary>
    public int BigFile { get; init; } = 256;

    /// <summary>Reads and writes here and there in the large file.</summary>
    public int Blocks { get; init; } = 20_000;

    /// <summary>Files of the source tree.</summary>
    public int SourceFiles { get; init; } = 50_000;

    /// <summary>Files that are walked before memory is looked at.</summary>
    public int MemoryFiles { get; init; } = 100_000;

    /// <summary>For a run of two minutes.</summary>
    public static Sizes Smoke { get; } = new()
    {
        Files = 1_000, NewFiles = 500, CopyUps = 200, Entries = 2_000, BigFile = 32, Blocks = 5_000, SourceFiles = 2_000, MemoryFiles = 10_000,
    };
}
