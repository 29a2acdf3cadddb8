using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Changes;

/// <summary>One name that a walk came by.</summary>
internal sealed class Step
{
    /// <summary>From the root of the overlay, without NUL.</summary>
    public required byte[] Path { get; init; }

    /// <summary>The directory that holds the name.</summary>
    public required DirectoryStack Parent { get; init; }

    /// <summary>With its NUL.</summary>
    public required byte[] Name { get; init; }

    /// <summary>What is there; nothing exists where upper has a whiteout.</summary>
    public required Found Found { get; init; }

    /// <summary>What is behind what is there.</summary>
    public Whole Whole { get; init; }

    /// <summary>What the baseline has under this name, in the directory that the parent stands for; null when nothing.</summary>
    public Baseline? Base { get; init; }

    /// <summary>For a directory: what it consists of.</summary>
    public DirectoryStack? Directory { get; init; }

    /// <summary>For a directory: the path in the baseline of what shows through it, without NUL; null when nothing does.</summary>
    public byte[]? Source { get; init; }

    /// <summary>Whether this is in a renamed directory, of which everything is walked.</summary>
    public bool IsWhole { get; init; }

    /// <summary>Whether a directory shows what the baseline has under another name.</summary>
    public bool IsRenamedDirectory => Source is not null && !(Base is not null && Source.AsSpan().SequenceEqual(Base.Path));

    /// <summary>The object that holds the attributes.</summary>
    public RealName Real => Found.HasUpper ? new RealName(Parent.Upper!, Name) : new RealName(Whole.LowerDirectory ?? Found.LowerDirectory!, Whole.LowerName ?? Name);

    /// <summary>The object that holds a file's data.</summary>
    public RealName Data => Whole.Metacopy ?? Real;
}
