using Veneer.Linux;

namespace Veneer.Overlay.Upper;

/// <summary>A new name in work. What has it is discarded in the end, unless it was published or is kept.</summary>
/// <remarks>
/// The last byte of the room says whether it is over, so that a copy of this value knows it as well.
/// <para>
/// Crash safety. The next mount empties work.
/// </para>
/// </remarks>
internal readonly ref struct Temporary
{
    private readonly WorkDirectory work;
    private readonly Span<byte> space;

    /// <summary>A name that nothing in work has.</summary>
    /// <param name="work">Work.</param>
    /// <param name="space">Room for <see cref="WorkDirectory.NameLength"/> bytes.</param>
    public Temporary(WorkDirectory work, Span<byte> space)
    {
        this.work = work;
        this.space = space;
        Name = work.NewName(space);
        space[^1] = 0;
    }

    /// <summary>With its NUL.</summary>
    public ReadOnlySpan<byte> Name { get; }

    /// <summary>A descriptor, O_PATH, of work.</summary>
    public int Directory => work.Descriptor;

    /// <summary>Gives the object a name in upper that nothing has; the caller holds the lock that keeps it so.</summary>
    /// <inheritdoc cref="WorkDirectory.Publish"/>
    public Errno Publish(int target, ReadOnlySpan<byte> name) => Over(work.Publish(Name, target, name));

    /// <summary>Gives the object a name in upper, in the place of what has it, which is no directory.</summary>
    public Errno Replace(int target, ReadOnlySpan<byte> name) => Over(Libc.RenameAt(work.Descriptor, Name, target, name, RenameFlags.None));

    /// <summary>The object and what has a name in upper change places. What has the temporary name then is discarded in the end.</summary>
    public Errno Exchange(int target, ReadOnlySpan<byte> name) => Libc.RenameAt(work.Descriptor, Name, target, name, RenameFlags.Exchange);

    /// <summary>The object stays in work, under this name: somebody else discards it.</summary>
    public byte[] Keep()
    {
        space[^1] = 1;
        return Name.ToArray();
    }

    /// <summary>Nothing has the temporary name any more, unless there was an error.</summary>
    public Errno Over(Errno error)
    {
        if (!error.IsError) { space[^1] = 1; }
        return error;
    }

    /// <summary>Discards what has the name.</summary>
    public void Dispose()
    {
        if (space[^1] == 0) { work.Discard(Name); }
    }
}
