using System.Diagnostics;
using System.Text;
using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>Something that must be true after every test is not.</summary>
public sealed class BrokenPromiseException(string message) : Exception(message);

/// <summary>What upper and work lie on, if on no ordinary filesystem.</summary>
public enum UpperOn
{
    /// <summary>An ordinary filesystem, that of the lowers.</summary>
    Same,
    /// <summary>A kernel overlay: takes no whiteouts as devices, nor RENAME_WHITEOUT.</summary>
    KernelOverlay,
    /// <summary>An overlay of Veneer: the same.</summary>
    Veneer,
    /// <summary>An overlay of Veneer whose upper is on a kernel overlay.</summary>
    VeneerOnKernelOverlay,
    /// <summary>FUSE by libfuse: no renames with flags, no O_TMPFILE, and open files that are unlinked keep a name.</summary>
    Bindfs,
    /// <summary>No extended attributes, nor RENAME_WHITEOUT.</summary>
    Ramfs,
}

/// <summary>A mounted overlay over layers of its own, which a test may do anything to.</summary>
/// <remarks>
/// When it is disposed it is unmounted, and two promises are checked whatever the test was about: the lower layers are
/// what they were, to the byte, the attribute and the access time, and the work directory holds nothing.
/// A server that does not answer in the time of the test is killed, and the test fails with that.
/// </remarks>
public sealed class Overlay : IDisposable
{
    [ThreadStatic]
    private static Exception? lastThrown;

    private readonly FilePath home;
    private readonly FilePath? ownUpperMount;
    private FilePath? belowUpperMount;
    private readonly Timer watch;
    private readonly int seconds;
    private readonly bool hasNoAttributes;
    private readonly FilePath[] made;
    private TreeImage[] lowersAsTheyWere = [];
    private Mounter? mountedBy;
    private bool kernelWasHere;
    private string? hang;

    static Overlay() => AppDomain.CurrentDomain.FirstChanceException += (_, thrown) => lastThrown = thrown.Exception;

    private Overlay(OverlaySettings settings)
    {
        seconds = settings.Seconds;
        hasNoAttributes = settings.UpperOn == UpperOn.Ramfs;
        Options = settings.Options;
        home = Scratch.New(settings.On);
        FilePath lowerHome = settings.LowersOn is { } other ? Scratch.New(other) : home;
        made = settings.Over is null ? [.. Enumerable.Range(0, settings.Lowers.Length).Select(i => lowerHome / $"lower{i}")] : [];
        Lowers = settings.Over ?? made;
        foreach ((FilePath path, Tree tree) in made.Zip(settings.Lowers))
        {
            Sys.MakeDirectory(path, Octal.Oct(755));
            tree.MakeAt(path);
        }
        Merged = settings.InLower is { } inside ? Lowers[0] / inside : home / "merged";
        if (!Merged.Exists) { Sys.MakeDirectory(Merged, Octal.Oct(755)); }
        if (!settings.ReadOnly)
        {
            FilePath place = settings.UpperIn ?? home;
            if (settings.UpperSize is { } size)
            {
                ownUpperMount = place = home / "small";
                Sys.MakeDirectory(place, Octal.Oct(755));
                Scratch.MountTmpfs(place, size);
            }
            else if (settings.UpperQuota is { } quota)
            {
                place = home / "limited";
                Scratch.MakeLimitedSubvolume(place, quota);
            }
            if (settings.UpperOn != UpperOn.Same)
            {
                ownUpperMount = place = home / "odd";
                Sys.MakeDirectory(place, Octal.Oct(755));
                MountOdd(settings.UpperOn, place);
            }
            Upper = place / "upper";
            Work = place / "work";
            Sys.MakeDirectory(Upper, Octal.Oct(755));
            Sys.MakeDirectory(Work, Octal.Oct(755));
            settings.Upper.MakeAt(Upper,
                whiteoutsAreFiles: settings.UpperOn is UpperOn.KernelOverlay or UpperOn.Veneer or UpperOn.VeneerOnKernelOverlay);
        }
        watch = new Timer(_ => EndHungServer(), null, TimeSpan.FromSeconds(seconds), Timeout.InfiniteTimeSpan);
    }

