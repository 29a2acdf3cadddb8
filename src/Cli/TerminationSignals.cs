using System.Runtime.InteropServices;
using Veneer.Fuse;
using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>
/// Handles the signals that ask the process to end: the first one unmounts, the second one ends the process even if the
/// mount is in use.
/// </summary>
internal sealed class TerminationSignals : IDisposable
{
    private readonly List<PosixSignalRegistration> registrations = [];
    private readonly ProcessEnd end;
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

    /// <param name="end">Ends this process.</param>
    /// <param name="log">Receives the reason if the mount cannot be unmounted.</param>
    public TerminationSignals(ProcessEnd end, Action<string> log)
    {
        this.end = end;
        this.log = log;
        try
        {
            foreach (PosixSignal signal in (ReadOnlySpan<PosixSignal>)[PosixSignal.SIGTERM, PosixSignal.SIGINT, PosixSignal.SIGHUP,
                PosixSignal.SIGQUIT])
            {
                registrations.Add(PosixSignalRegistration.Create(signal, Receive));
            }
        }
        catch (Exception problem) when (problem.GetBaseException() is IOException { HResult: (int)Errno.EMFILE })
        {
            throw new MountException(Errno.EMFILE.Explain(""), problem); // the runtime makes a pipe for signals
        }
    }

    private void Receive(PosixSignalContext context)
    {
        if (Interlocked.Increment(ref received) > 1)
        {
            // Ends as the signal's default action would. But a thread may hang in a layer, and then callers would wait
            // for all other threads as well: so the connection is aborted first.
            _ = mount?.Abort(); // best effort: it ends with this process
            end.End(128 + (context.Signal switch
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
