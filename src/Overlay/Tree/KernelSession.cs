using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Overlay.Tree;

/// <summary>The connection to the kernel: what it offers, and what is called through it. All is null before the connection is up.</summary>
/// <param name="options">The mount options.</param>
/// <param name="log">Reports what no caller is told.</param>
internal sealed class KernelSession(OverlayOptions options, Action<string> log)
{
    private const InitFlags Wanted =
        InitFlags.AsyncRead | InitFlags.AtomicOTrunc | InitFlags.BigWrites | InitFlags.DontMask | InitFlags.HasIoctlDir |
        InitFlags.DoReadDirPlus | InitFlags.ReadDirPlusAuto | InitFlags.AsyncDio | InitFlags.ParallelDirOps |
        InitFlags.PosixAcl | InitFlags.AbortError | InitFlags.MaxPages | InitFlags.CacheSymlinks |
        InitFlags.ExplicitInvalData | InitFlags.HandleKillPrivV2 | InitFlags.SetXattrExt | InitFlags.NoExportSupport |
        InitFlags.NoOpenDirSupport;

    /// <summary>The flags to accept in INIT.</summary>
    public InitFlags Negotiate()
    {
        InitFlags flags = Wanted;
        if (options.Passthrough != KernelFeature.Off) { flags |= InitFlags.Passthrough; }
        if (options.IoUring != KernelFeature.Off) { flags |= InitFlags.OverIoUring; }
        return flags;
    }

    /// <summary>The connection.</summary>
    public Connection? Connection { get; private set; }

    /// <summary>The threads that serve requests.</summary>
    public Workers? Workers => Connection?.Workers;

    /// <summary>Sends notifications to the kernel.</summary>
    public Notifier? Notifier => Connection?.Notifier;

    /// <summary>Lets requests in.</summary>
    public Gate? Gate => Connection?.Gate;

    /// <summary>Registers files for passthrough; null when there is no passthrough.</summary>
    public BackingIds? Backings { get; private set; }

    /// <summary>Why nothing is passed through; null when files are passed through, or the options do not ask for it.</summary>
    public string? WithoutPassthrough { get; private set; }

    /// <summary>Why requests do not come over io_uring; null when they do, or the options do not ask for it.</summary>
    public string? WithoutIoUring { get; private set; }

    /// <summary>Whether the kernel opens and closes directories by itself.</summary>
    public bool OpensDirectoriesItself => Connection is { Flags: var flags } && (flags & InitFlags.NoOpenDirSupport) != 0;

    /// <summary>The connection is up.</summary>
    /// <exception cref="OverlayMountException">The kernel does not offer what the options require.</exception>
    public void Start(Connection connection)
    {
        Connection = connection;
        bool isOffered = (connection.Flags & InitFlags.Passthrough) != 0;
        if (isOffered && BackingIds.IsPermitted) { Backings = new BackingIds(connection.Device, log); }
        else if (options.Passthrough == KernelFeature.Require)
        {
            throw new OverlayMountException(
                "passthrough=require cannot be had, which takes Linux 6.9 and root in the initial user namespace: "
                + "mount with passthrough=auto.");
        }
        else if (options.Passthrough == KernelFeature.Auto)
        {
            WithoutPassthrough = isOffered
                ? "it takes root in the initial user namespace"
                : "the kernel does not offer it, which takes Linux 6.9";
        }
        if ((connection.Flags & InitFlags.OverIoUring) == 0) { DoWithoutIoUring(connection.RingError); }
    }

    private void DoWithoutIoUring(Errno error)
    {
        if (options.IoUring == KernelFeature.Require)
        {
            throw new OverlayMountException(error.IsError
                ? $"io_uring: the system refuses to set it up ({error}): see sysctl kernel.io_uring_disabled and the container's filter of "
                    + "system calls, or mount with io_uring=auto."
                : "io_uring: the kernel does not offer it for FUSE: write Y to /sys/module/fuse/parameters/enable_uring as root "
                    + "(Linux 6.14), or mount with io_uring=auto.");
        }
        if (options.IoUring == KernelFeature.Off) { return; }
        WithoutIoUring = error.IsError
            ? $"setting it up was refused ({error})"
            : "the kernel does not offer it for FUSE, which takes Linux 6.14 and Y in /sys/module/fuse/parameters/enable_uring";
    }

    /// <summary>Lets another thread serve requests while this one may take long, until the result is disposed of.</summary>
    /// <param name="isLong">Whether this thread may take long. If not, nothing is done.</param>
    public BlockingScope Block(bool isLong = true) => new(isLong ? Workers : null);

    /// <summary>Closes what may be the last descriptor of a file without a name: to free the blocks of a large file takes long.</summary>
    public void CloseLast(int descriptor)
    {
        const ulong manyBlocks = (64 << 20) / 512;
        bool isLong = !Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat).IsError
            && stat.Nlink == 0 && stat.Blocks > manyBlocks;
        using (Block(isLong)) { Libc.Close(descriptor); }
    }

    /// <summary>
    /// Has the kernel drop the attributes that it has cached under the inode's nodeid, if the inode was changed by an old nodeid.
    /// </summary>
    public void DropCachedAttributes(Inode inode, bool isSuperseded)
    {
        if (isSuperseded) { Notifier?.InvalidateAttributes(inode.NodeId); }
    }

    /// <summary>The time during which a thread may take long.</summary>
    public readonly ref struct BlockingScope
    {
        private readonly Workers? workers;

        internal BlockingScope(Workers? workers)
        {
            this.workers = workers;
            workers?.BeginBlocking();
        }

        /// <summary>The thread takes requests again.</summary>
        public void Dispose() => workers?.EndBlocking();
    }
}
