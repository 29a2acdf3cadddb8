using System.Buffers;
using Veneer.Linux;

namespace Veneer.Overlay.Durability;

/// <summary>Walks a tree of upper and syncs each file and directory in it.</summary>
/// <remarks>
/// The files of a directory come first, then the directories in it, then the directory itself. However deep the tree is, only
/// one directory is open, and a second one while the walk goes from one to the other.
/// </remarks>
/// <param name="root">A descriptor of the directory where the walk begins; it stays the caller's.</param>
/// <param name="place">The path of that directory from upper; empty for upper itself.</param>
/// <param name="progress">Receives what was synced, and what could not be.</param>
/// <param name="pace">How fast to go, and when to end early.</param>
/// <param name="areMovesReported">Whether somebody notes what is moved away from the walk, and syncs that afterwards.</param>
/// <param name="synced">
/// The objects that need no sync any more; receives those that the walk syncs. Null when each object is met only once.
/// </param>
internal sealed class SyncWalk(
    int root, string place, SyncProgress progress, SyncPace pace, bool areMovesReported, HashSet<(ulong Device, ulong Ino)>? synced)
{
    private const int Piece = 1 << 20;

    private readonly List<Level> levels = [];
    private bool isCounting;
    private long counted;

    /// <summary>Counts the files and directories of the tree, and syncs nothing.</summary>
    /// <returns>False when it was cancelled.</returns>
    public bool Count(out long count)
    {
        (isCounting, counted) = (true, 0);
        bool goesOn = Walk();
        count = counted;
        return goesOn;
    }

    /// <summary>Syncs the tree.</summary>
    /// <returns>False when it was cancelled.</returns>
    public bool Sync()
    {
        isCounting = false;
        return Walk();
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

    private bool Walk()
    {
        levels.Clear();
        levels.Add(new Level { Name = [] });
        Errno error = Libc.Reopen(root, OpenFlags.ReadOnly | OpenFlags.Directory, out int current);
        if (error.IsError)
        {
            if (!isCounting) { Fail(default, error); }
            return true;
        }
        bool goesOn = Enter(current);
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
                    if (!isCounting && !IsElsewhere(error)) { Fail(name[..^1], error); }
                    continue;
                }
                Libc.Close(current);
                current = child;
                levels.Add(new Level { Name = name[..^1].ToArray() });
                goesOn = Enter(current);
                continue;
            }
            if (!isCounting) { goesOn = pace.Wait(); }
            if (!goesOn) { break; }
            if (!isCounting && level.Listed != Errno.ENOENT) // ENOENT: the directory was removed meanwhile
            {
                error = level.Listed.IsError ? level.Listed : progress.Note(Libc.Sync(current, dataOnly: false));
                if (error.IsError) { Fail(default, error); }
                else { synced?.Add(level.Identity); }
                progress.AddDone();
            }
            while (true)
            {
                levels.RemoveAt(levels.Count - 1);
                if (levels.Count == 0) { break; }
                error = Return(current, out int parent);
                if (error.IsError)
                {
                    // Where moves are reported, a directory that was moved away is synced as such.
                    if (!isCounting && (!areMovesReported || !(error == Errno.ESTALE || IsElsewhere(error)))) { Fail(default, error); }
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
    private bool Enter(int directory)
    {
        Level level = levels[^1];
        level.Identity = IdentityOf(directory);
        if (isCounting) { counted++; }
        bool goesOn = !pace.IsCancelled();
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
                progress.AddDone();
                continue;
            }
            goesOn = error.IsError || SyncFile(file, pace, progress, out error);
            if (error.IsError) { Fail(reader.Name, error); }
            else { synced?.Add(identity); }
        }
        level.Listed = reader.Error;
        reader.Dispose();
        return goesOn;
    }

    /// <summary>The identity of an open object; all zero when it cannot be determined.</summary>
    public static (ulong Device, ulong Ino) IdentityOf(int descriptor) =>
        Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat).IsError ? default : (stat.Dev, stat.Ino);

    /// <summary>Whether a listed name has been removed meanwhile, or stands for another object: a whiteout, a link.</summary>
    private static bool IsElsewhere(Errno error) => error is Errno.ENOENT or Errno.ENOTDIR or Errno.ELOOP or Errno.ENXIO;

    /// <summary>Opens the last level again, from a directory that was in it.</summary>
    /// <returns><see cref="Errno.ESTALE"/> when both directories were moved meanwhile.</returns>
    private Errno Return(int child, out int descriptor)
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

    /// <summary>Syncs a file in pieces, and closes it.</summary>
    /// <returns>False when it was cancelled.</returns>
    public static bool SyncFile(int file, SyncPace pace, SyncProgress progress, out Errno error)
    {
        error = Libc.StatAt(file, Libc.Self, StatxMask.Basic, out Statx stat);
        bool goesOn = true;
        // A file of up to one piece is left to the fsync.
        for (long offset = 0; goesOn && !error.IsError && stat.Size > Piece && offset < (long)stat.Size; offset += Piece)
        {
            if (!Libc.IsDirty(file, offset, Piece)) { continue; }
            goesOn = pace.Wait();
            if (goesOn) { error = progress.Note(Libc.SyncRange(file, offset, Piece)); }
        }
        if (goesOn) { goesOn = pace.Wait(); }
        if (goesOn)
        {
            if (!error.IsError) { error = progress.Note(Libc.Sync(file, dataOnly: false)); }
            progress.AddDone();
        }
        Libc.Close(file);
        return goesOn;
    }

    /// <summary>Adds a failure at the last level.</summary>
    /// <param name="name">The name in the last level; empty for that level itself.</param>
    /// <param name="error">The error.</param>
    private void Fail(ReadOnlySpan<byte> name, Errno error) =>
        progress.Fail(place, levels.Skip(1).Select(level => level.Name), name, error);
}
