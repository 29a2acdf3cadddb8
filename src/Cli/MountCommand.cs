using System.CommandLine;
using System.Runtime.InteropServices;
using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Host;
using Veneer.Overlay.Topology;

namespace Veneer.Cli;

/// <summary><c>veneer mount</c>: mounts an overlay and serves it.</summary>
internal static class MountCommand
{
    /// <summary>The parsed command line.</summary>
    private sealed record Request(OptionParser Options, string? Source, string MountPoint, bool Foreground, bool Pretend,
        string? Identities);

    /// <param name="invocation">The command line, for starting the server in the background.</param>
    /// <param name="arguments">The words after <c>mount</c>.</param>
    /// <param name="asHelper">Whether mount(8) is the caller, whose <c>-f</c> means "do not mount".</param>
    public static int Run(Invocation invocation, string[] arguments, bool asHelper)
    {
        int connection = Background.IsChild
            ? Array.Exists(arguments, IsDescriptor) ? Mount.DescriptorOf($"/dev/fd/{Background.Connection}") : -1
            : arguments.Select(Mount.DescriptorOf).FirstOrDefault(descriptor => descriptor >= 0, -1);
        int exitCode = ExitCode.Failure;
        try
        {
            return exitCode = Run(invocation, arguments, asHelper, connection);
        }
        finally
        {
            // best effort: nobody will serve the connection
            if (connection >= 0 && exitCode != ExitCode.Success && !Background.IsChild) { _ = Mount.Adopt(connection, "").Detach(); }
        }
    }

    private static int Run(Invocation invocation, string[] arguments, bool asHelper, int connection)
    {
        Request? request = Parse(arguments, asHelper);
        if (request is null) { return ExitCode.Success; }
        if (request.Options.Remount) { return Remount(request); }

        OverlayOptions options = request.Options.Build(request.Source, request.MountPoint) with
        {
            Identities = RestoreCommand.IdentitiesOf(request.Identities),
        };
        if (Background.IsChild)
        {
            options = options with
            {
                LowerDirectories = [.. options.LowerDirectories.Select(Background.AsParentHas)],
                UpperDirectory = options.UpperDirectory is { } upper ? Background.AsParentHas(upper) : null,
                WorkDirectory = options.WorkDirectory is { } work ? Background.AsParentHas(work) : null,
                MountPoint = connection >= 0 ? options.MountPoint : Background.AsParentHas(options.MountPoint),
            };
        }
        else
        {
            foreach (string warning in request.Options.Warnings) { Terminal.Complain(warning); }
        }
        if (request.Pretend) { return ExitCode.Success; }
        if (request.Foreground) { return Serve(options, connection, request.Options.Debug, Terminal.Trace, place =>
        {
            if (connection < 0) { UmountHelper.Register(place); }
            return true;
        }); }
        if (Background.IsChild) { return Serve(options, connection, trace: false, Syslog.Complain, _ => Background.ReportReady()); }
        if (connection >= 0) { return Background.Start(invocation, connection); } // its mount belongs to the process that made it

        // The full name: a mount over our working directory is not seen through ".", nor a mount over a directory through
        // its descriptor.
        if (Target.Open(request.MountPoint, out string place, out int opened).IsError) { place = request.MountPoint; }
        else { Libc.Close(opened); }
        int before = MountTable.IdAt(place);
        int exitCode = Background.Start(invocation, connection: -1);
        if (exitCode == ExitCode.Success) { return CheckThatItAnswers(place, before); }
        _ = TakeAway(place, before);
        return exitCode;
    }

    /// <summary>
    /// In the parent: removes a mount that a failed server has left behind, so that it is not in the way of the next one.
    /// </summary>
    /// <param name="path">The mount point's full name.</param>
    /// <param name="before">The id of the mount that was there before; -1 when it is not known, and then nothing is done.</param>
    /// <returns>Whether there was such a mount, and it is gone.</returns>
    private static bool TakeAway(string path, int before)
    {
        if (before < 0 || Target.Find(path, out _, out MountEntry? mount).IsError || mount is not { Type: "fuse.veneer" }
            || mount.Id == before)
        {
            return false;
        }
        if (Target.Open(path, out _, out int descriptor).IsError) { return false; }
        bool answers = !Libc.StatFileSystem(descriptor, out _).IsError; // then another server's mount is there
        Libc.Close(descriptor);
        return !answers && !Mount.Unmount(path, lazy: true).IsError;
    }

