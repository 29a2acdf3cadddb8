using System.Buffers.Text;
using System.Text.Json;
using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay;

/// <summary>What tools ask about what is on the disk, and the sync that they ask for.</summary>
internal sealed partial class OverlayFileSystem
{
    private readonly OrderedLock syncLock = new(OverlayLocks.LiveSync);
    private UpperSync? lastSync;
    private Thread? syncThread;

    /// <summary>Starts to sync upper, and says how far it is.</summary>
    /// <param name="argument">The most operations a second, in digits.</param>
    /// <param name="document">As for the question "durability".</param>
    /// <returns><see cref="Errno.EROFS"/> without upper, <see cref="Errno.EBUSY"/> while it is being synced.</returns>
    private Errno StartSync(ReadOnlySpan<byte> argument, Utf8JsonWriter document)
    {
        if (!Utf8Parser.TryParse(argument, out int perSecond, out int used) || used != argument.Length || perSecond < 0) { return Errno.EINVAL; }
        if (volume.Layers.Upper is not { } layer) { return Errno.EROFS; }
        using (syncLock.Enter())
        {
            if (syncThread is { IsAlive: true }) { return Errno.EBUSY; }
            var moves = new Moves(AwaitNames);
            var sync = new UpperSync(layer.Root.Descriptor, perSecond, moves);
            var thread = new Thread(() => RunSync(sync, moves), maxStackSize: 512 * 1024) { IsBackground = true, Name = "sync" };
            thread.Start();
            (lastSync, syncThread) = (sync, thread);
        }
        WriteDurability(document);
        return Errno.None;
    }

    /// <summary>Whoever has changed a name has also said so.</summary>
    private void AwaitNames()
    {
        using (volume.RenameLock.Exclude()) { }
    }

    private void RunSync(UpperSync sync, Moves moves)
    {
        using (moves)
        {
            volume.Moves = moves;
            _ = Libc.UnpinThread(); // best effort: on the CPU of whoever asked it takes longer
            sync.Run(() => endsSync);
            volume.Moves = null;
        }
    }

    private volatile bool endsSync;

    private void EndSync()
    {
        endsSync = true;
        Thread? thread;
        using (syncLock.Enter()) { thread = syncThread; }
        thread?.Join();
    }

    /// <summary>The flags of the mount are others now. Kernel: ovl_reconfigure(), and touch_atime() with the mount that it is given.</summary>
    /// <param name="argument">Words of <see cref="OptionParser.AreFlags"/>: <c>ro</c> or <c>rw</c>, and how access times are kept.</param>
    /// <param name="document">Whether upper is on the disk, where nobody can write any more.</param>
    private Errno FollowRemount(ReadOnlySpan<byte> argument, Utf8JsonWriter document)
    {
        string words = PathText.Decode(argument);
        if (!OptionParser.AreFlags(words)) { return Errno.EINVAL; }
        var flags = new OptionParser();
        flags.Add(words);
        Errno error = Errno.None;
        if (volume.Layers.Upper is { } upper)
        {
            bool wasReadOnly = volume.IsReadOnly;
            volume.IsReadOnly = (flags.MountFlags & MountFlags.ReadOnly) != 0;
            upper.KeepTimes(CommonMount.TimesOf(flags.MountFlags));
            if (volume.IsReadOnly && !wasReadOnly && volume.IsDurable) { error = SyncUpper(upper); }
        }
        var answer = new Remounted { Failure = error.IsError ? error.ToString() : null };
        JsonSerializer.Serialize(document, answer, DocumentJson.Default.Remounted);
        return Errno.None;
    }

    private Errno SyncUpper(Layer upper)
    {
        workers?.BeginBlocking();
        try { return errors.Synced(Libc.SyncFileSystem(upper.Root.Descriptor)); }
        finally { workers?.EndBlocking(); }
    }

    private void WriteDurability(Utf8JsonWriter document) =>
        JsonSerializer.Serialize(document, ReadStatus(), DocumentJson.Default.OverlayStatus);

    private OverlayStatus ReadStatus()
    {
        _ = errors.Check(-1); // what it finds is kept
        Errno failure = errors.Failure;
        return new OverlayStatus
        {
            Fsync = volume.Options.Sync switch { Sync.Volatile => "volatile", Sync.Strict => "strict", _ => "auto" },
            Errors = volume.Options.Errors switch { OnError.Shutdown => "shutdown", OnError.ReadOnly => "remount-ro", _ => "continue" },
            SyncOnUnmount = volume.Options.SyncOnUnmount,
            Revocable = volume.Options.Revocable,
            Passthrough = withoutPassthrough ?? (backings is null ? "off" : "on"),
            IoUring = withoutIoUring ?? (connection is { Flags: var flags } && (flags & InitFlags.OverIoUring) != 0 ? "on" : "off"),
            Watch = errors.IsInMemory ? "nothing" : errors.IsExact ? "filesystem" : "open files",
            Failure = failure.IsError ? failure.ToString() : null,
            Reusable = volume.Mark is { } mark ? !failure.IsError && (errors.IsInMemory || mark.FirstErrors is not null) : null,
            Attributes = !volume.IsWritable ? null : volume.Features.Attributes switch
            {
                AttributeSpace.Trusted => "trusted",
                AttributeSpace.User => "user",
                _ => "none",
            },
            Lacks = ReadLacks(),
            Sync = lastSync is { } sync ? StatusOf(sync) : null,
        };
    }

    private List<LackingFeature> ReadLacks()
    {
        if (!volume.IsWritable) { return []; }
        bool isUserChosen = volume.Xattr.IsUser && !volume.IsUserXattrAsked;
        return [.. volume.Features.Lacks(isUserChosen).Select(lack => new LackingFeature(lack.What, lack.Instead))];
    }

    private static SyncStatus StatusOf(UpperSync sync)
    {
        bool isOver = sync.IsOver; // before the rest: what is told then is all
        return new SyncStatus
        {
            Over = isOver,
            Done = sync.Done,
            Total = sync.Total,
            Failed = sync.Failed,
            Failures = isOver ? [.. sync.Failures.Select(failure => new UnsyncedFile(failure.Path, failure.Error.ToString()))] : [],
        };
    }

    /// <summary>After the last request: syncs upper and takes the mark away, when the mount was asked to.</summary>
    internal void SyncAtEnd()
    {
        if (volume is not { Mark: { } mark, Layers.Upper: { } layer } || !volume.Options.SyncOnUnmount || IsShutDown) { return; }
        if (errors.Failure.IsError)
        {
            volume.Log($"veneer: upper is not synced, since writing to its filesystem failed ({errors.Failure})");
            return;
        }
        var sync = new UpperSync(layer.Root.Descriptor, 0);
        bool isSynced = sync.Run();
        foreach (SyncFailure failure in sync.Failures) { volume.Log($"veneer: {PathText.Printable($"{volume.Options.UpperDirectory}/{failure.Path}")} cannot be synced ({failure.Error})"); }
        if (errors.Check(-1).IsError || sync.Loss.IsError || mark.HasFailed())
        {
            NoteFailure(errors.Failure.IsError ? errors.Failure : sync.Loss.IsError ? sync.Loss : Errno.EIO);
            return;
        }
        if (!isSynced)
        {
            // Nothing is lost: what could not be opened is as it was.
            volume.Log($"veneer: upper is not synced, and stays volatile: run veneer sync {PathText.Printable(volume.Options.UpperDirectory!)} as a user who may read all of it");
            return;
        }
        Errno error = mark.Clear();
        if (error.IsError) { volume.Log($"veneer: upper is synced, but its mark cannot be removed ({error})"); }
    }
}
