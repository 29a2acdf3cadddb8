using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using Spectre.Console;
using Veneer.Linux;
using Veneer.Overlay;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Durability;

namespace Veneer.Cli;

/// <summary><c>veneer sync</c>: writes an upper to the disk, and removes the mark of a volatile one.</summary>
internal static class SyncCommand
{
    /// <summary>
    /// The time between two looks at the progress, each of which takes a child process when a mount is asked. The first
    /// looks come sooner, since most syncs are quick.
    /// </summary>
    private static readonly TimeSpan interval = TimeSpan.FromMilliseconds(500);

    private static readonly TimeSpan firstInterval = TimeSpan.FromMilliseconds(20);

    /// <summary>How long a sync may take before its progress is reported.</summary>
    private static readonly TimeSpan patience = TimeSpan.FromSeconds(1);

    /// <summary>Types of filesystems that hold no files of users. In tmpfs there may be uppers, whose mark is to be removed.</summary>
    private static readonly HashSet<string> withoutDisk = new(StringComparer.Ordinal)
    {
        "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "fusectl", "mqueue", "nsfs", "proc",
        "pstore", "securityfs", "selinuxfs", "sysfs", "tracefs",
    };

    private static readonly Option<string> perSecond = new("--iops");
    private static readonly Option<string> work = new("--work");

    /// <summary>The options of the command.</summary>
    public static IEnumerable<Option> Options() => [perSecond, work];