    private static Request? Parse(string[] arguments, bool asHelper)
    {
        var optionLists = new Option<string[]>("-o", "--options") { Arity = ArgumentArity.OneOrMore };
        var foreground = new Option<bool>("-f", "--foreground");
        var debug = new Option<bool>("-d", "--debug");
        var identities = new Option<string>(RestoreCommand.IdentitiesOption);
        // Options that mount(8) and libfuse pass.
        IEnumerable<Option> passed = CommandLine.WithoutEffect(["-s", "-n", "-v"], ["-N", "-t"]);
        if (!CommandLine.Parse("mount", arguments, [identities, optionLists, foreground, debug, .. passed], out ParseResult parsed,
            out string[] words))
        {
            return null;
        }

        var options = new OptionParser();
        foreach (string list in parsed.GetValue(optionLists) ?? []) { options.Add(list); }
        if (words.Length == 0)
        {
            throw new OverlayMountException("No mount point is given: name a directory, after the options or before them.");
        }
        if (words.Length > 2)
        {
            throw new OverlayMountException($"{words[2]} is one word too many: give a source, if any, and a mount point.");
        }
        bool traced = parsed.GetValue(debug);
        if (traced) { options.Add("debug"); }
        return new Request(
            options,
            words.Length == 2 ? words[0] : null,
            words[^1],
            Foreground: options.Debug || (!asHelper && parsed.GetValue(foreground)),
            Pretend: asHelper && parsed.GetValue(foreground),
            parsed.GetValue(identities));
    }

    /// <summary>Whether a word names a connection that is mounted already, in libfuse's form.</summary>
    private static bool IsDescriptor(string word) => word.StartsWith("/dev/fd/", StringComparison.Ordinal);

    /// <summary>Opens the layers, mounts, and serves until unmounted.</summary>
    /// <param name="options">The options to mount with.</param>
    /// <param name="connection">A descriptor of /dev/fuse that another process has mounted, or -1.</param>
    /// <param name="trace">Whether each request becomes a line on standard error.</param>
    /// <param name="log">Takes messages about failures while requests are served.</param>
    /// <param name="reportReady">
    /// Called with the mount point's full name once requests are served. False when nobody wants the mount any more.
    /// </param>
    private static int Serve(OverlayOptions options, int connection, bool trace, Action<string> log, Func<string, bool> reportReady)
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

