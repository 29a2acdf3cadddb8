using System.Buffers;
using System.Diagnostics;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Durability;

/// <summary>An object of upper that could not be synced.</summary>
/// <param name="Path">The path from upper, as <see cref="PathText"/> encodes it; empty for upper itself.</param>
/// <param name="Error">The error.</param>
public sealed record SyncFailure(string Path, Errno Error);

/// <summary>Syncs an upper: writes each of its files and directories to the disk, and nothing else of its filesystem.</summary>
/// <remarks>
/// Files are written in pieces, so that others have their turn, and only where they are dirty. Objects that the fsync(2) of
/// a directory covers (links, devices, whiteouts) are not opened. Nothing of the overlay is locked: what is written during
/// the sync may or may not be on the disk. Objects that are moved during the sync are synced at their new place. If too
/// many are moved to know them all, the whole filesystem is synced in the end.
/// </remarks>
public sealed class UpperSync
{
    private const int Piece = 1 << 20;

    /// <summary>The most failures that are kept; further ones are only counted.</summary>
    public const int MaxFailures = 1000;

    private readonly int upper;
    private readonly int perSecond;
    private readonly Moves? moves;
    private readonly List<SyncFailure> failures = []; // also its own lock
    private long counted;
    private long total;
    private long done;
    private long failed;
    private long operations;
    private long started;
    private Errno loss;
    private string place = ""; // the root of the walk, from upper
    // moved objects and all below them: each is synced once, however often it is moved
    private HashSet<(ulong Device, ulong Ino)>? synced;

    /// <param name="upper">A descriptor of the upper directory; it stays the caller's.</param>
    /// <param name="perSecond">The most operations a second, each an fsync(2) or up to 1 MiB; 0 for no limit.</param>
    public UpperSync(int upper, int perSecond) : this(upper, perSecond, moves: null)
    {
    }

