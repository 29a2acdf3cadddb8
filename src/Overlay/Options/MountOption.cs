namespace Veneer.Overlay;

/// <summary>Who gave a mount option its name and its meaning.</summary>
public enum OptionSource
{
    /// <summary>The kernel's overlayfs.</summary>
    Kernel,
    /// <summary>Veneer.</summary>
    Veneer,
    /// <summary>mount(8), for any filesystem.</summary>
    Mount,
    /// <summary>libfuse, and filesystems built on it, such as fuse-overlayfs.</summary>
    Fuse,
}

/// <summary>What a mount option is about.</summary>
public enum OptionKind
{
    /// <summary>Which directories make the overlay, or where it is said to come from.</summary>
    Place,
    /// <summary>How the overlay behaves.</summary>
    Behaviour,
    /// <summary>A flag of the mount, or its opposite.</summary>
    Flag,
    /// <summary>What is to be done, and not what is mounted.</summary>
    Request,
    /// <summary>It is for mount(8), systemd or another caller, and says nothing to a filesystem.</summary>
    Ignored,
    /// <summary>Another overlay has it, and nothing is lost without: it has no effect, and a sentence says so.</summary>
    Harmless,
    /// <summary>Another overlay has it, and without it something else would be shown, or to others: it is refused.</summary>
    Refused,
}

/// <summary>A mount option: who knows it, what it takes, what it means, and how it is read.</summary>
/// <remarks><see cref="OptionTable"/> has them all. The parser, the manual and completions come from there.</remarks>
public sealed class MountOption
{
    internal MountOption(string name, OptionSource source, OptionKind kind, string value, string? meaning, Action<OptionParser, string, string?> read) =>
        (Name, Source, Kind, Value, Meaning, Read) = (name, source, kind, value, meaning, read);

    /// <summary>The name, without <c>=</c>.</summary>
    public string Name { get; }

    /// <summary>Who gave it its name and meaning.</summary>
    public OptionSource Source { get; }

    /// <summary>What it is about.</summary>
    public OptionKind Kind { get; }

    /// <summary>What is written after the name, with <c>=</c>, as the manual shows it; empty for an option without a value.</summary>
    public string Value { get; }

    /// <summary>What it means, for users, in lines of at most 72 characters; null where the next option that has one says so for both.</summary>
    public string? Meaning { get; }

    /// <summary>Whether the manual shows it.</summary>
    public bool IsShown => Kind is OptionKind.Place or OptionKind.Behaviour or OptionKind.Flag or OptionKind.Request;

    /// <summary>Takes over what is given: the parser, the name as it was given, and the value, if any.</summary>
    /// <exception cref="OverlayMountException">The value is not understood, or the option is refused.</exception>
    internal Action<OptionParser, string, string?> Read { get; }
}
