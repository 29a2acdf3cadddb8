namespace Veneer.Oracle;

/// <summary>Parts of the operations and layers that can be left out or added.</summary>
[Flags]
public enum Features
{
    None = 0,
    Xattrs = 1,
    Special = 2,
    Descriptors = 4,
    RenameFlags = 8,
    Unnamed = 16,
    Allocate = 32,
    CopyRange = 64,
    Users = 128,
    LongNames = 256,
    Acl = 512,
    Maps = 1024,
    OverlayXattrs = 2048,
    Holes = 4096,
    Remounts = 8192,

    /// <summary>Hard links in lower layers: see <see cref="KnownDifferences"/>.</summary>
    LowerLinks = 1 << 14,

    /// <summary>Whiteouts with nothing below them: see <see cref="KnownDifferences"/>.</summary>
    LoneWhiteouts = 1 << 15,

    All = (1 << 16) - 1,
    Default = All & ~(LowerLinks | LoneWhiteouts),
}

/// <summary>What is compared, over which layers, and for how long.</summary>
public sealed record Settings
{
    public Mounter Tested { get; init; } = Mounter.UnderTest;

    public Mounter Reference { get; init; } = Mounter.Kernel;

    /// <summary>Mount options of both.</summary>
    public string Options { get; init; } = "";

    /// <summary>Further options of the tested one.</summary>
    public string TestedOptions { get; init; } = "";

    public int FirstSeed { get; init; } = 1;

    public int LastSeed { get; init; } = int.MaxValue;

    /// <summary>When to stop, whatever seeds are left.</summary>
    public TimeSpan Time { get; init; } = TimeSpan.MaxValue;

    public int Operations { get; init; } = 120;

    /// <summary>Lower layers; 0: one to three, by the seed.</summary>
    public int Layers { get; init; }

    public Filesystem Filesystem { get; init; }

    public Features Features { get; init; } = Features.Default;

    /// <summary>The longest time to look for a shorter list of operations with the same difference.</summary>
    public TimeSpan MinimiseTime { get; init; } = TimeSpan.FromSeconds(60);

    public int LayersFor(int seed) => Layers > 0 ? Layers : 1 + Dice.For(seed, "layers").Below(3);

    public bool Has(Features feature) => (Features & feature) != 0;
}
