using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Upper;

/// <summary>
/// A temporary name in work. The object that gets the name is discarded by <see cref="Dispose"/>, unless it was published or is
/// kept.
/// </summary>
/// <remarks>
/// The last byte of the space says whether there is nothing to discard, so that all copies of this value agree.
/// <para>
/// Crash safety. The next mount empties work.
/// </para>
/// </remarks>
internal readonly ref struct Temporary
{
    private readonly WorkDirectory work;
    private readonly Span<byte> space;

    /// <summary>Chooses a name that does not exist in work.</summary>
    /// <param name="work">The directory in which objects are built.</param>
    /// <param name="space">Space for <see cref="WorkDirectory.NameLength"/> bytes.</param>
    public Temporary(WorkDirectory work, Span<byte> space)
    {
        this.work = work;
        this.space = space;
        Name = work.NewName(space);
        space[^1] = 0;
    }

    /// <summary>The name, with its NUL.</summary>
    public ReadOnlySpan<byte> Name { get; }

    /// <summary>An O_PATH descriptor of work.</summary>
    public int Directory => work.Descriptor;

    /// <summary>
    /// Moves the object to a name in upper that does not exist. Caller holds the names lock of the directory, or the rename lock
    /// exclusively.
    /// </summary>
    /// <inheritdoc cref="WorkDirectory.PublishLocked"/>
    public Errno PublishLocked(int target, ReadOnlySpan<byte> name)
    {
        LockOrder.AssertHeldOr(OverlayLocks.Rename, OverlayLocks.Names);
        return Over(work.PublishLocked(Name, target, name));
    }

    /// <summary>Replaces an object of upper, which is not a directory, by this object.</summary>
    /// <param name="target">A descriptor of the directory in upper.</param>
    /// <param name="name">The name there, with its NUL.</param>
    public Errno Replace(int target, ReadOnlySpan<byte> name) =>
        Over(Libc.RenameAt(work.Descriptor, Name, target, name, RenameFlags.None));

    /// <summary>
    /// Exchanges the object with an object of upper, which then has the temporary name, and is discarded in its place.
    /// </summary>
    /// <param name="target">A descriptor of the directory in upper.</param>
    /// <param name="name">The name there, with its NUL.</param>
    public Errno Exchange(int target, ReadOnlySpan<byte> name) =>
        Libc.RenameAt(work.Descriptor, Name, target, name, RenameFlags.Exchange);

    /// <summary>Leaves the object in work under the temporary name: the caller takes over to discard it.</summary>
    /// <returns>The name, with its NUL.</returns>
    public byte[] Keep()
    {
        space[^1] = 1;
        return Name.ToArray();
    }

    /// <summary>Notes that the object has left its temporary name, unless there was an error.</summary>
    /// <param name="error">The result of the change.</param>
    /// <returns>The same.</returns>
    public Errno Over(Errno error)
    {
        if (!error.IsError) { space[^1] = 1; }
        return error;
    }

    /// <summary>Discards the object that has the name.</summary>
    public void Dispose()
    {
        if (space[^1] == 0) { work.Discard(Name); }
    }
}
