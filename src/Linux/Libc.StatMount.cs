using System.Buffers.Binary;

namespace Veneer.Linux;

public static unsafe partial class Libc
{
    private const long SysStatMount = 457;

    /// <summary>The first buffer size to try, in bytes; the options of a mount may need more.</summary>
    private const int StatMountSize = 4096;

    /// <summary>Gets one mount from the kernel, without the escapes and the length of a mount table. See statmount(2).</summary>
    /// <param name="mountId">The mount id that is never recycled, <see cref="StatxMask.UniqueMountId"/>.</param>
    /// <param name="entry">
    /// The mount as mountinfo would show it, except that its options lack the superblock's flags (rw, sync). Null on an
    /// error.
    /// </param>
    /// <returns>
    /// <see cref="Errno.ENOSYS"/> before Linux 6.8; <see cref="Errno.EOPNOTSUPP"/> before Linux 6.13, where fields are
    /// missing; <see cref="Errno.ENOENT"/> when the mount is not in this mount namespace; <see cref="Errno.EPERM"/> when
    /// the mount is not reachable from the root directory and the caller lacks CAP_SYS_ADMIN.
    /// </returns>
    public static Errno StatMount(ulong mountId, out MountEntry? entry)
    {
        // STATMOUNT_SB_BASIC, MNT_BASIC, MNT_ROOT, MNT_POINT, FS_TYPE, FS_SUBTYPE, SB_SOURCE, OPT_ARRAY.
        const ulong mask = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x100 | 0x200 | 0x400;
        const ulong required = mask & ~0x500UL; // a filesystem may have no subtype, and no options
        const int strings = 512;
        entry = null;
        Span<ulong> request = [24, mountId, mask]; // struct mnt_id_req of 24 bytes: its size, the mount, what to tell
        for (int size = StatMountSize; ; size *= 4)
        {
            byte[] buffer = new byte[size];
            Errno error;
            fixed (ulong* r = request)
            fixed (byte* b = buffer)
            {
                error = SystemCall(SysStatMount, (nint)r, (nint)b, size, 0, out _);
            }
            if (error == Errno.EOVERFLOW && size < 1 << 24) { continue; }
            if (error.IsError) { return error; }
            ulong told = At64(8);
            if ((told & required) != required) { return Errno.EOPNOTSUPP; }
            string subtype = (told & 0x100) != 0 ? Text(120) : "";
            entry = new MountEntry
            {
                Id = (int)At32(56),
                Parent = (int)At32(60),
                Device = $"{At32(16)}:{At32(20)}",
                Root = Text(104),
                MountPoint = Text(108),
                Options = FlagsOf(At64(64)),
                Type = subtype.Length > 0 ? $"{Text(36)}.{subtype}" : Text(36),
                Source = Text(124),
                FileSystemFlags = FlagsOfFileSystem(At32(32)),
                Propagation = PropagationOf(At64(72), At64(88)),
                FileSystemOptions = (told & 0x400) != 0 ? Texts(132, (int)At32(128)) : [],
            };
            return Errno.None;

            uint At32(int offset) => BinaryPrimitives.ReadUInt32LittleEndian(buffer.AsSpan(offset));
            ulong At64(int offset) => BinaryPrimitives.ReadUInt64LittleEndian(buffer.AsSpan(offset));
            string Text(int offset) => PathText.Decode(buffer.AsSpan(strings + (int)At32(offset)));

            List<string> Texts(int offset, int count)
            {
                var texts = new List<string>(count);
                ReadOnlySpan<byte> rest = buffer.AsSpan(strings + (int)At32(offset));
                for (int i = 0; i < count; i++)
                {
                    int end = rest.IndexOf((byte)0);
                    texts.Add(PathText.Decode(rest[..end]));
                    rest = rest[(end + 1)..];
                }
                return texts;
            }
        }
    }

    /// <summary>Names SB_ flags in the words and the order of mountinfo.</summary>
    private static List<string> FlagsOfFileSystem(uint flags)
    {
        List<string> words = [(flags & 1) != 0 ? "ro" : "rw"];
        foreach ((uint flag, string word) in ((uint, string)[])[(0x10, "sync"), (0x80, "dirsync"), (0x40, "mand"), (0x2000000, "lazytime")])
        {
            if ((flags & flag) != 0) { words.Add(word); }
        }
        return words;
    }

    private static List<string> PropagationOf(ulong propagation, ulong master)
    {
        List<string> words = [];
        if ((propagation & (ulong)MountFlags.Shared) != 0) { words.Add("shared"); }
        if (master != 0) { words.Add("slave"); }
        if ((propagation & (ulong)MountFlags.Unbindable) != 0) { words.Add("unbindable"); }
        return words;
    }

    /// <summary>Names MOUNT_ATTR_ flags in the words and the order of mountinfo.</summary>
    private static string FlagsOf(ulong attributes)
    {
        List<string> words = [(attributes & 1) != 0 ? "ro" : "rw"];
        foreach ((ulong flag, string word) in ((ulong, string)[])[(2, "nosuid"), (4, "nodev"), (8, "noexec"), (0x10, "noatime"),
            (0x80, "nodiratime")])
        {
            if ((attributes & flag) != 0) { words.Add(word); }
        }
        if ((attributes & 0x70) == 0) { words.Add("relatime"); } // MOUNT_ATTR__ATIME
        if ((attributes & 0x200000) != 0) { words.Add("nosymfollow"); }
        return string.Join(',', words);
    }
}