    private void MountOdd(UpperOn kind, FilePath at)
    {
        FilePath[] below = [home / "odd-lower", home / "odd-upper", home / "odd-work"];
        foreach (FilePath directory in below) { Sys.MakeDirectory(directory, Octal.Oct(755)); }
        string layers = $"lowerdir={below[0]},upperdir={below[1]},workdir={below[2]}";
        switch (kind)
        {
            case UpperOn.KernelOverlay:
                Command.Require("mount", "-t", "overlay", "overlay", "-o", layers, at);
                break;
            case UpperOn.Veneer:
                Command.Require(Mounter.Binary, "mount", "-o", layers, at);
                break;
            case UpperOn.VeneerOnKernelOverlay:
                FilePath under = home / "odd-under";
                Sys.MakeDirectory(under, Octal.Oct(755));
                Command.Require("mount", "-t", "overlay", "overlay", "-o", layers, under);
                belowUpperMount = under;
                foreach (string name in (string[])["upper", "work"]) { Sys.MakeDirectory(under / name, Octal.Oct(755)); }
                Command.Require(Mounter.Binary, "mount", "-o",
                    $"lowerdir={below[0]},upperdir={under / "upper"},workdir={under / "work"},inuse=warn", at);
                break;
            case UpperOn.Bindfs:
                Command.Require("bindfs", below[1], at);
                break;
            default:
                Command.Require("mount", "-t", "ramfs", "ramfs", at);
                break;
        }
    }

    public FilePath Merged { get; }

    /// <summary>The only, or the topmost, lower layer, to look at: reading it leaves no access time behind.</summary>
    public FilePath Lower => Scratch.Quiet(Lowers[0]);

    /// <summary>Where the lower layers are, topmost first.</summary>
    public IReadOnlyList<FilePath> Lowers { get; }

    public FilePath Upper { get; }

    public FilePath Work { get; }

    public string Options { get; set; }

    /// <summary>A directory beside the layers, on the same filesystem.</summary>
    public FilePath Beside(string name) => home / name;

    /// <summary>Leftovers of operations in the work directory; there must be none between operations.</summary>
    /// <remarks>
    /// But one whiteout may be kept there, to be linked to wherever one is needed. The kernel leaves it behind. And the mark of a
    /// volatile mount stays when it is shut down, also with sync_on_unmount.
    /// </remarks>
    public string[] Leftovers => [.. (Work / "work").Entries().Where(IsLeftover)];

    private bool IsLeftover(string name)
    {
        if (name == "incompat" && Mounter.UnderTest.LeavesMark) { return false; }
        if (mountedBy is null && !kernelWasHere) { return true; }
        bool isWhiteout = false;
        Errno error = Sys.ErrorOf(() => isWhiteout = Sys.Stat(Work / "work" / name).IsWhiteoutDevice);
        return error != Errno.ENOENT && !isWhiteout; // it may have gone since it was listed
    }

    /// <param name="lower">The only lower layer.</param>
    /// <param name="lowers">Several, topmost first.</param>
    /// <param name="over">Directories of somebody else as lower layers, instead; no promise about these is checked.</param>
    /// <param name="upper">What the upper holds before the overlay is mounted.</param>
    /// <param name="options">Further mount options.</param>
    /// <param name="on">Where the layers are.</param>
    /// <param name="lowersOn">Where the lower layers are, if elsewhere.</param>
    /// <param name="upperSize">Gives upper and work a tmpfs of their own, of this size.</param>
    /// <param name="upperQuota">Gives upper and work a btrfs subvolume of their own, which may hold no more than this.</param>
    /// <param name="upperIn">An empty directory of somebody else in which upper and work are made, instead.</param>
    /// <param name="upperOn">What upper and work lie on, if on no ordinary filesystem.</param>
    /// <param name="readOnly">Without an upper.</param>
    /// <param name="inLower">A directory of the topmost lower layer to mount on, instead of one beside the layers.</param>
    /// <param name="mounter">Who mounts, if not who is tested.</param>
    /// <param name="mounted">Whether it is mounted at once.</param>
    /// <param name="seconds">The time limit of the test.</param>
    public static Overlay With(
        Tree? lower = null,
        Tree[]? lowers = null,
        FilePath[]? over = null,
        Tree? upper = null,
        string options = "",
        Filesystem on = Filesystem.Tmpfs,
        Filesystem? lowersOn = null,
        string? upperSize = null,
        string? upperQuota = null,
        FilePath? upperIn = null,
        UpperOn upperOn = UpperOn.Same,
        bool readOnly = false,
        string? inLower = null,
        Mounter? mounter = null,
        bool mounted = true,
        int seconds = 30)
    {
        var overlay = new Overlay(
            new OverlaySettings(lowers ?? [lower ?? Tree.Empty], over, upper ?? Tree.Empty, options, on, lowersOn, upperSize, upperQuota,
                upperIn, upperOn, readOnly, inLower, seconds));
        try
        {
            if (mounted) { overlay.Mount(mounter); }
            return overlay;
        }
        catch
        {
            overlay.Dispose();
            throw;
        }
    }

