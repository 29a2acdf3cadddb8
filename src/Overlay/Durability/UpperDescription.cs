using System.Globalization;
using Veneer.Linux;

namespace Veneer.Overlay.Durability;

/// <summary>Describes an upper as it is now, in the form of a record: a mark with records of another time is compared with it.</summary>
internal static class UpperDescription
{
    /// <summary>Describes an upper.</summary>
    /// <param name="upper">The upper directory as the user named it, not opened with O_PATH.</param>
    /// <param name="workPath">The path of work from upper, without NUL; empty where it is unknown.</param>
    public static VolatileRecord Of(int upper, ReadOnlySpan<byte> workPath)
    {
        // cannot fail: the directory is open
        _ = Libc.StatAt(upper, Libc.Self, StatxMask.Basic | StatxMask.UniqueMountId, out Statx stat);
        _ = Libc.StatFileSystem(upper, out StatFs status); // cannot fail, as above
        bool isInMemory = status.Type is StatFs.TmpfsMagic or StatFs.RamfsMagic;
        uint errors = 0;
        Errno error = isInMemory ? Errno.None : ErrorSequence.Read(upper, out errors);
        return new VolatileRecord
        {
            Boot = ReadBoot(),
            Device = string.Create(CultureInfo.InvariantCulture, $"{stat.DevMajor}:{stat.DevMinor}"),
            FileSystemId = status.FsId.ToString("x", CultureInfo.InvariantCulture),
            Instance = FindInstance(upper, status, stat),
            Mount = (stat.Mask & StatxMask.UniqueMountId) != 0 ? stat.MountId : 0,
            Upper = stat.Ino,
            Errors = isInMemory || error.IsError ? null : errors,
            NoErrors = error.IsError ? VolatileRecord.ReasonOf(error) : null,
            IsInMemory = isInMemory,
            Failure = "-",
            Work = Convert.ToHexString(workPath),
        };
    }

    /// <summary>The id of the current boot, or <see cref="VolatileRecord.UnknownBoot"/>.</summary>
    private static string ReadBoot()
    {
        string text = BootId.Read();
        return text.Length is > 0 and <= 64 && text.All(c => char.IsAsciiLetterOrDigit(c) || c == '-') ? text : VolatileRecord.UnknownBoot;
    }

    /// <summary>
    /// The inode number of the filesystem's directory in sysfs, or 0. The directory is made when the filesystem is mounted,
    /// and its number is not recycled before the next boot.
    /// </summary>
    private static ulong FindInstance(int upper, in StatFs status, in Statx stat)
    {
        string type = status.Type switch
        {
            StatFs.Ext4Magic => "ext4",
            StatFs.XfsMagic => "xfs",
            StatFs.BtrfsMagic => "btrfs",
            StatFs.F2fsMagic => "f2fs",
            _ => "",
        };
        if (type.Length == 0) { return 0; }
        string name;
        if (type == "btrfs")
        {
            name = new Guid(FileSystemUuid.Of(upper), bigEndian: true).ToString();
        }
        else
        {
            Span<byte> link = stackalloc byte[1024];
            if (Libc.ReadLinkAt(Libc.AtCwd,
                PathText.Encode(string.Create(CultureInfo.InvariantCulture, $"/sys/dev/block/{stat.DevMajor}:{stat.DevMinor}")),
                link, out int length).IsError)
            {
                return 0;
            }
            name = PathText.Decode(link[..length]);
            name = name[(name.LastIndexOf('/') + 1)..];
        }
        return Libc.StatAt(Libc.AtCwd, PathText.Encode($"/sys/fs/{type}/{name}"), StatxMask.Basic, out Statx directory).IsError
            ? 0
            : directory.Ino;
    }
}
