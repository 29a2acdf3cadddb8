using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Layers;

/// <summary>What the filesystem of a layer can do, its UUID, and how reliable its inode numbers are.</summary>
internal sealed record LayerFileSystem
{
    /// <summary>The UUID, 16 bytes; zeros where the filesystem has none or does not tell.</summary>
    public required byte[] Uuid { get; init; }

    /// <summary>What distinguishes the filesystem's objects from each other.</summary>
    public required RealIdentity Identity { get; init; }

    /// <summary>
    /// Whether layers with the same UUID are on the same filesystem, whatever st_dev says: each subvolume of btrfs has an
    /// st_dev of its own.
    /// </summary>
    public required bool IsToldByUuid { get; init; }

    /// <summary>
    /// Whether files have flags, which chattr(1) sets. Without them statx(2) may report every file as immutable, as on erofs,
    /// which only means that the filesystem is read-only.
    /// </summary>
    public required bool HasFileFlags { get; init; }

    /// <summary>Whether objects can have POSIX ACLs.</summary>
    public required bool HasAcls { get; init; }

    /// <summary>Examines the filesystem of an open directory.</summary>
    /// <param name="directory">A descriptor of the directory that is not O_PATH.</param>
    public static LayerFileSystem Of(int directory)
    {
        byte[] uuid = FileSystemUuid.Of(directory);
        RealIdentity identity = RealIdentities.Of(directory, out bool isBtrfs);
        bool hasAcls = Libc.GetXattrAt(directory, Libc.Self, PosixAcl.AccessName, default, out _) != Errno.EOPNOTSUPP;
        uint flags = 0;
        bool hasFileFlags = !Libc.Ioctl(directory, InodeFlags.Get, ref flags, out _).IsError;
        return new LayerFileSystem
        {
            Uuid = uuid,
            Identity = identity,
            IsToldByUuid = isBtrfs,
            HasFileFlags = hasFileFlags,
            HasAcls = hasAcls,
        };
    }
}
