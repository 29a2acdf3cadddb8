using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Upper;

/// <summary>Upper, as it is written: the directory in which objects are built, and what the filesystem and the options allow.</summary>
internal sealed class UpperLayer
{
    /// <summary>The path of upper, as the user gave it. Null without upper.</summary>
    public required string? Path { get; init; }

    /// <summary>What upper's filesystem can do.</summary>
    public required UpperFeatures Features { get; init; }

    /// <summary>The directory in which objects are built. Null when upper cannot be written.</summary>
    public required WorkDirectory? Work { get; init; }

    /// <summary>
    /// The same, as a real directory, for objects without a name that lie in it. It is no part of upper's tree. Null when upper
    /// cannot be written.
    /// </summary>
    public required RealDirectory? WorkRoot { get; init; }

    /// <summary>The options of the mount.</summary>
    public required OverlayOptions Options { get; init; }

    /// <summary>Whether upper is on xfs.</summary>
    public required bool IsOnXfs { get; init; }

    /// <summary>Whether upper is on a filesystem in memory, so that nothing of it is ever written back.</summary>
    public required bool IsInMemory { get; init; }

    /// <summary>Whether there is an upper that can be written.</summary>
    public bool IsWritable => Work is not null;

    /// <summary>Whether the mount is read-only to users. There may be an upper all the same.</summary>
    public bool IsReadOnly { get; set; }

    /// <summary>Whether copies reach the disk before they are published.</summary>
    public bool IsDurable => Options.Sync != Sync.Volatile;

    /// <summary>
    /// Whether copies without data (of directories and of empty files) reach the disk before they are published as well. Kernel:
    /// ovl_should_sync_metadata().
    /// </summary>
    public bool IsStrict => Options.Sync == Sync.Strict;

    /// <summary>Whether a directory that is renamed gets a redirect.</summary>
    public bool WritesRedirects => Options.RedirectDirectory == RedirectDirectory.On;

    /// <summary>
    /// Whether a change of attributes makes a metacopy, which leaves the data below. Kernel: ovl_make_workdir(), which falls back
    /// to metacopy=off if upper has no attributes.
    /// </summary>
    public bool WritesMetacopies => Options.Metacopy && Features.Attributes != AttributeSpace.None;

    /// <summary>
    /// Whether lower layers may be changed while the overlay is not mounted. If so, a new directory is made opaque only if it
    /// takes the place of a whiteout. Kernel: ovl_allow_offline_changes().
    /// </summary>
    public bool AllowsOfflineChanges => !Options.Metacopy && !WritesRedirects && Options.Xino != Xino.On;

    /// <summary>Collects the objects of upper that get another name while upper is being synced. Null at other times.</summary>
    public Moves? Moves { get => Volatile.Read(ref moves); set => Volatile.Write(ref moves, value); }

    private Moves? moves;

    /// <summary>The most descriptors that may be held of objects without a name.</summary>
    public required int MaxOrphans { get; init; }

    /// <summary>The number of descriptors that are held of objects without a name.</summary>
    public required Func<int> Orphans { get; init; }

    /// <summary>
    /// Whether there are so many objects without a name, of which users can make any number, that the next one gets a name in work
    /// instead of a descriptor.
    /// </summary>
    public bool HasManyOrphans => Orphans() >= MaxOrphans;
}
