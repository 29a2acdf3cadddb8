using System.Buffers.Text;
using System.Text.Json;
using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Changes;
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
        document.WriteStartObject();
        if (error.IsError) { document.WriteString("failure"u8, error.ToString()); }
        else { document.WriteNull("failure"u8); }
        document.WriteEndObject();
        return Errno.None;
    }

    private Errno SyncUpper(Layer upper)
    {
        workers?.BeginBlocking();
        try { return errors.Synced(Libc.SyncFileSystem(upper.Root.Descriptor)); }
        finally { workers?.EndBlocking(); }
    }

    private void WriteLacks(Utf8JsonWriter document)
    {
        if (volume.IsWritable) { document.WriteString("attributes"u8, volume.Features.Attributes switch { AttributeSpace.Trusted => "trusted", AttributeSpace.User => "user", _ => "none" }); }
        else { document.WriteNull("attributes"u8); }
        document.WriteStartArray("lacks"u8);
        foreach ((string what, string instead) in volume.IsWritable ? volume.Features.Lacks(isUserChosen: volume.Xattr.IsUser && !volume.IsUserXattrAsked) : [])
        {
            document.WriteStartObject();
            document.WriteString("what"u8, what);
            document.WriteString("instead"u8, instead);
            document.WriteEndObject();
        }
        document.WriteEndArray();
    }

    private void WriteDurability(Utf8JsonWriter document)
    {
        document.WriteStartObject();
        document.WriteString("fsync"u8, volume.Options.Sync switch { Sync.Volatile => "volatile", Sync.Strict => "strict", _ => "auto" });
        document.WriteString("errors"u8, volume.Options.Errors switch { OnError.Shutdown => "shutdown", OnError.ReadOnly => "remount-ro", _ => "continue" });
        document.WriteBoolean("sync_on_unmount"u8, volume.Options.SyncOnUnmount);
        document.WriteBoolean("revocable"u8, volume.Options.Revocable);
        document.WriteString("passthrough"u8, withoutPassthrough ?? (backings is null ? "off" : "on"));
        document.WriteString("io_uring"u8, withoutIoUring ?? (connection is { Flags: var flags } && (flags & InitFlags.OverIoUring) != 0 ? "on" : "off"));
        document.WriteString("watch"u8, errors.IsInMemory ? "nothing" : errors.IsExact ? "filesystem" : "open files");
        _ = errors.Check(-1); // what it finds is kept
        if (errors.Failure.IsError) { document.WriteString("failure"u8, errors.Failure.ToString()); }
        else { document.WriteNull("failure"u8); }
        if (volume.Mark is { } mark) { document.WriteBoolean("reusable"u8, !errors.Failure.IsError && (errors.IsInMemory || mark.FirstErrors is not null)); }
        else { document.WriteNull("reusable"u8); }
        WriteLacks(document);
        if (lastSync is { } sync)
        {
            document.WriteStartObject("sync"u8);
            document.WriteBoolean("over"u8, sync.IsOver);
            document.WriteNumber("done"u8, sync.Done);
            document.WriteNumber("total"u8, sync.Total);
            document.WriteNumber("failed"u8, sync.Failed);
            document.WriteStartArray("failures"u8);
            foreach (SyncFailure failure in sync.IsOver ? sync.Failures : [])
            {
                document.WriteStartObject();
                ChangeJson.WritePath(document, "path", failure.Path);
                document.WriteString("error"u8, failure.Error.ToString());
                document.WriteEndObject();
            }
            document.WriteEndArray();
            document.WriteEndObject();
        }
        else
        {
            document.WriteNull("sync"u8);
        }
        document.WriteEndObject();
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
