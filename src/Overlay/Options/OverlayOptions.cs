using Veneer.Linux;

namespace Veneer.Overlay;

/// <summary>
/// The layers and the behaviour of an overlay, as <see cref="OptionParser"/> reads them from the kernel's spelling.
/// </summary>
/// <remarks>
/// Paths are as the user wrote them, and are never normalised: <c>l/ABC/../diff1</c> leads through the symbolic link
/// <c>l/ABC</c>. Bytes that are not UTF-8 are encoded as <see cref="PathText"/> describes.
/// </remarks>
public sealed record OverlayOptions
{
    /// <summary>The largest number of lower layers of an overlay (OVL_MAX_STACK).</summary>
    public const int MaxLowerDirectories = 500;

    /// <summary>The lower directories, topmost first; at least one.</summary>
    public required IReadOnlyList<string> LowerDirectories { get; init; }

    /// <summary>The upper directory, which takes the changes; null for an overlay that cannot be written.</summary>
    public string? UpperDirectory { get; init; }

    /// <summary>The work directory, on upper's filesystem; null exactly when <see cref="UpperDirectory"/> is.</summary>
    public string? WorkDirectory { get; init; }

    /// <summary>The options as they were written, without layers, source and flags of the mount.</summary>
    public IReadOnlyList<string> Spelled { get; init; } = [];

    /// <summary>
    /// The device and inode numbers that upper, work and the lowers must have, as far as they exist, in this order. For a
    /// caller who has checked these directories; empty for no check.
    /// </summary>
    public IReadOnlyList<(ulong Device, ulong Ino)> Identities { get; init; } = [];

    /// <summary>The mount point.</summary>
    public required string MountPoint { get; init; }

    /// <summary>The source that mount tables show. Default: <c>veneer</c>.</summary>
    public string Source { get; init; } = "veneer";

    /// <summary>Whether the mount is read-only. Always true without an upper.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>Whether users other than the mounter may use the mount. Null: yes for root, no for other users.</summary>
    public bool? AllowOther { get; init; }

    /// <summary>
    /// The flags of the mount, such as nosuid, without <see cref="MountFlags.ReadOnly"/>, for which there is
    /// <see cref="ReadOnly"/>.
    /// </summary>
    public MountFlags MountFlags { get; init; }

    /// <summary>What renaming a directory of a lower layer does. Default: <see cref="RedirectDirectory.Follow"/>.</summary>
    public RedirectDirectory RedirectDirectory { get; init; } = RedirectDirectory.Follow;

    /// <summary>Whether redirects in layers are followed.</summary>
    internal bool FollowsRedirects => RedirectDirectory != RedirectDirectory.NoFollow;

    /// <summary>
    /// Whether metacopies are made, and metacopies in the layers show their data. If not, opening one gives EPERM. Default:
    /// no.
    /// </summary>
    public bool Metacopy { get; init; }

    /// <summary>Whether inode numbers are to carry the filesystem in their high bits. Default: <see cref="Xino.Auto"/>.</summary>
    public Xino Xino { get; init; } = Xino.Auto;

    /// <summary>Whether the overlay's attributes are <c>user.overlay.*</c> instead of <c>trusted.overlay.*</c>. Default: no.</summary>
    public bool UserXattr { get; init; }

    /// <summary>
    /// Whether large files and programs of lower layers are passed through, although they may be copied up later: processes
    /// that have one open then keep the lower file. Default: no.
    /// </summary>
    public bool PassLower { get; init; }

    /// <summary>
    /// Whether files are passed through: the kernel reads and writes the real file itself. Default:
    /// <see cref="KernelFeature.Auto"/>.
    /// </summary>
    public KernelFeature Passthrough { get; init; } = KernelFeature.Auto;

    /// <summary>Whether requests come over io_uring. Default: <see cref="KernelFeature.Auto"/>.</summary>
    public KernelFeature IoUring { get; init; } = KernelFeature.Auto;

    /// <summary>What is on the disk after an fsync. Default: <see cref="Sync.Auto"/>.</summary>
    public Sync Sync { get; init; } = Sync.Auto;