    /// <summary>Mounts the layers, with Veneer unless told otherwise.</summary>
    public void Mount(Mounter? with = null, string? options = null)
    {
        if (lowersAsTheyWere.Length == 0)
        {
            lowersAsTheyWere = [.. made.Select(TreeImage.OfLayer)];
            _ = watch.Change(TimeSpan.FromSeconds(seconds), Timeout.InfiniteTimeSpan); // the test has its time to itself
        }
        Mounter mounter = with ?? Mounter.UnderTest;
        bool writable = Upper.Text is not null;
        options ??= Options;
        // A volatile upper is marked by an attribute, so that it cannot be volatile there whatever the tests are run with.
        if (hasNoAttributes && mounter.IsVeneer) { options += options.Length > 0 ? ",fsync=auto" : "fsync=auto"; }
        mounter.Mount(new Layers(Lowers, writable ? (FilePath?)Upper : null, writable ? (FilePath?)Work : null, Merged, options));
        mountedBy = mounter;
        kernelWasHere |= mounter.IsKernel;
    }

    public void MountWithKernel(string? options = null) => Mount(Mounter.Kernel, options);

    public void Unmount()
    {
        mountedBy?.Unmount(Merged);
        mountedBy = null;
    }

    /// <summary>Makes the mount read-only, or writable again, as <c>mount -o remount</c> does.</summary>
    public void RemountAs(bool readOnly) => SysException.ThrowIf(
        Libc.Mount("none\0"u8, Merged.Bytes, "none\0"u8, MountFlags.Remount | (readOnly ? MountFlags.ReadOnly : MountFlags.None), "\0"u8),
        $"remount({Merged})");

    /// <summary>Changes flags of the mount, as <c>mount -o remount</c> does.</summary>
    public void RemountAs(string options)
    {
        if (mountedBy is { IsVeneer: true }) { Command.Require(Mounter.Binary, "mount", "-o", $"remount,{options}", Merged); }
        else { Command.Require("mount", "-o", $"remount,{options}", Merged); }
    }

    /// <summary>Unmounts, forgets what the kernel has cached, and mounts again in the same way.</summary>
    /// <param name="between">What is done to the layers meanwhile.</param>
    public void Remount(Action? between = null)
    {
        Mounter? by = mountedBy;
        Unmount();
        Sys.DropCaches();
        between?.Invoke();
        Mount(by);
    }

    /// <summary>What the tested overlay shows; then what kernel overlayfs shows over the same layers.</summary>
    public (TreeImage Shown, TreeImage Expected) ShownBesideKernel(string? kernelOptions = null, Facets facets = Facets.Visible)
    {
        TreeImage shown = TreeImage.Of(Merged, facets);
        Mounter? by = mountedBy;
        Unmount();
        MountWithKernel(kernelOptions ?? Options);
        TreeImage expected = TreeImage.Of(Merged, facets);
        Unmount();
        Mount(by);
        return (shown, expected);
    }

    /// <summary>The processes that serve the mount: those that were given its mount point.</summary>
    public IReadOnlyList<int> Servers => ServersOf(Merged);

    /// <summary>Stops the server, so that whoever asks it waits, or has it go on. Returns when all its threads have stopped.</summary>
    public void HoldServer(bool hold = true)
    {
        const int Continue = 18, Stop = 19;
        foreach (int pid in Servers)
        {
            if (Native.kill(pid, hold ? Stop : Continue) != 0) { continue; } // it has ended
            // Until each of its threads has seen the signal, it may serve a request.
            while (hold
                && Directory.GetDirectories($"/proc/{pid}/task").Any(
                    task => !Sys.ReadText(task + "/stat").Contains(") T ", StringComparison.Ordinal)))
            {
                Thread.Sleep(1);
            }
        }
    }

    /// <summary>Removes what a volatile mount leaves behind, as if everything had been synced.</summary>
    public void ForgetVolatile()
    {
        Sys.RemoveTree(Work / "work/incompat");
        _ = Sys.ErrorOf(() => Sys.Unlink(Work / "veneer-volatile")); // best effort: the kernel leaves none
        _ = Sys.ErrorOf(() => Sys.RemoveXattr(Upper, "trusted.overlay.volatile")); // as above
    }

