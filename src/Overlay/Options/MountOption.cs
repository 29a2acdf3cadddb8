namespace Veneer.Overlay;

/// <summary>Where a mount option comes from.</summary>
public enum OptionSource
{
    /// <summary>Kernel overlayfs.</summary>
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
    /// <summary>Which directories make up the overlay, or which source it shows.</summary>
    Place,
    /// <summary>How the overlay behaves.</summary>
    Behaviour,
    /// <summary>A flag of the mount, or its opposite.</summary>
    Flag,
    /// <summary>What to do, rather than what to mount.</summary>
    Request,
    /// <summary>An option for mount(8), systemd or another caller, without a meaning for the filesystem.</summary>
    Ignored,
    /// <summary>An option of another overlay whose absence does no harm: it has no effect, and a warning says so.</summary>
    Harmless,
    /// <summary>
    /// An option of another overlay without which the overlay would show something else, or show it to others: it is
    /// refused.
    /// </summary>
    Refused,
}

/// <summary>A mount option: its origin, its value, its meaning, and how it is read.</summary>
/// <remarks><see cref="OptionTable"/> lists all options. The parser, the manual and completions use that table.</remarks>
public sealed class MountOption
{
    internal MountOption(string name, OptionSource source, OptionKind kind, string value, IReadOnlyList<string> choices, string? meaning,
        Action<OptionParser, string, string?> read) =>
        (Name, Source, Kind, Value, Choices, Meaning, Read) = (name, source, kind, value, choices, meaning, read);

    /// <summary>The name, without <c>=</c>.</summary>
    public string Name { get; }

    /// <summary>Where the option comes from.</summary>
    public OptionSource Source { get; }

    /// <summary>What the option is about.</summary>
    public OptionKind Kind { get; }

    /// <summary>The value as the manual shows it, with <c>=</c>; empty for an option without a value.</summary>
    public string Value { get; }

    /// <summary>The words that the value is one of; empty for an option with any other value, or without one.</summary>
    public IReadOnlyList<string> Choices { get; }

    /// <summary>
    /// The meaning, for users, in lines of at most 72 characters. Null where the next option that has one describes both.
    /// </summary>
    public string? Meaning { get; }

    /// <summary>Whether the manual shows the option.</summary>
    public bool IsShown => Kind is OptionKind.Place or OptionKind.Behaviour or OptionKind.Flag or OptionKind.Request;

    /// <summary>Reads the option. The arguments are the parser, the name as it was given, and the value or null.</summary>
    /// <exception cref="OverlayMountException">The value is not understood, or the option is refused.</exception>
    internal Action<OptionParser, string, string?> Read { get; }
}
