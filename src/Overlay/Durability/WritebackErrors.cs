using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Durability;

/// <summary>Whether the kernel has failed to write back what was written to upper. Once it has, that stays so.</summary>
/// <remarks>
/// Asked at each fsync and at the last close of a written file; and, where an error is to have consequences, by a thread
/// of its own: at once when a request may have written something, then every second until none has for longer than the
/// kernel keeps pages back. After that it sleeps, and costs nothing.
/// </remarks>
internal sealed class WritebackErrors
{
    private static readonly TimeSpan interval = TimeSpan.FromSeconds(1);

    /// <summary>The kernel begins to write a page after 30 seconds (vm.dirty_expire_centisecs) and looks every 5. Twice that, in intervals.</summary>
    private const int Patience = 70;

    [ThreadStatic]
    private static bool isOwnThread;

    private readonly ErrorSentinel? sentinel;
    private readonly Action<Errno>? consequence;
    private readonly object gate = new();
    private Thread? thread;
    private int failure;
    private volatile bool isTouched;
    private volatile bool isAsleep = true; // written under the gate, as what follows
    private bool isDue;
    private bool stopping;

    /// <param name="sentinel">Knows of all errors of the filesystem; null: only those of files that we have open are found.</param>
    /// <param name="isInMemory">Whether nothing is ever written back.</param>
    /// <param name="consequence">Called once, by a thread of its own, with the first error; null: none.</param>
    public WritebackErrors(ErrorSentinel? sentinel, bool isInMemory, Action<Errno>? consequence)
    {
        this.sentinel = sentinel;
        this.consequence = isInMemory ? null : consequence;
        IsInMemory = isInMemory;
    }

    /// <summary>Whether nothing is ever written back.</summary>
    public bool IsInMemory { get; }

    /// <summary>Whether all errors of the filesystem are found, not only those of files that we have open.</summary>
    public bool IsExact => IsInMemory || sentinel is not null;

    /// <summary>The first error, or <see cref="Errno.None"/>.</summary>
    public Errno Failure => (Errno)Volatile.Read(ref failure);

    /// <summary>Looks for an error now.</summary>
    /// <param name="descriptor">A file of upper that was written, or -1.</param>
    /// <returns><see cref="Errno.EIO"/> once there was one.</returns>
    public Errno Check(int descriptor)
    {
        if (!IsInMemory && !Failure.IsError)
        {
            if (sentinel is not null) { Note(sentinel.Check()); }
            else if (descriptor >= 0) { Note(Libc.WritebackError(descriptor)); }
        }
        return Failure.IsError ? Errno.EIO : Errno.None;
    }

    /// <summary>A sync of a file of upper has ended.</summary>
    /// <returns>Its error if it is the first one, else as <see cref="Check"/>.</returns>
    public Errno Synced(Errno result)
    {
        if (Failure.IsError) { return Errno.EIO; }
        Note(result);
        return Failure.IsError ? result : Check(-1).IsError ? Errno.EIO : result;
    }

    /// <summary>Something may have been written.</summary>
    public void Touch()
    {
        if (consequence is null || isTouched) { return; }
        isTouched = true;
        Interlocked.MemoryBarrier(); // the thread says that it sleeps, and then looks here: one of us sees the other
        if (isAsleep) { Wake(); }
    }

    private void Wake()
    {
        using (ObjectLock.Enter(gate, OverlayLocks.WritebackErrors))
        {
            if (stopping) { return; }
            isAsleep = false;
            isDue = true;
            if (thread is null)
            {
                thread = new Thread(Run, maxStackSize: 256 * 1024) { IsBackground = true, Name = "writeback" };
                thread.Start();
            }
            Monitor.Pulse(gate);
        }
    }

    /// <summary>Whether what a sync gives means that something was not written. That the file cannot be synced at all, or not now, does not.</summary>
    public static bool IsLoss(Errno result) =>
        result.IsError && result is not (Errno.EINTR or Errno.EINVAL or Errno.ENOSYS or Errno.EOPNOTSUPP or Errno.EBADF or Errno.ESPIPE);

    private void Note(Errno error)
    {
        if (!IsLoss(error)) { return; }
        if (Interlocked.CompareExchange(ref failure, (int)error, 0) == 0 && consequence is not null) { Wake(); }
    }

    /// <summary>Whether the calling thread is the one that calls the consequence.</summary>
    public static bool IsOwnThread => isOwnThread;

    private void Run()
    {
        isOwnThread = true;
        int quiet = 0;
        while (true)
        {
            _ = Check(-1); // what it finds is kept
            if (Failure is { } error && error.IsError)
            {
                consequence!(error);
                return;
            }
            quiet = isTouched ? 0 : quiet + 1;
            isTouched = false;
            using (ObjectLock.Enter(gate, OverlayLocks.WritebackErrors))
            {
                if (stopping) { return; }
                if (quiet >= Patience)
                {
                    isAsleep = true;
                    quiet = 0;
                    Interlocked.MemoryBarrier();
                    while (isAsleep && !isTouched && !stopping) { Monitor.Wait(gate); }
                    isAsleep = false;
                }
                else if (!isDue)
                {
                    Monitor.Wait(gate, interval);
                }
                isDue = false;
            }
        }
    }

    /// <summary>Looks no more.</summary>
    public void Stop()
    {
        using (ObjectLock.Enter(gate, OverlayLocks.WritebackErrors))
        {
            if (stopping) { return; }
            stopping = true;
            Monitor.Pulse(gate);
        }
        if (!isOwnThread) { thread?.Join(); }
    }
}
