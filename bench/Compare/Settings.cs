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

    /// <summary>Further contenders: <c>NAME=COMMAND</c>.</summary>
    public required string[] Also { get; init; }

    /// <summary>No row is begun after so long.</summary>
    public required TimeSpan Time { get; init; }

    /// <summary>A measurement that takes longer is given up.</summary>
    public required int Limit { get; init; }

    public required DirectoryInfo Output { get; init; }

    /// <summary>Whether rows that are not measured now keep what an earlier run has found.</summary>
    public required bool Keep { get; init; }

    public required Sizes Sizes { get; init; }

    /// <summary>Seconds for which files come and go.</summary>
    public required int ChurnSeconds { get; init; }
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

    /// <summary>The largest directory, upper and tree; the others have a tenth and a hundredth of it.</summary>
    public int Most { get; init; } = 1_000_000;

    /// <summary>Seconds for which an idle server is watched.</summary>
    public int IdleSeconds { get; init; } = 10;

    /// <summary>For a run of two minutes.</summary>
    public static Sizes Smoke { get; } = new()
    {
        Files = 1_000, NewFiles = 500, CopyUps = 200, Entries = 2_000, BigFile = 32, Blocks = 5_000, SourceFiles = 2_000, Most = 10_000,
        IdleSeconds = 1,
    };
}
