using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Tree;

/// <summary>Decides by which way an open file reaches its data.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="files">The open files.</param>
/// <param name="options">As the user asked.</param>
/// <param name="isWritable">Whether there is an upper.</param>
internal sealed class OpenPolicy(ObjectTree tree, KernelSession session, OpenFiles files, OverlayOptions options, bool isWritable)
{
    private readonly bool isDurable = options.Sync != Sync.Volatile;

    /// <summary>From this size on, a lower file that is only read is passed through with <c>passthrough=lower</c>.</summary>
    private const ulong LargeFile = 1 << 20;

    /// <summary>How many milliseconds to wait for the kernel to tell that a file was closed.</summary>
    private const int MostReleaseWaits = 500;

    /// <summary>What a real file is opened with, of all that the caller asked for.</summary>
    /// <remarks>
    /// Not O_APPEND: the kernel tells the offset of every write, also that of an append, since it knows the size and lets
    /// no other write in meanwhile. It also writes the dirty pages of a map through any descriptor that was mapped, and
    /// pwrite(2) would append them.
    /// </remarks>
    public OpenFlags RealFlags(OpenFlags flags)
    {
        OpenFlags kept = flags & (isDurable ? OpenFlags.AccessMode | OpenFlags.Direct | OpenFlags.Sync | OpenFlags.DataSync : OpenFlags.AccessMode | OpenFlags.Direct);
        // O_RDONLY|O_TRUNC truncates all the same.
        if ((flags & OpenFlags.Truncate) != 0 && (flags & OpenFlags.AccessMode) == OpenFlags.ReadOnly) { kept |= OpenFlags.ReadWrite; }
        return kept | OpenFlags.LargeFile | OpenFlags.NonBlock;
    }

    /// <summary>Chooses how the open file reaches its data, and gives it a number.</summary>
    /// <returns><see cref="Errno.ESTALE"/> when the inode has a new nodeid: the kernel looks the name up again.</returns>
    public Errno Admit(Inode inode, ulong nodeId, uint uid, OpenFlags flags, int descriptor, bool isLower, bool isPrivate, out OpenOut result)
    {
        result = default;
        // Others may have superseded the nodeid while we waited for a copy-up.
        if (!tree.Inodes.TryGetBacking(inode, nodeId, out BackingFile backing)) { return Errno.ESTALE; }
        bool isAppendOnly = isWritable && (inode.Protection & Protection.AppendOnly) != 0;
        Pass pass = session.Backings is null || descriptor < 0 || isAppendOnly ? Pass.Nothing : !isLower ? Pass.Everything : isPrivate ? PassLower(backing, descriptor) : Pass.Nothing;
        Errno error = Admit(backing, descriptor, isLower, flags, isAppendOnly && flags.Writes ? Way.Guarded : WayFor(flags), pass, ref result);
        if (error == Errno.ESTALE) { Supersede(inode, nodeId, backing); }
        if (error.IsError) { return error; }
        if ((result.Flags & OpenReply.Passthrough) != 0 && (flags & OpenFlags.AccessMode) == OpenFlags.ReadWrite) { inode.ChangesUnseen = true; }
        result.Fh = files.Add(inode, nodeId, backing, flags, descriptor, isLower, uid);
        return Errno.None;
    }

    private Errno Admit(BackingFile backing, int descriptor, bool isLower, OpenFlags flags, Way way, Pass pass, ref OpenOut result)
    {
        for (int attempt = 0; ; attempt++)
        {
            switch (backing.Admit(descriptor, isLower, flags.Writes, way, pass, session.Backings, ref result))
            {
                case Admission.Admitted:
                    return Errno.None;
                case Admission.Superseded:
                    return Errno.ESTALE;
                // Who cannot read cannot map either.
                case Admission.Unguarded when (flags & OpenFlags.AccessMode) == OpenFlags.WriteOnly:
                    way = Way.Asked;
                    break;
                case Admission.Unguarded when attempt >= MostReleaseWaits:
                    return Errno.EBUSY;
                // The file became append-only while it was open. It may be closed by now, and the kernel tells of that later.
                default:
                    WaitForRelease();
                    break;
            }
        }
    }

    /// <summary>
    /// An open whose flags fcntl(2) may change later: the kernel asks us with those of the moment, where it would go on with
    /// the old ones on the real file. And without durability a write that syncs must not go there unseen.
    /// </summary>
    private Way WayFor(OpenFlags flags) =>
        (flags & OpenFlags.Direct) != 0 || (flags.Writes && (flags & OpenFlags.Append) != 0) || (!isDurable && (flags & OpenFlags.Sync) != 0) ? Way.Asked : Way.Any;

    private void WaitForRelease()
    {
        using (session.Block()) { Thread.Sleep(1); }
    }

    /// <summary>Open files are bound to the lower file: they keep the nodeid, and the inode goes on under a new one.</summary>
    private void Supersede(Inode inode, ulong nodeId, BackingFile backing)
    {
        if (tree.Inodes.TrySupersede(inode, backing)) { session.Notifier?.InvalidateAttributes(nodeId); }
    }

    /// <summary>
    /// What of a lower file may be passed through. What is open before a copy-up and passed through keeps the lower data and
    /// the old inode, so it is done only where nothing can change, or where that was asked for: then for maps of programs and
    /// libraries, whose pages all mounts share, and for large files. See docs/adr/0003-lower-passthrough.md.
    /// </summary>
    private Pass PassLower(BackingFile backing, int descriptor)
    {
        if (!isWritable) { return Pass.Everything; } // nothing can ever change
        if (backing.PassOfLower == Pass.Unknown) { backing.PassOfLower = options.PassLower ? JudgeLower(descriptor) : Pass.Nothing; }
        return backing.PassOfLower;
    }

    /// <summary>
    /// Whether a lower file is never passed through, so that the real file need not be opened before somebody reads what
    /// the kernel has not kept.
    /// </summary>
    public bool IsCached(Inode inode) =>
        session.Backings is null || (isWritable && (!options.PassLower || inode.IsSmall || inode.Backing is { PassOfLower: Pass.Nothing }));

    private static Pass JudgeLower(int descriptor)
    {
        if (Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat).IsError) { return Pass.Nothing; }
        if (stat.Size >= LargeFile) { return Pass.Everything; }
        Span<byte> magic = stackalloc byte[4];
        bool isImage = !Libc.ReadAt(descriptor, magic, 0, out int count).IsError && count == 4 && magic.SequenceEqual("\u007FELF"u8);
        return isImage ? Pass.Maps : Pass.Nothing;
    }
}
