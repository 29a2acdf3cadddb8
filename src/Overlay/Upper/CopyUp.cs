using Veneer.Fuse;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>A truncation that follows the copy-up of a regular file. The data behind the new end need not be copied.</summary>
/// <param name="Size">The new size, in bytes.</param>
/// <param name="DropsSetId">Whether the truncation clears the set-id bits.</param>
internal readonly record struct Truncation(long Size, bool DropsSetId);

/// <summary>Copies objects from a lower layer to upper, before their first change.</summary>
/// <remarks>
/// Crash safety. The copy is built in work and gets its final name by one rename or link, last.
/// Killed before that: the name still shows the lower object, and the next mount empties work.
/// Killed after that: the upper object is whole. There is no third state. A copy that leaves out data, because the caller
/// truncates the file, is truncated before it gets its name; that sets its times and drops its privileges as well.
/// <para>
/// Locks. The copy-up lock comes first in the lock order: the long part, building the copy, runs under that lock alone. The
/// rename lock (shared) and the names lock of the directory are taken to publish the copy. Ancestors are copied first, each
/// under its own copy-up lock alone.
/// </para>
/// </remarks>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="publication">Gives copies their names in upper.</param>
internal sealed class CopyUp(ObjectTree tree, UpperLayer upper, KernelSession session, Publication publication)
{
    /// <summary>
    /// The size up to which a copy is not announced by <see cref="KernelSession.Block"/>: other requests can wait for it.
    /// </summary>
    private const long SmallFile = 128 * 1024;

    /// <summary>
    /// How often a thread that waits for the copy-up lock checks whether its caller is still alive, in milliseconds.
    /// </summary>
    private const int LockPatience = 20;

    private readonly DataCopy data = new(tree);
    private readonly AttributeCopy attributes = new(tree, upper);
    private long copies;

    /// <summary>How many objects were copied up.</summary>
    public long Copies => Interlocked.Read(ref copies);

    /// <summary>How many bytes of data that was.</summary>
    public long CopiedBytes => data.Bytes;

    /// <summary>Makes sure that the object is in upper, under every name that the kernel knows.</summary>
    /// <param name="inode">The object. The caller holds no lock.</param>
    /// <param name="request">The request that waits for the copy. A fatal signal to its caller stops the copying of data.</param>
    /// <param name="needsData">Whether the copy needs its data. Without it, a regular file may become a metacopy.</param>
    /// <param name="truncation">
    /// The truncation that the caller is about to make, or null. The caller must make it in any case: an older copy is not
    /// truncated here.
    /// </param>
    /// <returns>
    /// <see cref="Errno.EROFS"/> without upper. <see cref="Errno.EINTR"/> when the caller of the request was killed. Otherwise
    /// the error of upper. After an error nothing has changed, except that a file with several names may be in upper under
    /// some of them.
    /// </returns>
    public Errno Ensure(Inode inode, in Request request, bool needsData = true, Truncation? truncation = null)
    {
        if (IsDone(inode, needsData)) { return Errno.None; }
        if (!upper.IsWritable) { return Errno.EROFS; }

        if (inode.Parent is { HasUpper: false, IsUnlinked: false })
        {
            Errno error = EnsureAncestors(inode, request);
            if (error.IsError) { return error; }
        }
        return EnsureOne(inode, request, needsData, truncation);
    }

    /// <summary>
    /// Copies up the directories above the object, topmost first. Their order cannot change meanwhile: an object is copied up
    /// before it moves.
    /// </summary>
    private Errno EnsureAncestors(Inode inode, in Request request)
    {
        var missing = new List<DirectoryInode>();
        for (DirectoryInode? above = inode.Parent; above is { HasUpper: false }; above = above.Parent) { missing.Add(above); }
        for (int i = missing.Count - 1; i >= 0; i--)
        {
            Errno error = EnsureOne(missing[i], request, true, null);
            if (error.IsError) { return error; }
        }
        return Errno.None;
    }

    private static bool IsDone(Inode inode, bool needsData) =>
        inode.HasUpper && (inode.Metacopy is null || !needsData) && (inode.Links is null || IsComplete(inode));

    /// <summary>Whether the copy in upper has every name that was seen so far.</summary>
    private static bool IsComplete(Inode inode)
    {
        foreach (Alias alias in inode.Aliases)
        {
            if (!alias.IsUpper && !alias.IsRemoved) { return false; }
        }
        return true;
    }

