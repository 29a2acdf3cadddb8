using Veneer.Fuse;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Host;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Usage;

namespace Veneer.Overlay.Live;

/// <summary>The end of an overlay whose mount stays: nothing of the layers is held any more, and every operation gives EIO.</summary>
/// <param name="inodes">What the kernel knows.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="files">The open files.</param>
/// <param name="places">The layers as they were named.</param>
/// <param name="log">For what is told to no caller.</param>
internal sealed class Shutdown(InodeTable inodes, KernelSession session, OpenFiles files, IReadOnlyList<Place> places, Action<string> log)
{
    /// <summary>How long requests are waited for that were begun before, in milliseconds. A lower may never answer them.</summary>
    private const int Patience = 5_000;

    /// <summary>FS_IOC_SHUTDOWN.</summary>
    public const uint ShutdownRequest = 0x8004587D;

    private readonly object downLock = new();

    private bool isDown; // under downLock, as what follows

    private Errno downError = Errno.EIO; // of one that was cut short

    private int shutdowns;

    private Fd? formerLayers; // until the process ends

    /// <summary>Set by who owns the layers: lets go of them.</summary>
    public Action? LetGo { get; set; }

    /// <summary>Set by who can: has another process look up so many names in a directory, and says whether it could. See <see cref="Gate.Revoke"/>.</summary>
    public Func<string, int, bool>? LookUpRevoked { get; set; }

    /// <summary>The number of the mount's device, as mount tables have it; set when it is mounted.</summary>
    public string Device { get; set; } = "";

    /// <summary>Whether the overlay is down, or on its way there.</summary>
    public bool IsShutDown => Volatile.Read(ref shutdowns) > 0;

    /// <summary>Set by who can: ends what uses the layers. Told whether a lower hangs.</summary>
    public required Action<bool> Stop { get; init; }

    /// <summary>Ends the overlay. Returns when the layers are free, but for what users have mapped or are reading by themselves.</summary>
    /// <param name="reason">For the log: the end of a sentence that begins with "the overlay is shut down".</param>
    /// <remarks>
    /// Requests that were begun end first. Then the kernel writes back what was changed through maps, while we still take
    /// that; then nothing is taken any more. What the kernel has cached is dropped, so that it asks, and is refused. The
    /// caller may serve a request, but holds no lock.
    /// </remarks>
    /// <returns>
    /// <see cref="Errno.EBUSY"/> when somebody may go on reading and writing files that are passed through;
    /// <see cref="Errno.ETIMEDOUT"/> when a request does not end: it got EIO, and holds what it uses until its lower answers.
    /// </returns>
    public Errno Run(string reason)
    {
        if (session.Gate is not { } entrance) { return Errno.None; } // not served yet
        Gate.ExpectClosing();
        if (Interlocked.Increment(ref shutdowns) > 1)
        {
            return WritebackErrors.IsOwnThread || LayerWatch.IsOwnThread ? Errno.None : WaitForShutdown(); // those threads are waited for themselves
        }
        Errno error = Errno.EIO;
        log($"veneer: the overlay is shut down{reason}");
        using KernelSession.BlockingScope blocking = session.Block();
        try
        {
            bool hangs = !entrance.Close(Service.Ending, Patience);
            HashSet<ulong> left = hangs ? GiveUp() : [];
            List<ulong> nodes = inodes.NodeIds();
            foreach (ulong node in nodes.Where(node => !left.Contains(node))) { session.Notifier?.DropInode(node); }
            bool isRevoked = Revoke(entrance);
            if (files.ToList().Exists(file => file.Backing is { IsPassthrough: true })) { formerLayers = FormerLayer.Leave(places, Device); }
            if (!entrance.Close(Service.Nothing, hangs ? 0 : Patience) && !hangs)
            {
                hangs = true;
                left = GiveUp();
            }
            if (!left.Contains(InodeTable.RootId)) { session.Notifier?.DropInode(InodeTable.RootId); }
            session.Notifier?.DropNames();
            Stop(hangs);
            LetGo?.Invoke();
            error = hangs ? Errno.ETIMEDOUT : isRevoked ? Errno.None : Errno.EBUSY;
            return error;
        }
        finally
        {
            using (ObjectLock.Enter(downLock, OverlayLocks.Shutdown))
            {
                isDown = true;
                downError = error;
                Monitor.PulseAll(downLock);
            }
        }
    }

    /// <summary>The ioctl.</summary>
    /// <returns>As the other one; <see cref="Errno.EPERM"/> for those without CAP_SYS_ADMIN in the mount's user namespace, and for those of whom that cannot be told.</returns>
    public Errno Run(in Veneer.Fuse.Request request)
    {
        if (!Privilege.IsAdministrator(request.Header.Pid) && !(request.Header.Uid == Libc.EffectiveUid && Libc.EffectiveUid != 0)) { return Errno.EPERM; }
        return Run($" by user {request.Header.Uid}, process {request.Header.Pid}");
    }

    /// <summary>Requests do not end: their callers get an answer, and what is closed from now on is not opened under the same number.</summary>
    /// <returns>The inodes of those that could not be answered. The kernel would wait for them before it forgets what it has of them.</returns>
    private HashSet<ulong> GiveUp()
    {
        log("veneer: a layer does not answer: what waits for it gets EIO, and holds it until it does");
        Libc.UseNumbersOnce();
        return session.Workers?.AnswerAll(Errno.EIO) ?? [];
    }

    private Errno WaitForShutdown()
    {
        using (ObjectLock.Enter(downLock, OverlayLocks.Shutdown))
        {
            while (!isDown) { Monitor.Wait(downLock); }
            return downError;
        }
    }

    /// <summary>Files that are passed through are read and written by the kernel alone: it must know that they are gone.</summary>
    /// <returns>False when it could not be told.</returns>
    private bool Revoke(Gate entrance)
    {
        if (session.Backings is null || LookUpRevoked is null) { return true; }
        ulong[] nodes = [.. files.ToList().Where(file => file.Backing is { IsPassthrough: true }).Select(file => file.NodeId).Distinct()];
        if (nodes.Length == 0) { return true; }
        entrance.Revoke(nodes);
        // The mount may be left in another namespace than ours.
        bool isFound = false;
        foreach (MountNamespace space in MountNamespace.Visible())
        {
            foreach (MountEntry mount in space.Mounts.Where(mount => mount.Device == Device && mount.Root == "/"))
            {
                if (LookUpRevoked(space.Process == "self" ? mount.MountPoint : $"/proc/{space.Process}/root{mount.MountPoint}", nodes.Length)) { return true; }
                isFound = true;
            }
        }
        log($"veneer: {nodes.Length} files that the kernel reads and writes by itself stay open to who has them, since {(isFound ? "the process that tells it so could not do its work" : "the mount is found nowhere any more")}: end who has them, see veneer holders");
        return false;
    }
}