    /// <summary>Ends the server at once, as a crash would, and takes its mount away.</summary>
    public void KillServer()
    {
        foreach (int pid in Servers) { _ = Native.kill(pid, 9); } // best effort: it may be ending by itself
        Libc.Unmount(Merged.Bytes, lazy: true);
        mountedBy = null;
        var waited = Stopwatch.StartNew();
        while ((Servers.Count > 0 || IsLocked(Upper) || IsLocked(Work)) && waited.Elapsed < TimeSpan.FromSeconds(10)) { Thread.Sleep(5); }
    }

    /// <summary>
    /// Whether somebody has a flock(2) on a directory. A process that is ending has no command line any more, but still its
    /// locks.
    /// </summary>
    private static bool IsLocked(FilePath directory) =>
        directory.Text is not null && directory.Exists && Sys.ReadText("/proc/locks").Split('\n').Any(line =>
            line.Contains("FLOCK", StringComparison.Ordinal) && line.Contains($":{Sys.Stat(directory).Ino} ", StringComparison.Ordinal));

    /// <summary>Ends every server of a mount and aborts its connection, so that whoever waits for it goes on.</summary>
    public static void Abort(FilePath merged)
    {
        string? device = MountTable.Read(out List<MountEntry> mounts).IsError
            ? null
            : mounts.LastOrDefault(m => m.MountPoint == merged.Text)?.Device;
        foreach (int pid in ServersOf(merged)) { _ = Native.kill(pid, 9); } // best effort: as above
        if (device?.Split(':') is ["0", string minor])
        {
            // best effort: it is most likely gone with its server
            _ = Sys.ErrorOf(() => Sys.Write($"/sys/fs/fuse/connections/{minor}/abort", "1"));
        }
    }

    public void Dispose()
    {
        Exception? first = lastThrown;
        var broken = new StringBuilder();
        try
        {
            Unmount();
        }
        catch (Exception problem) when (problem is SysException or InvalidOperationException or TimeoutException)
        {
            broken.Append("It could not be unmounted: ").AppendLine(problem.Message);
            KillServer();
        }
        watch.Dispose();
        if (hang is not null) { broken.AppendLine(hang); }
        CheckLowers(broken);
        if (Upper.Text is not null && Leftovers.Length > 0)
        {
            broken.Append("The work directory holds ").AppendLine(string.Join(", ", Leftovers));
        }
        if (ownUpperMount is { } small) { Libc.Unmount(small.Bytes, lazy: true); }
        if (belowUpperMount is { } under) { Libc.Unmount(under.Bytes, lazy: true); }
        Sys.RemoveTree(home);
        foreach (FilePath lower in made.Where(l => l.Exists)) { Sys.RemoveTree(lower.Parent); }
        if (broken.Length > 0)
        {
            throw new BrokenPromiseException($"{broken}{(first is null ? "" : $"Thrown last before that: {first.Message}")}");
        }
    }

    private void CheckLowers(StringBuilder broken)
    {
        foreach ((FilePath lower, TreeImage before) in made.Zip(lowersAsTheyWere))
        {
            string difference = TreeImage.Difference(before, TreeImage.OfLayer(lower));
            if (difference.Length > 0) { broken.Append("A lower layer has changed: ").AppendLine(difference); }
        }
    }

    private void EndHungServer()
    {
        hang = $"The test had not ended after {seconds} s; its server was killed.";
        Abort(Merged);
    }

    /// <summary>The processes that were given this mount point.</summary>
    public static IReadOnlyList<int> ServersOf(FilePath merged)
    {
        var found = new List<int>();
        foreach (string process in Directory.GetDirectories("/proc"))
        {
            if (!int.TryParse(Path.GetFileName(process), out int pid) || pid == Environment.ProcessId) { continue; }
            if (Libc.ReadWhole(PathText.Encode($"{process}/cmdline"), out byte[] line).IsError) { continue; }
            if (PathText.Decode(line.Select(b => b == 0 ? (byte)'\n' : b).ToArray())
                .Split('\n')
                .Contains(merged.Text, StringComparer.Ordinal))
            {
                found.Add(pid);
            }
        }
        return found;
    }

    private sealed record OverlaySettings(
        Tree[] Lowers, FilePath[]? Over, Tree Upper, string Options, Filesystem On, Filesystem? LowersOn, string? UpperSize,
        string? UpperQuota, FilePath? UpperIn, UpperOn UpperOn, bool ReadOnly, string? InLower, int Seconds);
}
