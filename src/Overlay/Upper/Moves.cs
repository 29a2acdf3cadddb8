using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Upper;

/// <summary>An object of upper that has been moved to another name.</summary>
/// <param name="Directory">An O_PATH descriptor of the directory that the object was last moved to.</param>
/// <param name="Object">An O_PATH descriptor of the object.</param>
/// <param name="Identity">The device and inode number of the object.</param>
/// <param name="Type">The type bits of the object's mode.</param>
internal sealed record Move(Fd Directory, Fd Object, (ulong Device, ulong Ino) Identity, uint Type) : IDisposable
{
    /// <inheritdoc/>
    public void Dispose()
    {
        Directory.Dispose();
        Object.Dispose();
    }
}

/// <summary>Collects the objects that users move in upper during a sync.</summary>
/// <remarks>
/// The walk of the sync may have passed an object's new place, and come to its old place too late. Descriptors are kept,
/// since names change again. Objects that were made after the sync began are not its business.
/// </remarks>
internal sealed class Moves : IDisposable
{
    private readonly OrderedLock gate = new(OverlayLocks.Moves);
    private readonly Action? settle;
    private readonly long began = Now;
    private Dictionary<(ulong Device, ulong Ino), Move> waiting = [];
    private bool isIncomplete;
    private bool ended;

    /// <param name="settle">Waits until every thread that has moved an object has called <see cref="AddLocked"/>.</param>
    public Moves(Action? settle = null) => this.settle = settle;

    /// <summary>For an upper whose users move objects without reporting it.</summary>
    public static Moves Unreported => new() { isIncomplete = true };

    /// <summary>
    /// The most objects that are remembered, with two descriptors each. Of further ones, only <see cref="IsIncomplete"/> is
    /// known.
    /// </summary>
    public int Most { get; } = Libc.OpenFileLimit(out ulong limit).IsError ? 25 : (int)Math.Min(500, limit / 40);

    private static long Now => DateTimeOffset.UtcNow.ToUnixTimeMilliseconds();

    /// <summary>Notes that an object was moved to a name. Costs some system calls. Caller holds the rename lock.</summary>
    /// <param name="directory">A descriptor of the directory in upper; the caller keeps it.</param>
    /// <param name="name">The new name, with its NUL.</param>
    public void AddLocked(int directory, ReadOnlySpan<byte> name)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename);
        Errno error = Libc.OpenAt(directory, name, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int opened);
        if (error == Errno.ENOENT) { return; } // removed meanwhile
        var moved = new Fd(opened);
        Statx stat = default;
        int copy = -1;
        if (!error.IsError) { error = Libc.StatAt(opened, Libc.Self, StatxMask.Basic | StatxMask.BirthTime, out stat); }
        long born = (stat.BirthTime.Seconds * 1000) + (stat.BirthTime.Nanoseconds / 1_000_000);
        // a birth time that is still to come: the clock was set back
        bool isOld = error.IsError || (stat.Mask & StatxMask.BirthTime) == 0 || born <= began || born > Now;
        if (!error.IsError && isOld) { error = Libc.Duplicate(directory, out copy); }
        var move = new Move(new Fd(copy), moved, (stat.Dev, stat.Ino), stat.Type);
        using (gate.Enter())
        {
            if (!ended && isOld && !error.IsError && (waiting.Remove(move.Identity, out Move? before) || waiting.Count < Most))
            {
                waiting.Add(move.Identity, move);
                move = before;
            }
            else
            {
                isIncomplete |= isOld;
            }
        }
        move?.Dispose();
    }

    /// <summary>Takes out all remembered objects, each once, with its last place. The caller disposes of them.</summary>
    public ICollection<Move> Take()
    {
        settle?.Invoke();
        using (gate.Enter())
        {
            ICollection<Move> taken = waiting.Values;
            waiting = [];
            return taken;
        }
    }

    /// <summary>Whether objects were moved that are not remembered.</summary>
    public bool IsIncomplete
    {
        get { using (gate.Enter()) { return isIncomplete; } }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        using (gate.Enter())
        {
            ended = true;
            foreach (Move move in waiting.Values) { move.Dispose(); }
            waiting.Clear();
        }
    }
}
