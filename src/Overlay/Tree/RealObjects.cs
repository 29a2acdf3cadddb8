using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Tree;

/// <summary>The real object behind an overlay object, as a directory's descriptor and a name, for one or more system calls.</summary>
/// <remarks>To be disposed of: it may hold the rename lock.</remarks>
internal ref struct RealReference
{
    private BorrowedDirectory borrowed;
    private ReaderWriterLockSlim? held;

    public RealReference(BorrowedDirectory borrowed, ReadOnlySpan<byte> name)
    {
        this.borrowed = borrowed;
        Directory = borrowed.Descriptor;
        Name = name;
    }

    public RealReference(int descriptor) : this(descriptor, Libc.Self) { }

    public RealReference(int descriptor, ReadOnlySpan<byte> name)
    {
        Directory = descriptor;
        Name = name;
    }

    /// <summary>The layer, or null for an object that is reached by its descriptor.</summary>
    public readonly Layer? Layer => borrowed.Layer;

    /// <summary>An O_PATH descriptor: of the directory, or with an empty name of the object itself.</summary>
    public int Directory { get; }

    /// <summary>With its NUL.</summary>
    public ReadOnlySpan<byte> Name { get; }

    /// <summary>Opens the object, without waiting for what may be at the other end of a FIFO. Where no access time may change it does not, as far as we are allowed to ask for it.</summary>
    public readonly Errno Open(OpenFlags flags, out int descriptor)
    {
        if (Layer is not { NeedsNoAccessTime: true }) { return OpenWith(flags, out descriptor); }
        Errno error = OpenWith(flags | OpenFlags.NoAccessTime, out descriptor);
        return error == Errno.EPERM ? OpenWith(flags, out descriptor) : error; // only a file's owner may ask for O_NOATIME
    }

    /// <summary>Opens the object as data.</summary>
    /// <returns><see cref="Errno.EIO"/> when it is no regular file.</returns>
    public readonly Errno OpenData(OpenFlags flags, out int descriptor)
    {
        Errno error = Open(flags, out descriptor);
        return error.IsError ? error : CheckRegular(ref descriptor);
    }

    /// <summary>Whether a descriptor is one of a regular file; else it is closed.</summary>
    /// <returns><see cref="Errno.EIO"/> when it is not, as for a metacopy whose data is something else: ovl_lookup().</returns>
    public static Errno CheckRegular(ref int descriptor)
    {
        Errno error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat);
        if (!error.IsError && stat.IsRegular) { return Errno.None; }
        Libc.Close(descriptor);
        descriptor = -1;
        return error.IsError ? error : Errno.EIO;
    }

    private readonly Errno OpenWith(OpenFlags flags, out int descriptor)
    {
        flags |= OpenFlags.NonBlock | OpenFlags.NoCtty;
        return Name.Length > 1
            ? Libc.OpenAt(Directory, Name, flags | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out descriptor)
            : Libc.Reopen(Directory, flags, out descriptor);
    }

    /// <summary>The caller has taken a lock, shared, that is let go of with this.</summary>
    public void Hold(ReaderWriterLockSlim taken) => held = taken;

    public readonly void Dispose()
    {
        borrowed.Dispose();
        held?.ExitReadLock();
    }
}

/// <summary>Until it is disposed of, the name that upper has of an object goes to no other one.</summary>
/// <remarks>
/// For whoever changes the object by its name: a file that was removed after it was found, and another made in its place,
/// would get the change. A directory is reached by a descriptor of its own. Caller holds the rename lock.
/// </remarks>
internal readonly ref struct HeldName
{
    private readonly object? names;

    public HeldName(Inode inode)
    {
        names = inode.IsDirectory ? null : inode.Parent?.NamesLock;
        if (names is not null) { Monitor.Enter(names); }
    }

    public void Dispose()
    {
        if (names is not null) { Monitor.Exit(names); }
    }
}

/// <summary>Finds the real objects of inodes.</summary>
/// <remarks>
/// An object of upper is reached by names that move: the rename lock is held, shared, as long as the reference. One of a
/// lower stays where it is, and whoever uses it may wait for its filesystem: no lock is held.
/// </remarks>
internal sealed class RealObjects(DirectoryCache directories, WorkDirectory? work, ReaderWriterLockSlim renameLock)
{
    /// <summary>The object that holds the attributes: upper's if there is one, else the topmost lower's. Caller holds no lock that comes after the rename lock, nor that.</summary>
    public Errno Resolve(Inode inode, out RealReference real)
    {
        if (!inode.HasUpper)
        {
            return inode is DirectoryInode directory ? Of(directory.Lowers[0], Libc.Self, out real) : Of(inode.LowerDirectory!, inode.LowerName, out real);
        }
        renameLock.EnterReadLock();
        Errno error = ResolveLocked(inode, out real);
        if (error.IsError) { renameLock.ExitReadLock(); }
        else { real.Hold(renameLock); }
        return error;
    }

    /// <summary>The object that holds the attributes, which is in upper. Caller holds the rename lock while he uses what he gets.</summary>
    public Errno ResolveLocked(Inode inode, out RealReference real)
    {
        if (inode is DirectoryInode directory) { return Of(directory.Topmost, Libc.Self, out real); }
        if (inode.Links?.Hold is { } hold)
        {
            real = new RealReference(work!.Descriptor, hold);
            return Errno.None;
        }
        // First: before a name goes, the descriptor is there.
        if (inode.IsNameless && inode.Orphan is >= 0 and int orphan)
        {
            real = new RealReference(orphan);
            return Errno.None;
        }
        if (inode.IsNameless && inode.WorkName is { } name)
        {
            real = new RealReference(work!.Descriptor, name);
            return Errno.None;
        }
        if (inode.HasUpper)
        {
            // Unlinked when there was no descriptor to keep it by: its name may be another file's by now.
            if (inode.IsUnlinked || inode.Parent?.Upper is not { } parent)
            {
                real = default;
                return Errno.ESTALE;
            }
            return Of(parent, inode.Name, out real);
        }
        return Of(inode.LowerDirectory!, inode.LowerName, out real);
    }

    /// <summary>The object that holds the data of a regular file. Caller holds no lock, as for <see cref="Resolve"/>.</summary>
    public Errno ResolveData(Inode inode, out RealReference real) =>
        inode.Metacopy is { } data ? Of(data.Directory, data.Name, out real) : Resolve(inode, out real);

    /// <summary>A name in a real directory. Caller holds the rename lock if that is one of upper, and not if it is one of a lower.</summary>
    public Errno Of(RealDirectory directory, ReadOnlySpan<byte> name, out RealReference real)
    {
        Errno error = directories.Borrow(directory, out BorrowedDirectory borrowed);
        real = error.IsError ? default : new RealReference(borrowed, name);
        return error;
    }

    /// <summary>Opens a real directory to be listed. Caller holds no lock.</summary>
    public Errno OpenDirectory(RealDirectory directory, out int descriptor)
    {
        descriptor = -1;
        bool isUpper = directory.Layer.IsUpper;
        if (isUpper) { renameLock.EnterReadLock(); }
        try
        {
            Errno error = Of(directory, ".\0"u8, out RealReference real);
            if (error.IsError) { return error; }
            using (real) { return real.Open(OpenFlags.ReadOnly | OpenFlags.Directory, out descriptor); }
        }
        finally
        {
            if (isUpper) { renameLock.ExitReadLock(); }
        }
    }
}
