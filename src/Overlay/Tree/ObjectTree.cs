using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tree;

/// <summary>The objects of the overlay: finds the real ones, and knows those that the kernel knows.</summary>
internal sealed class ObjectTree
{
    /// <summary>Held while something in upper is reached by its name; exclusively to rename, and to unlink one of several names.</summary>
    /// <remarks>Comes after an inode's copy-up lock. Nobody calls into a lower while he holds it: see docs/adr/0020-no-lock-while-a-lower-is-asked.md.</remarks>
    public required SharedLock RenameLock { get; init; }

    /// <summary>The layers.</summary>
    public required LayerStack Layers { get; init; }

    /// <summary>Names of the attributes of upper.</summary>
    public OverlayXattr Xattr => Layers.UpperXattr;

    /// <summary>Names of the attributes of the lowers.</summary>
    public OverlayXattr LowerXattr => Layers.LowerXattr;

    /// <summary>Descriptors of real directories.</summary>
    public required DirectoryCache Directories { get; init; }

    /// <summary>The st_ino policy.</summary>
    public required InodeNumbers Numbers { get; init; }

    /// <summary>By which keys real objects are known.</summary>
    public required ObjectKeys Keys { get; init; }

    /// <summary>What the kernel knows of us.</summary>
    public required InodeTable Inodes { get; init; }

    /// <summary>The files with several names.</summary>
    public AliasTable Aliases => Inodes.Aliases;

    /// <summary>The objects without a name.</summary>
    public Orphans Orphans => Inodes.Orphans;

    /// <summary>Finds real objects.</summary>
    public required RealObjects Objects { get; init; }

    /// <summary>Listings of directories.</summary>
    public required Listings Listings { get; init; }

    /// <summary>Finds names.</summary>
    public required LayeredLookup Lookup { get; init; }

    /// <summary>Whose the objects are, where that is not plain.</summary>
    public required Owners Owners { get; init; }

    /// <summary>
    /// Whether the attributes that upper's filesystem remembers under one name may be older than what was done by another, which
    /// may be gone by now: FUSE and network filesystems keep them by name.
    /// </summary>
    public bool IsStattedAnew(Inode inode) => Keys.DoubtsUpper && inode.HasUpper && inode.AliasList is not null;

    /// <summary>Attributes of the real object, with the data's blocks for a metacopy. Caller holds no lock.</summary>
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
                error = IsStattedAnew(inode) ? Libc.StatAnew(real.Directory, real.Name, mask, out stat) : Libc.StatAt(real.Directory, real.Name, mask, out stat);
                if (!error.IsError) { Owners.Mark(real.Directory, real.Name, ref stat); }
            }
        }
        while (error == Errno.ENOENT && !wasNameless && inode.IsNameless); // unlinked while we were on the way through its name
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
    /// <param name="flags">How.</param>
    /// <param name="descriptor">The file.</param>
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
                // Append-only itself, and not only by what upper's attribute says: nothing else may open it. Kernel: may_open()
                if (error == Errno.EPERM && flags.Writes && (inode.Protection & Protection.AppendOnly) != 0) { error = OpenReal(real, inode, flags | OpenFlags.Append, out descriptor); }
            }
            // The file lost its name meanwhile, which may be another one's by now: the descriptor was there before.
            if (!byName || isLower || !inode.IsNameless) { return error; }
            if (!error.IsError) { Libc.Close(descriptor); }
        }
    }

    /// <summary>Only the data of a metacopy has not been seen to be a file when the inode was made of it.</summary>
    private static Errno OpenReal(in RealReference real, Inode inode, OpenFlags flags, out int descriptor) =>
        inode.Metacopy is null ? real.Open(flags, out descriptor) : real.OpenData(flags, out descriptor);
}