    /// <summary>Syncs a mount or an upper.</summary>
    /// <returns>The exit status.</returns>
    public static int Run(ParseResult parsed, string[] words)
    {
        try
        {
            int limit = 0;
            if (parsed.GetValue(perSecond) is { } text
                && (!int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out limit) || limit == 0))
            {
                throw new OverlayMountException($"--iops {text} is not understood: give a number of operations a second, from 1.");
            }
            string place = words[0];
            Errno error = Target.FindAround(place, out string resolved, out MountEntry? mount, out int descriptor);
            if (!error.IsError) { Libc.Close(descriptor); }
            if (!error.IsError && mount?.Type == "fuse.veneer")
            {
                if (parsed.GetValue(work) is not null)
                {
                    throw new OverlayMountException("A mount point and --work exclude each other: the mount knows its work directory.");
                }
                return SyncMount(place, limit);
            }
            if (!error.IsError && mount?.Type == "overlay" && mount.MountPoint == resolved)
            {
                throw new LayerException(
                    $"{resolved} is an overlay of the kernel, which is not asked to sync: name its upper directory, see veneer "
                    + $"layers {resolved}.", ExitCode.NotAnOverlay);
            }
            if (!error.IsError && mount is not null && withoutDisk.Contains(mount.Type))
            {
                throw new LayerException($"{resolved} is on a filesystem of type {mount.Type}, which has no disk: name a mount point, or "
                    + "an upper directory.", ExitCode.NotAnOverlay);
            }
            return SyncUpper(place, parsed.GetValue(work), limit);
        }
        catch (VolatileUpperException problem)
        {
            Terminal.Complain(problem.Message);
            return problem.Problem switch
            {
                UpperProblem.Absent => ExitCode.NotAMount,
                UpperProblem.Denied => ExitCode.Denied,
                UpperProblem.Lost => ExitCode.Unsynced,
                UpperProblem.Damaged => ExitCode.Corrupt,
                UpperProblem.OtherVersion => ExitCode.OtherVersion,
                _ => ExitCode.Failure,
            };
        }
    }

    private static int SyncMount(string place, int limit)
    {
        string argument = limit.ToString(CultureInfo.InvariantCulture);
        OverlayStatus status = LiveMount.Ask(place, Query.Sync, DocumentJson.Default.OverlayStatus, argument);
        SyncStatus state = Watch(() =>
        {
            status = LiveMount.Ask(place, Query.Durability, DocumentJson.Default.OverlayStatus);
            return status.Sync
                ?? throw new LayerException($"The server of {place} knows of no sync any more: run veneer sync again.", ExitCode.Failure);
        });
        if (!Report(state)) { return ExitCode.Unsynced; }
        if (status.Failure is { } failure)
        {
            Terminal.Complain(
                $"Writing to the upper's filesystem failed since {place} was mounted ({failure}): what it lacks cannot be "
                + "told.");
            return ExitCode.Unsynced;
        }
        Terminal.Write(Synced(state));
        if (status.IsVolatile)
        {
            const string advice = "unmount it and sync once more, which is quick, to mount it otherwise";
            Terminal.Write($"The upper stays volatile while it is mounted: {advice}.\n");
        }
        return ExitCode.Success;
    }

    private static int SyncUpper(string path, string? work, int limit)
    {
        using VolatileUpper upper = VolatileUpper.Open(path, work);
        // An ordinary upper and a directory that is no upper look the same.
        if (!upper.IsMarked && !upper.IsInUse)
        {
            Terminal.Complain($"{path} has no mark of a volatile upper: if that is a mount point, name the upper.");
        }
        UpperSync sync = upper.Sync(limit);
        var thread = new Thread(() => sync.Run()) { IsBackground = true };
        thread.Start();
        SyncStatus state = Watch(() => new SyncStatus { Over = sync.IsOver, Done = sync.Done, Total = sync.Total, Failed = sync.Failed });
        thread.Join();
        state = state with { Failures = [.. sync.Failures.Select(one => new UnsyncedFile(one.Path, one.Error.ToString()))] };
        bool isSynced = Report(state);
        if (upper.IsInUse) { upper.JudgeAgain(); }
        if (!isSynced) { return ExitCode.Unsynced; }
        if (upper.IsInUse)
        {
            Terminal.Write(Synced(state));
            if (upper.IsMarked)
            {
                Terminal.Write(
                    "The upper stays volatile while it is mounted: unmount it and sync once more, which is quick, to mount it "
                    + "otherwise.\n");
            }
            return ExitCode.Success;
        }
        upper.ClearMark();
        Terminal.Write(Synced(state));
        return ExitCode.Success;
    }

    private static string Synced(SyncStatus state) =>
        $"{state.Done} {(state.Done == 1 ? "file or directory" : "files and directories")} synced\n";

    /// <summary>Says file by file what could not be synced.</summary>
    /// <returns>Whether there was nothing of the kind.</returns>
    private static bool Report(SyncStatus state)
    {
        foreach ((string path, string error) in state.Failures)
        {
            Terminal.Complain($"{(path.Length == 0 ? "The upper directory itself" : PathText.Printable(path))} cannot be synced ({error})");
        }
        if (state.Failed > state.Failures.Count) { Terminal.Complain($"and {state.Failed - state.Failures.Count} more"); }
        return state.Failed == 0;
    }

    /// <summary>Shows how far it is until it is over: a bar, or lines where nobody sees a bar.</summary>
    private static SyncStatus Watch(Func<SyncStatus> look)
    {
        if (!Console.IsErrorRedirected) { return WatchWithBar(look); }
        SyncStatus state = look();
        long started = Stopwatch.GetTimestamp();
        TimeSpan wait = firstInterval;
        for (long next = 1; !state.Over; state = look())
        {
            // One line for each tenth of a sync that takes long.
            if (state.Total > 0 && state.Done * 10 / state.Total >= next && Stopwatch.GetElapsedTime(started) > patience)
            {
                Terminal.Trace($"{state.Done} of {state.Total}");
                next = (state.Done * 10 / state.Total) + 1;
            }
            Wait(ref wait);
        }
        return state;
    }

    private static void Wait(ref TimeSpan wait)
    {
        Thread.Sleep(wait);
        wait = wait * 2 < interval ? wait * 2 : interval;
    }

    private static SyncStatus WatchWithBar(Func<SyncStatus> look)
    {
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(Console.Error) });
        return console.Progress()
            .AutoClear(true)
            .Columns(new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn(), new RemainingTimeColumn())
            .Start(progress =>
            {
                ProgressTask task = progress.AddTask("Syncing", maxValue: 1);
                SyncStatus state = look();
                TimeSpan wait = firstInterval;
                for (; !state.Over; state = look())
                {
                    task.MaxValue = Math.Max(1, state.Total);
                    task.Value = state.Done;
                    Wait(ref wait);
                }
                task.Value = task.MaxValue;
                return state;
            });
    }
}
