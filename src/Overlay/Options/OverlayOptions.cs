using Veneer.Linux;

namespace Veneer.Overlay;

/// <summary>What an overlay consists of and how it behaves, as <see cref="OptionParser"/> reads it from the kernel's spelling.</summary>
/// <remarks>
/// Paths are as the user wrote them, and are never normalised: <c>l/ABC/../diff1</c> leads through the symbolic link
/// <c>l/ABC</c>. Bytes that are not UTF-8 are kept as <see cref="PathText"/> says.
/// </remarks>
public sealed record OverlayOptions
{
    /// <summary>The most lower layers that one overlay has (OVL_MAX_STACK).</summary>
    public const int MaxLowerDirectories = 500;

    /// <summary>The lower directories, topmost first; at least one.</summary>
    public required IReadOnlyList<string> LowerDirectories { get; init; }

    /// <summary>Where changes go, or null for an overlay that cannot be written.</summary>
    public string? UpperDirectory { get; init; }

    /// <summary>A directory of the overlay's own on upper's filesystem; null exactly when <see cref="UpperDirectory"/> is.</summary>
    public string? WorkDirectory { get; init; }

    /// <summary>The options that made it so, but for layers, source and flags of the mount, as they were written.</summary>
    public IReadOnlyList<string> Spelled { get; init; } = [];

    /// <summary>Device and inode numbers that upper, work and the lowers, of those that there are, must have in this order, for a caller who has looked at them; empty for none.</summary>
    public IReadOnlyList<(ulong Device, ulong Ino)> Identities { get; init; } = [];

    /// <summary>Where the overlay appears.</summary>
    public required string MountPoint { get; init; }

    /// <summary>What mount tables show as the source. Default: <c>veneer</c>.</summary>
    public string Source { get; init; } = "veneer";

    /// <summary>Whether the mount is read-only, though it may have an upper. Always so without one.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>Whether users other than the mounter may use the mount. Null: as is usual, yes for root and no for others.</summary>
    public bool? AllowOther { get; init; }

    /// <summary>The mount's own flags, such as nosuid; without <see cref="MountFlags.ReadOnly"/>, which is <see cref="ReadOnly"/>.</summary>
    public MountFlags MountFlags { get; init; }

    /// <summary>What a rename of a directory that exists in a lower layer does. Default: <see cref="RedirectDirectory.Follow"/>.</summary>
    public RedirectDirectory RedirectDirectory { get; init; } = RedirectDirectory.Follow;

    /// <summary>Whether redirects in layers are followed.</summary>
    internal bool FollowsRedirects => RedirectDirectory != RedirectDirectory.NoFollow;

    /// <summary>Whether metacopies are made, and those in layers are followed to their data; else they give EPERM. Default: no.</summary>
    public bool Metacopy { get; init; }

    /// <summary>Whether inode numbers say which layer an object came from. Default: <see cref="Xino.Auto"/>.</summary>
    public Xino Xino { get; init; } = Xino.Auto;

    /// <summary>Whether the overlay's attributes are <c>user.overlay.*</c> instead of <c>trusted.overlay.*</c>. Default: no.</summary>
    public bool UserXattr { get; init; }

    /// <summary>Whether the kernel reads large lower files and maps lower programs without us though they may be copied up later: whoever has one open then goes on with the lower file. Default: no.</summary>
    public bool PassLower { get; init; }

    /// <summary>Whether the kernel reads and writes layer files without us. Default: <see cref="KernelFeature.Auto"/>.</summary>
    public KernelFeature Passthrough { get; init; } = KernelFeature.Auto;

    /// <summary>Whether requests come over io_uring. Default: <see cref="KernelFeature.Auto"/>.</summary>
    public KernelFeature IoUring { get; init; } = KernelFeature.Auto;

    /// <summary>What is on the disk when an fsync has returned. Default: <see cref="Sync.Auto"/>.</summary>
    public Sync Sync { get; init; } = Sync.Auto;