    private Errno EnsureOne(Inode inode, in Request request, bool needsData, Truncation? truncation)
    {
        if (inode.Links is not null)
        {
            Errno error = EnsureParents(inode, request);
            if (error.IsError) { return error; }
        }
        if (!TryLock(inode, request, out ObjectLock.Scope scope)) { return Errno.EINTR; }
        using (scope)
        {
            if (IsDone(inode, needsData)) { return Errno.None; }
            if (inode.HasUpper)
            {
                if (inode.Metacopy is not null && needsData)
                {
                    Errno error = CopyDataOfMetacopyLocked(inode, request);
                    if (error.IsError) { return error; }
                }
                return publication.LinkAliasesLocked(inode);
            }
            Errno copied = inode.Type switch
            {
                FileType.Directory => CopyDirectoryLocked((DirectoryInode)inode),
                FileType.Regular => CopyRegularLocked(inode, request, needsData, truncation),
                _ => CopyOtherLocked(inode),
            };
            if (!copied.IsError) { Interlocked.Increment(ref copies); }
            return copied;
        }
    }

    /// <summary>
    /// Takes the copy-up lock. Another thread may hold it for a long copy: meanwhile another worker serves other requests.
    /// </summary>
    /// <returns>False when the caller of the request was killed.</returns>
    private bool TryLock(Inode inode, in Request request, out ObjectLock.Scope scope)
    {
        if (inode.TryLockCopyUp(0, out scope)) { return true; }
        using (session.Block())
        {
            while (!inode.TryLockCopyUp(LockPatience, out scope))
            {
                if (request.IsCallerDead) { return false; }
            }
            return true;
        }
    }

    /// <summary>Copies up every directory that has a name of the file. They must be in upper before the file is.</summary>
    private Errno EnsureParents(Inode inode, in Request request)
    {
        foreach (Alias alias in inode.Aliases)
        {
            if (alias.IsRemoved || alias.Parent.HasUpper) { continue; }
            Errno error = Ensure(alias.Parent, request);
            if (error.IsError) { return error; }
        }
        return Errno.None;
    }

    /// <summary>Copies a directory, without its entries. Caller holds the copy-up lock.</summary>
    private Errno CopyDirectoryLocked(DirectoryInode inode)
    {
        inode.AssertCopyUpLocked();
        Errno error = tree.Objects.Of(inode.Lowers[0], Libc.Self, out RealReference source);
        if (error.IsError) { return error; }
        using (source)
        {
            error = StatSource(source, out Statx stat);
            if (error.IsError) { return error; }
            using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
            error = Libc.MakeDirectoryAt(temporary.Directory, temporary.Name, 0x1C0);
            if (error.IsError) { return error; }
            error = Libc.OpenAt(temporary.Directory, temporary.Name, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0,
                ResolveFlags.Confined, out int copy);
            if (error.IsError) { return error; }
            error = attributes.SetOwner(stat, copy, Libc.Self);
            if (!error.IsError) { error = attributes.Run(inode, source, stat, copy, Libc.Self); }
            if (!error.IsError && upper.IsStrict) { error = SyncDirectory(copy); }
            Libc.Close(copy);
            return error.IsError ? error : publication.RunLocked(new Copy(inode, stat), temporary);
        }
    }

    /// <summary>Reads the attributes of the lower object. Kernel: ovl_copy_up_one().</summary>
    /// <returns>
    /// <see cref="Errno.EOVERFLOW"/> when the owner or the group has no number here: the copy could not have the same.
    /// </returns>
    private Errno StatSource(in RealReference source, out Statx stat)
    {
        Errno error = Libc.StatAt(source.Directory, source.Name, StatxMask.Basic, out stat);
        if (error.IsError) { return error; }
        tree.Owners.Mark(source.Directory, source.Name, ref stat);
        return stat.Uid == Owners.Unmapped || stat.Gid == Owners.Unmapped ? Errno.EOVERFLOW : Errno.None;
    }

    private Errno SyncDirectory(int path)
    {
        Errno error = Libc.Reopen(path, OpenFlags.ReadOnly | OpenFlags.Directory, out int descriptor);
        if (error.IsError) { return error; }
        using (session.Block()) { error = Libc.Sync(descriptor, dataOnly: false); }
        Libc.Close(descriptor);
        return error;
    }

