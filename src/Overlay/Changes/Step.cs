using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Changes;

/// <summary>One name that a walk through upper has found.</summary>
internal sealed class Step
{
    /// <summary>The path from the root of the overlay, without a NUL.</summary>
    public required byte[] Path { get; init; }

    /// <summary>The directory that holds the name.</summary>
    public required DirectoryStack Parent { get; init; }

    /// <summary>The name, with its NUL.</summary>
    public required byte[] Name { get; init; }

    /// <summary>The topmost real object; it does not exist where upper has a whiteout.</summary>
    public required Found Found { get; init; }

    /// <summary>Everything behind the object.</summary>
    public Whole Whole { get; init; }

    /// <summary>What the baseline has under this name, in the baseline's directory of the parent; null when it has nothing.</summary>
    public Baseline? Base { get; init; }

    /// <summary>The real directories behind a directory; null for any other object.</summary>
    public DirectoryStack? Directory { get; init; }

    /// <summary>
    /// For a directory: the baseline's path of the directories that show through it, without a NUL; null when none does.
    /// </summary>
    public byte[]? Source { get; init; }

    /// <summary>Whether the name is in a renamed directory that is walked completely.</summary>
    public bool IsWhole { get; init; }

    /// <summary>Whether this is a directory that the baseline has under another name.</summary>
    public bool IsRenamedDirectory => Source is not null && !(Base is not null && Source.AsSpan().SequenceEqual(Base.Path));

    /// <summary>The real object that holds the attributes.</summary>
    public RealName Real => Found.HasUpper
        ? new RealName(Parent.Upper!, Name)
        : new RealName(Whole.LowerDirectory ?? Found.LowerDirectory!, Whole.LowerName ?? Name);

    /// <summary>The real object that holds a file's data.</summary>
    public RealName Data => Whole.Metacopy ?? Real;
}
