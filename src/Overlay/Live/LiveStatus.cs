using System.Text.Json;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Live;

/// <summary>Answers the questions durability and remounted: how a live mount writes, what is on the disk, and what upper lacks.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="mark">The mark of a volatile upper; null when upper is not volatile.</param>
/// <param name="errors">Errors of writing to upper.</param>
/// <param name="sync">The sync of upper.</param>
/// <param name="options">The options of the mount.</param>
/// <param name="isUserXattrAsked">Whether the user asked for user attributes.</param>
internal sealed class LiveStatus(
    ObjectTree tree, UpperLayer upper, KernelSession session, VolatileMark? mark, WritebackErrors errors,
    LiveSync sync, OverlayOptions options, bool isUserXattrAsked)
{
    /// <summary>
    /// Adopts new flags of the mount after a remount. Kernel: ovl_reconfigure(), and touch_atime() with the mount that it is
    /// given.
    /// </summary>
    /// <param name="argument">Words of <see cref="OptionParser.AreFlags"/>: <c>ro</c> or <c>rw</c>, and how access times are kept.</param>
    /// <param name="document">Takes the answer: whether upper could be synced, if the mount has become read-only.</param>
    public Errno FollowRemount(ReadOnlySpan<byte> argument, Utf8JsonWriter document)
    {
        string words = PathText.Decode(argument);
        if (!OptionParser.AreFlags(words)) { return Errno.EINVAL; }
        var flags = new OptionParser();
        flags.Add(words);
        Errno error = Errno.None;
        if (tree.Layers.Upper is { } layer)
        {
            bool wasReadOnly = upper.IsReadOnly;
            upper.IsReadOnly = (flags.MountFlags & MountFlags.ReadOnly) != 0;
            layer.SetAccessTimes(CommonMount.TimesOf(flags.MountFlags));
            if (upper.IsReadOnly && !wasReadOnly && upper.IsDurable) { error = SyncUpper(layer); }
        }
        var answer = new Remounted { Failure = error.IsError ? error.ToString() : null };
        JsonSerializer.Serialize(document, answer, DocumentJson.Default.Remounted);
        return Errno.None;
    }

    private Errno SyncUpper(Layer layer)
    {
        using (session.Block()) { return errors.NoteSync(Libc.SyncFileSystem(layer.Root.Descriptor)); }
    }

    /// <summary>Answers the question durability.</summary>
    public void Write(Utf8JsonWriter document) =>
        JsonSerializer.Serialize(document, ReadStatus(), DocumentJson.Default.OverlayStatus);

    private OverlayStatus ReadStatus()
    {
        _ = errors.Check(-1); // an error is kept
        Errno failure = errors.Failure;
        return new OverlayStatus
        {
            Fsync = OptionTable.WordOf(options.Sync),
            Errors = OptionTable.WordOf(options.Errors),
            SyncOnUnmount = options.SyncOnUnmount,
            Revocable = options.Revocable,
            Passthrough = session.WithoutPassthrough ?? (session.Backings is null ? OverlayStatus.Off : OverlayStatus.On),
            IoUring = session.WithoutIoUring
                ?? (session.Connection is { Flags: var flags } && (flags & InitFlags.OverIoUring) != 0
                    ? OverlayStatus.On
                    : OverlayStatus.Off),
            Watch = errors.IsInMemory ? OverlayStatus.WatchNothing
                : errors.IsExact ? OverlayStatus.WatchFileSystem
                : OverlayStatus.WatchOpenFiles,
            Failure = failure.IsError ? failure.ToString() : null,
            Reusable = mark is not null ? !failure.IsError && (errors.IsInMemory || mark.FirstErrors is not null) : null,
            Attributes = !upper.IsWritable ? null : upper.Features.Attributes switch
            {
                AttributeSpace.Trusted => "trusted",
                AttributeSpace.User => "user",
                _ => "none",
            },
            Lacks = ReadLacks(),
            Sync = sync.Last is { } last ? StatusOf(last) : null,
        };
    }

    private List<LackingFeature> ReadLacks()
    {
        if (!upper.IsWritable) { return []; }
        bool isUserChosen = tree.Xattr.IsUser && !isUserXattrAsked;
        return [.. upper.Features.Lacks(isUserChosen).Select(lack => new LackingFeature(lack.What, lack.Instead))];
    }

    private static SyncStatus StatusOf(UpperSync sync)
    {
        bool isOver = sync.IsOver; // read first: if it is true, the other values are final
        return new SyncStatus
        {
            Over = isOver,
            Done = sync.Done,
            Total = sync.Total,
            Failed = sync.Failed,
            Failures = isOver ? [.. sync.Failures.Select(failure => new UnsyncedFile(failure.Path, failure.Error.ToString()))] : [],
        };
    }
}
