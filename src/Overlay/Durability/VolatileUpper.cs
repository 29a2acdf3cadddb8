using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Durability;

/// <summary>An upper that is not mounted, or that somebody else has mounted, to be synced by who knows its path.</summary>
public sealed class VolatileUpper : IDisposable
{
    private readonly Fd upper;
    private readonly Fd work;
    private readonly VolatileMark mark;
    private readonly string path;

    private VolatileUpper(string path, Fd upper, Fd work, VolatileMark mark, bool isInUse)
    {
        this.path = path;
        this.upper = upper;
        this.work = work;
        this.mark = mark;
        IsInUse = isInUse;
    }

    /// <summary>Whether an overlay is mounted over it, so that its mark has to stay.</summary>
    public bool IsInUse { get; }

    /// <summary>Whether it has a mark to take away.</summary>
    public bool IsMarked => mark.Exists;

    /// <summary>Takes hold of it; no overlay can be mounted over it meanwhile.</summary>
    /// <param name="path">The upper directory.</param>
    /// <param name="workPath">Its work directory, or null for the one that its record names.</param>
    /// <exception cref="VolatileUpperException">It is not there, or may lack something that no sync brings back; the message is a sentence for the user.</exception>
    public static VolatileUpper Open(string path, string? workPath)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int descriptor);
        if (error.IsError)
        {
            throw error switch
            {
                Errno.ENOENT => new VolatileUpperException($"{path} does not exist: name a mount point, or an upper directory.", UpperProblem.Absent),
                Errno.ENOTDIR => new VolatileUpperException($"{path} is not a directory: name a mount point, or an upper directory.", UpperProblem.Absent),
                Errno.EACCES or Errno.EPERM => new VolatileUpperException($"{path} may not be read by this user: become root, or the user who owns it.", UpperProblem.Denied),
                _ => new VolatileUpperException($"{path} cannot be read ({error}): see its filesystem.", UpperProblem.Other),
            };
        }
        var directory = new Fd(descriptor);
        var workDirectory = new Fd(-1);
        try
        {
            // Whichever prefix it was mounted with.
            var xattr = new OverlayXattr(user: false);
            var found = new VolatileMark(descriptor, descriptor, -1, xattr, []);
            if (!found.Exists)
            {
                var user = new OverlayXattr(user: true);
                var other = new VolatileMark(descriptor, descriptor, -1, user, []);
                if (other.Exists) { (xattr, found) = (user, other); }
            }
            Refuse(path, found); // upper's own record says enough; a damaged one does not say where work is
            byte[] from = found.WorkPath;
            if (workPath is not null) { error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(workPath), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out descriptor); }
            else if (from.Length > 0)
            {
                // Whoever owns upper can have written the record: it leads to a directory of the same mount, over no link of his.
                const ResolveFlags plain = ResolveFlags.NoSymbolicLinks | ResolveFlags.NoMagicLinks | ResolveFlags.NoCrossDevice;
                error = from[0] == '/' ? Errno.EXDEV : Libc.OpenAt(directory.Value, [.. from, 0], OpenFlags.Path | OpenFlags.Directory, 0, plain, out descriptor);
                if (error is Errno.ELOOP or Errno.EXDEV) { throw new VolatileUpperException($"The record of {path} says that its work directory is {PathText.Printable(PathText.Decode(from))} from there, over a symbolic link or on another filesystem, which no overlay has written: name it with --work DIR.", UpperProblem.Damaged); }
            }
            else { error = found.Exists ? Errno.ENOENT : Errno.None; descriptor = -1; }
            if (error.IsError)
            {
                throw new VolatileUpperException(
                    workPath is not null
                        ? $"The work directory {workPath} cannot be opened ({error}): see whether it is there."
                        : $"The work directory of {path} is not where it was{(from.Length > 0 ? $" ({PathText.Decode(from)} from there)" : "")}: name it with --work DIR.",
                    error is Errno.EACCES or Errno.EPERM ? UpperProblem.Denied : UpperProblem.Absent);
            }
            workDirectory = new Fd(descriptor);
            found = new VolatileMark(directory.Value, directory.Value, workDirectory.Value, xattr, []);
            Refuse(path, found);
            if (workPath is null && found.IsOfAnother) { throw new VolatileUpperException($"The record of {path} names a work directory ({PathText.Printable(PathText.Decode(from))} from there) whose mark is not that of this upper: name the right one with --work DIR.", UpperProblem.Damaged); }
            bool isFree = !Libc.TryLockExclusive(directory.Value).IsError;
            return new VolatileUpper(path, directory, workDirectory, found, isInUse: !isFree);
        }
        catch
        {
            directory.Dispose();
            workDirectory.Dispose();
            throw;
        }
    }

    /// <summary>The sync of what is in it; while it is in use also of all else of its filesystem, since users may move things meanwhile.</summary>
    /// <param name="perSecond">As for <see cref="UpperSync"/>.</param>
    public UpperSync Sync(int perSecond) => new(upper.Value, perSecond, IsInUse ? Moves.Unseen : null);

    /// <summary>After a sync that succeeded: it is not volatile any more.</summary>
    /// <exception cref="VolatileUpperException">Writing to its filesystem failed meanwhile, or the mark cannot be removed.</exception>
    public void ClearMark()
    {
        JudgeAgain();
        Errno error = mark.Clear();
        if (error == Errno.EPERM && !mark.Exists) { return; } // not even one that is not there may be removed by some
        if (error.IsError) { throw new VolatileUpperException($"{path} is synced, but its mark cannot be removed ({error}): see the permissions of its work directory.", error is Errno.EACCES or Errno.EPERM ? UpperProblem.Denied : UpperProblem.Other); }
    }

    /// <summary>After a sync that succeeded: what failed during it may have been told to somebody else.</summary>
    /// <exception cref="VolatileUpperException">Writing to its filesystem failed meanwhile.</exception>
    public void JudgeAgain()
    {
        var now = new VolatileMark(upper.Value, upper.Value, work.Value, mark.Xattr, []);
        if (now.Exists && now.Judge() is { Kind: > VolatileStateKind.Doubtful } state)
        {
            throw new VolatileUpperException(state.Sentence(path) ?? $"{path} may lack what was written while it was volatile, since {state.Reason}: {state.Remedy}discard it and its work directory.", ProblemOf(state));
        }
    }

    private static void Refuse(string path, VolatileMark found)
    {
        if (found.Exists && found.Judge() is { Kind: > VolatileStateKind.Doubtful } state)
        {
            throw new VolatileUpperException(state.Sentence(path) ?? $"{path} may lack what was written while it was volatile, since {state.Reason}, and a sync does not bring that back: {state.Remedy}discard it and its work directory.", ProblemOf(state));
        }
    }

    private static UpperProblem ProblemOf(VolatileState state) => state.Kind switch
    {
        VolatileStateKind.OtherVersion => UpperProblem.OtherVersion,
        VolatileStateKind.Damaged => UpperProblem.Damaged,
        VolatileStateKind.Unreadable => UpperProblem.Other,
        _ => UpperProblem.Lost,
    };

    /// <inheritdoc/>
    public void Dispose()
    {
        upper.Dispose();
        work.Dispose();
    }
}
