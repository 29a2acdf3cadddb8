using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Usage;

namespace Veneer.Cli;

/// <summary><c>veneer umount</c>: unmounts, and returns when the server has released the layers.</summary>
internal static class UmountCommand
{
    private const int EndTime = 30_000;
    private const int LazyEndTime = 1_000;

    /// <summary>How long a busy mount is tried again while no user of it is found, in milliseconds.</summary>
    private const int LookTime = 1_000;

    /// <summary>How long a sync may take before it is reported, in milliseconds.</summary>
    private const int SyncPatience = 2_000;

    private static readonly Option<bool> lazy = new("-l", "--lazy");
    private static readonly Option<bool> verbose = new("-v", "--verbose");

    /// <summary>The options of the command.</summary>
    public static IEnumerable<Option> Options() =>
        // Options that umount(8) passes. Its -f needs no effect: a hung server does not hinder unmounting.
        [lazy, verbose, .. CommandLine.WithoutEffect(["-f", "-n", "-r"], ["-N", "-t"])];

    /// <summary>Unmounts a mount.</summary>
    /// <returns>The exit status.</returns>
    public static int Run(ParseResult parsed, string[] words)
    {
        Pin.ReleaseLeftovers();
        string path = Unmount(words[0], parsed.GetValue(lazy));
        if (parsed.GetValue(verbose)) { Terminal.Write($"veneer: {PathText.OnOneLine(path)} unmounted\n"); }
        return ExitCode.Success;
    }

    private static string Unmount(string place, bool lazily)
    {
        Errno error = Target.Find(place, out string path, out MountEntry? mount);
        if (error.IsError)
        {
            throw new MountException(error switch
            {
                Errno.ENOENT or Errno.ENOTDIR => $"{place} does not exist: name a mount point.",
                Errno.EACCES => $"{place} cannot be reached: unmount it as the user who mounted it, or as root.",
                _ => $"{place} cannot be looked at ({error}): see whether /proc is mounted.",
            });
        }
        if (mount is null) { throw new MountException($"{path} is not a mount point: there is nothing to unmount."); }
        if (mount.Type != "fuse.veneer")
        {
            throw new MountException($"{path} is a mount of type {mount.Type}, not one of Veneer: use umount {path}.");
        }

        using Fd? server = FindServer(path, out int pid, out bool hangs);
        bool syncs = server is not null && SyncsAtEnd(path);
        // Processes that wait for a hanging server, our own child among them, keep the mount busy for as long.
        lazily |= hangs;
        List<MountEntry> copies = CopiesOf(mount);
        error = Mount.Unmount(path, lazily);
        string users = "";
        for (var waited = Stopwatch.StartNew(); error == Errno.EBUSY && waited.ElapsedMilliseconds < LookTime; Thread.Sleep(20))
        {
            users = DescribeUsers(path);
            if (users.Length > 0) { break; }
            error = Mount.Unmount(path, lazily); // a process that looks at all mounts, such as df, uses it for a moment
        }
        switch (error)
        {
            case Errno.None:
                break;
            case Errno.EBUSY:
                throw new MountException(users.Length > 0
                    ? $"{path} is in use by {users}, or take the mount out of sight now with veneer umount -l {path}."
                    : $"{path} is in use: unmount what is mounted below it and end what uses it, see veneer holders {path}, or take "
                        + $"it out of sight now with veneer umount -l {path}.");
            case Errno.EPERM:
                throw new MountException($"Only root, or the user who mounted it, may unmount {path}: become one of them.");
            case Errno.EINVAL:
                throw new MountException($"{path} is not a mount point any more: somebody else has unmounted it.");
            default:
                throw new MountException($"{path} cannot be unmounted ({error}): see dmesg.");
        }
        if (server is not null) { WaitForEnd(server, pid, path, copies, lazily, syncs); }
        return path;
    }

