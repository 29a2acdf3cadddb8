using System.Buffers.Text;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Upper;

/// <summary>What the old name of an object gets when the object moves. The values are the kinds of a note.</summary>
internal enum OldNameGets : byte
{
    /// <summary>Nothing.</summary>
    Nothing = (byte)'n',
    /// <summary>A whiteout.</summary>
    Whiteout = (byte)'w',
    /// <summary>The object that had the new name: the two objects exchange their names.</summary>
    Other = (byte)'x',
}

/// <summary>A name in a directory of upper.</summary>
/// <param name="parent">The directory.</param>
/// <param name="descriptor">A descriptor of the directory.</param>
/// <param name="name">The name, with its NUL.</param>
internal readonly ref struct UpperName(RealDirectory parent, int descriptor, ReadOnlySpan<byte> name)
{
    /// <summary>The directory.</summary>
    public RealDirectory Parent { get; } = parent;

    /// <summary>A descriptor of the directory.</summary>
    public int Descriptor { get; } = descriptor;

    /// <summary>The name, with its NUL.</summary>
    public ReadOnlySpan<byte> Name { get; } = name;
}

/// <summary>Changes names of upper in several steps, if its filesystem cannot do it in one. See ADR 22.</summary>
/// <remarks>
/// Callers hold the rename lock exclusively, so that nobody looks a name up between two steps.
/// <para>
/// Crash safety. Before the first step a note is written in <c>work/incompat</c>. It is a symbolic link, which appears together
/// with its content. An object that must make way is set aside: it moves to the same directory, under a name that is in the
/// note. When it is not needed any more, it moves on to work. The note is removed last. A mount that finds a note finishes the
/// change or takes it back (see <see cref="Finish"/>) before it empties work. Then upper has the old state or the new state.
/// </para>
/// <para>
/// As long as there is a note, neither the kernel nor a Veneer that does not know of notes mounts upper. But the kernel may
/// have emptied work before it finds the note, so that nothing that is needed may be in work itself. As for all crash safety,
/// it is assumed that the filesystem keeps the order of changes.
/// </para>
/// </remarks>
/// <param name="work">The directory in which objects are built.</param>
internal sealed class Steps(WorkDirectory work)
{
    /// <summary>The directory of notes in work, with its NUL.</summary>
    private static ReadOnlySpan<byte> NotesName => "incompat\0"u8;

    /// <summary>The prefix of the names of notes.</summary>
    private static ReadOnlySpan<byte> Prefix => "veneer-steps-"u8;

    /// <summary>The prefix of the names of objects that were set aside.</summary>
    private static ReadOnlySpan<byte> AsidePrefix => "veneer-aside-"u8;

    /// <summary>The longest target of a symbolic link in bytes, with its NUL.</summary>
    private const int MaxNote = 4096;

