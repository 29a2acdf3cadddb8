using System.Diagnostics;

namespace Veneer.Mount.Tests.Crash;

/// <summary>
/// Veneer in the foreground, killed when it enters a given step. A step is a system call that changes something, or the reply
/// after it. See stepper.c.
/// </summary>
/// <param name="home">A directory of its own, which it makes.</param>
/// <param name="last">The step at which it is killed, from 1; 0 never.</param>
internal sealed class SteppedServer(FilePath home, int last) : Mounter, IDisposable
{
    private static readonly CProgram Stepper = new("test/Mount.Tests/Crash/stepper.c");

    private Process? process;

    private FilePath Armed => home / "armed";

    private FilePath Log => home / "log";

    public override bool IsVeneer => true;

    /// <summary>Every step since the steps are counted; the last one was not done when the server was killed there.</summary>
    public string[] Steps => Log.Exists ? Sys.ReadText(Log).Split('\n', StringSplitOptions.RemoveEmptyEntries) : [];

    public bool WasKilled => last > 0 && Steps.Length >= last;

    /// <summary>From here on steps are counted.</summary>
    public void CountSteps()
    {
        if (!home.Exists) { Sys.MakeDirectory(home); }
        Sys.Write(Armed, "");
    }

    /// <summary>Mounts, and returns when requests are served.</summary>
    /// <exception cref="InvalidOperationException">The server has ended before that.</exception>
    public override void Mount(Layers layers)
    {
        if (!home.Exists) { Sys.MakeDirectory(home); }
        ulong below = Sys.Stat(layers.Merged).Dev;
        string[] words = [last.ToString(), Armed, Log, Binary, "mount", "-f", "-o", OptionsOf(layers), layers.Merged];
        var start = new ProcessStartInfo(Stepper.Path, words) { RedirectStandardInput = true, RedirectStandardError = true };
        _ = start.Environment.Remove(LockRecord.Variable); // what it writes would be steps
        process = Programs.Start(start);
        var waited = Stopwatch.StartNew();
        while (true)
        {
            // Of a mount that nobody serves yet, this waits for the first answer.
            Errno error = Libc.StatAt(Libc.AtCwd, layers.Merged.Bytes, StatxMask.Basic, out Statx stat);
            if (!error.IsError && stat.Dev != below) { return; }
            if (process.HasExited) { throw new InvalidOperationException($"The server has ended: {process.StandardError.ReadToEnd()}"); }
            if (waited.Elapsed > TimeSpan.FromSeconds(10)) { throw new TimeoutException("The server does not mount."); }
            Thread.Sleep(1);
        }
    }

    public override void Unmount(FilePath merged)
    {
        UnmountPatiently(merged);
        process!.WaitForExit();
    }

    public void Dispose()
    {
        if (process is null) { return; }
        if (!process.HasExited) { process.Kill(); } // which kills what it traces
        process.WaitForExit();
        process.Dispose();
    }
}
