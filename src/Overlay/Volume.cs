using Veneer.Overlay.Durability;
using Veneer.Overlay.Host;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay;

/// <summary>One opened overlay: everything that its parts are wired with.</summary>
internal sealed class Volume
{
    /// <summary>The options of the mount.</summary>
    public required OverlayOptions Options { get; init; }

    /// <summary>Whether the user asked for user attributes, which the kernel then uses in all layers.</summary>
    public required bool IsUserXattrAsked { get; init; }

    /// <summary>The tree of objects.</summary>
    public required ObjectTree Tree { get; init; }

    /// <summary>Upper, as it is written.</summary>
    public required UpperLayer Upper { get; init; }

    /// <summary>The mark of a volatile upper; null when upper is not volatile.</summary>
    public required VolatileMark? Mark { get; init; }

    /// <summary>Watches all errors of upper's filesystem; null where only errors of open files can be noticed.</summary>
    public required ErrorSentinel? Sentinel { get; init; }

    /// <summary>An O_PATH descriptor of work through the mount in which it was named; -1 when the overlay has no work.</summary>
    public int NamedWork { get; init; } = -1;

    /// <summary>Keeps the layers from being removed or renamed; null without the option pin.</summary>
    public Pin? Pin { get; init; }

    /// <summary>The layers as they were named.</summary>
    public required IReadOnlyList<Place> Places { get; init; }

    /// <summary>The locks on upper and work.</summary>
    public required InUseLock InUse { get; init; }

    /// <summary>The most files that users may have open at once.</summary>
    public required int MaxOpenFiles { get; init; }

    /// <summary>Called with one line for each problem of which no caller is told.</summary>
    public required Action<string> Log { get; init; }
}