    /// <summary>
    /// What happens when a write to the upper's filesystem fails, or a layer is moved or removed. Default:
    /// <see cref="OnError.Shutdown"/> when volatile, otherwise <see cref="OnError.Continue"/>.
    /// </summary>
    public OnError Errors { get; init; }

    /// <summary>
    /// Whether a volatile upper is synced when the overlay is unmounted, after which it is not volatile any more. Default:
    /// no.
    /// </summary>
    public bool SyncOnUnmount { get; init; }

    /// <summary>Whether no file is passed through, so that a shutdown reaches all open files. Default: no.</summary>
    public bool Revocable { get; init; }

    /// <summary>
    /// The number of threads that are ready for requests that do not come over io_uring; null for the default of the
    /// machine.
    /// </summary>
    public int? Threads { get; init; }

    /// <summary>What to do when another overlay uses or changes the layers. Default: <see cref="InUse.Refuse"/>.</summary>
    public InUse InUse { get; init; }

    /// <summary>
    /// Whether the layers are kept from being removed or renamed while mounted, in the mount namespace of the server.
    /// Default: no.
    /// </summary>
    public bool Pin { get; init; }
}

/// <summary>
/// What to do when another overlay uses the upper or the work, or a lower is the upper or work of another overlay
/// (<c>inuse=</c>).
/// </summary>
public enum InUse
{
    /// <summary>Refuses to mount.</summary>
    Refuse,
    /// <summary>Mounts, and says in the log that what both overlays do to the layers is undefined.</summary>
    Warn,
}

/// <summary>What renaming a directory of a lower layer does (<c>redirect_dir=</c>).</summary>
/// <remarks>
/// The kernel's fourth word, <c>off</c>, means <see cref="Follow"/> unless its parameter redirect_always_follow is off.
/// Here it always means <see cref="Follow"/>.
/// </remarks>
public enum RedirectDirectory
{
    /// <summary>Works, and leaves a redirect in the upper. Redirects are followed.</summary>
    On,
    /// <summary>Gives EXDEV. Redirects are followed.</summary>
    Follow,
    /// <summary>Gives EXDEV. Redirects are not followed.</summary>
    NoFollow,
}

/// <summary>
/// Whether inode numbers are to carry the filesystem in their high bits (<c>xino=</c>). With layers on several filesystems
/// they always do. Only <see cref="On"/> has an effect: new directories in merged ones are made opaque. Kernel:
/// ovl_allow_offline_changes().
/// </summary>
public enum Xino
{
    /// <summary>No.</summary>
    Off,
    /// <summary>If the layers' numbers leave room.</summary>
    Auto,
    /// <summary>Yes.</summary>
    On,
}

/// <summary>
/// Whether to use a feature that not every kernel has or allows to everybody (<c>passthrough=</c>, <c>io_uring=</c>).
/// </summary>
public enum KernelFeature
{
    /// <summary>If the kernel allows it and it is safe.</summary>
    Auto,
    /// <summary>Never.</summary>
    Off,
    /// <summary>As <see cref="Auto"/>, but mounting fails if the kernel does not allow it.</summary>
    Require,
}

/// <summary>What is on the disk after an fsync (<c>fsync=</c>, <c>volatile</c>).</summary>
public enum Sync
{
    /// <summary>
    /// The file. A copied-up file is synced before it gets its name, where a crash could otherwise leave it short.
    /// </summary>
    Auto,
    /// <summary>
    /// As <see cref="Auto"/>, and copies of directories and of empty files are synced as well, for filesystems that do not
    /// keep changes in order.
    /// </summary>
    Strict,
    /// <summary>Nothing. Faster, but the upper is lost when the machine crashes.</summary>
    Volatile,
}

/// <summary>What happens when a write to the upper's filesystem fails, or a layer is moved or removed (<c>errors=</c>).</summary>
/// <remarks>It is logged in any case, and after a failed write every fsync gives EIO.</remarks>
public enum OnError
{
    /// <summary>Nothing else.</summary>
    Continue,
    /// <summary>The overlay cannot be changed any more.</summary>
    ReadOnly,
    /// <summary>The overlay is shut down: every operation gives EIO.</summary>
    Shutdown,
}
