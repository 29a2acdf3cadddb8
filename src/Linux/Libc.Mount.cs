using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>Flags of mount(2).</summary>
[Flags]
public enum MountFlags : ulong
{
    /// <summary>None.</summary>
    None = 0,
    /// <summary>MS_RDONLY.</summary>
    ReadOnly = 1,
    /// <summary>MS_NOSUID.</summary>
    NoSetUid = 2,
    /// <summary>MS_NODEV.</summary>
    NoDevices = 4,
    /// <summary>MS_NOEXEC.</summary>
    NoExecute = 8,
    /// <summary>MS_SYNCHRONOUS.</summary>
    Synchronous = 16,
    /// <summary>MS_REMOUNT.</summary>
    Remount = 32,
    /// <summary>MS_MANDLOCK.</summary>
    MandatoryLocks = 64,
    /// <summary>MS_DIRSYNC.</summary>
    DirectorySynchronous = 128,
    /// <summary>MS_NOSYMFOLLOW.</summary>
    NoSymbolicLinks = 256,
    /// <summary>MS_NOATIME.</summary>
    NoAccessTime = 1024,
    /// <summary>MS_NODIRATIME.</summary>
    NoDirectoryAccessTime = 2048,
    /// <summary>MS_BIND.</summary>
    Bind = 4096,
    /// <summary>MS_UNBINDABLE: a private mount that cannot be bound elsewhere.</summary>
    Unbindable = 1 << 17,
    /// <summary>MS_PRIVATE: mounts made inside do not propagate.</summary>
    Private = 1 << 18,
    /// <summary>MS_SHARED: mounts made inside propagate to its peers.</summary>
    Shared = 1 << 20,
    /// <summary>MS_RELATIME.</summary>
    RelativeAccessTime = 1 << 21,
    /// <summary>MS_STRICTATIME.</summary>
    StrictAccessTime = 1 << 24,
    /// <summary>MS_LAZYTIME.</summary>
    LazyTime = 1 << 25,
}

/// <summary>Attributes of a mount. See mount_setattr(2).</summary>
[Flags]
public enum MountAttributes : ulong
{
    /// <summary>None.</summary>
    None = 0,
    /// <summary>MOUNT_ATTR_RDONLY.</summary>
    ReadOnly = 1,
    /// <summary>MOUNT_ATTR_NOSUID.</summary>
    NoSetUid = 2,
    /// <summary>MOUNT_ATTR_NODEV.</summary>
    NoDevices = 4,
    /// <summary>MOUNT_ATTR_NOEXEC.</summary>
    NoExecute = 8,
    /// <summary>MOUNT_ATTR_NOSYMFOLLOW.</summary>
    NoSymbolicLinks = 0x200000,
    /// <summary>MOUNT_ATTR_NOATIME, one value of the access time field. The value zero is relatime.</summary>
    NoAccessTime = 0x10,
    /// <summary>MOUNT_ATTR_STRICTATIME, another value of the access time field.</summary>
    StrictAccessTime = 0x20,
    /// <summary>MOUNT_ATTR__ATIME: the mask of the access time field, cleared before a value is set.</summary>
    AccessTimeField = 0x70,
    /// <summary>MOUNT_ATTR_NODIRATIME.</summary>
    NoDirectoryAccessTime = 0x80,
}

public static unsafe partial class Libc
{
    private const long SysOpenTree = 428;
    private const long SysMountSetAttr = 442;
    private const long SysMoveMount = 429;

    /// <summary>Attaches a detached mount to a directory. See move_mount(2).</summary>
    /// <param name="mountDescriptor">A descriptor of the detached mount.</param>
    /// <param name="target">A descriptor of the directory; O_PATH will do.</param>
    public static Errno AttachMount(int mountDescriptor, int target)
    {
        const int fromEmptyPath = 4, toEmptyPath = 0x40;
        fixed (byte* p = Self)
        {
            return Check(syscall(SysMoveMount, mountDescriptor, (nint)p, target, (nint)p, fromEmptyPath | toEmptyPath, 0));
        }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int mount(byte* source, byte* target, byte* type, ulong flags, byte* data);

    /// <summary>See mount(2).</summary>
    public static Errno Mount(ReadOnlySpan<byte> source, ReadOnlySpan<byte> target, ReadOnlySpan<byte> type, MountFlags flags,
        ReadOnlySpan<byte> data)
    {
        fixed (byte* s = source, t = target, k = type, d = data) { return Check(mount(s, t, k, (ulong)flags, d)); }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int umount2(byte* target, int flags);

    /// <summary>Unmounts, lazily (MNT_DETACH) on request. Does not follow a symbolic link. See umount2(2).</summary>
    public static Errno Unmount(ReadOnlySpan<byte> target, bool lazy)
    {
        fixed (byte* t = target) { return Check(umount2(t, (lazy ? 2 : 0) | 8)); }
    }

    /// <summary>Marks an unused mount as expired (MNT_EXPIRE), or unmounts it if it has the mark already. See umount2(2).</summary>
    /// <remarks>Any use of the mount removes the mark: opening it and closing it again is enough.</remarks>
    /// <returns>
    /// <see cref="Errno.EAGAIN"/> when the mount is marked now; <see cref="Errno.EBUSY"/> when it is in use, or a mount
    /// lies inside it.
    /// </returns>
    public static Errno MarkExpired(ReadOnlySpan<byte> target)
    {
        fixed (byte* t = target) { return Check(umount2(t, 4 | 8)); }
    }

    /// <summary>Makes a detached copy of the mount that holds a directory, rooted at that directory. See open_tree(2).</summary>
    /// <remarks>
    /// Mounts below the directory are not copied. The copy lives until its descriptor and every file opened through it are
    /// closed.
    /// </remarks>
    /// <returns>
    /// <see cref="Errno.EPERM"/> without CAP_SYS_ADMIN in the mount namespace; <see cref="Errno.EINVAL"/> when a locked
    /// mount lies below the directory.
    /// </returns>
    public static Errno CloneMount(int directory, out int descriptor)
    {
        const int openTreeClone = 1;
        fixed (byte* p = Self)
        {
            Errno error = Check(syscall(SysOpenTree, directory, (nint)p, openTreeClone | (int)OpenFlags.CloseOnExec | AtEmptyPath, 0, 0, 0),
                out descriptor);
            if (error.IsError) { descriptor = -1; }
            return error;
        }
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct MountAttributeArguments
    {
        public ulong Set;
        public ulong Clear;
        public ulong Propagation;
        public ulong UserNamespace;
    }

    /// <summary>Changes attributes of a mount. See mount_setattr(2).</summary>
    public static Errno SetMountAttributes(int mountDescriptor, MountAttributes set, MountAttributes clear)
    {
        var arguments = new MountAttributeArguments { Set = (ulong)set, Clear = (ulong)clear };
        fixed (byte* p = Self)
        {
            return Check(syscall(SysMountSetAttr, mountDescriptor, (nint)p, AtEmptyPath, (nint)(&arguments),
                sizeof(MountAttributeArguments), 0));
        }
    }
}
