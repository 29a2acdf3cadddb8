using Veneer.Fuse;
using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Tree;

/// <summary>
/// Decides how an open file reaches its data: when its real file is opened, what the kernel gets of it beforehand, and what is passed
/// through.
/// </summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="files">The open files.</param>
/// <param name="options">The mount options.</param>
/// <param name="isWritable">Whether there is an upper.</param>
internal sealed class OpenPolicy(ObjectTree tree, KernelSession session, OpenFiles files, OverlayOptions options, bool isWritable)
{
    private readonly bool isDurable = options.Sync != Sync.Volatile;
    private readonly SmallReads smallReads = new();

    /// <summary>The least size of a lower file that is passed through for reads with <c>passthrough=lower</c>.</summary>
    private const ulong LargeFile = 1 << 20;

    /// <summary>The longest time to wait until the kernel tells that a file was closed, in milliseconds.</summary>
    private const int MostReleaseWaits = 500;

    /// <summary>The flags with which a real file is opened, out of the flags of the caller.</summary>
    /// <remarks>
    /// O_APPEND is left out. The kernel sends the offset of every write, even of an append, since it knows the size and admits no other
    /// write meanwhile. It also writes the dirty pages of a map through any open file that was mapped, and pwrite(2) to a file with
    /// O_APPEND would append them.
    /// </remarks>
    public OpenFlags RealFlags(OpenFlags flags)
    {
        const OpenFlags always = OpenFlags.AccessMode | OpenFlags.Direct;
        OpenFlags kept = flags & (isDurable ? always | OpenFlags.Sync | OpenFlags.DataSync : always);
        // O_RDONLY|O_TRUNC truncates all the same.
        bool truncates = (flags & OpenFlags.Truncate) != 0;
        if (truncates && (flags & OpenFlags.AccessMode) == OpenFlags.ReadOnly) { kept |= OpenFlags.ReadWrite; }
        return kept | OpenFlags.LargeFile | OpenFlags.NonBlock;
    }

    /// <summary>
    /// Whether the real file of an open that does not write is opened at once. If not, it is opened when a program reads what the kernel
    /// has not cached.
    /// </summary>
    /// <remarks>With O_DIRECT the real file is opened at once: the open tells whether the filesystem supports it.</remarks>
    public bool OpensAtOnce(Inode inode, OpenFlags flags) =>
        inode.HasUpperData || !IsCached(inode) || (flags & OpenFlags.Direct) != 0;

    /// <summary>Whether a real file that was opened is the lower one, but the data is in upper by now: then it is opened again.</summary>
    public static bool IsOutdated(Inode inode, bool isLower) => isLower && inode.HasUpperData;

    /// <summary>
    /// Opens the real file of an open file, if that was put off; after a copy-up, opens the copy in place of the lower file.
    /// </summary>
    /// <param name="file">The open file.</param>
    /// <param name="reads">Whether the descriptor is for reading content.</param>
    public Errno OpenData(OpenFile file, bool reads)
    {
        using (file.Lock())
        {
            if (file.HasData) { return Errno.None; }
            Errno error = tree.OpenReal(file.Inode, RealFlags(file.Flags & ~OpenFlags.Truncate), out int descriptor,
                out bool isLower, out _);
            if (error.IsError) { return error; }
            if (reads && file.Descriptor < 0) { smallReads.CountRead(); }
            return file.TakeLocked(descriptor, isLower);
        }
    }

    /// <summary>
    /// Sends the content of a lower file that is being opened for reading to the kernel, if the file is small and will probably be read.
    /// That saves the READ. On failure the READ comes and reports the error.
    /// </summary>
    public void FillPages(Inode inode, ulong nodeId, OpenFlags flags)
    {
        if (!inode.IsSmall || inode.HasUpper || !IsCached(inode) || (flags & OpenFlags.Direct) != 0) { return; }
        if (session.Notifier is not { } notifier || !tree.Inodes.TryGetBacking(inode, nodeId, out BackingFile backing)
            || !backing.HasNoPages || !smallReads.IsLikely())
        {
            return;
        }
        FillPages(inode, nodeId, backing, notifier);
    }

    private void FillPages(Inode inode, ulong nodeId, BackingFile backing, Notifier notifier)
    {
        Span<byte> message = stackalloc byte[Notifier.StoreHeader + (int)InodeMaker.SmallestImage];
        // Every change of the file, even of its size alone, begins with a copy-up. During a copy-up, which may take long, nothing is sent.
        if (!inode.TryLockCopyUp(0, out ObjectLock.Scope scope)) { return; }
        using (scope)
        {
            if (inode.HasUpper || tree.OpenReal(inode, RealFlags(OpenFlags.ReadOnly), out int descriptor, out _, out _).IsError) { return; }
            Errno error = Libc.ReadAt(descriptor, message[Notifier.StoreHeader..], 0, out int count);
            Libc.Close(descriptor);
            // A full buffer may not be the whole content: the file has changed since it was found small.
            if (error.IsError || count == 0 || count == (int)InodeMaker.SmallestImage) { return; }
            backing.FillLocked(notifier, nodeId, message[..(Notifier.StoreHeader + count)]);
        }
    }

