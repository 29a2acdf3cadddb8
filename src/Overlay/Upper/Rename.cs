using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>One side of a rename: a name, and the object that has it.</summary>
/// <param name="parent">The directory, which is in upper.</param>
/// <param name="name">The name, with its NUL.</param>
internal ref struct RenameSide(DirectoryInode parent, ReadOnlySpan<byte> name)
{
    /// <summary>The directory, which is in upper.</summary>
    public readonly DirectoryInode Parent = parent;
    /// <summary>The name, with its NUL.</summary>
    public readonly ReadOnlySpan<byte> Name = name;
    /// <summary>What the layers have under the name.</summary>
    public Found Found;
    /// <summary>The version of the directory before <see cref="Found"/> was found.</summary>
    public int Version;
    /// <summary>What the lowers have under the name, if they were asked.</summary>
    public Below Below;
    /// <summary>The version, when it was seen to be empty, of a directory that is to be replaced.</summary>
    public int EmptyVersion;
    /// <summary>The number of whiteouts in upper, for a directory that is to be replaced.</summary>
    public int Whiteouts;
    /// <summary>The object, which is borrowed until the rename ends.</summary>
    public BorrowedInode Borrowed;

    /// <summary>A directory in work that is to be discarded afterwards, whether the rename succeeds or not; or null.</summary>
    public Leftover? Leftover;

    /// <summary>The object, or null if there is none.</summary>
    public readonly Inode? Inode => Borrowed.Inode;

    /// <summary>The object if it is a directory, or null.</summary>
    public readonly DirectoryInode? Directory => Inode as DirectoryInode;
}

/// <summary>Moves, replaces and exchanges names. Kernel: ovl_rename().</summary>
/// <remarks>
/// Callers hold the rename lock exclusively. Both directories are in upper, and so is every object that moves.
/// <para>
/// Crash safety. The tree changes by one renameat2, which also leaves or takes the whiteout. Before it, only attributes are
/// written that are true in the old place as well: impure, a redirect to where the name leads anyhow, and opaque on a directory
/// with nothing below it. If a directory that is to be replaced contains whiteouts, it is first exchanged with an empty opaque
/// directory, which looks the same to users. If the rename then fails, the two change places again. If the filesystem cannot do
/// all that, <see cref="Steps"/> changes the names.
/// </para>
/// </remarks>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="remove">Removes names.</param>
/// <param name="impure">The impure mark.</param>
internal sealed class Rename(ObjectTree tree, UpperLayer upper, Remove remove, ImpureMark impure)
{
    /// <summary>Whether an object may get another name or directory. Caller holds no lock. Kernel: ovl_can_move().</summary>
    /// <param name="inode">The object.</param>
    public bool CanMove(Inode inode) => upper.WritesRedirects || inode is not DirectoryInode directory || directory.IsPureUpper;

