using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Host;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay;

/// <summary>The end of an overlay whose mount stays: nothing of the layers is held any more, and every operation gives EIO.</summary>
internal sealed partial class OverlayFileSystem
{
    /// <summary>FS_IOC_SHUTDOWN.</summary>
    internal const uint ShutdownRequest = 0x8004587D;

    private readonly object downLock = new();
    private bool isDown; // under downLock
    private int shutdowns;

    /// <summary>Set by who owns the layers: lets go of them.</summary>
    public Action? LetGo { get; set; }

    /// <summary>Set by who can: has another process look up so many names in a directory, and says whether it could. See <see cref="Gate.Revoke"/>.</summary>
    public Func<string, int, bool>? LookUpRevoked { get; set; }

    /// <summary>The number of the mount's device, as mount tables have it; set when it is mounted.</summary>
    public string Device { get; set; } = "";

    /// <summary>Whether the overlay is down, or on its way there.</summary>
    public bool IsShutDown => Volatile.Read(ref shutdowns) > 0;

    /// <summary>Ends the overlay. Returns when the layers are free, but for what users have mapped or are reading by themselves.</summary>
    /// <param name="reason">For the log: the end of a sentence that begins with "the overlay is shut down".</param>
    /// <remarks>
    /// Requests that were begun end first. Then the kernel writes back what was changed through maps, while we still take
    /// that; then nothing is taken any more. What the kernel has cached is dropped, so that it asks, and is refused. The
    /// caller may serve a request, but holds no lock.
    /// </remarks>
    public void ShutDown(string reason)
    {
        if (gate is not { } entrance) { return; } // not served yet
        Gate.ExpectClosing();
        if (Interlocked.Increment(ref shutdowns) > 1)
        {
            if (!WritebackErrors.IsOwnThread && !LayerWatch.IsOwnThread) { WaitForShutdown(); } // those threads are waited for themselves
            return;
        }
        volume.Log($"veneer: the overlay is shut down{reason}");
        workers?.BeginBlocking();
        try
        {
            entrance.Close(Service.Ending);
            List<ulong> nodes = volume.Inodes.NodeIds();
            foreach (ulong node in nodes) { notifier?.DropInode(node); }
            Revoke(entrance);
            entrance.Close(Service.Nothing);
            notifier?.DropInode(InodeTable.RootId);
            notifier?.DropNames();
            Stop();
            LetGo?.Invoke();
        }
        finally
        {
            workers?.EndBlocking();
            lock (downLock)
            {
                isDown = true;
                Monitor.PulseAll(downLock);
            }
        }
    }

    private void WaitForShutdown()
    {
        lock (downLock)
        {
            while (!isDown) { Monitor.Wait(downLock); }
        }
    }

    /// <summary>Files that are passed through are read and written by the kernel alone: it must know that they are gone.</summary>
    private void Revoke(Gate entrance)
    {
        if (backings is null || LookUpRevoked is null) { return; }
        ulong[] nodes = [.. files.ToList().Where(file => file.Backing is { IsPassthrough: true }).Select(file => file.NodeId).Distinct()];
        if (nodes.Length == 0) { return; }
        entrance.Revoke(nodes);
        // The mount may be left in another namespace than ours. Where none can be found, what is open goes on.
        foreach (MountNamespace space in MountNamespace.Visible())
        {
            foreach (MountEntry mount in space.Mounts.Where(mount => mount.Device == Device && mount.Root == "/"))
            {
                if (LookUpRevoked(space.Process == "self" ? mount.MountPoint : $"/proc/{space.Process}/root{mount.MountPoint}", nodes.Length)) { return; }
            }
        }
    }

    /// <summary>The ioctl.</summary>
    /// <returns><see cref="Errno.EPERM"/> for those without CAP_SYS_ADMIN in the mount's user namespace, and for those of whom that cannot be told.</returns>
    private Errno ShutDown(in Request request)
    {
        if (!Privilege.IsAdministrator(request.Header.Pid) && !(request.Header.Uid == Libc.EffectiveUid && Libc.EffectiveUid != 0)) { return Errno.EPERM; }
        ShutDown($" by user {request.Header.Uid}, process {request.Header.Pid}");
        return Errno.None;
    }
}
