using System.Buffers.Text;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Upper;

/// <summary>What a name has when something has moved away from it.</summary>
internal enum Left : byte
{
    /// <summary>Nothing.</summary>
    Nothing = (byte)'n',
    /// <summary>A whiteout.</summary>
    Whiteout = (byte)'w',
    /// <summary>What had the other name.</summary>
    Other = (byte)'x',
}

/// <summary>A name in a directory of upper.</summary>
/// <param name="parent">The directory.</param>
/// <param name="descriptor">Of the directory.</param>
/// <param name="name">With its NUL.</param>
internal readonly ref struct UpperName(RealDirectory parent, int descriptor, ReadOnlySpan<byte> name)
{
    /// <summary>The directory.</summary>
    public RealDirectory Parent { get; } = parent;

    /// <summary>Of the directory.</summary>
    public int Descriptor { get; } = descriptor;

    /// <summary>With its NUL.</summary>
    public ReadOnlySpan<byte> Name { get; } = name;
}

/// <summary>Changes names of upper in several steps, where its filesystem cannot do it in one.</summary>
/// <remarks>
/// Callers hold the rename lock exclusively: nobody may look in between.
/// <para>
/// Crash safety. What takes the place of something else is preceded by a note in <c>work/incompat</c>: a symbolic link,
/// since it appears with its content at once. What must make way goes to the same directory, under a name that is in the
/// note, and on to work when it is not needed any more. The note goes last. A mount that finds one finishes the change or
/// takes it back (<see cref="Finish"/>), before work is emptied: then there is the old state or the new one. The kernel,
/// and a Veneer that does not know of notes, refuses to mount upper as long as there is one; but the kernel may have
/// emptied work by then, so that nothing that is needed lies there. The order is kept by the filesystem, as for everything
/// else.
/// </para>
/// </remarks>
internal sealed class Steps(WorkDirectory work)
{
    private static ReadOnlySpan<byte> NotesName => "incompat\0"u8;

    private static ReadOnlySpan<byte> Prefix => "veneer-steps-"u8;

    private static ReadOnlySpan<byte> AsidePrefix => "veneer-aside-"u8;

    /// <summary>The longest target of a symbolic link, with its NUL.</summary>
    private const int MaxNote = 4096;

    /// <summary>Gives a name that upper has to an object of work.</summary>
    /// <param name="target">The name. What has it goes to work, and is the caller's to discard.</param>
    /// <param name="replacement">In work, with its NUL.</param>
    /// <param name="aside">What had the name has this one in work.</param>
    /// <returns><see cref="Errno.ENAMETOOLONG"/> when the path cannot be noted. After an error nothing has changed.</returns>
    public Errno Replace(in UpperName target, ReadOnlySpan<byte> replacement, out byte[] aside)
    {
        aside = NewName();
        byte[] away = InNotes(AsidePrefix, aside);
        Errno error = Begin(Left.Whiteout, aside, target, default, out byte[] note);
        if (error.IsError) { return error; }
        error = Libc.RenameAt(target.Descriptor, target.Name, work.Descriptor, away, RenameFlags.None);
        if (!error.IsError)
        {
            error = Libc.RenameAt(work.Descriptor, replacement, target.Descriptor, target.Name, RenameFlags.None);
            if (error.IsError) { _ = Libc.RenameAt(work.Descriptor, away, target.Descriptor, target.Name, RenameFlags.None); } // best effort: the note is there as long as it is away
            else { Release(away, aside); }
        }
        End(note, error.IsError ? target : default);
        return error;
    }

