using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tree;

/// <summary>The objects of the overlay: those that the kernel knows, and what finds the real ones.</summary>
internal sealed class ObjectTree
{
    /// <summary>Held shared while something in upper is reached by its name, and exclusively for what ARCHITECTURE.md lists.</summary>
    /// <remarks>
    /// It comes after an inode's copy-up lock. No lower is asked while it is held: see docs/adr/0020-no-lock-while-a-lower-is-asked.md.
    /// </remarks>
    public required SharedLock RenameLock { get; init; }

    /// <summary>The layers.</summary>
    public required LayerStack Layers { get; init; }

    /// <summary>The names of overlayfs's attributes in upper.</summary>
    public OverlayXattr Xattr => Layers.UpperXattr;

    /// <summary>The names of overlayfs's attributes in the lowers.</summary>
    public OverlayXattr LowerXattr => Layers.LowerXattr;

    /// <summary>The descriptors of real directories.</summary>
    public required DirectoryCache Directories { get; init; }

    /// <summary>The st_ino policy.</summary>
    public required InodeNumbers Numbers { get; init; }

    /// <summary>Chooses what identifies real objects.</summary>
    public required ObjectKeys Keys { get; init; }

    /// <summary>The inodes that the kernel knows.</summary>
    public required InodeTable Inodes { get; init; }

    /// <summary>The files with several names.</summary>
    public AliasTable Aliases => Inodes.Aliases;

    /// <summary>The objects without a name.</summary>
    public Orphans Orphans => Inodes.Orphans;

    /// <summary>Finds real objects.</summary>
    public required RealObjects Objects { get; init; }

    /// <summary>The listings of directories.</summary>
    public required Listings Listings { get; init; }

    /// <summary>Reads single names in real directories.</summary>
    public required LayerReader Reader { get; init; }

    /// <summary>Finds names.</summary>
    public required LayeredLookup Lookup { get; init; }

    /// <summary>Recognises objects whose owner has no number in this user namespace.</summary>
    public required Owners Owners { get; init; }

    /// <summary>
    /// Whether upper's filesystem must read the attributes anew. FUSE and network filesystems cache attributes by name, so they may not
    /// know what was done to the object by another of its names, even a removed one.
    /// </summary>
    public bool NeedsFreshAttributes(Inode inode) => Keys.DoubtsUpper && inode.HasUpper && inode.AliasList is not null;

    /// <summary>Reads the attributes of the real object; for a metacopy with st_blocks of its data. Caller holds no lock.</summary>
    public Errno ReadAttributes(Inode inode, StatxMask mask, out Statx stat)
    {
        bool wasNameless;
        Errno error;
        do
        {
            wasNameless = inode.IsNameless;
            stat = default;
            error = Objects.Resolve(inode, out RealReference real);
            if (error.IsError) { return error; }
            using (real)
            {
                error = NeedsFreshAttributes(inode)
                    ? Libc.StatAnew(real.Directory, real.Name, mask, out stat)
                    : Libc.StatAt(real.Directory, real.Name, mask, out stat);
                if (!error.IsError) { Owners.Mark(real.Directory, real.Name, ref stat); }
            }
        }
        while (error == Errno.ENOENT && !wasNameless && inode.IsNameless); // unlinked after its name was resolved
        if (error.IsError || inode.Metacopy is not { } metacopy) { return error; }
        if (Objects.Of(metacopy.Directory, metacopy.Name, out RealReference data).IsError) { return Errno.None; }
        using (data)
        {
            if (!Libc.StatAt(data.Directory, data.Name, StatxMask.Basic, out Statx dataStat).IsError) { stat.Blocks = dataStat.Blocks; }
        }
        return Errno.None;
    }

    /// <summary>Opens the real file that has the data. Caller holds no lock.</summary>
    /// <param name="inode">A regular file.</param>
    /// <param name="flags">The flags of the open.</param>
    /// <param name="descriptor">The file, opened.</param>
    /// <param name="isLower">Whether it is in a lower layer.</param>
    /// <param name="isPrivate">Whether it is reached through a private mount.</param>
    public Errno OpenReal(Inode inode, OpenFlags flags, out int descriptor, out bool isLower, out bool isPrivate)
    {
        descriptor = -1;
        while (true)
        {
            isLower = !inode.HasUpperData;
            isPrivate = false;
            bool byName = !inode.IsNameless;
            Errno error = Objects.ResolveData(inode, out RealReference real);
            if (error.IsError) { return error; }
            using (real)
            {
                isPrivate = real.Layer?.IsPrivate ?? false;
                error = OpenReal(real, inode, flags, out descriptor);
                // If the real file itself is append-only, and not just by upper's attribute, it opens only to append. Kernel: may_open()
                if (error == Errno.EPERM && flags.Writes && (inode.Protection & Protection.AppendOnly) != 0)
                {
                    error = OpenReal(real, inode, flags | OpenFlags.Append, out descriptor);
                }
            }
            // The file lost its name meanwhile, and another file may have been opened by it. What stands in for it was set before.
            if (!byName || isLower || !inode.IsNameless) { return error; }
            if (!error.IsError) { Libc.Close(descriptor); }
        }
    }

    /// <summary>Opens a real file. The data of a metacopy was not known to be a file when the inode was made, so it is checked.</summary>
    private static Errno OpenReal(in RealReference real, Inode inode, OpenFlags flags, out int descriptor) =>
        inode.Metacopy is null ? real.Open(flags, out descriptor) : real.OpenData(flags, out descriptor);
}
