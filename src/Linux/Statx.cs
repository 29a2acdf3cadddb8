using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>File type bits of a mode. See inode(7).</summary>
public static class FileType
{
    /// <summary>Mask of the type bits (S_IFMT).</summary>
    public const uint Mask = 0xF000;
    /// <summary>Socket.</summary>
    public const uint Socket = 0xC000;
    /// <summary>Symbolic link.</summary>
    public const uint SymbolicLink = 0xA000;
    /// <summary>Regular file.</summary>
    public const uint Regular = 0x8000;
    /// <summary>Block device.</summary>
    public const uint BlockDevice = 0x6000;
    /// <summary>Directory.</summary>
    public const uint Directory = 0x4000;
    /// <summary>Character device.</summary>
    public const uint CharacterDevice = 0x2000;
    /// <summary>FIFO.</summary>
    public const uint Fifo = 0x1000;
}

/// <summary>Permission bits with a meaning of their own. See inode(7).</summary>
public static class ModeBits
{
    /// <summary>Everything but the type (07777).</summary>
    public const uint Mask = 0xFFF;
    /// <summary>S_ISUID.</summary>
    public const uint SetUid = 0x800;
    /// <summary>S_ISGID.</summary>
    public const uint SetGid = 0x400;
    /// <summary>S_IXGRP.</summary>
    public const uint GroupExecute = 0x8;
}

/// <summary>The fields that statx(2) is asked for.</summary>
[Flags]
public enum StatxMask : uint
{
    /// <summary>Nothing.</summary>
    None = 0,
    /// <summary>What stat(2) gives (STATX_BASIC_STATS).</summary>
    Basic = 0x7FF,
    /// <summary>Time of birth.</summary>
    BirthTime = 0x800,
    /// <summary>The mount id, recycled after unmount.</summary>
    MountId = 0x1000,
    /// <summary>The mount id that is never recycled (STATX_MNT_ID_UNIQUE, Linux 6.8).</summary>
    UniqueMountId = 0x4000,
}

/// <summary><c>struct statx_timestamp</c>: seconds and nanoseconds since the epoch.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct StatxTime
{
    /// <summary>Seconds.</summary>
    public long Seconds;
    /// <summary>Nanoseconds, below 10^9.</summary>
    public uint Nanoseconds;
    private int reserved;
}

/// <summary><c>struct statx</c>. See statx(2).</summary>
[StructLayout(LayoutKind.Sequential, Size = 256)]
public struct Statx
{
    /// <summary>The fields that the kernel filled.</summary>
    public StatxMask Mask;
    /// <summary>Preferred size of reads and writes, in bytes.</summary>
    public uint BlockSize;
    /// <summary>STATX_ATTR_ flags.</summary>
    public ulong Attributes;
    /// <summary>Number of hard links.</summary>
    public uint Nlink;
    /// <summary>Owner.</summary>
    public uint Uid;
    /// <summary>Group.</summary>
    public uint Gid;
    /// <summary>Type and permissions.</summary>
    public ushort Mode;
    private ushort padding;
    /// <summary>Inode number.</summary>
    public ulong Ino;
    /// <summary>Size in bytes.</summary>
    public ulong Size;
    /// <summary>Allocated blocks of 512 bytes.</summary>
    public ulong Blocks;
    /// <summary>Which bits of <see cref="Attributes"/> are supported.</summary>
    public ulong AttributesMask;
    /// <summary>Last access.</summary>
    public StatxTime AccessTime;
    /// <summary>Birth.</summary>
    public StatxTime BirthTime;
    /// <summary>Last change of attributes.</summary>
    public StatxTime ChangeTime;
    /// <summary>Last change of content.</summary>
    public StatxTime ModifyTime;
    /// <summary>Major number of the device that a device file stands for.</summary>
    public uint RdevMajor;
    /// <summary>Minor number of the device that a device file stands for.</summary>
    public uint RdevMinor;
    /// <summary>Major number of the device that holds the file.</summary>
    public uint DevMajor;
    /// <summary>Minor number of the device that holds the file.</summary>
    public uint DevMinor;
    /// <summary>The mount id, of the kind that was asked for.</summary>
    public ulong MountId;

    /// <summary>STATX_ATTR_MOUNT_ROOT: the object is the root of a mount.</summary>
    public const ulong AttributeMountRoot = 0x2000;

