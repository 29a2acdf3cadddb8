namespace Veneer.Compare;

/// <summary>What a row asks of who is measured.</summary>
[Flags]
internal enum Abilities
{
    None = 0,
    /// <summary>Puts several layers together.</summary>
    Layers = 1,
    /// <summary>Changes a lower file by copying it to upper.</summary>
    CopyUp = 2,
    /// <summary>Removes a lower file by a whiteout.</summary>
    Whiteouts = 4,
    /// <summary>Has a server, whose memory can be looked at.</summary>
    Server = 8,
    All = Layers | CopyUp | Whiteouts | Server,
}

/// <summary>Who is measured.</summary>
/// <param name="Name">The column.</param>
/// <param name="Can">What it can do.</param>
/// <param name="Mounter">How it is mounted; null for a plain copy of the layers.</param>
/// <param name="Options">Further options.</param>
/// <param name="Program">What must be installed, if anything.</param>
internal sealed record Contender(string Name, Abilities Can, Mounter? Mounter, string Options = "", string? Program = null)
{
    /// <summary>What all ratios are to.</summary>
    public const string Base = "kernel";

    private static readonly Mounter Veneer = Mounter.Parse(null, null);

    public static IReadOnlyList<Contender> All { get; } =
    [
        new("native", Abilities.CopyUp | Abilities.Whiteouts, null),
        new(Base, Abilities.Layers | Abilities.CopyUp | Abilities.Whiteouts, Mounter.Kernel),
        new("veneer", Abilities.All, Veneer, Program: Mounter.Binary),
        new("veneer,io_uring=off", Abilities.All, Veneer, "io_uring=off", Mounter.Binary),
        new("veneer,volatile", Abilities.All, Veneer, "volatile", Mounter.Binary),
        new("fuse-overlayfs", Abilities.All, Mounter.Parse("fuse-overlayfs", null), Program: "fuse-overlayfs"),
        new("unionfs-fuse", Abilities.All, Mounter.Parse("unionfs -o cow {branches} {mnt}", null), Program: "unionfs"),
        new("mergerfs", Abilities.Layers | Abilities.Server, Mounter.Parse("mergerfs -o category.create=ff {branches} {mnt}", null), Program: "mergerfs"),
    ];

    /// <summary>Whether it has all that a row needs.</summary>
    public bool CanDo(Row row) => (row.Needs & ~Can) == 0;

    /// <summary>Whether what it needs is there.</summary>
    public bool IsInstalled => Program is null || IsThere(Program);

    /// <summary>Whether a program is on the PATH.</summary>
    public static bool IsThere(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(directory => File.Exists(Path.Combine(directory, program)));
}
