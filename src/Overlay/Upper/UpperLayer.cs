using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Upper;

/// <summary>Upper, as it is written: where new objects are built, and what its filesystem and the options allow.</summary>
internal sealed class UpperLayer
{
    /// <summary>As the user named it; null when there is none.</summary>
    public required string? Path { get; init; }

    /// <summary>What its filesystem can do.</summary>
    public required UpperFeatures Features { get; init; }

    /// <summary>Temporaries; null when read-only.</summary>
    public required WorkDirectory? Work { get; init; }

    /// <summary>Work as a directory of upper's layer, which never is one; null when read-only.</summary>
    public required RealDirectory? WorkRoot { get; init; }

    /// <summary>As the user asked.</summary>
    public required OverlayOptions Options { get; init; }

    /// <summary>Whether upper is on xfs.</summary>
    public required bool IsOnXfs { get; init; }

    /// <summary>Whether nothing of upper is ever written back, since its filesystem is in memory.</summary>
    public required bool IsInMemory { get; init; }

    /// <summary>Whether there is an upper.</summary>
    public bool IsWritable => Work is not null;

    /// <summary>Whether nobody can write through the mount, though there may be an upper.</summary>
    public bool IsReadOnly { get; set; }

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

    /// <summary>What is told of each name that something of upper gets while upper is being synced; else null.</summary>
    public Moves? Moves { get => Volatile.Read(ref moves); set => Volatile.Write(ref moves, value); }

    private Moves? moves;

    /// <summary>How many descriptors may be held of what has no name any more.</summary>
    public required int MaxOrphans { get; init; }

    /// <summary>How many descriptors are held of what has no name any more.</summary>
    public required Func<int> Orphans { get; init; }

    /// <summary>Whether there are so many that the next gets a name in work: users make as many as they like.</summary>
    public bool HasManyOrphans => Orphans() >= MaxOrphans;
}