        using var ending = new Ending(overlay, log);
        string mountPoint;
        using (overlay)
        {
            if (overlay.PinDirectory is { } pins && PinWatch.Start(pins) is var failure && failure.IsError)
            {
                log($"veneer: no process can be started that takes away the pins if this one is killed ({failure}): the next "
                    + "veneer mount or umount does");
            }
            if (overlay.Warning is { } warning) { Terminal.Complain(warning); }
            using var signals = new TerminationSignals(ending, log);
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
                Ended = ending.Begin,
                Trace = trace ? Terminal.Trace : null,
            };
            if (options.Threads is { } threads) { settings = settings with { Threads = threads }; }
            using var server = new Server(device, overlay.FileSystem, settings);
            ending.IsServing = () => server.Busy > 0;

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
            ending.Pause();
            signals.IsSyncing = options.SyncOnUnmount;
            overlay.SyncAtEnd();
            mountPoint = mount.MountPoint;
            ending.Begin();
        }
        UmountHelper.Withdraw(mountPoint);
        return ExitCode.Success;
    }

    /// <summary>Makes sure that this process ends, even if one of its threads hangs in a lower layer.</summary>
    private sealed class Ending : IDisposable
    {
        /// <summary>
        /// How long ending may take, in milliseconds, while a request is still served, for which nobody waits any more. If
        /// none is served, the machine may just be busy, and ending may take the second time as well.
        /// </summary>
        private const int Patience = 5_000, LongPatience = 60_000;

        private readonly OverlayMount overlay;
        private readonly Action<string> log;
        private readonly Timer timer;
        private volatile bool isLate;

        public Ending(OverlayMount overlay, Action<string> log)
        {
            this.overlay = overlay;
            this.log = log;
            timer = new Timer(_ => Judge());
        }

        /// <summary>Whether a request is still being served.</summary>
        public Func<bool> IsServing { get; set; } = () => false;

        /// <summary>Starts the time limit: nothing is left to do that may take long.</summary>
        public void Begin()
        {
            isLate = false;
            timer.Change(Patience, Timeout.Infinite);
        }

        /// <summary>Stops the time limit: work begins that may take long.</summary>
        public void Pause() => timer.Change(Timeout.Infinite, Timeout.Infinite);

        private void Judge()
        {
            if (!isLate && !IsServing())
            {
                isLate = true;
                timer.Change(LongPatience, Timeout.Infinite);
                return;
            }
            log("veneer: a layer does not answer: this process ends though requests wait for it");
            End(ExitCode.Failure);
        }

        /// <summary>Ends this process without waiting for any thread.</summary>
        public void End(int exitCode)
        {
            overlay.Abandon();
            Libc.End(exitCode);
        }

        public void Dispose() => timer.Dispose();
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

    /// <summary>
    /// Handles the signals that ask the process to end: the first one unmounts, the second one ends the process even if the
    /// mount is in use.
    /// </summary>
    private sealed class TerminationSignals : IDisposable
    {
        private readonly List<PosixSignalRegistration> registrations = [];
        private readonly Ending ending;
        private readonly Action<string> log;
        private volatile Mount? mount;
        private int received;
        private bool asked;

        /// <summary>Whether the mount is gone, and upper is being synced.</summary>
        public volatile bool IsSyncing;

        /// <summary>The mount to unmount. Set once it exists; a signal that came earlier unmounts it at once.</summary>
        public Mount Mount
        {
            set
            {
                mount = value;
                if (Volatile.Read(ref received) > 0) { UnmountOnce(value); }
            }
        }

        public TerminationSignals(Ending ending, Action<string> log)
        {
            this.ending = ending;
            this.log = log;
            foreach (PosixSignal signal in (ReadOnlySpan<PosixSignal>)[PosixSignal.SIGTERM, PosixSignal.SIGINT, PosixSignal.SIGHUP,
                PosixSignal.SIGQUIT])
            {
                registrations.Add(PosixSignalRegistration.Create(signal, Receive));
            }
        }

        private void Receive(PosixSignalContext context)
        {
            if (Interlocked.Increment(ref received) > 1)
            {
                // Ends as the signal's default action would. But a thread may hang in a layer, and then callers would wait
                // for all other threads as well: so the connection is aborted first.
                _ = mount?.Abort(); // best effort: it ends with this process
                ending.End(128 + (context.Signal switch
                {
                    PosixSignal.SIGHUP => 1,
                    PosixSignal.SIGINT => 2,
                    PosixSignal.SIGQUIT => 3,
                    _ => 15,
                }));
            }
            context.Cancel = true;
            if (mount is { } mounted) { UnmountOnce(mounted); }
        }

        private void UnmountOnce(Mount mount)
        {
            if (Interlocked.Exchange(ref asked, true)) { return; }
            Errno error = mount.Detach();
            switch (error)
            {
                case Errno.None:
                    return;
                case Errno.ENOENT when IsSyncing:
                    log(
                        $"veneer: {mount.MountPoint} is unmounted, and its upper is being synced, as sync_on_unmount asks: wait for "
                        + "the end of that, or send the signal again to end without, so that the upper stays volatile");
                    break;
                case Errno.ENOENT:
                    log(
                        $"veneer: {mount.MountPoint} is not mounted here any more; if the server goes on, another mount namespace has "
                        + "a copy of the mount: send the signal again to end anyway");
                    break;
                case Errno.EBUSY:
                    log(
                        $"veneer: {mount.MountPoint} is covered by another mount: unmount that first, or send the signal again to end "
                        + "anyway");
                    break;
                default:
                    log($"veneer: {mount.MountPoint} cannot be unmounted ({error}): send the signal again to end anyway");
                    break;
            }
        }

        public void Dispose() => registrations.ForEach(one => one.Dispose());
    }

    /// <summary>In the parent: checks that the mount answers, and that it is visible at its path.</summary>
    /// <param name="path">The mount point's full name.</param>
    /// <param name="before">The id of the mount that was there before, as for <see cref="TakeAway"/>.</param>
    private static int CheckThatItAnswers(string path, int before)
    {
        Errno error = Target.Open(path, out _, out int descriptor);
        StatFs status = default;
        if (!error.IsError)
        {
            error = Libc.StatFileSystem(descriptor, out status);
            Libc.Close(descriptor);
        }
        // A mount over the root directory of this process is not visible through its name.
        bool isOverRoot = path == "/" && !MountTable.Read(out List<MountEntry> table).IsError
            && table.FindLast(entry => entry.MountPoint == path) is { Type: "fuse.veneer" };
        if (isOverRoot || (!error.IsError && status.Type == StatFs.FuseMagic))
        {
            UmountHelper.Register(path);
            return ExitCode.Success;
        }
        throw new MountException(error.IsError
            ? $"{path} was mounted, but did not answer ({error}): "
                + $"{(TakeAway(path, before) ? "it is unmounted again, " : "unmount it, and ")}see the system's log and the "
                + "limits of this process."
            : $"{path} was mounted, but is not a mount now: see who unmounted it.");
    }

    /// <summary>Changes the flags of an existing mount, for <c>mount -o remount</c>.</summary>
    private static int Remount(Request request)
    {
        Errno error = Target.Find(request.MountPoint, out string path, out MountEntry? mount);
        if (error.IsError || mount is null) { throw new MountException($"{request.MountPoint} is not a mount point: mount it first."); }
        if (mount.Type != "fuse.veneer")
        {
            throw new MountException($"{path} is a mount of type {mount.Type}, not one of Veneer: use mount -o remount.");
        }

        // mount(2) takes all flags anew: the existing ones, then those asked for.
        var existing = new OptionParser();
        existing.Add(mount.Options);
        MountFlags flags = request.Options.ApplyTo(existing.MountFlags);
        // The kernel does not ask a FUSE server, although it asks its own overlay: ovl_reconfigure().
        if ((flags & MountFlags.ReadOnly) == 0 && (existing.MountFlags & MountFlags.ReadOnly) != 0
            && ServerIdentity.Ask(path, out _) is { HasUpper: false })
        {
            throw new MountException(
                $"{path} has no upper directory, so it cannot be made writable: unmount it, and mount it anew with upperdir "
                + "and workdir.");
        }
        if (ChangeOf(path, request.Options) is { } change)
        {
            throw new MountException(
                $"{change} cannot be changed while {path} is mounted: leave it out, or unmount {path} and mount it anew.");
        }
        if (request.Pretend) { return ExitCode.Success; }
        error = Libc.Mount("none\0"u8, PathText.Encode(path), "none\0"u8, flags | MountFlags.Remount, "\0"u8);
        return error switch
        {
            Errno.None => TellServer(path),
            Errno.EPERM => throw new MountException($"Only root may remount {path}: become root, or unmount it and mount it anew."),
            Errno.EBUSY => throw new MountException($"{path} has files open for writing: close them, then remount it."),
            _ => throw new MountException($"{path} cannot be remounted ({error}): see dmesg."),
        };
    }

    /// <summary>
    /// Finds an overlay option that would change something. Null when there is none: mount(8) repeats the options of
    /// /etc/fstab.
    /// </summary>
    private static string? ChangeOf(string path, OptionParser asked)
    {
        if (!asked.HasOverlayOptions) { return null; }
        try
        {
            OverlayTopology now = LiveMount.Ask(path, Query.Layers, DocumentJson.Default.OverlayTopology);
            return asked.FindChange(now.Options, [.. now.Layers.Where(layer => layer.Index > 0).Select(layer => layer.Given)], Given(0), Given(-1));

            string? Given(int index) => now.Layers.FirstOrDefault(layer => layer.Index == index) is { } layer ? layer.Given : "";
        }
        catch (LayerException)
        {
            return null; // a server that does not answer cannot be told either, below
        }
    }

    /// <summary>
    /// Tells the server what FUSE does not: how access times are kept now, and that upper must be on the disk once the
    /// mount is read-only.
    /// </summary>
    private static int TellServer(string path)
    {
        // unmounted meanwhile
        if (Target.Find(path, out _, out MountEntry? mount).IsError || mount is null) { return ExitCode.Success; }
        string[] flags = mount.Options.Split(',');
        bool isReadOnly = flags.Contains("ro", StringComparer.Ordinal) || mount.FileSystemFlags.Contains("ro", StringComparer.Ordinal);
        string accessTimes = flags.Contains("noatime", StringComparer.Ordinal) ? "noatime"
            : flags.Contains("relatime", StringComparer.Ordinal) ? "relatime"
            : "strictatime";
        string words = (isReadOnly ? "ro," : "rw,") + accessTimes
            + (flags.Contains("nodiratime", StringComparer.Ordinal) ? ",nodiratime" : "");
        try
        {
            int patience = isReadOnly ? -1 : LiveMount.AnswerTime;
            return LiveMount.Ask(path, Query.Remounted, DocumentJson.Default.Remounted, words, patience).Failure is { } failure
                ? throw new MountException($"{path} is remounted, but what was written before may not be on the disk ({failure}): see dmesg.")
                : ExitCode.Success;
        }
        catch (LayerException problem)
        {
            Terminal.Complain($"{path} is remounted, but access times are kept as before, and its upper was not synced. {problem.Message}");
            return ExitCode.Success;
        }
    }
}
