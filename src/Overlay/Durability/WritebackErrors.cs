using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Durability;

/// <summary>Tells whether a write to upper's filesystem has failed. After the first failure, the answer stays.</summary>
/// <remarks>
/// Each fsync and the last close of a written file check for errors. Where an error has consequences, a thread of its own
/// checks as well: at once when a request may have written something, then every second until none has for longer than the
/// kernel keeps dirty pages. After that, the thread sleeps and costs nothing.
/// </remarks>
internal sealed class WritebackErrors
{
    private static readonly TimeSpan interval = TimeSpan.FromSeconds(1);

    /// <summary>
    /// How long to look for errors after the last write, in intervals. The kernel writes a page after 30 seconds
    /// (vm.dirty_expire_centisecs) and looks every 5; this is twice that time.
    /// </summary>
    private const int Patience = 70;

    [ThreadStatic]
    private static bool isOwnThread;

    private readonly ErrorSentinel? sentinel;
    private readonly Action<Errno>? consequence;
    private readonly object gate = new();
    private Thread? thread;
    private int failure;
    private volatile bool mayHaveWritten;
    private volatile bool isAsleep = true; // written under the gate, like the fields below
    private bool isDue;
    private bool stopping;

    /// <param name="sentinel">Finds all errors of the filesystem; null: only errors of files that we have open are found.</param>
    /// <param name="isInMemory">Whether the filesystem is in memory, so that nothing is ever written back.</param>
    /// <param name="consequence">Called once with the first error, by a thread of its own; null for no consequence.</param>
    public WritebackErrors(ErrorSentinel? sentinel, bool isInMemory, Action<Errno>? consequence)
    {
        this.sentinel = sentinel;
        this.consequence = isInMemory ? null : consequence;
        IsInMemory = isInMemory;
    }

    /// <summary>Whether the filesystem is in memory, so that nothing is ever written back.</summary>
    public bool IsInMemory { get; }

    /// <summary>Whether all errors of the filesystem are found, and not only errors of files that we have open.</summary>
    public bool IsExact => IsInMemory || sentinel is not null;

    /// <summary>The first error, or <see cref="Errno.None"/>.</summary>
    public Errno Failure => (Errno)Volatile.Read(ref failure);

    /// <summary>Checks for an error now.</summary>
    /// <param name="descriptor">A descriptor of a written file of upper, or -1.</param>
    /// <returns><see cref="Errno.EIO"/> once a write has failed.</returns>
    public Errno Check(int descriptor)
    {
        if (!IsInMemory && !Failure.IsError)
        {
            if (sentinel is not null) { Note(sentinel.Check()); }
            else if (descriptor >= 0) { Note(Libc.WritebackError(descriptor)); }
        }
        return Failure.IsError ? Errno.EIO : Errno.None;
    }

    /// <summary>Notes the result of the sync of a file of upper.</summary>
    /// <returns>The result if it is the first error, otherwise as <see cref="Check"/>.</returns>
    public Errno NoteSync(Errno result)
    {
        if (Failure.IsError) { return Errno.EIO; }
        Note(result);
        return Failure.IsError ? result : Check(-1).IsError ? Errno.EIO : result;
    }

    /// <summary>Notes that a request may have written something.</summary>
    public void NoteWrite()
    {
        if (consequence is null || mayHaveWritten) { return; }
        mayHaveWritten = true;
        // The thread stores isAsleep and then loads mayHaveWritten. At least one of the two sees the other's store.
        Interlocked.MemoryBarrier();
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

    /// <summary>
    /// Whether the result of a sync means that data was lost. An error that only says that the file cannot be synced does
    /// not.
    /// </summary>
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
            _ = Check(-1); // Failure keeps the result
            if (Failure is { } error && error.IsError)
            {
                consequence!(error);
                return;
            }
            quiet = mayHaveWritten ? 0 : quiet + 1;
            mayHaveWritten = false;
            using (ObjectLock.Enter(gate, OverlayLocks.WritebackErrors))
            {
                if (stopping) { return; }
                if (quiet >= Patience)
                {
                    isAsleep = true;
                    quiet = 0;
                    Interlocked.MemoryBarrier();
                    while (isAsleep && !mayHaveWritten && !stopping) { Monitor.Wait(gate); }
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

    /// <summary>Stops checking, and waits for the thread.</summary>
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