    /// <summary>Decides what of an open file is passed through, and gives it an fh.</summary>
    /// <returns><see cref="Errno.ESTALE"/> when the inode has a new nodeid: then the kernel looks the name up again.</returns>
    public Errno Admit(
        Inode inode, ulong nodeId, uint uid, OpenFlags flags, int descriptor, bool isLower, bool isPrivate, out OpenOut result)
    {
        result = default;
        // Another thread may have superseded the nodeid while this one waited for a copy-up.
        if (!tree.Inodes.TryGetBacking(inode, nodeId, out BackingFile backing)) { return Errno.ESTALE; }
        bool isAppendOnly = isWritable && (inode.Protection & Protection.AppendOnly) != 0;
        PassthroughScope scope = session.Backings is null || descriptor < 0 || isAppendOnly ? PassthroughScope.Nothing
            : !isLower ? PassthroughScope.Everything
            : isPrivate ? ScopeFor(backing, descriptor)
            : PassthroughScope.Nothing;
        ServerShare share = isAppendOnly && flags.Writes ? ServerShare.Everything : ShareFor(flags);
        Errno error = Admit(backing, descriptor, isLower, flags, share, scope, ref result);
        if (error == Errno.ESTALE) { Supersede(inode, nodeId, backing); }
        if (error.IsError) { return error; }
        bool canMapForWriting = (flags & OpenFlags.AccessMode) == OpenFlags.ReadWrite;
        if ((result.Flags & OpenReply.Passthrough) != 0 && canMapForWriting) { inode.ChangesUnseen = true; }
        result.Fh = files.Add(inode, nodeId, backing, flags, descriptor, isLower, uid);
        return Errno.None;
    }

    private Errno Admit(BackingFile backing, int descriptor, bool isLower, OpenFlags flags, ServerShare share, PassthroughScope scope,
        ref OpenOut result)
    {
        for (int attempt = 0; ; attempt++)
        {
            switch (backing.Admit(descriptor, isLower, flags.Writes, share, scope, session.Backings, ref result))
            {
                case Admission.Admitted:
                    return Errno.None;
                case Admission.Superseded:
                    return Errno.ESTALE;
                // A file that is open for writing only cannot be mapped.
                case Admission.PassedThrough when (flags & OpenFlags.AccessMode) == OpenFlags.WriteOnly:
                    share = ServerShare.ReadsAndWrites;
                    break;
                case Admission.PassedThrough when attempt >= MostReleaseWaits:
                    return Errno.EBUSY;
                // The file became append-only while it was open. It may be closed by now: the kernel tells of a close later.
                default:
                    WaitForRelease();
                    break;
            }
        }
    }

    /// <summary>What must come to the server of an open with these flags.</summary>
    /// <remarks>
    /// fcntl(2) may change O_DIRECT and O_APPEND later. The kernel sends the server the flags of the moment, but would use the old flags on
    /// the real file. Without durability the server must see writes with O_SYNC or O_DSYNC, so that they do not sync.
    /// </remarks>
    private ServerShare ShareFor(OpenFlags flags)
    {
        bool mayChange = (flags & OpenFlags.Direct) != 0 || (flags.Writes && (flags & OpenFlags.Append) != 0);
        return mayChange || (!isDurable && (flags & OpenFlags.Sync) != 0) ? ServerShare.ReadsAndWrites : ServerShare.Nothing;
    }

    private void WaitForRelease()
    {
        using (session.Block()) { Thread.Sleep(1); }
    }

    /// <summary>Gives the inode a new nodeid. Open files are bound to the lower file, and keep the old nodeid.</summary>
    private void Supersede(Inode inode, ulong nodeId, BackingFile backing)
    {
        if (tree.Inodes.TrySupersede(inode, backing)) { session.Notifier?.InvalidateAttributes(nodeId); }
    }

    /// <summary>What of a lower file may be passed through. See docs/adr/0003-lower-passthrough.md.</summary>
    /// <remarks>
    /// A file that is passed through keeps the lower data and the old inode after a copy-up. So a lower file is passed through only if
    /// it cannot change, or if the user asked for it with <c>passthrough=lower</c>. In that case large files are passed through, and maps
    /// of programs and libraries, whose pages all mounts share.
    /// </remarks>
    private PassthroughScope ScopeFor(BackingFile backing, int descriptor)
    {
        if (!isWritable) { return PassthroughScope.Everything; } // nothing can change
        if (backing.ScopeOfLower == PassthroughScope.Unknown)
        {
            backing.ScopeOfLower = options.PassLower ? JudgeLower(descriptor) : PassthroughScope.Nothing;
        }
        return backing.ScopeOfLower;
    }

    /// <summary>Whether a lower file is never passed through, so that what the kernel has cached is read without the real file.</summary>
    private bool IsCached(Inode inode) =>
        session.Backings is null
        || (isWritable && (!options.PassLower || inode.IsSmall || inode.Backing is { ScopeOfLower: PassthroughScope.Nothing }));

    private static PassthroughScope JudgeLower(int descriptor)
    {
        if (Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat).IsError) { return PassthroughScope.Nothing; }
        if (stat.Size >= LargeFile) { return PassthroughScope.Everything; }
        Span<byte> magic = stackalloc byte[4];
        bool isImage = !Libc.ReadAt(descriptor, magic, 0, out int count).IsError && count == 4 && magic.SequenceEqual("\u007FELF"u8);
        return isImage ? PassthroughScope.Maps : PassthroughScope.Nothing;
    }
}
