using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Upper;

/// <summary>Something of upper that has got another name.</summary>
/// <param name="Directory">A descriptor (O_PATH) of the directory where it was put last.</param>
/// <param name="Object">A descriptor (O_PATH) of it.</param>
/// <param name="Identity">Its device and inode number.</param>
/// <param name="Type">The type bits of its mode.</param>
internal sealed record Move(Fd Directory, Fd Object, (ulong Device, ulong Ino) Identity, uint Type) : IDisposable
{
    /// <inheritdoc/>
    public void Dispose()
    {
        Directory.Dispose();
        Object.Dispose();
    }
}

/// <summary>What users have moved in upper since a sync of it began.</summary>
/// <remarks>
/// The walk of the sync may have been where a thing is now, and come later to where it was. Descriptors are kept, since
/// names change again. What was made after the sync began is not its business.
/// </remarks>
internal sealed class Moves : IDisposable
{
    private readonly OrderedLock gate = new(OverlayLocks.Moves);
    private readonly Action? settle;
    private readonly long began = Now;
    private Dictionary<(ulong Device, ulong Ino), Move> waiting = [];
    private bool areMore;
    private bool ended;

    /// <param name="settle">Waits until whoever has moved something has said so.</param>
    public Moves(Action? settle = null) => this.settle = settle;

    /// <summary>Where users move things, and nobody says which.</summary>
    public static Moves Unseen => new() { areMore = true };

    /// <summary>So many wait to be synced, with two descriptors each; of others nothing is known but that there are some.</summary>
    public int Most { get; } = Libc.OpenFileLimit(out ulong limit).IsError ? 25 : (int)Math.Min(500, limit / 40);

    private static long Now => DateTimeOffset.UtcNow.ToUnixTimeMilliseconds();

    /// <summary>Something has this name now. Costs some system calls; the caller holds the rename lock.</summary>
    /// <param name="directory">A descriptor of the directory in upper; it stays the caller's.</param>
    /// <param name="name">With its NUL.</param>
    public void Add(int directory, ReadOnlySpan<byte> name)
    {
        Errno error = Libc.OpenAt(directory, name, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int opened);
        if (error == Errno.ENOENT) { return; } // removed by now
        var moved = new Fd(opened);
        Statx stat = default;
        int copy = -1;
        if (!error.IsError) { error = Libc.StatAt(opened, Libc.Self, StatxMask.Basic | StatxMask.BirthTime, out stat); }
        long born = (stat.BirthTime.Seconds * 1000) + (stat.BirthTime.Nanoseconds / 1_000_000);
        bool isOld = error.IsError || (stat.Mask & StatxMask.BirthTime) == 0 || born <= began || born > Now; // in the future: the clock was set back
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
                areMore |= isOld;
            }
        }
        move?.Dispose();
    }

    /// <summary>Takes all out that wait, each thing once, with where it was put last; the caller disposes of them.</summary>
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

    /// <summary>Whether some are not known.</summary>
    public bool AreMore
    {
        get { using (gate.Enter()) { return areMore; } }
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