    /// <param name="upper">A descriptor of the upper directory; it stays the caller's.</param>
    /// <param name="perSecond">The most operations a second; 0 for no limit.</param>
    /// <param name="moves">The objects that users move from now on; null when nobody moves any.</param>
    internal UpperSync(int upper, int perSecond, Moves? moves)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(perSecond);
        this.upper = upper;
        this.perSecond = perSecond;
        this.moves = moves;
    }

    /// <summary>The number of files and directories to sync; 0 while they are being counted.</summary>
    public long Total => Volatile.Read(ref total);

    /// <summary>The number of them that were synced, with or without success.</summary>
    public long Done => Volatile.Read(ref done);

    /// <summary>The number of them that could not be synced.</summary>
    public long Failed => Volatile.Read(ref failed);

    /// <summary>The first failures, up to <see cref="MaxFailures"/>.</summary>
    public IReadOnlyList<SyncFailure> Failures
    {
        get
        {
            using (ObjectLock.Enter(failures, OverlayLocks.UpperSync)) { return [.. failures]; }
        }
    }

    /// <summary>
    /// The first error that means that data was lost, unlike an error that only kept the sync from beginning. Valid once
    /// the sync is over.
    /// </summary>
    internal Errno Loss => loss;

    /// <summary>Whether the sync is over.</summary>
    public bool IsOver { get; private set; }

    /// <summary>Runs the sync to its end.</summary>
    /// <param name="isCancelled">Whether to end early; called between two operations.</param>
    /// <returns>Whether everything is on the disk.</returns>
    public bool Run(Func<bool>? isCancelled = null)
    {
        started = Stopwatch.GetTimestamp();
        Func<bool> cancelled = isCancelled ?? (static () => false);
        bool ended = false;
        if (Walk(upper, cancelled, isCounting: true))
        {
            Volatile.Write(ref total, counted);
            ended = Walk(upper, cancelled, isCounting: false) && SyncMoved(cancelled);
        }
        IsOver = true;
        return ended && Failed == 0;
    }

    /// <summary>The type of an entry. Some filesystems do not tell it in the listing.</summary>
    private static uint TypeOf(int directory, in DirectoryReader reader)
    {
        if (reader.Type != 0) { return (uint)reader.Type << 12; }
        return Libc.StatAt(directory, reader.TerminatedName, StatxMask.Basic, out Statx stat).IsError ? 0 : stat.Type;
    }

    private static Errno Open(int directory, ReadOnlySpan<byte> name, OpenFlags flags, out int descriptor) =>
        Libc.OpenAt(directory, name, flags | OpenFlags.ReadOnly | OpenFlags.NoFollow | OpenFlags.NonBlock | OpenFlags.LargeFile, 0,
            ResolveFlags.Confined, out descriptor);

    /// <summary>A directory on the way from the root of the walk to where it is.</summary>
    private sealed class Level
    {
        /// <summary>The name in the level before; empty for the root of the walk.</summary>
        public required byte[] Name { get; init; }

        /// <summary>The directory's identity when it was opened.</summary>
        public (ulong Device, ulong Ino) Identity { get; set; }

        /// <summary>The names of the directories in it, each with its NUL; null when there are none.</summary>
        public ArrayBufferWriter<byte>? Directories { get; set; }

        /// <summary>The offset of the name of the next directory to enter.</summary>
        public int Next { get; set; }

        /// <summary>The error that kept its names from being listed to the end.</summary>
        public Errno Listed { get; set; }
    }

    /// <summary>
    /// Syncs, or only counts, the files of each directory, then the directories in it, then the directory itself.
    /// </summary>
    /// <remarks>
    /// However deep the tree is, only one directory is open, and a second one while the walk goes from one to the other.
    /// </remarks>
    /// <param name="root">A descriptor of the directory where the walk begins.</param>
    /// <param name="isCancelled">Whether to end early; called between two operations.</param>
    /// <param name="isCounting">Whether to count only.</param>
    /// <returns>False when it was cancelled.</returns>
    private bool Walk(int root, Func<bool> isCancelled, bool isCounting)
    {
        Errno error = Libc.Reopen(root, OpenFlags.ReadOnly | OpenFlags.Directory, out int current);
        if (error.IsError)
        {
            if (!isCounting) { Fail([], default, error); }
            return true;
        }
        var levels = new List<Level> { new() { Name = [] } };
        bool goesOn = Enter(current, levels, isCancelled, isCounting);
        while (goesOn)
        {
            Level level = levels[^1];
            if (level.Directories is { } directories && level.Next < directories.WrittenCount)
            {
                ReadOnlySpan<byte> name = directories.WrittenSpan[level.Next..];
                name = name[..(name.IndexOf((byte)0) + 1)];
                level.Next += name.Length;
                error = Open(current, name, OpenFlags.Directory, out int child);
                if (error.IsError)
                {
                    if (!isCounting && !IsElsewhere(error)) { Fail(levels, name[..^1], error); }
                    continue;
                }
                Libc.Close(current);
                current = child;
                levels.Add(new Level { Name = name[..^1].ToArray() });
                goesOn = Enter(current, levels, isCancelled, isCounting);
                continue;
            }
            if (!isCounting) { goesOn = Pace(isCancelled); }
            if (!goesOn) { break; }
            if (!isCounting && level.Listed != Errno.ENOENT) // ENOENT: the directory was removed meanwhile
            {
                error = level.Listed.IsError ? level.Listed : Note(Libc.Sync(current, dataOnly: false));
                if (error.IsError) { Fail(levels, default, error); }
                else { synced?.Add(level.Identity); }
                Interlocked.Increment(ref done);
            }
            while (true)
            {
                levels.RemoveAt(levels.Count - 1);
                if (levels.Count == 0) { break; }
                error = Return(root, levels, current, out int parent);
                if (error.IsError)
                {
                    // Where moves are reported, a directory that was moved away is synced as such.
                    if (!isCounting && (moves is null || !(error == Errno.ESTALE || IsElsewhere(error)))) { Fail(levels, default, error); }
                    continue;
                }
                Libc.Close(current);
                current = parent;
                break;
            }
            if (levels.Count == 0) { break; }
        }
        Libc.Close(current);
        return goesOn;
    }

    /// <summary>Syncs the files of the last level, and notes its directories.</summary>
    /// <returns>False when it was cancelled.</returns>
    private bool Enter(int directory, List<Level> levels, Func<bool> isCancelled, bool isCounting)
    {
        Level level = levels[^1];
        level.Identity = IdentityOf(directory);
        if (isCounting) { counted++; }
        bool goesOn = !isCancelled();
        var reader = new DirectoryReader(directory);
        while (goesOn && reader.MoveNext())
        {
            uint type = TypeOf(directory, reader);
            if (type == FileType.Directory) { (level.Directories ??= new ArrayBufferWriter<byte>()).Write(reader.TerminatedName); }
            if (type != FileType.Regular) { continue; }
            if (isCounting)
            {
                counted++;
                continue;
            }
            Errno error = Open(directory, reader.TerminatedName, OpenFlags.ReadOnly, out int file);
            if (IsElsewhere(error)) { continue; }
            (ulong, ulong) identity = synced is null || error.IsError ? default : IdentityOf(file);
            if (synced?.Contains(identity) == true)
            {
                Libc.Close(file);
                Interlocked.Increment(ref done);
                continue;
            }
            goesOn = error.IsError || SyncFile(file, isCancelled, out error);
            if (error.IsError) { Fail(levels, reader.Name, error); }
            else { synced?.Add(identity); }
        }
        level.Listed = reader.Error;
        reader.Dispose();
        return goesOn;
    }

    private static (ulong Device, ulong Ino) IdentityOf(int directory) =>
        Libc.StatAt(directory, Libc.Self, StatxMask.Basic, out Statx stat).IsError ? default : (stat.Dev, stat.Ino);

    /// <summary>Whether a listed name has been removed meanwhile, or stands for another object: a whiteout, a link.</summary>
    private static bool IsElsewhere(Errno error) => error is Errno.ENOENT or Errno.ENOTDIR or Errno.ELOOP or Errno.ENXIO;

    /// <summary>Syncs the objects that were moved since the walk began, and the directories above them.</summary>
    /// <remarks>
    /// An object that is moved meanwhile needs nothing more, unless it was below an object that was moved before: it may
    /// then have left before the walk comes to it. So this ends when a round finds only objects that have been synced here.
    /// </remarks>
    /// <returns>False when it was cancelled.</returns>
    private bool SyncMoved(Func<bool> isCancelled)
    {
        if (moves is null) { return true; }
        synced = [];
        bool goesOn = true, isNew = true;
        while (goesOn && isNew && !moves.AreMore)
        {
            ICollection<Move> some = moves.Take();
            isNew = false;
            var above = new HashSet<(ulong, ulong)>();
            foreach (Move move in some)
            {
                if (!goesOn || synced.Contains(move.Identity)) { continue; }
                isNew = true;
                goesOn = SyncObject(move, isCancelled) && SyncUpwards(move.Directory.Value, above, isCancelled);
            }
            foreach (Move move in some) { move.Dispose(); }
        }
        place = "";
        return goesOn && (!moves.AreMore || SyncAll(isCancelled));
    }

    private bool SyncAll(Func<bool> isCancelled)
    {
        if (!Pace(isCancelled)) { return false; }
        Errno error = Libc.Reopen(upper, OpenFlags.ReadOnly | OpenFlags.Directory, out int root);
        if (!error.IsError)
        {
            error = Note(Libc.SyncFileSystem(root));
            Libc.Close(root);
        }
        if (error.IsError) { Fail([], default, error); }
        return true;
    }

    private bool SyncObject(Move move, Func<bool> isCancelled)
    {
        place = PlaceOf(move.Object.Value);
        if (move.Type == FileType.Directory)
        {
            counted = 0;
            bool goesOn = Walk(move.Object.Value, isCancelled, isCounting: true);
            Interlocked.Add(ref total, counted);
            return goesOn && Walk(move.Object.Value, isCancelled, isCounting: false);
        }
        if (move.Type == FileType.Regular)
        {
            Interlocked.Increment(ref total);
            Errno error = Libc.Reopen(move.Object.Value, OpenFlags.ReadOnly | OpenFlags.NonBlock | OpenFlags.LargeFile, out int file);
            bool goesOn = error.IsError || SyncFile(file, isCancelled, out error);
            if (error.IsError) { Fail([], default, error); }
            else { synced!.Add(move.Identity); }
            return goesOn;
        }
        synced!.Add(move.Identity); // its directory's fsync covers it
        return true;
    }

    /// <summary>
    /// Syncs a directory and those above it, up to upper: some may be new, and then nothing on the disk leads to the
    /// object.
    /// </summary>
    /// <param name="directory">A descriptor of the directory.</param>
    /// <param name="above">The directories that were synced in this way in the same round.</param>
    /// <param name="isCancelled">Whether to end early; called between two operations.</param>
    private bool SyncUpwards(int directory, HashSet<(ulong, ulong)> above, Func<bool> isCancelled)
    {
        (ulong, ulong) end = IdentityOf(upper);
        Errno error = Libc.Reopen(directory, OpenFlags.ReadOnly | OpenFlags.Directory, out int current);
        bool goesOn = true;
        // The root of the mount is its own parent: a walk that gets there began at a directory that was moved out of upper
        // to be removed.
        while (goesOn && !error.IsError && IdentityOf(current) is var identity && above.Add(identity))
        {
            goesOn = Pace(isCancelled);
            if (goesOn) { error = Note(Libc.Sync(current, dataOnly: false)); }
            if (identity == end || error.IsError) { break; }
            int child = current;
            error = Libc.OpenAt(child, "..\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out current);
            Libc.Close(child);
        }
        if (current >= 0) { Libc.Close(current); }
        if (error.IsError && error != Errno.ENOENT) // ENOENT: removed meanwhile
        {
            place = PlaceOf(directory);
            Fail([], default, error);
        }
        return goesOn;
    }

    /// <summary>The path of an object from upper, for messages.</summary>
    private string PlaceOf(int descriptor)
    {
        string from = Host.Processes.Link($"/proc/self/fd/{upper}") ?? "", full = Host.Processes.Link($"/proc/self/fd/{descriptor}") ?? "?";
        return full.StartsWith(from + "/", StringComparison.Ordinal) ? full[(from.Length + 1)..] : full == from ? "" : full;
    }

    /// <summary>Opens the last level again, from a directory that was in it.</summary>
    /// <returns><see cref="Errno.ESTALE"/> when both directories were moved meanwhile.</returns>
    private Errno Return(int root, List<Level> levels, int child, out int descriptor)
    {
        Errno error = Libc.OpenAt(child, "..\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out descriptor);
        if (!error.IsError)
        {
            if (IdentityOf(descriptor) == levels[^1].Identity) { return Errno.None; }
            Libc.Close(descriptor);
        }
        // The child was moved: follow the names from the root of the walk.
        error = Libc.Reopen(root, OpenFlags.ReadOnly | OpenFlags.Directory, out descriptor);
        for (int i = 1; i < levels.Count && !error.IsError; i++)
        {
            int parent = descriptor;
            error = Open(parent, [.. levels[i].Name, 0], OpenFlags.Directory, out descriptor);
            Libc.Close(parent);
        }
        if (error.IsError || IdentityOf(descriptor) == levels[^1].Identity) { return error; }
        Libc.Close(descriptor);
        return Errno.ESTALE;
    }

    private bool SyncFile(int file, Func<bool> isCancelled, out Errno error)
    {
        error = Libc.StatAt(file, Libc.Self, StatxMask.Basic, out Statx stat);
        bool goesOn = true;
        // A file of up to one piece is left to the fsync.
        for (long offset = 0; goesOn && !error.IsError && stat.Size > Piece && offset < (long)stat.Size; offset += Piece)
        {
            if (!Libc.IsDirty(file, offset, Piece)) { continue; }
            goesOn = Pace(isCancelled);
            if (goesOn) { error = Note(Libc.SyncRange(file, offset, Piece)); }
        }
        if (goesOn) { goesOn = Pace(isCancelled); }
        if (goesOn)
        {
            if (!error.IsError) { error = Note(Libc.Sync(file, dataOnly: false)); }
            Interlocked.Increment(ref done);
        }
        Libc.Close(file);
        return goesOn;
    }

    private Errno Note(Errno result)
    {
        if (!loss.IsError && WritebackErrors.IsLoss(result)) { loss = result; }
        return result;
    }

    /// <param name="levels">The levels from the root of the walk.</param>
    /// <param name="name">The name in the last level; empty for that level itself.</param>
    /// <param name="error">The error.</param>
    private void Fail(IEnumerable<Level> levels, ReadOnlySpan<byte> name, Errno error)
    {
        Interlocked.Increment(ref failed);
        using (ObjectLock.Enter(failures, OverlayLocks.UpperSync))
        {
            if (failures.Count >= MaxFailures) { return; }
            var path = new List<string>(levels.Skip(1).Select(level => PathText.Decode(level.Name)));
            if (place.Length > 0) { path.Insert(0, place); }
            if (name.Length > 0) { path.Add(PathText.Decode(name)); }
            failures.Add(new SyncFailure(string.Join('/', path), error));
        }
    }

    /// <summary>Waits until the next operation is due.</summary>
    /// <returns>False when it was cancelled.</returns>
    private bool Pace(Func<bool> isCancelled)
    {
        operations++;
        while (perSecond > 0)
        {
            if (isCancelled()) { return false; }
            double left = ((operations - 1) / (double)perSecond) - Stopwatch.GetElapsedTime(started).TotalSeconds;
            if (left <= 0) { break; }
            Thread.Sleep(TimeSpan.FromSeconds(Math.Min(left, 0.2)));
        }
        return !isCancelled();
    }
}
