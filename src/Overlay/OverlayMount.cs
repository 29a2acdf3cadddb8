using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay;

/// <summary>An overlay whose layers are open, ready to be served.</summary>
public sealed class OverlayMount : IDisposable
{
    private readonly Volume volume;
    private readonly List<IDisposable> held;
    private readonly OverlayFileSystem fileSystem;
    private bool disposed;

    private OverlayMount(Volume volume, List<IDisposable> held)
    {
        this.volume = volume;
        this.held = held;
        fileSystem = new OverlayFileSystem(volume);
        fileSystem.Shutdown.ReleaseLayers = Dispose;
        if (LayerWatch.Start(volume.Places, fileSystem.Response.ActOnLoss) is { } watch) { held.Add(watch); }
    }

    /// <summary>A sentence for the user when the overlay differs from what was asked for; otherwise null.</summary>
    public string? Warning { get; private set; }

    /// <summary>Whether the overlay cannot be written, for want of an upper or because its work directory cannot be changed.</summary>
    public bool IsReadOnly => !volume.Upper.IsWritable;

    /// <summary>The filesystem that answers the kernel's requests.</summary>
    public IFileSystem FileSystem => fileSystem;

    /// <summary>The number of stacked filesystems that may lie below a passed-through file.</summary>
    public uint MaxStackDepth => 1;

    /// <summary>Opens and checks the layers, and empties work.</summary>
    /// <param name="options">The overlay to mount. Relative paths begin at the working directory.</param>
    /// <param name="log">Called later with one line for each problem of which no caller is told.</param>
    /// <exception cref="OverlayMountException">A layer is missing or unfit; the message is a sentence for the user.</exception>
    public static OverlayMount Open(OverlayOptions options, Action<string> log)
    {
        try
        {
            return OpenAsAsked(options, log);
        }
        catch (OverlayMountException problem) when (problem.WorkError.IsError && !HasMark(options))
        {
            // Kernel overlayfs does the same: ovl_get_workdir(). Upper shows what it has, like any lower.
            OverlayMount overlay = OpenAsAsked(
                options with
                {
                    LowerDirectories = [options.UpperDirectory!, .. options.LowerDirectories],
                    UpperDirectory = null,
                    WorkDirectory = null,
                    Sync = Sync.Auto,
                    SyncOnUnmount = false,
                    ReadOnly = true
                },
                log);
            overlay.Warning = problem.WorkError is Errno.ENOSPC or Errno.EDQUOT
                ? $"There is no space left in the work directory {options.WorkDirectory}, so the overlay is mounted read-only: "
                    + "free some, and mount it anew."
                : $"The work directory {options.WorkDirectory} cannot be changed ({problem.WorkError}), "
                    + $"so the overlay is mounted read-only: see lsattr -d {options.WorkDirectory} and what is in it, and mount it anew.";
            return overlay;
        }
    }

    /// <summary>
    /// Whether upper was mounted with volatile, or with an unknown feature, so that it must be judged before it is used.
    /// </summary>
    private static bool HasMark(OverlayOptions options) =>
        Libc.StatAt(Libc.AtCwd, PathText.Encode(options.WorkDirectory! + "/work/incompat"), StatxMask.Basic, out _)
            is not (Errno.ENOENT or Errno.ENOTDIR);

    private static OverlayMount OpenAsAsked(OverlayOptions options, Action<string> log)
    {
        var opened = new List<IDisposable>();
        try
        {
            return new OverlayMount(Volume.Open(options, log, opened), opened);
        }
        catch
        {
            for (int i = opened.Count - 1; i >= 0; i--) { opened[i].Dispose(); } // in reverse: later objects use earlier ones
            throw;
        }
    }

    /// <summary>The place of the pins, for <see cref="Pin.Release"/> after this process has ended; null without pins.</summary>
    public string? PinDirectory => volume.Pin?.Directory;

    /// <summary>Records on upper and work where the overlay is mounted, for users who find them in use.</summary>
    /// <param name="mountPoint">The full path of the mount point.</param>
    /// <param name="mountId">The mount id, as in mountinfo.</param>
    /// <param name="device">The device number of the mount, as in mountinfo.</param>
    public void Announce(string mountPoint, int mountId, string device)
    {
        fileSystem.Shutdown.Revocation.Device = device;
        volume.InUse.Announce(mountPoint, mountId, device);
    }

    /// <summary>
    /// Syncs upper if <see cref="OverlayOptions.SyncOnUnmount"/> asks for it. To be called after the mount is gone, and before
    /// <see cref="Dispose"/>. May take any time.
    /// </summary>
    public void SyncAtEnd()
    {
        if (!fileSystem.Shutdown.IsShutDown) { fileSystem.Sync.RunAtEnd(); }
    }

    /// <summary>
    /// Makes another process look up names in a directory, which is a mount point of this overlay:
    /// <see cref="Gate.RevokedPrefix"/> with each number from 0 to below the given one. Returns whether all were found. This is
    /// how a shutdown revokes passed-through files; if it is null, they are not revoked.
    /// </summary>
    public Func<string, int, bool>? LookUpRevoked
    {
        get => fileSystem.Shutdown.Revocation.LookUp;
        set => fileSystem.Shutdown.Revocation.LookUp = value;
    }

    /// <summary>
    /// Releases upper, work and the pins although a thread may still hang in a lower that does not answer. For a process that
    /// is about to end, whose descriptors the kernel closes only after its last thread has returned.
    /// </summary>
    public void Abandon()
    {
        fileSystem.Abandon();
        volume.InUse.Dispose();
        volume.Tree.Directories.CloseAll();
        for (int i = held.Count - 1; i >= 0; i--) // in reverse: later objects use earlier ones
        {
            if (held[i] is not LayerWatch) { held[i].Dispose(); } // a LayerWatch would wait for its thread
        }
    }

    /// <summary>Releases all layers.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref disposed, true)) { return; }
        for (int i = held.Count - 1; i >= 0; i--) { held[i].Dispose(); }
    }
}