    /// <summary>What happens when the upper's filesystem fails to write something back, or a layer is moved or removed. Default: <see cref="OnError.Shutdown"/> when volatile, else <see cref="OnError.Continue"/>.</summary>
    public OnError Errors { get; init; }

    /// <summary>Whether a volatile upper is synced when the overlay is unmounted, so that it is no longer volatile then. Default: no.</summary>
    public bool SyncOnUnmount { get; init; }

    /// <summary>Whether no open file is left to the kernel, so that a shutdown reaches all of them. Default: no.</summary>
    public bool Revocable { get; init; }

    /// <summary>How many threads are ready for requests that do not come over io_uring, or null for as many as suit the machine.</summary>
    public int? Threads { get; init; }

    /// <summary>What becomes of a mount whose layers another overlay changes. Default: <see cref="InUse.Refuse"/>.</summary>
    public InUse InUse { get; init; }

    /// <summary>Whether the layers cannot be removed or renamed while mounted, in the mount namespace of the server. Default: no.</summary>
    public bool Pin { get; init; }
}

/// <summary>What becomes of a mount when its upper or work is in use by another overlay, or a lower is another's upper or work (<c>inuse=</c>).</summary>
public enum InUse
{
    /// <summary>It is refused.</summary>
    Refuse,
    /// <summary>It is made, and a line in the log says what comes of it: what both do to the layers is undefined.</summary>
    Warn,
}

/// <summary>What a rename of a directory that exists in a lower layer does (<c>redirect_dir=</c>).</summary>
/// <remarks>
/// The kernel's fourth word, <c>off</c>, means <see cref="Follow"/> unless its parameter redirect_always_follow says
/// otherwise; so it does here.
/// </remarks>
public enum RedirectDirectory
{
    /// <summary>It works, and leaves a redirect in the upper; redirects are followed.</summary>
    On,
    /// <summary>It gives EXDEV; redirects are followed.</summary>
    Follow,
    /// <summary>It gives EXDEV; redirects are not followed.</summary>
    NoFollow,
}

/// <summary>Whether inode numbers are to carry the filesystem in their high bits (<c>xino=</c>). They always do, where there are several.</summary>
public enum Xino
{
    /// <summary>No.</summary>
    Off,
    /// <summary>Where the layers' numbers leave room.</summary>
    Auto,
    /// <summary>Yes.</summary>
    On,
}

/// <summary>Whether to use something that not every kernel has, or lets everybody have (<c>passthrough=</c>, <c>io_uring=</c>).</summary>
public enum KernelFeature
{
    /// <summary>Where the kernel allows it and where it is safe.</summary>
    Auto,
    /// <summary>Never.</summary>
    Off,
    /// <summary>As <see cref="Auto"/>; mounting fails where the kernel does not allow it at all.</summary>
    Require,
}

/// <summary>What is on the disk when an fsync has returned (<c>fsync=</c>, <c>volatile</c>).</summary>
public enum Sync
{
    /// <summary>The file; a copied-up file is synced before it gets its name, where a crash could otherwise leave it short.</summary>
    Auto,
    /// <summary>As <see cref="Auto"/>; copies of directories and of empty files are synced, too, for filesystems that do not keep changes in their order.</summary>
    Strict,
    /// <summary>Nothing: faster, and the upper is lost with the machine.</summary>
    Volatile,
}

/// <summary>What happens when the upper's filesystem fails to write something back, or a layer is moved or removed (<c>errors=</c>).</summary>
/// <remarks>It is logged in any case, and after a failed write fsync gives EIO from then on.</remarks>
public enum OnError
{
    /// <summary>Nothing else.</summary>
    Continue,
    /// <summary>The overlay cannot be changed any more.</summary>
    ReadOnly,
    /// <summary>The overlay is shut down: every operation gives EIO.</summary>
    Shutdown,
}
