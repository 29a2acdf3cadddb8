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
/// <param name="mark">The mark of a volatile upper; null when upper is not volatile.</param>
/// <param name="errors">Errors of writing to upper.</param>
/// <param name="response">Responds to errors.</param>
/// <param name="options">The options of the mount.</param>
/// <param name="log">Receives messages for which there is no caller.</param>
internal sealed class LiveSync(
    ObjectTree tree, UpperLayer upper, VolatileMark? mark, WritebackErrors errors, FailureResponse response,
    OverlayOptions options, Action<string> log)
{
    private readonly OrderedLock syncLock = new(OverlayLocks.LiveSync);

    private UpperSync? last;

    /// <summary>The sync that was asked for last; null when none was.</summary>
    public UpperSync? Last => last;

    private Thread? syncThread;

    /// <summary>Starts a sync of upper, on a thread of its own.</summary>
    /// <param name="argument">The most operations a second, in digits; 0 for no limit.</param>
    /// <returns>
    /// <see cref="Errno.EROFS"/> without upper, <see cref="Errno.EBUSY"/> while a sync is running, <see cref="Errno.EINVAL"/>
    /// for an argument that is not a number.
    /// </returns>
    public Errno Start(ReadOnlySpan<byte> argument)
    {
        if (!Utf8Parser.TryParse(argument, out int perSecond, out int used) || used != argument.Length || perSecond < 0)
        {
            return Errno.EINVAL;
        }
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

    /// <summary>Waits until every operation that was changing a name has reported the change.</summary>
    private void AwaitNames()
    {
        using (tree.RenameLock.Exclude()) { }
    }

    private void RunSync(UpperSync sync, Moves moves)
    {
        using (moves)
        {
            upper.Moves = moves;
            _ = Libc.UnpinThread(); // best effort: on the caller's CPU the sync only takes longer
            sync.Run(() => endsSync);
            upper.Moves = null;
        }
    }

    private volatile bool endsSync;

    /// <summary>Ends a running sync, and waits for its thread.</summary>
    public void End()
    {
        endsSync = true;
        Thread? thread;
        using (syncLock.Enter()) { thread = syncThread; }
        thread?.Join();
    }

    /// <summary>Syncs a volatile upper after the last request and removes its mark, if the mount was made with sync_on_unmount.</summary>
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
        foreach (SyncFailure failure in sync.Failures)
        {
            log($"veneer: {PathText.Printable($"{upper.Path}/{failure.Path}")} cannot be synced ({failure.Error})");
        }
        if (errors.Check(-1).IsError || sync.Loss.IsError || mark.HasFailed())
        {
            response.NoteFailure(errors.Failure.IsError ? errors.Failure : sync.Loss.IsError ? sync.Loss : Errno.EIO);
            return;
        }
        if (!isSynced)
        {
            // Nothing is lost: the objects that could not be opened are still volatile.
            log($"veneer: upper is not synced, and stays volatile: run veneer sync {PathText.Printable(upper.Path!)} "
                + "as a user who may read all of it");
            return;
        }
        Errno error = mark.Clear();
        if (error.IsError) { log($"veneer: upper is synced, but its mark cannot be removed ({error})"); }
    }
}
