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

/// <summary>Ends an overlay whose mount stays: the layers are released, and every operation gives EIO.</summary>
/// <param name="inodes">The inodes that the kernel knows.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="files">The open files.</param>
/// <param name="places">The layers as they were named.</param>
/// <param name="log">Receives messages for which there is no caller.</param>
internal sealed class Shutdown(InodeTable inodes, KernelSession session, OpenFiles files, IReadOnlyList<Place> places, Action<string> log)
{
    /// <summary>How long to wait for requests that have begun, in milliseconds. A lower may never answer them.</summary>
    private const int Patience = 5_000;

    /// <summary>The ioctl FS_IOC_SHUTDOWN.</summary>
    public const uint ShutdownRequest = 0x8004587D;

    private readonly object downLock = new();

    private bool isDown; // protected by downLock, like downError

    private Errno downError = Errno.EIO; // the result if a shutdown is cut short by an exception

    private int shutdowns;

    private Fd? formerLayers; // kept until the process ends

    /// <summary>Releases the layers. Set by their owner.</summary>
    public Action? ReleaseLayers { get; set; }

    /// <summary>Revokes passed-through files.</summary>
    public PassthroughRevocation Revocation { get; } = new(session, files, log);

    /// <summary>Whether the overlay is shut down, or about to be.</summary>
    public bool IsShutDown => Volatile.Read(ref shutdowns) > 0;

    /// <summary>Ends the threads that use the layers. Its argument tells whether a lower hangs. Set by the wiring of the mount.</summary>
    public required Action<bool> Stop { get; init; }

    /// <summary>
    /// Ends the overlay. Returns when the layers are released, except for files that users have mapped or that the kernel still
    /// reads for them.
    /// </summary>
    /// <param name="reason">The reason for the log: the end of a sentence that begins with "the overlay is shut down".</param>
    /// <remarks>
    /// Requests that have begun end first. Then the kernel writes back what was changed through maps, which is still accepted;
    /// after that no request is accepted. What the kernel has cached is dropped, so that it asks and is refused. The caller may
    /// be serving a request, but holds no lock.
    /// </remarks>
    /// <returns>
    /// <see cref="Errno.EBUSY"/> when somebody may go on reading and writing passed-through files;
    /// <see cref="Errno.ETIMEDOUT"/> when a request does not end: its caller got EIO, and it holds what it uses until its lower answers.
    /// </returns>
    public Errno Run(string reason)
    {
        if (session.Gate is not { } entrance) { return Errno.None; } // not served yet
        Gate.ExpectClosing();
        if (Interlocked.Increment(ref shutdowns) > 1)
        {
            // the first shutdown waits for these threads
            return WritebackErrors.IsOwnThread || LayerWatch.IsOwnThread ? Errno.None : WaitForShutdown();
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
            bool isRevoked = Revocation.Run(entrance);
            if (Revocation.AreAnyOpen)
            {
                formerLayers = FormerLayer.WriteRecord(places, Revocation.Device);
            }
            if (!entrance.Close(Service.Nothing, hangs ? 0 : Patience) && !hangs)
            {
                hangs = true;
                left = GiveUp();
            }
            if (!left.Contains(InodeTable.RootId)) { session.Notifier?.DropInode(InodeTable.RootId); }
            session.Notifier?.DropNames();
            Stop(hangs);
            ReleaseLayers?.Invoke();
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

    /// <summary>Serves the ioctl.</summary>
    /// <returns>
    /// The result of <see cref="Run(string)"/>; <see cref="Errno.EPERM"/> for callers without CAP_SYS_ADMIN in the mount's user
    /// namespace, and for those whose privileges cannot be determined.
    /// </returns>
    public Errno Run(in Veneer.Fuse.Request request)
    {
        if (!Privilege.IsAdministrator(request.Header.Pid) && !(request.Header.Uid == Libc.EffectiveUid && Libc.EffectiveUid != 0))
        {
            return Errno.EPERM;
        }
        return Run($" by user {request.Header.Uid}, process {request.Header.Pid}");
    }

    /// <summary>
    /// Gives up on requests that do not end: their callers get EIO, and the number of a descriptor that is closed from now on
    /// is not recycled.
    /// </summary>
    /// <returns>
    /// The inodes of requests that could not be answered. The kernel would wait for these requests before it drops what it has
    /// cached of the inodes.
    /// </returns>
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
}