    /// <summary>The type bits of <see cref="Mode"/>.</summary>
    public readonly uint Type => Mode & FileType.Mask;
    /// <summary>Whether this is a directory.</summary>
    public readonly bool IsDirectory => Type == FileType.Directory;
    /// <summary>Whether this is a regular file.</summary>
    public readonly bool IsRegular => Type == FileType.Regular;
    /// <summary>Whether this is a symbolic link.</summary>
    public readonly bool IsSymbolicLink => Type == FileType.SymbolicLink;
    /// <summary>Whether this is a character device with number 0:0, a whiteout of overlayfs.</summary>
    public readonly bool IsWhiteoutDevice => Type == FileType.CharacterDevice && RdevMajor == 0 && RdevMinor == 0;
    /// <summary>The device that holds the file, as one number.</summary>
    public readonly ulong Dev => ((ulong)DevMajor << 32) | DevMinor;
    /// <summary>The device number in the kernel's 32-bit encoding (new_encode_dev).</summary>
    public readonly uint Rdev => DeviceNumber.Encode(RdevMajor, RdevMinor);
}

/// <summary>Device numbers in the 32-bit encoding of mknod(2) and of the FUSE protocol (new_encode_dev).</summary>
public static class DeviceNumber
{
    /// <summary>Packs a major and a minor number.</summary>
    public static uint Encode(uint major, uint minor) => (minor & 0xFF) | (major << 8) | ((minor & ~0xFFu) << 12);
    /// <summary>The major number.</summary>
    public static uint Major(uint device) => (device & 0xFFF00) >> 8;
    /// <summary>The minor number.</summary>
    public static uint Minor(uint device) => (device & 0xFF) | ((device >> 12) & 0xFFF00);
}

/// <summary><c>struct timespec</c>, for utimensat(2).</summary>
[StructLayout(LayoutKind.Sequential)]
public struct TimeSpec
{
    /// <summary>Seconds.</summary>
    public long Seconds;
    /// <summary>Nanoseconds, or <see cref="Now"/>, or <see cref="Omit"/>.</summary>
    public long Nanoseconds;

    /// <summary>UTIME_NOW.</summary>
    public const long NowNanoseconds = 0x3FFFFFFF;
    /// <summary>UTIME_OMIT.</summary>
    public const long OmitNanoseconds = 0x3FFFFFFE;

    /// <summary>Sets the time to now.</summary>
    public static TimeSpec Now => new() { Nanoseconds = NowNanoseconds };
    /// <summary>Leaves the time alone.</summary>
    public static TimeSpec Omit => new() { Nanoseconds = OmitNanoseconds };
    /// <summary>Converts a time of statx(2).</summary>
    public static TimeSpec From(in StatxTime time) => new() { Seconds = time.Seconds, Nanoseconds = time.Nanoseconds };
}

/// <summary><c>struct statfs</c> on 64-bit Linux. See statfs(2).</summary>
[StructLayout(LayoutKind.Sequential, Size = 120)]
public struct StatFs
{
    /// <summary>Magic number of the filesystem's type.</summary>
    public long Type;
    /// <summary>Optimal transfer size in bytes.</summary>
    public long BlockSize;
    /// <summary>All blocks.</summary>
    public ulong Blocks;
    /// <summary>Free blocks.</summary>
    public ulong BlocksFree;
    /// <summary>Free blocks for unprivileged users.</summary>
    public ulong BlocksAvailable;
    /// <summary>All inodes.</summary>
    public ulong Files;
    /// <summary>Free inodes.</summary>
    public ulong FilesFree;
    /// <summary>The filesystem's id (f_fsid).</summary>
    public ulong FsId;
    /// <summary>Longest name in bytes.</summary>
    public long NameLength;
    /// <summary>Fragment size in bytes.</summary>
    public long FragmentSize;
    /// <summary>Mount flags (ST_).</summary>
    public long Flags;

    /// <summary>FUSE_SUPER_MAGIC.</summary>
    public const long FuseMagic = 0x65735546;
    /// <summary>PROC_SUPER_MAGIC.</summary>
    public const long ProcMagic = 0x9fa0;
    /// <summary>TMPFS_MAGIC.</summary>
    public const long TmpfsMagic = 0x01021994;
    /// <summary>RAMFS_MAGIC.</summary>
    public const long RamfsMagic = 0x858458f6;
    /// <summary>EXT4_SUPER_MAGIC, also of ext2 and ext3.</summary>
    public const long Ext4Magic = 0xEF53;
    /// <summary>XFS_SUPER_MAGIC.</summary>
    public const long XfsMagic = 0x58465342;
    /// <summary>BTRFS_SUPER_MAGIC.</summary>
    public const long BtrfsMagic = 0x9123683E;
    /// <summary>F2FS_SUPER_MAGIC.</summary>
    public const long F2fsMagic = 0xF2F52010;
    /// <summary>OVERLAYFS_SUPER_MAGIC.</summary>
    public const long OverlayMagic = 0x794c7630;
}
