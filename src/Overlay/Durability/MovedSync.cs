using Veneer.Linux;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Durability;

/// <summary>Syncs the objects of upper that were moved since a walk began, and the directories above them.</summary>
/// <remarks>
/// An object that is moved meanwhile needs nothing more, unless it was below an object that was moved before: it may
/// then have left before the walk comes to it. So this ends when a round finds only objects that have been synced here.
/// </remarks>
/// <param name="upper">A descriptor of upper; it stays the caller's.</param>
/// <param name="moves">The objects that users move.</param>
/// <param name="progress">Receives what was synced, and what could not be.</param>
/// <param name="pace">How fast to go, and when to end early.</param>
internal sealed class MovedSync(int upper, Moves moves, SyncProgress progress, SyncPace pace)
{
    // moved objects and all below them: each is synced once, however often it is moved
    private readonly HashSet<(ulong Device, ulong Ino)> synced = [];

    /// <summary>Syncs what was moved until nothing new is; the whole filesystem if too much is moved to know it all.</summary>
    /// <returns>False when it was cancelled.</returns>
    public bool Run()
    {
        bool goesOn = true, isNew = true;
        while (goesOn && isNew && !moves.IsIncomplete)
        {
            ICollection<Move> some = moves.Take();
            isNew = false;
            var above = new HashSet<(ulong, ulong)>();
            foreach (Move move in some)
            {
                if (!goesOn || synced.Contains(move.Identity)) { continue; }
                isNew = true;
                goesOn = SyncObject(move) && SyncUpwards(move.Directory.Value, above);
            }
            foreach (Move move in some) { move.Dispose(); }
        }
        return goesOn && (!moves.IsIncomplete || SyncAll());
    }

    /// <summary>Syncs the whole filesystem of upper.</summary>
    private bool SyncAll()
    {
        if (!pace.Wait()) { return false; }
        Errno error = Libc.Reopen(upper, OpenFlags.ReadOnly | OpenFlags.Directory, out int root);
        if (!error.IsError)
        {
            error = progress.Note(Libc.SyncFileSystem(root));
            Libc.Close(root);
        }
        if (error.IsError) { progress.Fail("", error); }
        return true;
    }

    private bool SyncObject(Move move)
    {
        string place = PlaceOf(move.Object.Value);
        if (move.Type == FileType.Directory)
        {
            var walk = new SyncWalk(move.Object.Value, place, progress, pace, areMovesReported: true, synced);
            bool goesOn = walk.Count(out long count);
            progress.AddToTotal(count);
            return goesOn && walk.Sync();
        }
        if (move.Type == FileType.Regular)
        {
            progress.AddToTotal(1);
            Errno error = Libc.Reopen(move.Object.Value, OpenFlags.ReadOnly | OpenFlags.NonBlock | OpenFlags.LargeFile, out int file);
            bool goesOn = error.IsError || SyncWalk.SyncFile(file, pace, progress, out error);
            if (error.IsError) { progress.Fail(place, error); }
            else { synced.Add(move.Identity); }
            return goesOn;
        }
        synced.Add(move.Identity); // its directory's fsync covers it
        return true;
    }

    /// <summary>
    /// Syncs a directory and those above it, up to upper: some may be new, and then nothing on the disk leads to the
    /// object.
    /// </summary>
    /// <param name="directory">A descriptor of the directory.</param>
    /// <param name="above">The directories that were synced in this way in the same round.</param>
    private bool SyncUpwards(int directory, HashSet<(ulong, ulong)> above)
    {
        (ulong, ulong) end = SyncWalk.IdentityOf(upper);
        Errno error = Libc.Reopen(directory, OpenFlags.ReadOnly | OpenFlags.Directory, out int current);
        bool goesOn = true;
        // The root of the mount is its own parent: a walk that gets there began at a directory that was moved out of upper
        // to be removed.
        while (goesOn && !error.IsError && SyncWalk.IdentityOf(current) is var identity && above.Add(identity))
        {
            goesOn = pace.Wait();
            if (goesOn) { error = progress.Note(Libc.Sync(current, dataOnly: false)); }
            if (identity == end || error.IsError) { break; }
            int child = current;
            error = Libc.OpenAt(child, "..\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out current);
            Libc.Close(child);
        }
        if (current >= 0) { Libc.Close(current); }
        if (error.IsError && error != Errno.ENOENT) // ENOENT: removed meanwhile
        {
            progress.Fail(PlaceOf(directory), error);
        }
        return goesOn;
    }

    /// <summary>The path of an object from upper, for messages.</summary>
    private string PlaceOf(int descriptor)
    {
        string from = Host.Processes.Link($"/proc/self/fd/{upper}") ?? "", full = Host.Processes.Link($"/proc/self/fd/{descriptor}") ?? "?";
        return full.StartsWith(from + "/", StringComparison.Ordinal) ? full[(from.Length + 1)..] : full == from ? "" : full;
    }
}
