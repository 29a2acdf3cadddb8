using Veneer.Linux;

namespace Veneer.Overlay.Layers;

/// <summary>What distinguishes one real object of a layer from another.</summary>
internal enum RealIdentity
{
    /// <summary>The object's st_dev and st_ino, as POSIX has it.</summary>
    Numbers,

    /// <summary>
    /// The object's place if it is a directory, otherwise its numbers. On kernel overlayfs a directory gets another number
    /// whenever the kernel has forgotten it.
    /// </summary>
    NamesOfDirectories,

    /// <summary>The object's place: its directory and its name there. Other objects may have the same numbers.</summary>
    Names,
}

/// <summary>Tells which filesystems have reliable inode numbers.</summary>
/// <remarks>
/// A filesystem that passes on the numbers of several others (FUSE, network filesystems, what a hypervisor shares) may have
/// two files with one number. vfat makes numbers up, and makes up others after it has forgotten an inode. cramfs gives files
/// of the same content the same number. So the types that are known to have reliable numbers are named here, and no others
/// are trusted.
/// </remarks>
internal static class RealIdentities
{
    /// <summary>Determines what distinguishes objects in the filesystem of a directory.</summary>
    /// <param name="directory">A descriptor of the directory.</param>
    public static RealIdentity Of(int directory) => Of(directory, out _);

    /// <inheritdoc cref="Of(int)"/>
    /// <param name="directory">A descriptor of the directory.</param>
    /// <param name="isBtrfs">Whether the filesystem is btrfs.</param>
    public static RealIdentity Of(int directory, out bool isBtrfs)
    {
        isBtrfs = false;
        if (Libc.StatFileSystem(directory, out StatFs status).IsError) { return RealIdentity.Names; }
        isBtrfs = status.Type == StatFs.BtrfsMagic;
        return status.Type switch
        {
            StatFs.TmpfsMagic or StatFs.RamfsMagic or StatFs.Ext4Magic or StatFs.XfsMagic or StatFs.BtrfsMagic or StatFs.F2fsMagic =>
                RealIdentity.Numbers,
            0x73717368 or 0xE0F5E1E2 => RealIdentity.Numbers, // squashfs, erofs
            0x9660 or 0x15013346 or 0x7275 => RealIdentity.Numbers, // iso9660, udf, romfs
            0x2FC12FC1 or 0x3153464A or 0x52654973 or 0x3434 => RealIdentity.Numbers, // zfs, jfs, reiserfs, nilfs2
            0x7461636F or 0x01161970 => RealIdentity.Numbers, // ocfs2, gfs2
            0x24051905 or 0x72B6 => RealIdentity.Numbers, // ubifs, jffs2
            0x7366746E or 0x482B => RealIdentity.Numbers, // ntfs3, hfsplus
            StatFs.OverlayMagic => RealIdentity.NamesOfDirectories,
            _ => RealIdentity.Names,
        };
    }

    /// <summary>Whether an object is identified by its place.</summary>
    public static bool IsByName(this RealIdentity identity, in Statx stat) => identity.IsByName(stat.IsDirectory);

    /// <summary>Whether a directory, or any other object, is identified by its place.</summary>
    public static bool IsByName(this RealIdentity identity, bool isDirectory) =>
        identity == RealIdentity.Names || (identity == RealIdentity.NamesOfDirectories && isDirectory);
}