    /// <summary>Copies a symbolic link, a device, a FIFO or a socket. Caller holds the copy-up lock.</summary>
    private Errno CopyOtherLocked(Inode inode)
    {
        inode.AssertCopyUpLocked();
        Errno error = tree.Objects.Of(inode.LowerDirectory!, inode.LowerName, out RealReference source);
        if (error.IsError) { return error; }
        using (source)
        {
            error = StatSource(source, out Statx stat);
            if (error.IsError) { return error; }
            using var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
            error = MakeOther(source, stat, temporary.Directory, temporary.Name);
            if (!error.IsError) { error = attributes.SetOwner(stat, temporary.Directory, temporary.Name); }
            if (!error.IsError) { error = attributes.Run(inode, source, stat, temporary.Directory, temporary.Name); }
            return error.IsError ? error : publication.RunLocked(new Copy(inode, stat), temporary);
        }
    }

    private static Errno MakeOther(in RealReference source, in Statx stat, int work, ReadOnlySpan<byte> name)
    {
        if (!stat.IsSymbolicLink) { return Libc.MakeNodeAt(work, name, stat.Mode, stat.Rdev); }
        Span<byte> target = stackalloc byte[4097];
        Errno error = Libc.ReadLinkAt(source.Directory, source.Name, target[..4096], out int length);
        if (error.IsError) { return error; }
        target[length] = 0;
        return Libc.SymbolicLinkAt(target[..(length + 1)], work, name);
    }

    /// <summary>Copies a regular file. Caller holds the copy-up lock.</summary>
    private Errno CopyRegularLocked(Inode inode, in Request request, bool needsData, Truncation? truncation)
    {
        inode.AssertCopyUpLocked();
        // This is the file that has the attributes. DataCopy finds the data, which may be in a layer further down.
        Errno error = tree.Objects.Of(inode.LowerDirectory!, inode.LowerName, out RealReference source);
        if (error.IsError) { return error; }
        using (source)
        {
            error = StatSource(source, out Statx stat);
            if (error.IsError) { return error; }
            var temporary = new Temporary(upper.Work!, stackalloc byte[WorkDirectory.NameLength]);
            bool isNamed = !upper.Features.TemporaryFiles;
            error = isNamed
                ? Libc.OpenAt(temporary.Directory, temporary.Name,
                    OpenFlags.Create | OpenFlags.Exclusive | OpenFlags.ReadWrite | OpenFlags.NoFollow, 0x180,
                    ResolveFlags.Confined, out int copy)
                : Libc.OpenAt(temporary.Directory, ".\0"u8, OpenFlags.TemporaryFile | OpenFlags.ReadWrite, 0x180,
                    ResolveFlags.Confined, out copy);
            if (error.IsError) { return error; }
            // A hard-linked file gets its data at once: all its names are one copy, which would no longer find its data when
            // the first of them moves.
            RealName? below = needsData || inode.Links is not null ? null : DataCopy.SourceOf(inode);
            error = Fill(inode, source, stat, copy, below, truncation, request);
            if (!error.IsError)
            {
                error = publication.RunLocked(new Copy(inode, stat) { Descriptor = copy, IsNamed = isNamed, Below = below }, temporary);
            }
            Libc.Close(copy);
            if (isNamed) { temporary.Dispose(); } // a link has left the file its name in work
            return error;
        }
    }

    /// <summary>Gives a new file the data and the attributes of a lower file.</summary>
    /// <param name="inode">The file.</param>
    /// <param name="source">The lower file that has the attributes.</param>
    /// <param name="stat">The attributes of <paramref name="source"/>.</param>
    /// <param name="copy">A descriptor of the new file.</param>
    /// <param name="below">The lower file that keeps the data, for a metacopy. Null when the data is copied.</param>
    /// <param name="truncation">The truncation that the caller is about to make, or null.</param>
    /// <param name="request">The request that waits for the copy.</param>
    private Errno Fill(
        Inode inode, in RealReference source, in Statx stat, int copy, RealName? below, Truncation? truncation, in Request request)
    {
        long size = below is not null ? 0 : Math.Min((long)stat.Size, truncation?.Size ?? long.MaxValue);
        bool syncs = upper.IsDurable && (size > 0 || upper.IsStrict);
        using (session.Block(size > SmallFile || syncs))
        {
            Errno error = attributes.SetOwner(stat, copy, Libc.Self);
            if (!error.IsError)
            {
                error = below is not null
                    ? LeaveData(copy, (long)stat.Size)
                    : data.Run(inode, copy, size, inode.Metacopy is not null || stat.Blocks * 512 < stat.Size, request);
            }
            if (!error.IsError) { error = attributes.Run(inode, source, stat, copy, Libc.Self); }
            if (!error.IsError && below is null && size < (long)stat.Size)
            {
                // Without this, the truncated copy would be seen with the times and the privileges of the whole file.
                error = ObjectChange.SetSize(copy, truncation!.Value.Size, isOpen: true, truncation.Value.DropsSetId, request);
            }
            return !error.IsError && syncs ? Libc.Sync(copy, dataOnly: false) : error;
        }
    }

