using Veneer.Overlay.Durability;
using Veneer.Overlay.Host;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay;

/// <summary>One overlay, opened: what the rooms are wired with.</summary>
internal sealed class Volume
{
    /// <summary>As the user asked.</summary>
    public required OverlayOptions Options { get; init; }

    /// <summary>Whether the user asked for the user's attributes, as the kernel does it in all layers.</summary>
    public required bool IsUserXattrAsked { get; init; }

    /// <summary>The objects.</summary>
    public required ObjectTree Tree { get; init; }

    /// <summary>Upper, as it is written.</summary>
    public required UpperLayer Upper { get; init; }

    /// <summary>The mark of a volatile upper; null when upper is none.</summary>
    public required VolatileMark? Mark { get; init; }

    /// <summary>All errors of upper's filesystem, or null where those of open files must do.</summary>
    public required ErrorSentinel? Sentinel { get; init; }

    /// <summary>A descriptor, O_PATH, of work through the mount that it was named in; -1 when read-only.</summary>
    public int NamedWork { get; init; } = -1;

    /// <summary>What keeps the layers in their places, if they are to be.</summary>
    public Pin? Pin { get; init; }

    /// <summary>The layers as they were named.</summary>
    public required IReadOnlyList<Place> Places { get; init; }

    /// <summary>The locks on upper and work.</summary>
    public required InUseLock InUse { get; init; }

    /// <summary>How many files users may have open at once.</summary>
    public required int MaxOpenFiles { get; init; }

    /// <summary>One line about something that went wrong and is not told to a caller.</summary>
    public required Action<string> Log { get; init; }
}
