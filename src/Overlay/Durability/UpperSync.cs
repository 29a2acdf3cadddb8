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
    private long total;
    private long done;
    private long failed;
    private long operations;
    private long started;

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

    /// <summary>Whether it is over.</summary>
    public bool IsOver { get; private set; }

    /// <summary>Syncs. Takes as long as it takes.</summary>
    /// <param name="isCancelled">Asked between two operations.</param>
    /// <returns>Whether all is on the disk.</returns>
    public bool Run(Func<bool>? isCancelled = null)
    {
        started = Stopwatch.GetTimestamp();
        var cancelled = isCancelled ?? (static () => false);
        bool ended = false;
        Errno error = Libc.Reopen(upper, OpenFlags.ReadOnly | OpenFlags.Directory, out int descriptor);
        if (error.IsError)
        {
            Fail("", error);
        }
        else
        {
            long count = Count(descriptor);
            Libc.Close(descriptor);
            Volatile.Write(ref total, count);
            error = Libc.Reopen(upper, OpenFlags.ReadOnly | OpenFlags.Directory, out descriptor);
            if (error.IsError) { Fail("", error); }
            else { ended = SyncDirectory(descriptor, "", cancelled); }
        }
        IsOver = true;
        return ended && Failed == 0;
    }

    private static long Count(int directory)
    {
        long count = 1;
        var reader = new RealDirectoryReader(directory);
        while (reader.MoveNext())
        {
            uint type = TypeOf(directory, reader);
            if (type == FileType.Regular) { count++; }
            else if (type == FileType.Directory && !Open(directory, reader.TerminatedName, OpenFlags.Directory, out int child).IsError)
            {
                count += Count(child);
                Libc.Close(child);
            }
        }
        reader.Dispose();
        return count;
    }

    /// <summary>Some filesystems do not say it where they list the names.</summary>
    private static uint TypeOf(int directory, in RealDirectoryReader reader)
    {
        if (reader.Type != 0) { return (uint)reader.Type << 12; }
        return Libc.StatAt(directory, reader.TerminatedName, StatxMask.Basic, out Statx stat).IsError ? 0 : stat.Type;
    }

    private static Errno Open(int directory, ReadOnlySpan<byte> name, OpenFlags flags, out int descriptor) =>
        Libc.OpenAt(directory, name, flags | OpenFlags.ReadOnly | OpenFlags.NoFollow | OpenFlags.NonBlock | OpenFlags.LargeFile, 0, ResolveFlags.Confined, out descriptor);

    /// <summary>Syncs what is in a directory, then the directory, and closes it.</summary>
    /// <returns>False when it was cancelled.</returns>
    private bool SyncDirectory(int directory, string path, Func<bool> isCancelled)
    {
        var reader = new RealDirectoryReader(directory);
        bool goesOn = true;
        while (goesOn && reader.MoveNext())
        {
            uint type = TypeOf(directory, reader);
            bool isDirectory = type == FileType.Directory;
            if (!isDirectory && type != FileType.Regular) { continue; }
            string inner = path.Length == 0 ? PathText.Decode(reader.Name) : $"{path}/{PathText.Decode(reader.Name)}";
            Errno error = Open(directory, reader.TerminatedName, isDirectory ? OpenFlags.Directory : OpenFlags.ReadOnly, out int child);
            if (error == Errno.ENOENT) { continue; } // removed meanwhile
            if (error.IsError)
            {
                Fail(inner, error);
                continue;
            }
            goesOn = isDirectory ? SyncDirectory(child, inner, isCancelled) : SyncFile(child, inner, isCancelled);
        }
        Errno listed = reader.Error;
        reader.Dispose();
        if (goesOn) { goesOn = Pace(isCancelled); }
        if (goesOn)
        {
            Errno error = listed.IsError ? listed : Libc.Sync(directory, dataOnly: false);
            if (error.IsError) { Fail(path, error); }
            Interlocked.Increment(ref done);
        }
        Libc.Close(directory);
        return goesOn;
    }

    private bool SyncFile(int file, string path, Func<bool> isCancelled)
    {
        Errno error = Libc.StatAt(file, Libc.Self, StatxMask.Basic, out Statx stat);
        bool goesOn = true;
        // Up to one piece, the fsync does it all.
        for (long offset = 0; goesOn && !error.IsError && stat.Size > Piece && offset < (long)stat.Size; offset += Piece)
        {
            if (!Libc.IsDirty(file, offset, Piece)) { continue; }
            goesOn = Pace(isCancelled);
            if (goesOn) { error = Libc.SyncRange(file, offset, Piece); }
        }
        if (goesOn) { goesOn = Pace(isCancelled); }
        if (goesOn)
        {
            if (!error.IsError) { error = Libc.Sync(file, dataOnly: false); }
            if (error.IsError) { Fail(path, error); }
            Interlocked.Increment(ref done);
        }
        Libc.Close(file);
        return goesOn;
    }

    private void Fail(string path, Errno error)
    {
        Interlocked.Increment(ref failed);
        lock (failures)
        {
            if (failures.Count < MaxFailures) { failures.Add(new SyncFailure(path, error)); }
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