    /// <summary>Moves an object, or exchanges two. An object that has the new name is replaced.</summary>
    /// <param name="from">The old name.</param>
    /// <param name="to">The new name.</param>
    /// <param name="exchange">Whether the objects exchange their names.</param>
    /// <returns><see cref="Errno.EXDEV"/> when a redirect is needed that cannot be written. Then mv(1) copies.</returns>
    public Errno RunLocked(ref RenameSide from, ref RenameSide to, bool exchange)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: true);
        bool sameDirectory = ReferenceEquals(from.Parent, to.Parent);
        UpperFeatures features = upper.Work!.Features;
        RenameFlags flags = exchange ? RenameFlags.Exchange : RenameFlags.None;
        OldNameGets gets = exchange ? OldNameGets.Other : OldNameGets.Nothing;
        bool whiteoutIsLeft = false;
        int whiteouts = 0;
        StandIn standIn = StandIn.None;
        Errno error;

        if (!exchange)
        {
            if (from.Below.IsPositive)
            {
                // A lower has the old name too, and would show it: leave a whiteout there, or move the whiteout of the new name.
                flags |= to.Found.IsWhiteout ? RenameFlags.Exchange : RenameFlags.Whiteout;
                gets = OldNameGets.Whiteout;
            }
            else if (from.Directory is not null && to.Found.IsWhiteout)
            {
                // A directory cannot replace a whiteout, which is not a directory.
                flags |= RenameFlags.Exchange;
                whiteoutIsLeft = true;
            }
            if (to.Directory is not null && to.Found.HasUpper) { whiteouts = to.Whiteouts; }
        }
        bool staysInWork = !exchange && to is { Directory: not null, Found.HasUpper: true } && upper.HasManyOrphans;
        // The filesystem would give the replaced file, if it is open, another name in the directory.
        bool leavesNames = !features.UnlinksOpenFilesAtOnce && !exchange && to.Found is { HasUpper: true, Stat.IsRegular: true };
        bool setAside = leavesNames || exchange || (to.Found.IsWhiteout && from.Directory is not null)
            || whiteouts > 0 || staysInWork;
        bool inSteps = leavesNames
            || ((flags & RenameFlags.Exchange) != 0 && !features.Exchange)
            || ((flags & RenameFlags.Whiteout) != 0 && !features.RenameWhiteout)
            || ((whiteouts > 0 || staysInWork) && !(features.Exchange && features.HasOpaque));

        if (!sameDirectory)
        {
            error = MarkImpureFor(from.Inode!, to.Parent);
            if (error.IsError) { return error; }
            if (exchange)
            {
                error = MarkImpureFor(to.Inode!, from.Parent);
                if (error.IsError) { return error; }
            }
        }
        error = Prepare(from.Inode!, to.Parent, to.Below, sameDirectory);
        if (error.IsError) { return error; }
        if (exchange)
        {
            error = Prepare(to.Inode!, from.Parent, from.Below, sameDirectory);
            if (error.IsError) { return error; }
        }

        error = tree.Objects.Of(from.Parent.Upper!, Libc.Self, out RealReference oldDirectory);
        if (error.IsError) { return error; }
        using (oldDirectory)
        {
            error = tree.Objects.Of(to.Parent.Upper!, Libc.Self, out RealReference newDirectory);
            if (error.IsError) { return error; }
            using (newDirectory)
            {
                if (!exchange && to.Found.HasUpper)
                {
                    if (to.Directory is { } replaced)
                    {
                        // best effort: without it, a process whose working directory this is gets ESTALE
                        if (!staysInWork) { _ = tree.Directories.KeepOpen(replaced.Upper!); }
                        if ((whiteouts > 0 || staysInWork) && !inSteps)
                        {
                            error = ReplaceByEmpty(newDirectory.Directory, whiteouts, ref to);
                            if (error.IsError)
                            {
                                tree.Directories.UndoKeepOpen(replaced.Upper!);
                                return error;
                            }
                        }
                    }
                    else
                    {
                        standIn = remove.ProvideStandInLocked(to.Parent, to.Name, to.Inode!, newDirectory.Directory);
                    }
                }
                if (inSteps)
                {
                    var oldName = new UpperName(from.Parent.Upper!, oldDirectory.Directory, from.Name);
                    var newName = new UpperName(to.Parent.Upper!, newDirectory.Directory, to.Name);
                    error = upper.Work.Steps.MoveLocked(oldName, newName, gets, setAside, out byte[]? aside);
                    if (aside is not null) { to.Leftover = new Leftover(aside, whiteouts); }
                    whiteoutIsLeft = false;
                }
                else
                {
                    error = gets == OldNameGets.Whiteout || whiteoutIsLeft
                        ? upper.Work.AnnounceWhiteout(oldDirectory.Directory)
                        : Errno.None;
                    if (!error.IsError)
                    {
                        error = Libc.RenameAt(oldDirectory.Directory, from.Name, newDirectory.Directory, to.Name, flags);
                    }
                }
                if (error.IsError)
                {
                    if (to.Leftover is { } replaced) { PutBack(newDirectory.Directory, to.Name, replaced); }
                    if (!exchange && to is { Found.HasUpper: true, Directory: { } stays })
                    {
                        tree.Directories.UndoKeepOpen(stays.Upper!);
                    }
                    if (standIn != StandIn.None) { remove.UndoLocked(standIn, to.Parent, to.Name, to.Inode!, exclusive: true); }
                    return error;
                }
                tree.Inodes.NoteChange(from.Parent); // at once: a lookup that found a name before must run again
                tree.Inodes.NoteChange(to.Parent);
                if (upper.Moves is { } moves)
                {
                    moves.AddLocked(newDirectory.Directory, to.Name);
                    if (exchange) { moves.AddLocked(oldDirectory.Directory, from.Name); }
                }
                if (whiteoutIsLeft) { _ = Libc.UnlinkAt(oldDirectory.Directory, from.Name); } // best effort: it covers nothing
            }
        }

        if (!exchange && to.Inode is { } gone)
        {
            if (gone is DirectoryInode directory)
            {
                if (staysInWork)
                {
                    remove.KeepInWorkLocked(directory, to.Leftover!.Name);
                    to.Leftover = null;
                }
                remove.AfterRemoveLocked(directory);
            }
            else { remove.AfterUnlinkLocked(to.Parent, to.Name, gone, to.Found); }
        }
        MoveInTree(from, to, exchange);
        return Errno.None;
    }

    /// <summary>Gives the inodes their new names.</summary>
    private void MoveInTree(in RenameSide from, in RenameSide to, bool exchange)
    {
        byte[] oldName = from.Name.ToArray(), newName = to.Name.ToArray();
        bool movesFirst = IsPrimary(from);
        bool movesSecond = exchange && IsPrimary(to);
        if (movesFirst) { Move(from.Inode!, to.Parent, newName); }
        if (movesSecond) { Move(to.Inode!, from.Parent, oldName); }
        MoveAlias(from.Inode!, from.Parent, oldName, to.Parent, newName);
        if (exchange) { MoveAlias(to.Inode!, to.Parent, newName, from.Parent, oldName); }
    }

    /// <summary>Whether the name is the one by which the inode is reached, and not another name of a file that has several.</summary>
    private static bool IsPrimary(in RenameSide side) =>
        ReferenceEquals(side.Inode!.Parent, side.Parent) && side.Name.SequenceEqual(side.Inode.Name);

    private void Move(Inode inode, DirectoryInode parent, byte[] name)
    {
        if (inode is DirectoryInode directory) { directory.Upper!.MoveLocked(parent.Upper!, name); }
        tree.Inodes.MoveLocked(inode, parent, name);
    }

    private void MoveAlias(Inode inode, DirectoryInode oldParent, byte[] oldName, DirectoryInode newParent, byte[] newName)
    {
        if (tree.Aliases.Find(inode, oldParent, oldName) is not { } alias) { return; }
        tree.Aliases.Remove(inode, alias);
        tree.Aliases.Add(inode, newParent, newName, isUpper: true);
    }

    /// <summary>Marks the new directory of an object with an origin or a redirect as impure.</summary>
    private Errno MarkImpureFor(Inode inode, DirectoryInode parent) =>
        inode.HasOrigin || inode is DirectoryInode { IsMerged: true } ? impure.SetLocked(parent) : Errno.None;

    /// <summary>
    /// Prepares an object for its new name. An object with a part in a lower gets a redirect to that part. Any other directory
    /// becomes opaque if it could merge with a directory that a lower has under the new name.
    /// </summary>
    private Errno Prepare(Inode moved, DirectoryInode newParent, in Below below, bool sameDirectory)
    {
        if (moved is not DirectoryInode directory) { return SetRedirectLocked(moved, sameDirectory); }
        if (directory.IsMerged) { return SetRedirectLocked(directory, sameDirectory); }
        if (directory.IsOpaque || !newParent.IsMerged) { return Errno.None; }
        if (!upper.Work!.Features.HasOpaque)
        {
            return below is { IsKnown: true, IsPositive: false } ? Errno.None : Errno.EXDEV;
        }
        Errno error = SetOnUpper(directory, tree.Xattr.Opaque, "y"u8);
        // If the attribute cannot be set, let mv(1) copy the directory. Kernel: ovl_set_opaque_xerr().
        if (error == Errno.EOPNOTSUPP) { return Errno.EXDEV; }
        if (!error.IsError) { directory.IsOpaque = true; }
        return error;
    }

    /// <summary>
    /// Gives a metacopy a redirect to the lower file that has its data, before it gets another name. Other objects need none. Caller
    /// holds the name (<see cref="HeldName"/>), or the rename lock exclusively. Kernel: ovl_set_redirect(), ovl_set_link_redirect().
    /// </summary>
    /// <param name="file">Any object but a directory.</param>
    /// <param name="sameDirectory">Whether the other name is in the same directory, and takes the place of this one.</param>
    /// <returns><see cref="Errno.EXDEV"/> when the redirect cannot be written. Then the data must be copied to upper.</returns>
    public Errno SetRedirectLocked(Inode file, bool sameDirectory)
    {
        file.AssertPlaceLocked();
        if (file.Metacopy is null) { return Errno.None; }
        Errno error = tree.Objects.ResolveLocked(file, out RealReference real);
        if (error.IsError) { return error; }
        using (real)
        {
            Span<byte> space = stackalloc byte[Redirect.MaxLength];
            error = Libc.GetXattrAt(real.Directory, real.Name, tree.Xattr.Redirect, space, out int length);
            if (error.IsError && !error.IsNoXattr) { return Errno.EXDEV; }
            byte[]? known = error.IsError ? null : space[..length].ToArray();
            if (known is [var first, ..] && (sameDirectory || first == '/')) { return Errno.None; }
            if (RedirectOf(file, known, sameDirectory) is not { } redirect) { return Errno.EXDEV; }
            error = Libc.SetXattrAt(real.Directory, real.Name, tree.Xattr.Redirect, redirect, XattrFlags.None);
            return error.IsError ? Errno.EXDEV : Errno.None;
        }
    }

    /// <summary>
    /// Gives a directory a redirect to its lower directories. Caller holds the rename lock exclusively. Kernel: ovl_set_redirect(),
    /// which makes every error EXDEV.
    /// </summary>
    private Errno SetRedirectLocked(DirectoryInode directory, bool sameDirectory)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: true);
        if (directory.Redirect is { } known && (sameDirectory || known[0] == '/')) { return Errno.None; }
        if (RedirectOf(directory, directory.Redirect, sameDirectory) is not { } redirect) { return Errno.EXDEV; }
        if (SetOnUpper(directory, tree.Xattr.Redirect, redirect).IsError) { return Errno.EXDEV; }
        directory.Redirect = redirect;
        return Errno.None;
    }

    /// <summary>
    /// The redirect to the lower part of an object: a name in the same directory, or a path from the root of the overlay. Null if the
    /// path is too long to be written. Kernel: ovl_get_redirect().
    /// </summary>
    private static byte[]? RedirectOf(Inode inode, byte[]? known, bool sameDirectory)
    {
        if (sameDirectory) { return inode.Name[..^1].ToArray(); }
        Span<byte> space = stackalloc byte[Redirect.MaxLength];
        int start = space.Length;
        for (Inode? part = inode; part is { Parent: not null }; part = part.Parent)
        {
            byte[]? other = part is DirectoryInode directory ? directory.Redirect : known;
            ReadOnlySpan<byte> name = other is not null ? other : part.Name[..^1];
            bool isAbsolute = name[0] == '/';
            // The path is too long for a redirect: let mv(1) copy the tree instead.
            if (name.Length + (isAbsolute ? 0 : 1) > start) { return null; }
            start -= name.Length;
            name.CopyTo(space[start..]);
            if (isAbsolute) { break; }
            space[--start] = (byte)'/';
        }
        return space[start..].ToArray();
    }

    /// <summary>Sets an attribute of a directory of upper.</summary>
    private Errno SetOnUpper(DirectoryInode directory, ReadOnlySpan<byte> attribute, ReadOnlySpan<byte> value)
    {
        Errno error = tree.Objects.Of(directory.Upper!, Libc.Self, out RealReference real);
        if (error.IsError) { return error; }
        using (real) { return Libc.SetXattrAt(real.Directory, real.Name, attribute, value, XattrFlags.None); }
    }

    /// <summary>
    /// Exchanges a directory that contains nothing but whiteouts with an empty opaque directory. Kernel: ovl_clear_empty().
    /// </summary>
    private Errno ReplaceByEmpty(int directory, int whiteouts, ref RenameSide to)
    {
        ReadOnlySpan<byte> name = to.Name;
        Errno error = Libc.StatAt(directory, name, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error; }
        using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
        int work = temporary.Directory;
        error = Libc.MakeDirectoryAt(work, temporary.Name, 0x1C0);
        if (error.IsError) { return error; }
        error = Libc.ChangeOwnerAt(work, temporary.Name, stat.Uid, stat.Gid);
        if (!error.IsError) { error = XattrCopy.Run(directory, name, tree.Xattr, work, temporary.Name, tree.Xattr); }
        if (!error.IsError) { error = Libc.SetXattrAt(work, temporary.Name, tree.Xattr.Opaque, "y"u8, XattrFlags.None); }
        if (!error.IsError) { error = Libc.ChangeModeAt(work, temporary.Name, stat.Mode & ModeBits.Mask); }
        if (!error.IsError)
        {
            TimeSpec access = TimeSpec.From(stat.AccessTime), modify = TimeSpec.From(stat.ModifyTime);
            error = Libc.ChangeTimesAt(work, temporary.Name, access, modify);
        }
        if (!error.IsError) { error = temporary.Exchange(directory, name); }
        if (!error.IsError) { to.Leftover = new Leftover(temporary.Keep(), whiteouts); }
        return error;
    }

    /// <summary>
    /// Undoes <see cref="ReplaceByEmpty"/>, so that the name leads again to the directory whose descriptor and number the inode has.
    /// </summary>
    private void PutBack(int directory, ReadOnlySpan<byte> name, Leftover replaced)
    {
        // best effort: on an error, a lookup finds the empty directory
        _ = Libc.RenameAt(upper.Work!.Descriptor, replaced.Name, directory, name, RenameFlags.Exchange);
        upper.Moves?.AddLocked(directory, name);
    }
}