    /// <summary>Replaces an object of upper by an object of work.</summary>
    /// <param name="target">The name. The object that has it goes to work, and the caller must discard it.</param>
    /// <param name="replacement">The name of the new object in work, with its NUL.</param>
    /// <param name="aside">The name in work that the replaced object gets, with its NUL.</param>
    /// <returns><see cref="Errno.ENAMETOOLONG"/> when the path is too long for a note. After an error nothing has changed.</returns>
    public Errno ReplaceLocked(in UpperName target, ReadOnlySpan<byte> replacement, out byte[] aside)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: true);
        aside = NewName();
        byte[] away = InNotes(AsidePrefix, aside);
        Errno error = Begin(OldNameGets.Whiteout, aside, target, default, out byte[] note);
        if (error.IsError) { return error; }
        error = Libc.RenameAt(target.Descriptor, target.Name, work.Descriptor, away, RenameFlags.None);
        if (!error.IsError)
        {
            error = Libc.RenameAt(work.Descriptor, replacement, target.Descriptor, target.Name, RenameFlags.None);
            // best effort: the note stays until the object is back
            if (error.IsError) { _ = Libc.RenameAt(work.Descriptor, away, target.Descriptor, target.Name, RenameFlags.None); }
            else { Release(away, aside); }
        }
        End(note, error.IsError ? target : default);
        return error;
    }

    /// <summary>Moves an object of upper.</summary>
    /// <param name="from">The old name.</param>
    /// <param name="to">The new name.</param>
    /// <param name="gets">What the old name gets.</param>
    /// <param name="setAside">Whether an object that has the new name is set aside first, since a rename cannot replace it.</param>
    /// <param name="aside">The name in work of the object that was set aside, which the caller must discard; or null.</param>
    /// <returns><see cref="Errno.EXDEV"/> when the paths are too long for a note. After an error nothing has changed.</returns>
    public Errno MoveLocked(in UpperName from, in UpperName to, OldNameGets gets, bool setAside, out byte[]? aside)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: true);
        aside = null;
        byte[] whiteout = [];
        Errno error = Errno.None;
        if (gets == OldNameGets.Whiteout)
        {
            error = work.AnnounceWhiteout(from.Descriptor);
            if (error.IsError) { return error; }
            whiteout = NewName();
            error = work.MakeWhiteout(work.Descriptor, whiteout);
            if (error.IsError) { return error; }
        }
        byte[] name = NewName(), away = InNotes(AsidePrefix, name);
        error = Begin(gets, name, from, setAside ? to : default, out byte[] note);
        if (error == Errno.ENAMETOOLONG) { error = Errno.EXDEV; }
        if (!error.IsError)
        {
            error = MoveNoted(from, to, gets, setAside ? away : null, whiteout);
            if (!error.IsError && setAside && gets != OldNameGets.Other)
            {
                Release(away, name);
                aside = name;
            }
            // The note stays if a step could not be taken back.
            End(note, error.IsError ? from : default, error.IsError && setAside ? to : default);
        }
        if (error.IsError && whiteout.Length > 0) { work.Discard(whiteout); }
        return error;
    }

    /// <summary>Takes the steps of a move, for which there is a note. Takes them back if one fails.</summary>
    private Errno MoveNoted(in UpperName from, in UpperName to, OldNameGets gets, byte[]? away, byte[] whiteout)
    {
        Errno error = away is null
            ? Errno.None
            : Libc.RenameAt(to.Descriptor, to.Name, work.Descriptor, away, RenameFlags.None);
        if (error.IsError) { return error; }
        error = Libc.RenameAt(from.Descriptor, from.Name, to.Descriptor, to.Name, RenameFlags.None);
        if (!error.IsError)
        {
            error = gets switch
            {
                OldNameGets.Whiteout => Libc.RenameAt(work.Descriptor, whiteout, from.Descriptor, from.Name, RenameFlags.None),
                OldNameGets.Other => Libc.RenameAt(work.Descriptor, away, from.Descriptor, from.Name, RenameFlags.None),
                _ => Errno.None,
            };
            // best effort: the note stays until the object is back
            if (error.IsError) { _ = Libc.RenameAt(to.Descriptor, to.Name, from.Descriptor, from.Name, RenameFlags.None); }
        }
        if (error.IsError && away is not null)
        {
            // best effort: as above
            _ = Libc.RenameAt(work.Descriptor, away, to.Descriptor, to.Name, RenameFlags.None);
        }
        return error;
    }

    /// <summary>Moves an object that was set aside, and is not needed any more, to work, which the kernel empties as well.</summary>
    private void Release(byte[] away, byte[] aside) =>
        _ = Libc.RenameAt(work.Descriptor, away, work.Descriptor, aside, RenameFlags.None); // best effort: the next mount tries again

    /// <summary>The path, from work, of a note or of an object that is set aside; with its NUL.</summary>
    /// <param name="prefix">The prefix of its name.</param>
    /// <param name="name">The name in work that the rest of its name is taken from.</param>
    private static byte[] InNotes(ReadOnlySpan<byte> prefix, ReadOnlySpan<byte> name) =>
        [.. NotesName[..^1], (byte)'/', .. prefix, .. name[1..]];

    private byte[] NewName() => work.NewName(stackalloc byte[WorkDirectory.NameLength]).ToArray();

    /// <summary>
    /// Writes a note. It is <c>KIND ASIDE LENGTH FROM TO</c>. FROM and TO are paths from upper, without a space between them. LENGTH is
    /// the length of FROM.
    /// </summary>
    private Errno Begin(OldNameGets gets, ReadOnlySpan<byte> aside, in UpperName from, in UpperName to, out byte[] note)
    {
        note = InNotes(Prefix, aside);
        Span<byte> text = stackalloc byte[MaxNote], path = stackalloc byte[MaxNote];
        int length = 0;
        text[length++] = (byte)gets;
        text[length++] = (byte)' ';
        AsidePrefix.CopyTo(text[length..]);
        length += AsidePrefix.Length;
        aside[1..^1].CopyTo(text[length..]);
        length += aside.Length - 2;
        text[length++] = (byte)' ';
        ReadOnlySpan<byte> first = PathOf(from, path);
        if (first.IsEmpty) { return Errno.ENAMETOOLONG; }
        _ = Utf8Formatter.TryFormat(first.Length, text[length..], out int digits); // cannot fail: the buffer has room for it
        length += digits;
        text[length++] = (byte)' ';
        if (!first.TryCopyTo(text[length..])) { return Errno.ENAMETOOLONG; }
        length += first.Length;
        if (to.Parent is not null)
        {
            ReadOnlySpan<byte> second = PathOf(to, path);
            if (second.IsEmpty || !second.TryCopyTo(text[length..])) { return Errno.ENAMETOOLONG; }
            length += second.Length;
        }
        if (length >= text.Length) { return Errno.ENAMETOOLONG; }
        text[length] = 0;
        Errno error = Note(text[..(length + 1)], note);
        if (error != Errno.ENOENT) { return error; }
        error = Libc.MakeDirectoryAt(work.Descriptor, NotesName, 0x1C0);
        return error.IsError && error != Errno.EEXIST ? error : Note(text[..(length + 1)], note);
    }

    private Errno Note(ReadOnlySpan<byte> text, ReadOnlySpan<byte> note) => Libc.SymbolicLinkAt(text, work.Descriptor, note);

    /// <summary>Removes a note, unless a name is missing that must exist.</summary>
    private void End(ReadOnlySpan<byte> note, in UpperName first, in UpperName second = default)
    {
        if (IsMissing(first) || IsMissing(second)) { return; }
        _ = Libc.UnlinkAt(work.Descriptor, note); // best effort: the next mount finds nothing left to do, and removes it
    }

    private static bool IsMissing(in UpperName name) =>
        name.Parent is not null && Libc.StatAt(name.Descriptor, name.Name, StatxMask.Basic, out _).IsError;

    /// <summary>The path of a name from upper, without a NUL. It is empty if there is not enough space.</summary>
    private static ReadOnlySpan<byte> PathOf(in UpperName name, Span<byte> space)
    {
        int start = space.Length;
        if (!Prepend(space, ref start, name.Name[..^1])) { return default; }
        for (RealDirectory? above = name.Parent; above is { Parent: not null }; above = above.Parent)
        {
            if (start == 0) { return default; }
            space[--start] = (byte)'/';
            if (!Prepend(space, ref start, above.Name.AsSpan(0, above.Name.Length - 1))) { return default; }
        }
        return space[start..];
    }

    private static bool Prepend(Span<byte> space, ref int start, ReadOnlySpan<byte> part)
    {
        if (part.Length > start) { return false; }
        start -= part.Length;
        part.CopyTo(space[start..]);
        return true;
    }

    /// <summary>Whether an entry of <c>work/incompat</c> is a note, or an object that was set aside.</summary>
    /// <param name="name">The name of the entry, without a NUL.</param>
    public static bool IsKnown(ReadOnlySpan<byte> name) => name.StartsWith(Prefix) || name.StartsWith(AsidePrefix);

    /// <summary>Finishes the changes that a killed server has begun, or takes them back.</summary>
    /// <param name="workdir">A descriptor of the work directory that the user named.</param>
    /// <param name="upper">A descriptor of the root of upper.</param>
    /// <param name="form">The form of whiteouts in upper.</param>
    /// <param name="xattr">The names of the overlay's attributes in upper.</param>
    /// <returns>
    /// <see cref="Errno.EINVAL"/> when a note cannot be understood. After an error the notes stay.
    /// </returns>
    public static Errno Finish(int workdir, int upper, WhiteoutForm form, OverlayXattr xattr)
    {
        Errno error = Libc.OpenAt(workdir, "work\0"u8, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0,
            ResolveFlags.Confined, out int inner);
        if (error.IsError) { return Errno.None; } // the work directory was never used
        using var work = new Fd(inner);
        error = Libc.OpenAt(inner, NotesName, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0,
            ResolveFlags.Confined, out int notes);
        if (error.IsError) { return Errno.None; }
        using var opened = new Fd(notes);
        List<byte[]> names = [], asides = [];
        var reader = new DirectoryReader(notes);
        while (reader.MoveNext())
        {
            if (reader.Name.StartsWith(Prefix)) { names.Add(reader.TerminatedName.ToArray()); }
            else if (reader.Name.StartsWith(AsidePrefix)) { asides.Add(reader.TerminatedName.ToArray()); }
        }
        reader.Dispose();
        Span<byte> text = stackalloc byte[MaxNote];
        foreach (byte[] name in names)
        {
            error = Libc.ReadLinkAt(notes, name, text, out int length);
            if (!error.IsError) { error = FinishOne(inner, notes, upper, text[..length], form, xattr); }
            if (error.IsError) { return error; }
        }
        // All changes are complete. So nothing that was set aside is needed any more, with a note or without one: it moves to
        // work, which is emptied next.
        foreach (byte[] aside in asides)
        {
            byte[] name = [(byte)'#', .. aside.AsSpan(AsidePrefix.Length)];
            _ = WorkDirectory.RemoveTree(inner, name, 0); // best effort: usually nothing has the name
            error = Libc.RenameAt(notes, aside, inner, name, RenameFlags.None);
            if (error.IsError && error != Errno.ENOENT) { return error; }
        }
        foreach (byte[] name in names)
        {
            error = Libc.UnlinkAt(notes, name);
            if (error.IsError) { return error; }
        }
        return Errno.None;
    }

    /// <summary>Finishes the change of one note, or takes it back.</summary>
    private static Errno FinishOne(int work, int notes, int upper, ReadOnlySpan<byte> text, WhiteoutForm form, OverlayXattr xattr)
    {
        var gets = (OldNameGets)(text.IsEmpty ? 0 : text[0]);
        if (gets is not (OldNameGets.Nothing or OldNameGets.Whiteout or OldNameGets.Other) || text.Length < 3 || text[1] != ' ')
        {
            return Errno.EINVAL;
        }
        text = text[2..];
        int end = text.IndexOf((byte)' ');
        if (end <= AsidePrefix.Length || !text.StartsWith(AsidePrefix) || text[..end].Contains((byte)'/')) { return Errno.EINVAL; }
        byte[] aside = [.. text[..end], 0];
        text = text[(end + 1)..];
        if (!Utf8Parser.TryParse(text, out int length, out int used) || length <= 0
            || used >= text.Length || length > text.Length - used - 1)
        {
            return Errno.EINVAL;
        }
        ReadOnlySpan<byte> from = text.Slice(used + 1, length), to = text[(used + 1 + length)..];

        Errno error = Open(upper, from, out Fd fromParent, out byte[] fromName);
        if (error.IsError) { return error; }
        using (fromParent)
        {
            bool isAside = !Libc.StatAt(notes, aside, StatxMask.Basic, out _).IsError;
            if (to.Length > 0)
            {
                error = Open(upper, to, out Fd toParent, out byte[] toName);
                if (error.IsError) { return error; }
                using (toParent)
                {
                    error = Has(toParent.Value, toName, out bool hasTo);
                    if (error.IsError) { return error; }
                    // The object was set aside, and nothing has its name yet: go back to the old state.
                    if (isAside && !hasTo) { return Libc.RenameAt(notes, aside, toParent.Value, toName, RenameFlags.None); }
                }
            }
            error = Has(fromParent.Value, fromName, out bool hasFrom);
            if (error.IsError || hasFrom || gets == OldNameGets.Nothing) { return error; }
            if (gets == OldNameGets.Other)
            {
                return isAside ? Libc.RenameAt(notes, aside, fromParent.Value, fromName, RenameFlags.None) : Errno.None;
            }
            error = Whiteout.Announce(fromParent.Value, form, xattr);
            if (error.IsError) { return error; }
            ReadOnlySpan<byte> temporary = "#veneer-finish\0"u8;
            _ = WorkDirectory.RemoveTree(work, temporary, 0); // best effort: it exists only if an earlier server was killed here
            error = Whiteout.Make(work, temporary, form, xattr);
            return error.IsError ? error : Libc.RenameAt(work, temporary, fromParent.Value, fromName, RenameFlags.None);
        }
    }

    /// <summary>Whether a directory has a name.</summary>
    private static Errno Has(int directory, ReadOnlySpan<byte> name, out bool has)
    {
        Errno error = Libc.StatAt(directory, name, StatxMask.Basic, out _);
        has = !error.IsError;
        return error == Errno.ENOENT ? Errno.None : error;
    }

    /// <summary>Opens the directory of a path from upper.</summary>
    private static Errno Open(int upper, ReadOnlySpan<byte> path, out Fd parent, out byte[] name)
    {
        int slash = path.LastIndexOf((byte)'/');
        name = [.. path[(slash + 1)..], 0];
        parent = null!;
        if (name.AsSpan().SequenceEqual(".\0"u8) || name.AsSpan().SequenceEqual("..\0"u8) || name.Length == 1) { return Errno.EINVAL; }
        ReadOnlySpan<byte> directory = slash < 0 ? "."u8 : path[..slash];
        Errno error = Libc.OpenAt(upper, [.. directory, 0], OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0,
            ResolveFlags.Confined, out int descriptor);
        if (!error.IsError) { parent = new Fd(descriptor); }
        return error;
    }
}
