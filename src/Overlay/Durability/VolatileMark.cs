using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Durability;

/// <summary>
/// The mark on disk of an upper that may lack what was written to it, with the records by which it can be judged.
/// </summary>
/// <remarks>
/// The mark has four parts: <c>work/incompat/volatile/dirty</c> in the work directory, which the kernel knows, and three
/// copies of a <see cref="VolatileRecord"/>. One copy is an attribute of that <c>volatile</c>, which some callers remove
/// before they mount; one is a file of the work directory; one is an attribute of upper itself, and names the work
/// directory.
/// <para>
/// Crash safety. All parts exist before the first change of a volatile mount. If upper had files that can be changed in
/// place, the parts are also on the disk by then; otherwise the filesystem's journal keeps the order. They are removed
/// after a sync of the whole upper, the kernel's part first. Killed in between, the remaining parts still ask for a sync.
/// </para>
/// </remarks>
internal sealed class VolatileMark
{
    private readonly int upper;
    private readonly MarkParts parts;
    private readonly OrderedLock gate = new(OverlayLocks.VolatileMark);
    private readonly bool hasUpperRecord;
    private readonly int recordsOnUpper;
    private VolatileState notUnderstood;
    private Errno unread;
    private VolatileRecord? current;

    /// <summary>Looks for a mark, and changes nothing.</summary>
    /// <param name="named">
    /// The upper directory as the user named it, not opened with O_PATH. Its mount tells more than a private copy.
    /// </param>
    /// <param name="upper">The upper directory; valid as long as this object.</param>
    /// <param name="work">The work directory, or -1; valid as long as this object.</param>
    /// <param name="xattr">Names of attributes.</param>
    /// <param name="path">The path of work from upper, without NUL; empty where it is unknown.</param>
    public VolatileMark(int named, int upper, int work, OverlayXattr xattr, ReadOnlySpan<byte> path)
    {
        this.upper = upper;
        parts = new MarkParts(upper, work, xattr);
        Now = UpperDescription.Of(named, path);
        HasKernelPart = work >= 0 && Has(work, "work/incompat/volatile\0"u8);
        Span<byte> value = stackalloc byte[VolatileRecord.MaxLength];
        Errno error = Libc.GetXattrAt(upper, Libc.Self, xattr.Volatile, value, out int size);
        hasUpperRecord = !error.IsNoXattr;
        if (hasUpperRecord) { Add(error, value, size); }
        recordsOnUpper = Records.Count;
        if (work < 0) { return; }
        error = Libc.OpenAt(work, MarkParts.FileName, OpenFlags.ReadOnly | OpenFlags.NoFollow | OpenFlags.NonBlock, 0,
            ResolveFlags.Confined, out int file);
        if (!error.IsError)
        {
            using var opened = new Fd(file);
            error = Libc.ReadAt(file, value, 0, out size);
            Add(error, value, size);
        }
        // a link or a socket has the name
        else if (error != Errno.ENOENT) { Add(error is Errno.ELOOP or Errno.ENXIO ? Errno.EINVAL : error, value, 0); }
        error = Libc.OpenAt(work, "work/incompat/volatile\0"u8, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0,
            ResolveFlags.Confined, out int directory);
        if (!error.IsError)
        {
            using var opened = new Fd(directory);
            error = Libc.GetXattrAt(directory, Libc.Self, xattr.Volatile, value, out size);
            if (!error.IsNoXattr) { Add(error, value, size); }
        }
        else if (!IsAbsent(error)) { unread = error; }
    }

    /// <summary>Names of attributes.</summary>
    public OverlayXattr Xattr => parts.Xattr;

    /// <summary>Whether a mount may have changed upper under this mark.</summary>
    public bool IsServed { get; set; }

    /// <summary>The copies that were found; null for a copy that is not understood.</summary>
    public List<VolatileRecord?> Records { get; } = [];

    /// <summary>The record of the current state.</summary>
    public VolatileRecord Now { get; }

    /// <summary>Whether the kernel's part of the mark exists.</summary>
    public bool HasKernelPart { get; }

    /// <summary>Whether a mark exists, so that upper may lack what was written to it.</summary>
    public bool Exists => HasKernelPart || Records.Count > 0 || unread.IsError;

    /// <summary>The error sequence at the first of consecutive volatile mounts; null where it is unknown.</summary>
    public uint? FirstErrors => Records.FirstOrDefault(record => record is not null)?.Errors ?? Now.Errors;