    /// <summary>Moves something in upper.</summary>
    /// <param name="from">Its name.</param>
    /// <param name="to">Its new name.</param>
    /// <param name="left">What the old name has then.</param>
    /// <param name="setAside">Whether what has the new name goes to work first, since it cannot be replaced by a rename.</param>
    /// <param name="aside">The name in work of what had the new name, for the caller to discard; or null.</param>
    /// <returns><see cref="Errno.EXDEV"/> when the paths are too long to be noted. After an error nothing has changed.</returns>
    public Errno Move(in UpperName from, in UpperName to, Left left, bool setAside, out byte[]? aside)
    {
        aside = null;
        byte[] whiteout = [];
        Errno error = Errno.None;
        if (left == Left.Whiteout)
        {
            error = work.AnnounceWhiteout(from.Descriptor);
            if (error.IsError) { return error; }
            whiteout = NewName();
            error = work.MakeWhiteout(work.Descriptor, whiteout);
            if (error.IsError) { return error; }
        }
        byte[] name = NewName(), away = InNotes(AsidePrefix, name);
        error = Begin(left, name, from, setAside ? to : default, out byte[] note);
        if (error == Errno.ENAMETOOLONG) { error = Errno.EXDEV; }
        if (!error.IsError)
        {
            error = MoveNoted(from, to, left, setAside ? away : null, whiteout);
            if (!error.IsError && setAside && left != Left.Other)
            {
                Release(away, name);
                aside = name;
            }
            // What could not be taken back stays noted.
            End(note, error.IsError ? from : default, error.IsError && setAside ? to : default);
        }
        if (error.IsError && whiteout.Length > 0) { work.Discard(whiteout); }
        return error;
    }

    private Errno MoveNoted(in UpperName from, in UpperName to, Left left, byte[]? away, byte[] whiteout)
    {
        Errno error = away is null ? Errno.None : Libc.RenameAt(to.Descriptor, to.Name, work.Descriptor, away, RenameFlags.None);
        if (error.IsError) { return error; }
        error = Libc.RenameAt(from.Descriptor, from.Name, to.Descriptor, to.Name, RenameFlags.None);
        if (!error.IsError)
        {
            error = left switch
            {
                Left.Whiteout => Libc.RenameAt(work.Descriptor, whiteout, from.Descriptor, from.Name, RenameFlags.None),
                Left.Other => Libc.RenameAt(work.Descriptor, away, from.Descriptor, from.Name, RenameFlags.None),
                _ => Errno.None,
            };
            if (error.IsError) { _ = Libc.RenameAt(to.Descriptor, to.Name, from.Descriptor, from.Name, RenameFlags.None); } // best effort: the note is there as long as it is away
        }
        if (error.IsError && away is not null) { _ = Libc.RenameAt(work.Descriptor, away, to.Descriptor, to.Name, RenameFlags.None); } // best effort: as above
        return error;
    }

    /// <summary>What was set aside is not needed any more: it goes where the kernel removes it as well.</summary>
    private void Release(byte[] away, byte[] aside) => _ = Libc.RenameAt(work.Descriptor, away, work.Descriptor, aside, RenameFlags.None); // best effort: the next mount tries again

    /// <summary>A path from work, with its NUL.</summary>
    /// <param name="prefix">How the name beside the notes begins.</param>
    /// <param name="name">The name in work that it goes with.</param>
    private static byte[] InNotes(ReadOnlySpan<byte> prefix, ReadOnlySpan<byte> name) => [.. NotesName[..^1], (byte)'/', .. prefix, .. name[1..]];

    private byte[] NewName() => work.NewName(stackalloc byte[WorkDirectory.NameLength]).ToArray();

