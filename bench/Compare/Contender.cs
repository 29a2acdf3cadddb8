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
    /// <summary>Reads an upper that the kernel's overlayfs has written.</summary>
    Format = 16,
    All = Layers | CopyUp | Whiteouts | Server | Format,
}

/// <summary>Who is measured.</summary>
/// <param name="Name">The column.</param>
/// <param name="Can">What it can do.</param>
/// <param name="Command">How it is mounted, as <see cref="Mounter.Parse"/> knows it; null for a plain copy of the layers.</param>
/// <param name="Options">Further options.</param>
/// <param name="Program">What must be installed, if anything.</param>
/// <param name="IsRootless">Whether it is mounted in a user namespace, without a privilege outside of it.</param>
internal sealed record Contender(string Name, Abilities Can, string? Command, string Options = "", string? Program = null,
    bool IsRootless = false)
{
    /// <summary>What all ratios are to.</summary>
    public const string Base = "kernel";

    public const string Veneer = "veneer",
        WithoutRing = "veneer,io_uring=off",
        Volatile = "veneer,volatile",
        Peer = "fuse-overlayfs",
        Rootless = ",rootless";

    private const string PeerCommand = "fuse-overlayfs -o {options} {mnt}";

    private static readonly string rootlessVeneer = $"{Mounter.Binary} mount -o {{options}} {{mnt}}";

    public static IReadOnlyList<Contender> All { get; } =
    [
        new("native", Abilities.CopyUp | Abilities.Whiteouts, null),
        new(Base, Abilities.Layers | Abilities.CopyUp | Abilities.Whiteouts | Abilities.Format, "kernel"),
        new(Veneer, Abilities.All, "veneer", Program: Mounter.Binary),
        new(WithoutRing, Abilities.All, "veneer", "io_uring=off", Mounter.Binary),
        new(Volatile, Abilities.All, "veneer", "volatile", Mounter.Binary),
        new(Peer, Abilities.All, PeerCommand, Program: "fuse-overlayfs"),
        new("unionfs-fuse", Abilities.All & ~Abilities.Format, "unionfs -o cow {branches} {mnt}", Program: "unionfs"),
        new("mergerfs", Abilities.Layers | Abilities.Server, "mergerfs -o category.create=ff {branches} {mnt}", Program: "mergerfs"),
        new(Veneer + Rootless, Abilities.All, rootlessVeneer, "userxattr", Mounter.Binary, IsRootless: true),
        new(WithoutRing + Rootless, Abilities.All, rootlessVeneer, "userxattr,io_uring=off", Mounter.Binary, IsRootless: true),
        new(Volatile + Rootless, Abilities.All, rootlessVeneer, "userxattr,volatile", Mounter.Binary, IsRootless: true),
        new(Peer + Rootless, Abilities.All, PeerCommand, Program: "fuse-overlayfs", IsRootless: true),
    ];

    /// <summary>Another one from the command line: <c>NAME=COMMAND</c>.</summary>
    public static Contender Parse(string text) => new(text.Split('=', 2)[0], Abilities.All, text.Split('=', 2)[1]);

    /// <summary>Who mounts it.</summary>
    /// <param name="prefix">Words before each command: the way into a namespace.</param>
    public Mounter? MounterBehind(string prefix) =>
        Command is null ? null
            : prefix.Length == 0 ? Mounter.Parse(Command, null)
            : Mounter.Parse($"{prefix} {Command}", $"{prefix} umount {{mnt}}");

    /// <summary>
    /// Whether the contender has all that a row needs. Rows without privilege are for the rootless contenders, with the kernel's
    /// overlayfs to compare with.
    /// </summary>
    public bool CanDo(Row row) =>
        (row.Needs & ~Can) == 0 && (IsRootless == (row.Group == Row.Rootless) || (row.Group == Row.Rootless && Name == Base));

    /// <summary>Whether what it needs is there.</summary>
    public bool IsInstalled => Program is null || IsThere(Program);

    /// <summary>Whether a program is on the PATH.</summary>
    public static bool IsThere(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(directory => File.Exists(Path.Combine(directory, program)));
}
