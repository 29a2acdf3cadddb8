using Veneer.Fuse.Locking;
using Veneer.Linux;

namespace Veneer.Overlay.Layers;

/// <summary>A name in a real directory.</summary>
/// <param name="Directory">The directory.</param>
/// <param name="Name">With its NUL.</param>
internal sealed record RealName(RealDirectory Directory, byte[] Name);

/// <summary>The real object behind an overlay object, as a directory's descriptor and a name, for one or more system calls.</summary>
/// <remarks>It must be disposed of, since it may hold the rename lock.</remarks>
internal ref struct RealReference
{
    private BorrowedDirectory borrowed;
    private SharedLock.Scope held;

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

    /// <summary>The layer; null for an object that is reached by its own descriptor.</summary>
    public readonly Layer? Layer => borrowed.Layer;

    /// <summary>An O_PATH descriptor of the directory, or with an empty name of the object itself.</summary>
    public int Directory { get; }

    /// <summary>The object's name in the directory, with its NUL.</summary>
    public ReadOnlySpan<byte> Name { get; }

    /// <summary>
    /// Opens the object, without waiting for the other end of a FIFO. Where no access time may change, O_NOATIME is asked for,
    /// unless that is not permitted.
    /// </summary>
    public readonly Errno Open(OpenFlags flags, out int descriptor)
    {
        if (Layer is not { NeedsNoAccessTime: true }) { return OpenWith(flags, out descriptor); }
        Errno error = OpenWith(flags | OpenFlags.NoAccessTime, out descriptor);
        return error == Errno.EPERM ? OpenWith(flags, out descriptor) : error; // only a file's owner may ask for O_NOATIME
    }

    /// <summary>Opens the object as the data of a file.</summary>
    /// <returns><see cref="Errno.EIO"/> when the object is no regular file.</returns>
    public readonly Errno OpenData(OpenFlags flags, out int descriptor)
    {
        Errno error = Open(flags, out descriptor);
        return error.IsError ? error : CheckRegular(ref descriptor);
    }

    /// <summary>Checks that a descriptor is of a regular file. If not, closes it and sets it to -1.</summary>
    /// <returns><see cref="Errno.EIO"/> when it is not, as for a metacopy whose data is something else. Kernel: ovl_lookup().</returns>
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

    /// <summary>Hands over the rename lock, which the caller has taken shared, to be released with this reference.</summary>
    public void Hold(SharedLock.Scope taken) => held = taken;

    public readonly void Dispose()
    {
        borrowed.Dispose();
        held.Dispose();
    }
}