    /// <summary>Writes the note. It is <c>KIND ASIDE LENGTH FROM TO</c>, the last two paths from upper without a space between them.</summary>
    private Errno Begin(Left left, ReadOnlySpan<byte> aside, in UpperName from, in UpperName to, out byte[] note)
    {
        note = InNotes(Prefix, aside);
        Span<byte> text = stackalloc byte[MaxNote], path = stackalloc byte[MaxNote];
        int length = 0;
        text[length++] = (byte)left;
        text[length++] = (byte)' ';
        AsidePrefix.CopyTo(text[length..]);
        length += AsidePrefix.Length;
        aside[1..^1].CopyTo(text[length..]);
        length += aside.Length - 2;
        text[length++] = (byte)' ';
        ReadOnlySpan<byte> first = PathOf(from, path);
        if (first.IsEmpty) { return Errno.ENAMETOOLONG; }
        _ = Utf8Formatter.TryFormat(first.Length, text[length..], out int digits); // cannot fail: there is room
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

    /// <summary>Removes the note, unless a name that must be there is not.</summary>
    private void End(ReadOnlySpan<byte> note, in UpperName first, in UpperName second = default)
    {
        if (IsMissing(first) || IsMissing(second)) { return; }
        _ = Libc.UnlinkAt(work.Descriptor, note); // best effort: the next mount finds that all is done
    }

    private static bool IsMissing(in UpperName name) =>
        name.Parent is not null && Libc.StatAt(name.Descriptor, name.Name, StatxMask.Basic, out _).IsError;

    /// <summary>The path from upper, without NUL; empty when it is too long.</summary>
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

    /// <summary>Whether an entry of <c>work/incompat</c> is a note, or what goes with one.</summary>
    /// <param name="name">Without NUL.</param>
    public static bool IsKnown(ReadOnlySpan<byte> name) => name.StartsWith(Prefix) || name.StartsWith(AsidePrefix);

    /// <summary>Finishes what a killed server has begun, or takes it back.</summary>
    /// <param name="workdir">The work directory that the user named.</param>
    /// <param name="upper">The root of upper.</param>
    /// <param name="form">In which form upper takes whiteouts.</param>
    /// <param name="xattr">Names of upper's attributes.</param>
    /// <returns>What did not work; then the notes stay. <see cref="Errno.EINVAL"/>: one is not understood.</returns>
    public static Errno Finish(int workdir, int upper, WhiteoutForm form, OverlayXattr xattr)
    {
        Errno error = Libc.OpenAt(workdir, "work\0"u8, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int inner);
        if (error.IsError) { return Errno.None; } // nothing was ever mounted
        using var work = new Fd(inner);
        error = Libc.OpenAt(inner, NotesName, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int notes);
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
        // Before the notes go: without one, what is left here is not needed.
        foreach (byte[] aside in asides)
        {
            byte[] name = [(byte)'#', .. aside.AsSpan(AsidePrefix.Length)];
            _ = WorkDirectory.RemoveTree(inner, name, 0); // best effort: nothing else has that name
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

    private static Errno FinishOne(int work, int notes, int upper, ReadOnlySpan<byte> text, WhiteoutForm form, OverlayXattr xattr)
    {
        var left = (Left)(text.IsEmpty ? 0 : text[0]);
        if (left is not (Left.Nothing or Left.Whiteout or Left.Other) || text.Length < 3 || text[1] != ' ') { return Errno.EINVAL; }
        text = text[2..];
        int end = text.IndexOf((byte)' ');
        if (end <= AsidePrefix.Length || !text.StartsWith(AsidePrefix) || text[..end].Contains((byte)'/')) { return Errno.EINVAL; }
        byte[] aside = [.. text[..end], 0];
        text = text[(end + 1)..];
        if (!Utf8Parser.TryParse(text, out int length, out int used) || length <= 0 || used >= text.Length || length > text.Length - used - 1) { return Errno.EINVAL; }
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
                    // It has made way, and nothing has come: the old state.
                    if (isAside && !hasTo) { return Libc.RenameAt(notes, aside, toParent.Value, toName, RenameFlags.None); }
                }
            }
            error = Has(fromParent.Value, fromName, out bool hasFrom);
            if (error.IsError || hasFrom || left == Left.Nothing) { return error; }
            if (left == Left.Other) { return isAside ? Libc.RenameAt(notes, aside, fromParent.Value, fromName, RenameFlags.None) : Errno.None; }
            error = Whiteout.Announce(fromParent.Value, form, xattr);
            if (error.IsError) { return error; }
            ReadOnlySpan<byte> temporary = "#veneer-finish\0"u8;
            _ = WorkDirectory.RemoveTree(work, temporary, 0); // best effort: there is one only if we were killed here before
            error = Whiteout.Make(work, temporary, form, xattr);
            return error.IsError ? error : Libc.RenameAt(work, temporary, fromParent.Value, fromName, RenameFlags.None);
        }
    }

    private static Errno Has(int directory, ReadOnlySpan<byte> name, out bool has)
    {
        Errno error = Libc.StatAt(directory, name, StatxMask.Basic, out _);
        has = !error.IsError;
        return error == Errno.ENOENT ? Errno.None : error;
    }

    private static Errno Open(int upper, ReadOnlySpan<byte> path, out Fd parent, out byte[] name)
    {
        int slash = path.LastIndexOf((byte)'/');
        name = [.. path[(slash + 1)..], 0];
        parent = null!;
        if (name.AsSpan().SequenceEqual(".\0"u8) || name.AsSpan().SequenceEqual("..\0"u8) || name.Length == 1) { return Errno.EINVAL; }
        ReadOnlySpan<byte> directory = slash < 0 ? "."u8 : path[..slash];
        Errno error = Libc.OpenAt(upper, [.. directory, 0], OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int descriptor);
        if (!error.IsError) { parent = new Fd(descriptor); }
        return error;
    }
}
