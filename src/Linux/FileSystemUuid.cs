using System.Runtime.CompilerServices;

namespace Veneer.Linux;

/// <summary>Reads the UUID of a filesystem, as the kernel has it in s_uuid and writes it into origins.</summary>
public static class FileSystemUuid
{
    /// <summary>The length of a UUID in bytes.</summary>
    public const int Length = 16;

    private const ulong GetUuid = 0x80111500; // FS_IOC_GETFSUUID, Linux 6.9: for filesystems that set the length of their UUID
    private const ulong GetExt4Uuid = 0x8008662C; // EXT4_IOC_GETFSUUID, Linux 6.0
    private const ulong GetXfsGeometry = 0x80705864; // XFS_IOC_FSGEOMETRY_V1
    private const ulong GetBtrfs = 0x8400941F; // BTRFS_IOC_FS_INFO

    /// <summary>The result of FS_IOC_GETFSUUID, <c>struct fsuuid2</c>: a length and 16 bytes.</summary>
    [InlineArray(1 + Length)]
    private struct Common
    {
        private byte first;
    }

    /// <summary>The result of EXT4_IOC_GETFSUUID, <c>struct fsuuid</c>: a length, flags and 16 bytes.</summary>
    [InlineArray(8 + Length)]
    private struct Ext4
    {
        private byte first;
    }

    /// <summary>The result of XFS_IOC_FSGEOMETRY_V1, <c>struct xfs_fsop_geom_v1</c>: the UUID is at offset 64.</summary>
    [InlineArray(112)]
    private struct Xfs
    {
        private byte first;
    }

    /// <summary>The result of BTRFS_IOC_FS_INFO, <c>struct btrfs_ioctl_fs_info_args</c>: the UUID is at offset 16.</summary>
    [InlineArray(1024)]
    private struct Btrfs
    {
        private byte first;
    }

    /// <summary>Reads the UUID of a directory's filesystem. Zeros when the filesystem has none or does not tell it.</summary>
    /// <param name="directory">A descriptor of the directory, opened for reading.</param>
    public static byte[] Of(int directory)
    {
        var common = default(Common);
        if (Libc.Ioctl(directory, GetUuid, ref common, out _).IsError) { return OfType(directory); }
        Span<byte> value = common;
        return Sixteen(value.Slice(1, Math.Min((int)value[0], Length)));
    }

    /// <summary>Reads the UUID like <see cref="Of"/>, for an O_PATH descriptor.</summary>
    public static byte[] OfPath(int directory)
    {
        if (Libc.Reopen(directory, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoAccessTime, out int descriptor).IsError)
        {
            return new byte[Length];
        }
        byte[] uuid = Of(descriptor);
        Libc.Close(descriptor);
        return uuid;
    }

    /// <summary>Reads the UUID with the filesystem's own ioctl: before Linux 6.9, and for btrfs.</summary>
    private static byte[] OfType(int directory)
    {
        if (Libc.StatFileSystem(directory, out StatFs status).IsError) { return new byte[Length]; }
        switch (status.Type)
        {
            case StatFs.Ext4Magic:
                var ext4 = default(Ext4);
                ((Span<byte>)ext4)[0] = Length;
                return Libc.Ioctl(directory, GetExt4Uuid, ref ext4, out _).IsError
                    ? new byte[Length]
                    : Sixteen(((Span<byte>)ext4).Slice(8, Length));
            case StatFs.XfsMagic:
                var xfs = default(Xfs);
                return Libc.Ioctl(directory, GetXfsGeometry, ref xfs, out _).IsError
                    ? new byte[Length]
                    : Sixteen(((Span<byte>)xfs).Slice(64, Length));
            case StatFs.BtrfsMagic:
                var btrfs = default(Btrfs);
                return Libc.Ioctl(directory, GetBtrfs, ref btrfs, out _).IsError
                    ? new byte[Length]
                    : Sixteen(((Span<byte>)btrfs).Slice(16, Length));
            default:
                return new byte[Length];
        }
    }

    private static byte[] Sixteen(ReadOnlySpan<byte> value)
    {
        var result = new byte[Length];
        value.CopyTo(result);
        return result;
    }
}