    /// <summary>
    /// Makes the copy a metacopy: a hole of the size of the data, which stays below. Kernel: ovl_set_metacopy_xattr(),
    /// ovl_set_size().
    /// </summary>
    private Errno LeaveData(int copy, long size)
    {
        Errno error = Libc.SetXattrAt(copy, Libc.Self, tree.Xattr.Metacopy, default, XattrFlags.None);
        return error.IsError ? error : Libc.Truncate(copy, size);
    }

    /// <summary>Copies the data of a metacopy, which then is an ordinary file. Caller holds the copy-up lock.</summary>
    /// <remarks>
    /// Crash safety. The metacopy attribute goes last. Killed before that: the data still comes from below, but as with the
    /// kernel st_mtime may be that of the copying, and the capabilities may be gone.
    /// <para>
    /// All data is copied even when the caller truncates the file. If the file were truncated first, and the server killed
    /// before the attribute goes, the kernel would show the whole data of the shorter file. If the attribute went first, the
    /// file would be full of zeros.
    /// </para>
    /// </remarks>
    private Errno CopyDataOfMetacopyLocked(Inode inode, in Request request)
    {
        inode.AssertCopyUpLocked();
        Errno error = OpenMetacopy(inode, out int copy, out Statx stat);
        if (error.IsError) { return error; }
        Errno isMarked = Libc.GetXattrAt(copy, Libc.Self, tree.Xattr.Metacopy, default, out _);
        if (isMarked.IsError)
        {
            Libc.Close(copy);
            if (!isMarked.IsNoXattr) { return isMarked; }
            // A lookup read the attribute before it was removed, and made this inode afterwards. Upper has the data, which may
            // have changed since.
            inode.Metacopy = null;
            return Errno.None;
        }
        Span<byte> capability = stackalloc byte[64];
        Errno hasCapability =
            Libc.GetXattrAt(copy, Libc.Self, "security.capability\0"u8, capability, out int capabilityLength);
        using (session.Block())
        {
            error = data.Run(inode, copy, (long)stat.Size, mayHaveHoles: true, request);
            if (!error.IsError && upper.IsDurable) { error = Libc.Sync(copy, dataOnly: false); }
        }
        // A write drops the capability, even if it fails. But the user has not changed the file, so the capability comes back.
        // Kernel: ovl_copy_up_meta_inode_data().
        if (!hasCapability.IsError)
        {
            Errno restored =
                Libc.SetXattrAt(copy, Libc.Self, "security.capability\0"u8, capability[..capabilityLength], XattrFlags.None);
            if (!error.IsError) { error = restored; }
        }
        if (!error.IsError)
        {
            error = Libc.ChangeTimesAt(copy, Libc.Self, TimeSpec.From(stat.AccessTime), TimeSpec.From(stat.ModifyTime));
        }
        if (!error.IsError) { error = Libc.RemoveXattrAt(copy, Libc.Self, tree.Xattr.Metacopy); }
        Libc.Close(copy);
        if (error.IsError) { return error; }
        inode.Metacopy = null;
        // A lookup that read the attribute before it was removed must run again, and not make an inode of what it found.
        if (inode.Parent is { } parent) { tree.Inodes.NoteChange(parent); }
        foreach (Alias alias in inode.Aliases) { tree.Inodes.NoteChange(alias.Parent); }
        return Errno.None;
    }

    /// <summary>Opens the metacopy in upper for reading and writing, and reads its attributes.</summary>
    private Errno OpenMetacopy(Inode inode, out int copy, out Statx stat)
    {
        copy = -1;
        stat = default;
        using (tree.RenameLock.Share())
        {
            using var held = new HeldName(inode);
            Errno error = tree.Objects.ResolveLocked(inode, out RealReference real);
            if (error.IsError) { return error; }
            using (real)
            {
                error = Libc.StatAt(real.Directory, real.Name, StatxMask.Basic, out stat);
                return error.IsError ? error : real.OpenData(OpenFlags.ReadWrite, out copy);
            }
        }
    }
}