    /// <summary>Judges upper by the records. The worst of them counts.</summary>
    public VolatileState Judge()
    {
        if (Records.Count == 0 && !unread.IsError)
        {
            return new VolatileState(VolatileStateKind.Unknown,
                "there is no record by which that could be told, as after kernel overlayfs");
        }
        VolatileState worst = unread.IsError
            ? VolatileState.Unreadable($"its record cannot be read ({unread})", "see whether /proc is mounted, and its filesystem answers",
                unread)
            : VolatileState.Whole;
        foreach (VolatileRecord? record in Records)
        {
            VolatileState state = record?.Judge(Now) ?? notUnderstood;
            if (state.Kind > worst.Kind) { worst = state; }
        }
        return worst;
    }

    /// <summary>
    /// Adds what was read, or why reading failed. A record that cannot be read is not damaged: nobody must discard an upper
    /// for that.
    /// </summary>
    private void Add(Errno error, ReadOnlySpan<byte> value, int size)
    {
        // An object of another kind, or one that is too long, is no record of ours.
        bool isNone = error is Errno.EINVAL or Errno.ERANGE or Errno.EAGAIN or Errno.ESPIPE or Errno.EISDIR;
        if (error.IsError && !isNone)
        {
            unread = error;
            return;
        }
        ReadOnlySpan<byte> bytes = isNone ? default : value[..size];
        VolatileRecord? record = VolatileRecord.Parse(bytes);
        if (record is null) { notUnderstood = VolatileRecord.NotUnderstood(bytes); }
        Records.Add(record);
    }

    /// <summary>
    /// Whether an error means that a name is absent, or that a user cannot reach it, for whom the other copies count: the
    /// kernel makes <c>work</c> without permissions.
    /// </summary>
    private static bool IsAbsent(Errno error) => error is Errno.ENOENT or Errno.ENOTDIR or Errno.ELOOP or Errno.EACCES or Errno.EXDEV;

    private static bool Has(int directory, ReadOnlySpan<byte> path)
    {
        if (Libc.OpenAt(directory, path, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int descriptor).IsError)
        {
            return false;
        }
        Libc.Close(descriptor);
        return true;
    }

    /// <summary>
    /// Writes the mark, or renews its records. <paramref name="workDirectory"/> is empty but for an earlier mark.
    /// </summary>
    /// <param name="workDirectory">A descriptor of <c>work</c> in the work directory.</param>
    public Errno Write(int workDirectory)
    {
        VolatileRecord record = Now with { Errors = FirstErrors };
        Errno error = parts.Write(workDirectory, record.ToBytes(), isNew: !hasUpperRecord);
        if (!error.IsError) { current = record; }
        return error;
    }

    /// <summary>Records that a write has failed, so that nobody trusts the upper again.</summary>
    public Errno NoteFailure(Errno failure)
    {
        using (gate.Enter())
        {
            if (current is not { Failure: "-" } record) { return Errno.None; }
            // even if that fails: at the next call the descriptors may be closed
            current = record with { Failure = failure.ToString() };
            return parts.Replace(current.ToBytes());
        }
    }

    /// <summary>
    /// Whether a write to the filesystem has failed since the first of consecutive volatile mounts; false where that is
    /// unknown.
    /// </summary>
    public bool HasFailed()
    {
        if (FirstErrors is not { } then || Libc.Reopen(upper, OpenFlags.ReadOnly | OpenFlags.Directory, out int descriptor).IsError)
        {
            return false;
        }
        using var opened = new Fd(descriptor);
        return !ErrorSequence.Read(descriptor, out uint errors).IsError && errors != then;
    }

    /// <summary>
    /// Whether the mark in the work directory may be that of another upper: none of the records there names this one. False
    /// without a mark.
    /// </summary>
    public bool IsOfAnotherUpper =>
        (HasKernelPart || Records.Count > recordsOnUpper)
        && !Records.Skip(recordsOnUpper)
            .Any(record => record is not null && record.Upper == Now.Upper && record.FileSystemId == Now.FileSystemId);

    /// <summary>Removes the mark, on the disk as well, after everything was synced.</summary>
    public Errno Clear() => parts.Clear();

    /// <summary>The path of the work directory in the records, from upper, without NUL; empty when no record has one.</summary>
    public byte[] WorkPath =>
        Records.FirstOrDefault(record => record is { Work.Length: > 0 }) is { } record ? Convert.FromHexString(record.Work) : [];
}

/// <summary>Removes the mark of a mount that never served, so that the upper can be mounted in any way.</summary>
/// <param name="mark">The mark, written where there was none before.</param>
internal sealed class MarkRemoval(VolatileMark mark) : IDisposable
{
    /// <inheritdoc/>
    public void Dispose()
    {
        if (!mark.IsServed) { _ = mark.Clear(); } // best effort: remaining parts ask for a sync
    }
}
