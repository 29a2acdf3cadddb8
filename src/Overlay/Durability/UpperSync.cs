using System.Buffers;
using System.Diagnostics;
using Veneer.Linux;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Durability;

/// <summary>An object of upper that could not be synced.</summary>
/// <param name="Path">From upper, as <see cref="PathText"/> has it; empty for upper itself.</param>
/// <param name="Error">Why.</param>
public sealed record SyncFailure(string Path, Errno Error);

/// <summary>Brings an upper to the disk: each of its files and directories, and nothing else of its filesystem.</summary>
/// <remarks>
/// Files are written in pieces, so that others have their turn, and only where they are dirty. What an fsync(2) of the
/// directory covers (links, devices, whiteouts) is not opened. Nothing of the overlay is locked: what changes meanwhile
/// may or may not be on the disk.
/// </remarks>
public sealed class UpperSync
{
    private const int Piece = 1 << 20;

    /// <summary>So many failures are kept; the others are counted.</summary>
    public const int MaxFailures = 1000;

    private readonly int upper;
    private readonly int perSecond;
    private readonly List<SyncFailure> failures = []; // also the lock of it
    private long counted;
    private long total;
    private long done;
    private long failed;
    private long operations;
    private long started;
    private Errno loss;

    /// <param name="upper">A descriptor of the upper directory; it stays the caller's.</param>
    /// <param name="perSecond">At most so many operations a second, each an fsync(2) or up to 1 MiB; 0: as many as the disk takes.</param>
    public UpperSync(int upper, int perSecond)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(perSecond);
        this.upper = upper;
        this.perSecond = perSecond;
    }

    /// <summary>Files and directories to sync; 0 while they are being counted.</summary>
    public long Total => Volatile.Read(ref total);

    /// <summary>How many of them have been, with or without success.</summary>
    public long Done => Volatile.Read(ref done);

    /// <summary>How many could not be.</summary>
    public long Failed => Volatile.Read(ref failed);

    /// <summary>The first of those, up to <see cref="MaxFailures"/>.</summary>
    public IReadOnlyList<SyncFailure> Failures
    {
        get
        {
            lock (failures) { return [.. failures]; }
        }
    }

    /// <summary>The first error that means that something was not written, unlike one for which the sync did not come to that; for when it is over.</summary>
    internal Errno Loss => loss;

    /// <summary>Whether it is over.</summary>
    public bool IsOver { get; private set; }

    /// <summary>Syncs. Takes as long as it takes.</summary>
    /// <param name="isCancelled">Asked between two operations.</param>
    /// <returns>Whether all is on the disk.</returns>
    public bool Run(Func<bool>? isCancelled = null)
    {
        started = Stopwatch.GetTimestamp();
        Func<bool> cancelled = isCancelled ?? (static () => false);
        bool ended = false;
        if (Walk(cancelled, isCounting: true))
        {
            Volatile.Write(ref total, counted);
            ended = Walk(cancelled, isCounting: false);
        }
        IsOver = true;
        return ended && Failed == 0;
    }

    /// <summary>Some filesystems do not say it where they list the names.</summary>
    private static uint TypeOf(int directory, in RealDirectoryReader reader)
    {
        if (reader.Type != 0) { return (uint)reader.Type << 12; }
        return Libc.StatAt(directory, reader.TerminatedName, StatxMask.Basic, out Statx stat).IsError ? 0 : stat.Type;
    }

    private static Errno Open(int directory, ReadOnlySpan<byte> name, OpenFlags flags, out int descriptor) =>
        Libc.OpenAt(directory, name, flags | OpenFlags.ReadOnly | OpenFlags.NoFollow | OpenFlags.NonBlock | OpenFlags.LargeFile, 0, ResolveFlags.Confined, out descriptor);

    /// <summary>A directory that the walk is in.</summary>
    private sealed class Level
    {
        /// <summary>In the level before; empty for upper itself.</summary>
        public required byte[] Name { get; init; }

        /// <summary>What it was when it was opened.</summary>
        public (ulong Device, ulong Ino) Identity { get; set; }

        /// <summary>The names of the directories in it, each with its NUL; null: there are none.</summary>
        public ArrayBufferWriter<byte>? Directories { get; set; }

        /// <summary>Where the name of the next one to go into begins.</summary>
        public int Next { get; set; }

        /// <summary>Why not all of its names are known.</summary>
        public Errno Listed { get; set; }
    }

    /// <summary>Syncs the files of each directory, then the directories in it, then itself; or only counts them.</summary>
    /// <remarks>However deep the tree is, one directory is open, and one more while the walk goes from one to the other.</remarks>
    /// <returns>False when it was cancelled.</returns>
    private bool Walk(Func<bool> isCancelled, bool isCounting)
    {
        Errno error = Libc.Reopen(upper, OpenFlags.ReadOnly | OpenFlags.Directory, out int current);
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
                    if (!isCounting && error != Errno.ENOENT) { Fail(levels, name[..^1], error); } // else removed meanwhile
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
            if (!isCounting)
            {
                error = level.Listed.IsError ? level.Listed : Note(Libc.Sync(current, dataOnly: false));
                if (error.IsError) { Fail(levels, default, error); }
                Interlocked.Increment(ref done);
            }
            while (true)
            {
                levels.RemoveAt(levels.Count - 1);
                if (levels.Count == 0) { break; }
                error = Return(levels, current, out int parent);
                if (error.IsError)
                {
                    if (!isCounting) { Fail(levels, default, error); }
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

    /// <summary>Syncs the files of the last level, and notes the directories that are in it.</summary>
    /// <returns>False when it was cancelled.</returns>
    private bool Enter(int directory, List<Level> levels, Func<bool> isCancelled, bool isCounting)
    {
        Level level = levels[^1];
        level.Identity = IdentityOf(directory);
        if (isCounting) { counted++; }
        bool goesOn = !isCancelled();
        var reader = new RealDirectoryReader(directory);
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
            if (error == Errno.ENOENT) { continue; } // removed meanwhile
            goesOn = error.IsError || SyncFile(file, isCancelled, out error);
            if (error.IsError) { Fail(levels, reader.Name, error); }
        }
        level.Listed = reader.Error;
        reader.Dispose();
        return goesOn;
    }

    private static (ulong Device, ulong Ino) IdentityOf(int directory) =>
        Libc.StatAt(directory, Libc.Self, StatxMask.Basic, out Statx stat).IsError ? default : (stat.Dev, stat.Ino);

    /// <summary>Opens the last level again, from a directory that was in it.</summary>
    /// <returns><see cref="Errno.ESTALE"/> when somebody has moved both meanwhile.</returns>
    private Errno Return(List<Level> levels, int child, out int descriptor)
    {
        Errno error = Libc.OpenAt(child, "..\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out descriptor);
        if (!error.IsError)
        {
            if (IdentityOf(descriptor) == levels[^1].Identity) { return Errno.None; }
            Libc.Close(descriptor);
        }
        // The child was moved: by the names from upper on.
        error = Libc.Reopen(upper, OpenFlags.ReadOnly | OpenFlags.Directory, out descriptor);
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
        // Up to one piece, the fsync does it all.
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

    /// <param name="levels">On the way from upper.</param>
    /// <param name="name">In the last of them; empty for that itself.</param>
    /// <param name="error">Why.</param>
    private void Fail(IEnumerable<Level> levels, ReadOnlySpan<byte> name, Errno error)
    {
        Interlocked.Increment(ref failed);
        lock (failures)
        {
            if (failures.Count >= MaxFailures) { return; }
            var path = new List<string>(levels.Skip(1).Select(level => PathText.Decode(level.Name)));
            if (name.Length > 0) { path.Add(PathText.Decode(name)); }
            failures.Add(new SyncFailure(string.Join('/', path), error));
        }
    }

    /// <summary>Waits for the time of the next operation.</summary>
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
