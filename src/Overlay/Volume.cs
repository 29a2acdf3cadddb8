using Veneer.Fuse.Locking;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Format;
using Veneer.Overlay.Host;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay;

/// <summary>One overlay: its layers and the rooms that work on them.</summary>
internal sealed class Volume
{
    /// <summary>Held while something in upper is reached by its name; exclusively to rename, and to unlink one of several names.</summary>
    /// <remarks>Comes after an inode's copy-up lock. Nobody calls into a lower while he holds it: see docs/adr/0020-no-lock-while-a-lower-is-asked.md.</remarks>
    public required SharedLock RenameLock { get; init; }

    /// <summary>As the user asked.</summary>
    public required OverlayOptions Options { get; init; }

    /// <summary>The layers.</summary>
    public required LayerStack Layers { get; init; }

    /// <summary>Names of the attributes of upper.</summary>
    public OverlayXattr Xattr => Layers.UpperXattr;

    /// <summary>Names of the attributes of the lowers.</summary>
    public OverlayXattr LowerXattr => Layers.LowerXattr;

    /// <summary>Whether the user asked for the user's attributes, as the kernel does it in all layers.</summary>
    public required bool IsUserXattrAsked { get; init; }

    /// <summary>What upper's filesystem can do.</summary>
    public required UpperFeatures Features { get; init; }

    /// <summary>Descriptors of real directories.</summary>
    public required DirectoryCache Directories { get; init; }

    /// <summary>The st_ino policy.</summary>
    public required InodeNumbers Numbers { get; init; }

    /// <summary>By which keys real objects are known.</summary>
    public required ObjectKeys Keys { get; init; }

    /// <summary>What the kernel knows of us.</summary>
    public required InodeTable Inodes { get; init; }

    /// <summary>Finds real objects.</summary>
    public required RealObjects Objects { get; init; }

    /// <summary>Listings of directories.</summary>
    public required Listings Listings { get; init; }

    /// <summary>Finds names.</summary>
    public required LayeredLookup Lookup { get; init; }

    /// <summary>Whose the objects are, where that is not plain.</summary>
    public required Owners Owners { get; init; }

    /// <summary>Temporaries; null when read-only.</summary>
    public required WorkDirectory? Work { get; init; }

    /// <summary>A descriptor, O_PATH, of work through the mount that it was named in; -1 when read-only.</summary>
    public int NamedWork { get; init; } = -1;

    /// <summary>What keeps the layers in their places, if they are to be.</summary>
    public Pin? Pin { get; init; }

    /// <summary>The layers as they were named.</summary>
    public required IReadOnlyList<Place> Places { get; init; }

    /// <summary>The locks on upper and work.</summary>
    public required InUseLock InUse { get; init; }

    /// <summary>The mark of a volatile upper; null when upper is none.</summary>
    public required VolatileMark? Mark { get; init; }

    /// <summary>All errors of upper's filesystem, or null where those of open files must do.</summary>
    public required ErrorSentinel? Sentinel { get; init; }

    /// <summary>One line about something that went wrong and is not told to a caller.</summary>
    public required Action<string> Log { get; init; }

    /// <summary>What is told of each name that something of upper gets while upper is being synced; else null.</summary>
    public Moves? Moves { get => Volatile.Read(ref moves); set => Volatile.Write(ref moves, value); }

    private Moves? moves;

    /// <summary>Work as a directory of upper's layer, which never is one; null when read-only.</summary>
    public required RealDirectory? WorkRoot { get; init; }

    /// <summary>How many descriptors may be held of what has no name any more.</summary>
    public required int MaxOrphans { get; init; }

    /// <summary>Whether there are so many that the next gets a name in work: users make as many as they like.</summary>
    public bool HasManyOrphans => Inodes.Orphans + Directories.KeptOpen >= MaxOrphans;

    /// <summary>How many files users may have open at once.</summary>
    public required int MaxOpenFiles { get; init; }

    /// <summary>Whether there is an upper.</summary>
    public bool IsWritable => Work is not null;

    /// <summary>Whether nobody can write through the mount, though there may be an upper.</summary>
    public bool IsReadOnly { get; set; }

    /// <summary>Whether upper is on xfs.</summary>
    public required bool IsOnXfs { get; init; }

    /// <summary>Whether nothing of upper is ever written back, since its filesystem is in memory.</summary>
    public required bool IsInMemory { get; init; }

    /// <summary>Whether copies reach the disk before they are published.</summary>
    public bool IsDurable => Options.Sync != Sync.Volatile;

    /// <summary>Whether copies that are attributes alone, of directories and empty files, reach the disk as well. Kernel: ovl_should_sync_metadata().</summary>
    public bool IsStrict => Options.Sync == Sync.Strict;

    /// <summary>Whether directories that are renamed leave a redirect.</summary>
    public bool WritesRedirects => Options.RedirectDirectory == RedirectDirectory.On;

    /// <summary>Whether a change of attributes leaves the data below, marked by an attribute of the copy. Kernel: ovl_make_workdir() falls back to metacopy=off.</summary>
    public bool WritesMetacopies => Options.Metacopy && Features.Attributes != AttributeSpace.None;

    /// <summary>Whether lower layers may be changed while not mounted, so that a new directory is not made opaque without need. Kernel: ovl_allow_offline_changes().</summary>
    public bool AllowsOfflineChanges => !Options.Metacopy && !WritesRedirects && Options.Xino != Xino.On;
}
