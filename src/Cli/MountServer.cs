using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay;
using Veneer.Overlay.Host;

namespace Veneer.Cli;

/// <summary>The server of one mount: the process that stays for as long as the mount does.</summary>
internal static class MountServer
{
    /// <summary>Opens the layers, mounts, and serves until unmounted.</summary>
    /// <param name="options">The options to mount with.</param>
    /// <param name="connection">A descriptor of /dev/fuse that another process has mounted, or -1.</param>
    /// <param name="trace">Whether each request becomes a line on standard error.</param>
    /// <param name="log">Takes messages about failures while requests are served.</param>
    /// <param name="reportReady">
    /// Called with the mount point's full name once requests are served. False when nobody wants the mount any more.
    /// </param>
    public static int Run(OverlayOptions options, int connection, bool trace, Action<string> log, Func<string, bool> reportReady)
    {
        Libc.IgnoreStraySignals();
        _ = Libc.RaiseOpenFileLimit(); // best effort: the existing limit may be enough
        _ = Libc.RaiseFileSizeLimit(); // best effort: a file beyond the limit gets EFBIG
        OverlayMount overlay;
        try
        {
            // Before the mount exists: the mount may lie inside a lower tree, whose private copy must not contain it.
            overlay = OverlayMount.Open(options, log);
        }
        catch (OverlayMountException problem)
        {
            Terminal.Complain(problem.Message);
            return ExitCode.Failure;
        }

        using var end = new ProcessEnd(overlay, log);
        string mountPoint;
        using (overlay)
        {
            if (overlay.PinDirectory is { } pins && PinWatch.Start(pins) is var failure && failure.IsError)
            {
                log($"veneer: no process can be started that takes away the pins if this one is killed ({failure}): the next "
                    + "veneer mount or umount does");
            }
            if (overlay.Warning is { } warning) { Terminal.Complain(warning); }
            using var signals = new TerminationSignals(end, log);
            Mount mount = connection >= 0 ? Mount.Adopt(connection, options.MountPoint) : Mount.Attach(options.MountPoint, new MountOptions
            {
                Source = options.Source,
                Flags = options.MountFlags | (options.ReadOnly || overlay.IsReadOnly ? MountFlags.ReadOnly : MountFlags.None),
                AllowOther = options.AllowOther,
            });
            signals.Mount = mount;
            using Device device = mount.Device;
            overlay.Announce(mount.MountPoint, mount.Id, mount.DeviceNumber);
            overlay.LookUpRevoked = Revocation.Run;
            var settings = new ServerOptions
            {
                MaxStackDepth = overlay.MaxStackDepth,
                Log = log,
                Abort = () => Abort(mount, log),
                Ended = end.StartLimit,
                Trace = trace ? Terminal.Trace : null,
            };
            if (options.Threads is { } threads) { settings = settings with { Threads = threads }; }
            using var server = new Server(device, overlay.FileSystem, settings);
            end.IsServing = () => server.Busy > 0;

            Errno error = Initialize(server, mount);
            if (error.IsError)
            {
                _ = mount.Detach(); // best effort: it goes with this process
                throw new MountException(error == Errno.EPERM
                    ? $"{mount.MountPoint} is a /dev/fuse that is not mounted: mount it first, or name the directory to mount on."
                    : error == Errno.EPROTO
                    ? "This kernel speaks a FUSE protocol that is too old: Linux 5.6 or newer is needed."
                    : $"The mount on {mount.MountPoint} was gone before it was ready ({error}): see who unmounted it.");
            }
            // The server must not keep the caller's working directory busy, least of all when that is the mount point.
            _ = Libc.ChangeDirectory("/\0"u8); // cannot fail
            _ = Libc.ForgetCode(); // best effort: serving needs little of the code that starting needed
            server.Start();
            if (!reportReady(mount.MountPoint))
            {
                log("veneer: the process that asked for the mount is gone, unmounting");
                _ = mount.Detach(); // best effort: it goes with this process
            }
            // best effort: without the watch, the mount stays until it is unmounted
            if (Background.IsChild) { NamespaceWatch.Start(() => _ = mount.Detach()); }
            server.WaitForEnd();
            end.StopLimit();
            signals.IsSyncing = options.SyncOnUnmount;
            overlay.SyncAtEnd();
            mountPoint = mount.MountPoint;
            end.StartLimit();
        }
        UmountHelper.Withdraw(mountPoint);
        return ExitCode.Success;
    }

    /// <summary>Aborts the connection, so that no caller waits for a server that cannot receive requests any more.</summary>
    private static void Abort(Mount mount, Action<string> log)
    {
        Errno error = mount.Abort();
        if (!error.IsError) { return; }
        log($"veneer: the connection of {mount.MountPoint} cannot be ended ({error}): this process ends");
        Environment.Exit(ExitCode.Failure);
    }

    private static Errno Initialize(Server server, Mount mount)
    {
        try
        {
            return server.Initialize();
        }
        catch (OverlayMountException problem)
        {
            _ = mount.Detach(); // best effort: it goes with this process
            throw new MountException(problem.Message, problem);
        }
    }
}
