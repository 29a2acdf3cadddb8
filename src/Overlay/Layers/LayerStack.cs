using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Layers;

/// <summary>The layers of one overlay.</summary>
/// <param name="upper">Upper; null when there is none.</param>
/// <param name="lowers">The lowers, topmost first; at least one.</param>
/// <param name="upperXattr">The names of the overlay's attributes in upper.</param>
/// <param name="lowerXattr">
/// The names of the overlay's attributes in the lowers. They differ from upper's if upper takes only user attributes.
/// </param>
internal sealed class LayerStack(Layer? upper, Layer[] lowers, OverlayXattr upperXattr, OverlayXattr lowerXattr)
{
    /// <summary>The longest name in bytes where no filesystem says otherwise (NAME_MAX).</summary>
    private const int MaxName = 255;

    private readonly Layer[] lowers = lowers;

    /// <summary>Upper; null when there is none.</summary>
    public Layer? Upper => upper;

    /// <summary>The lowers, topmost first.</summary>
    public ReadOnlySpan<Layer> Lowers => lowers;

    /// <summary>Upper, if there is one, and the lowers, topmost first.</summary>
    public IEnumerable<Layer> All => upper is null ? lowers : lowers.Prepend(upper);

    /// <summary>The topmost layer.</summary>
    public Layer Topmost => upper ?? lowers[0];

    /// <summary>The layer with an index: see <see cref="Layer.Index"/>.</summary>
    public Layer this[int index] => index == Layer.UpperIndex ? upper! : lowers[index - 1];

    /// <summary>The index of the lowest layer.</summary>
    public int LowestIndex => lowers.Length;

    /// <summary>The roots of the lowers, topmost first. Absolute redirects start there.</summary>
    public RealDirectory[] LowerRoots { get; } = [.. lowers.Select(lower => lower.Root)];

    /// <summary>Names of the overlay's attributes in upper.</summary>
    public OverlayXattr UpperXattr => upperXattr;

    /// <summary>Names of the overlay's attributes in the lowers.</summary>
    public OverlayXattr LowerXattr => lowerXattr;

    /// <summary>Names of the overlay's attributes in a layer.</summary>
    public OverlayXattr XattrOf(Layer layer) => layer.IsUpper ? upperXattr : lowerXattr;

    /// <summary>What distinguishes the objects of upper from each other.</summary>
    public RealIdentity UpperIdentity => upper?.Identity ?? RealIdentity.Numbers;

    /// <summary>
    /// The longest name that the overlay accepts, in bytes: upper's limit, or without upper the longest limit of any lower.
    /// </summary>
    public int NameLength { get; init; } = MaxName;

    /// <summary>Asks the filesystems for the longest name: see <see cref="NameLength"/>.</summary>
    public static int NameLengthOf(Layer? upper, Layer[] lowers)
    {
        if (upper is not null && !Libc.StatFileSystem(upper.Root.Descriptor, out StatFs own).IsError) { return (int)own.NameLength; }
        long longest = 0;
        foreach (Layer lower in lowers)
        {
            if (!Libc.StatFileSystem(lower.Root.Descriptor, out StatFs stat).IsError) { longest = Math.Max(longest, stat.NameLength); }
        }
        return (int)(longest == 0 ? MaxName : longest);
    }

    /// <summary>
    /// Determines for which lowers handles lead back to an origin. Each filesystem is tested once, since hundreds of layers may
    /// be on one.
    /// </summary>
    public void CheckOrigins()
    {
        Layer[] filesystems = [.. lowers.DistinctBy(lower => (lower.Device, lower.IsPrivate))];
        foreach (Layer first in filesystems)
        {
            first.FindsOrigins = first.Identity != RealIdentity.Names && CanOpenHandles(first) && IsToldByUuid(first, filesystems);
        }
        var answers = filesystems.ToDictionary(first => (first.Device, first.IsPrivate), first => first.FindsOrigins);
        foreach (Layer lower in lowers) { lower.FindsOrigins = answers[(lower.Device, lower.IsPrivate)]; }
    }

    /// <summary>Whether this process may open objects of a layer by their handles.</summary>
    private static bool CanOpenHandles(Layer lower)
    {
        if (FileHandle.Of(lower.Root.Descriptor, Libc.Self, out FileHandle handle).IsError) { return false; }
        if (Libc.OpenByHandle(lower.MountDescriptor, ref handle, OpenFlags.Path, out int descriptor).IsError) { return false; }
        Libc.Close(descriptor);
        return true;
    }

    /// <summary>
    /// Whether no other lower filesystem has the same UUID: several have none, and copies of an image share one. Kernel:
    /// ovl_lower_uuid_ok().
    /// </summary>
    private static bool IsToldByUuid(Layer lower, Layer[] filesystems) =>
        lower.FileSystem.IsToldByUuid
        || filesystems.All(other => other.Device == lower.Device || !lower.Uuid.AsSpan().SequenceEqual(other.Uuid));
}
