using System.Buffers.Text;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Live;

/// <summary>Syncs upper while it is mounted, or at the end of the mount.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="mark">The mark of a volatile upper; null when upper is none.</param>
/// <param name="errors">Errors of writing to upper.</param>
/// <param name="response">What is done about errors.</param>
/// <param name="options">As the user asked.</param>
/// <param name="log">For what is told to no caller.</param>
internal sealed class LiveSync(
    ObjectTree tree, UpperLayer upper, VolatileMark? mark, WritebackErrors errors, FailureResponse response,
    OverlayOptions options, Action<string> log)
{
    private readonly OrderedLock syncLock = new(OverlayLocks.LiveSync);

    private UpperSync? last;

    /// <summary>The sync that was asked for last; null when none was.</summary>
    public UpperSync? Last => last;

    private Thread? syncThread;

    /// <summary>Starts to sync upper.</summary>
    /// <param name="argument">The most operations a second, in digits.</param>
    /// <returns><see cref="Errno.EROFS"/> without upper, <see cref="Errno.EBUSY"/> while it is being synced.</returns>
    public Errno Start(ReadOnlySpan<byte> argument)
    {
        if (!Utf8Parser.TryParse(argument, out int perSecond, out int used) || used != argument.Length || perSecond < 0) { return Errno.EINVAL; }
        if (tree.Layers.Upper is not { } layer) { return Errno.EROFS; }
        using (syncLock.Enter())
        {
            if (syncThread is { IsAlive: true }) { return Errno.EBUSY; }
            var moves = new Moves(AwaitNames);
            var sync = new UpperSync(layer.Root.Descriptor, perSecond, moves);
            var thread = new Thread(() => RunSync(sync, moves), maxStackSize: 512 * 1024) { IsBackground = true, Name = "sync" };
            thread.Start();
            (last, syncThread) = (sync, thread);
        }
        return Errno.None;
    }

    /// <summary>Whoever has changed a name has also said so.</summary>
    private void AwaitNames()
    {
        using (tree.RenameLock.Exclude()) { }
    }

    private void RunSync(UpperSync sync, Moves moves)
    {
        using (moves)
        {
            upper.Moves = moves;
            _ = Libc.UnpinThread(); // best effort: on the CPU of whoever asked it takes longer
            sync.Run(() => endsSync);
            upper.Moves = null;
        }
    }

    private volatile bool endsSync;

    /// <summary>Ends a sync that is going on, and waits for its end.</summary>
    public void End()
    {
        endsSync = true;
        Thread? thread;
        using (syncLock.Enter()) { thread = syncThread; }
        thread?.Join();
    }

    /// <summary>After the last request: syncs upper and takes the mark away, when the mount was asked to.</summary>
    public void RunAtEnd()
    {
        if (mark is null || tree.Layers.Upper is not { } layer || !options.SyncOnUnmount) { return; }
        if (errors.Failure.IsError)
        {
            log($"veneer: upper is not synced, since writing to its filesystem failed ({errors.Failure})");
            return;
        }
        var sync = new UpperSync(layer.Root.Descriptor, 0);
        bool isSynced = sync.Run();
        foreach (SyncFailure failure in sync.Failures) { log($"veneer: {PathText.Printable($"{upper.Path}/{failure.Path}")} cannot be synced ({failure.Error})"); }
        if (errors.Check(-1).IsError || sync.Loss.IsError || mark.HasFailed())
        {
            response.NoteFailure(errors.Failure.IsError ? errors.Failure : sync.Loss.IsError ? sync.Loss : Errno.EIO);
            return;
        }
        if (!isSynced)
        {
            // Nothing is lost: what could not be opened is as it was.
            log($"veneer: upper is not synced, and stays volatile: run veneer sync {PathText.Printable(upper.Path!)} as a user who may read all of it");
            return;
        }
        Errno error = mark.Clear();
        if (error.IsError) { log($"veneer: upper is synced, but its mark cannot be removed ({error})"); }
    }
}