    /// <summary>
    /// Describes the processes that keep a mount busy, and what to do about them, such as <c>bash (123), sh (124), cat (125) and
    /// 2 more: end them or leave the directory</c>; empty when none is found.
    /// </summary>
    private static string DescribeUsers(string path)
    {
        const int mostNamed = 3;
        if (Holders.Find(path, out HolderReport report).IsError) { return ""; }
        List<ProcessUse> uses = [.. report.Uses.Processes.Where(use => use.Process.Pid > 0)];
        if (uses.Count == 0) { return ""; }
        List<string> users = [.. uses
            .Select(use => string.Create(CultureInfo.InvariantCulture, $"{PathText.Printable(use.Process.Name)} ({use.Process.Pid})"))];
        string named = string.Join(", ", users.Take(mostNamed));
        string more = users.Count > mostNamed ? string.Create(CultureInfo.InvariantCulture, $" and {users.Count - mostNamed} more") : "";
        string leave = uses.Exists(use => use.Files.Any(file => file.Use == "cwd")) ? " or leave the directory" : "";
        return $"{named}{more}: end {(users.Count == 1 ? "it" : "them")}{leave}";
    }

    /// <summary>
    /// Whether the server syncs upper after the unmount. False for a caller who may not ask, and so waits no longer than
    /// usual.
    /// </summary>
    private static bool SyncsAtEnd(string path)
    {
        try
        {
            return LiveMount.Ask(path, Query.Durability, DocumentJson.Default.OverlayStatus) is { SyncOnUnmount: true, IsVolatile: true };
        }
        catch (LayerException)
        {
            return false;
        }
    }

    /// <summary>Opens the process that serves the mount.</summary>
    /// <returns>Null when there is none, when it is in another pid namespace, or when it does not answer.</returns>
    private static Fd? FindServer(string path, out int pid, out bool hangs)
    {
        pid = -1;
        ServerProcess? server = ServerIdentity.Ask(path, out hangs);
        if (hangs) { Terminal.Complain($"The server of {path} does not answer: the mount is taken out of sight without waiting for it."); }
        if (server is null) { return null; }
        if (Libc.OpenProcess(server.Pid, out int descriptor).IsError) { return null; }
        var process = new Fd(descriptor);
        // Checked after the descriptor is open: from now on, a recycled pid would be noticed.
        if (!server.IsRunning)
        {
            process.Dispose();
            return null;
        }
        pid = server.Pid;
        return process;
    }

    /// <summary>Finds the other mounts of this namespace that show the same filesystem.</summary>
    private static List<MountEntry> CopiesOf(MountEntry mount) =>
        MountTable.Read(out List<MountEntry> table).IsError
            ? []
            : table.FindAll(entry => entry.Device == mount.Device && entry.Id != mount.Id);

    /// <param name="copies">
    /// The other mounts before the unmount: afterwards, the kernel may recycle the device number for any mount.
    /// </param>
    private static void WaitForEnd(Fd server, int pid, string path, List<MountEntry> copies, bool lazily, bool syncs)
    {
        if (MountTable.Read(out List<MountEntry> table) == Errno.None
            && copies.Find(copy => table.Exists(entry => entry.Id == copy.Id && entry.Device == copy.Device)) is { } other)
        {
            Terminal.Complain(
                $"{path} is unmounted, but the same overlay is still mounted on {other.MountPoint}, so that its layers stay "
                + "in use.");
            return;
        }
        if (lazily)
        {
            _ = HasEnded(server, LazyEndTime); // its users may go on for as long as they like
            return;
        }
        if (syncs)
        {
            if (HasEnded(server, SyncPatience)) { return; }
            Terminal.Complain(
                $"{path} is unmounted, and its server (process {pid}) brings the upper to the disk, as sync_on_unmount asks: "
                + "this takes as long as that does.");
        }
        do
        {
            if (HasEnded(server, EndTime)) { return; }
        }
        while (syncs && !Holders.Instances(out _).Any(one => one.Pid == pid && one.Mounts.Count > 0));
        throw new MountException(
            $"{path} is unmounted here, but its server (process {pid}) still holds the layers, since another mount "
            + "namespace has a copy of the mount: end the processes in that, or end the server.");
    }

    private static bool HasEnded(Fd process, int milliseconds)
    {
        long end = Environment.TickCount64 + milliseconds;
        while (true)
        {
            int left = (int)Math.Max(0, end - Environment.TickCount64);
            Errno error = Libc.Poll(process.Value, PollEvents.In, left, out bool ended);
            if (ended) { return true; }
            if (error != Errno.EINTR && (error.IsError || left == 0)) { return false; }
        }
    }
}
