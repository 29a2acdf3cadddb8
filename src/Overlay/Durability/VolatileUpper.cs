using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Durability;

/// <summary>An upper to be synced by its path, which is not mounted, or mounted by another process.</summary>
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

    /// <summary>Whether an overlay is mounted over the upper, so that its mark has to stay.</summary>
    public bool IsInUse { get; }

    /// <summary>Whether the upper has a mark.</summary>
    public bool IsMarked => mark.Exists;

    /// <summary>Opens and locks an upper. No overlay can be mounted over it until this is disposed of.</summary>
    /// <param name="path">The upper directory.</param>
    /// <param name="workPath">The work directory, or null for the one that the record names.</param>
    /// <exception cref="VolatileUpperException">
    /// The upper does not exist, or may lack something that no sync brings back. The message is a sentence for the user.
    /// </exception>
    public static VolatileUpper Open(string path, string? workPath)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None,
            out int descriptor);
        if (error.IsError)
        {
            throw error switch
            {
                Errno.ENOENT =>
                    new VolatileUpperException($"{path} does not exist: name a mount point, or an upper directory.", UpperProblem.Absent),
                Errno.ENOTDIR =>
                    new VolatileUpperException($"{path} is not a directory: name a mount point, or an upper directory.",
                        UpperProblem.Absent),
                Errno.EACCES or Errno.EPERM =>
                    new VolatileUpperException($"{path} may not be read by this user: become root, or the user who owns it.",
                        UpperProblem.Denied),
                _ => new VolatileUpperException($"{path} cannot be read ({error}): see its filesystem.", UpperProblem.Other),
            };
        }
        var directory = new Fd(descriptor);
        var workDirectory = new Fd(-1);
        try
        {
            // Its attributes may have either prefix.
            var xattr = new OverlayXattr(user: false);
            var found = new VolatileMark(descriptor, descriptor, -1, xattr, []);
            if (!found.Exists)
            {
                var user = new OverlayXattr(user: true);
                var other = new VolatileMark(descriptor, descriptor, -1, user, []);
                if (other.Exists) { (xattr, found) = (user, other); }
            }
            Refuse(path, found); // upper's own record is enough; a damaged one does not say where work is
            byte[] from = found.WorkPath;
            if (workPath is not null)
            {
                error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(workPath), OpenFlags.Path | OpenFlags.Directory, 0,
                    ResolveFlags.None, out descriptor);
            }
            else if (from.Length > 0)
            {
                // The owner of upper can have written the record: the path must lead to a directory of the same mount, and
                // over no symbolic link.
                const ResolveFlags plain = ResolveFlags.NoSymbolicLinks | ResolveFlags.NoMagicLinks | ResolveFlags.NoCrossDevice;
                error = from[0] == '/'
                    ? Errno.EXDEV
                    : Libc.OpenAt(directory.Value, [.. from, 0], OpenFlags.Path | OpenFlags.Directory, 0, plain, out descriptor);
                if (error is Errno.ELOOP or Errno.EXDEV)
                {
                    throw new VolatileUpperException(
                        $"The record of {path} says that its work directory is {PathText.Printable(PathText.Decode(from))} from there, "
                        + "over a symbolic link or on another filesystem, which no overlay has written: name it with --work DIR.",
                        UpperProblem.Damaged);
                }
            }
            else { error = found.Exists ? Errno.ENOENT : Errno.None; descriptor = -1; }
            if (error.IsError)
            {
                throw new VolatileUpperException(
                    workPath is not null
                        ? $"The work directory {workPath} cannot be opened ({error}): see whether it is there."
                        : $"The work directory of {path} is not where it was"
                            + $"{(from.Length > 0 ? $" ({PathText.Decode(from)} from there)" : "")}: name it with --work DIR.",
                    error is Errno.EACCES or Errno.EPERM ? UpperProblem.Denied : UpperProblem.Absent);
            }
            workDirectory = new Fd(descriptor);
            found = new VolatileMark(directory.Value, directory.Value, workDirectory.Value, xattr, []);
            Refuse(path, found);
            if (workPath is null && found.IsOfAnotherUpper)
            {
                throw new VolatileUpperException(
                    $"The record of {path} names a work directory ({PathText.Printable(PathText.Decode(from))} from there) whose "
                    + "mark is not that of this upper: name the right one with --work DIR.", UpperProblem.Damaged);
            }
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

    /// <summary>
    /// Makes the sync of the upper. While it is in use, the sync covers its whole filesystem in the end, since users may
    /// move objects meanwhile.
    /// </summary>
    /// <param name="perSecond">The most operations a second, as for <see cref="UpperSync"/>.</param>
    public UpperSync Sync(int perSecond) => new(upper.Value, perSecond, IsInUse ? Moves.Unreported : null);

    /// <summary>Removes the mark after a successful sync: the upper is not volatile any more.</summary>
    /// <exception cref="VolatileUpperException">
    /// A write to its filesystem failed meanwhile, or the mark cannot be removed.
    /// </exception>
    public void ClearMark()
    {
        JudgeAgain();
        Errno error = mark.Clear();
        if (error == Errno.EPERM && !mark.Exists) { return; } // some users may not even remove an attribute that is absent
        if (error.IsError)
        {
            throw new VolatileUpperException(
                $"{path} is synced, but its mark cannot be removed ({error}): see the permissions of its work directory.",
                error is Errno.EACCES or Errno.EPERM ? UpperProblem.Denied : UpperProblem.Other);
        }
    }

    /// <summary>
    /// Judges the upper again after a successful sync: an error during the sync may have been reported to somebody else.
    /// </summary>
    /// <exception cref="VolatileUpperException">A write to its filesystem failed meanwhile.</exception>
    public void JudgeAgain()
    {
        var now = new VolatileMark(upper.Value, upper.Value, work.Value, mark.Xattr, []);
        if (now.Exists && now.Judge() is { Kind: > VolatileStateKind.Doubtful } state)
        {
            throw new VolatileUpperException(state.Sentence(path)
                ?? $"{path} may lack what was written while it was volatile, since {state.Reason}: {state.Remedy}discard it and "
                + "its work directory.", ProblemOf(state));
        }
    }

    private static void Refuse(string path, VolatileMark found)
    {
        if (found.Exists && found.Judge() is { Kind: > VolatileStateKind.Doubtful } state)
        {
            throw new VolatileUpperException(state.Sentence(path)
                ?? $"{path} may lack what was written while it was volatile, since {state.Reason}, and a sync does not bring "
                + $"that back: {state.Remedy}discard it and its work directory.", ProblemOf(state));
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
