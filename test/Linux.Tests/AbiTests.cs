using System.Reflection;

namespace Veneer.Linux.Tests;

/// <summary>The kernel's structures and numbers, compared with the C compiler's.</summary>
public sealed class AbiTests
{
    private static Type Private(string name) => typeof(Libc).GetNestedType(name, BindingFlags.NonPublic)!;

    private static Type Ring(string name) => typeof(IoUring).GetNestedType(name, BindingFlags.NonPublic)!;

    private static long Number(string name) => NumberOf(typeof(Libc), name);

    private static long NumberOf(Type type, string name) =>
        Convert.ToInt64(type.GetField(name, BindingFlags.NonPublic | BindingFlags.Static)!.GetRawConstantValue(), null);

    /// <summary>What the kernel's own headers say, and numbers that are newer than these headers may be.</summary>
    private static readonly CFacts kernel = new CFacts("""
        #define _GNU_SOURCE
        #include <sys/types.h>
        #include <sys/uio.h>
        #include <errno.h>
        #include <asm/statfs.h>
        #include <linux/falloc.h>
        #include <linux/fcntl.h>
        #include <linux/fs.h>
        #include <linux/io_uring.h>
        #include <linux/magic.h>
        #include <linux/mount.h>
        #include <linux/openat2.h>
        #include <linux/stat.h>
        #include <linux/time_types.h>
        #include <linux/xattr.h>
        #include <asm/unistd.h>

        #ifndef IORING_SETUP_NO_SQARRAY
        #define IORING_SETUP_NO_SQARRAY (1U << 16) /* Linux 6.6 */
        #endif
        #ifndef STATX_MNT_ID_UNIQUE
        #define STATX_MNT_ID_UNIQUE 0x4000 /* Linux 6.8 */
        #endif
        #ifndef __NR_fchmodat2
        #define __NR_fchmodat2 452 /* Linux 6.6; one number on every architecture, as for all newer calls */
        #endif
        #ifndef __NR_statmount
        #define __NR_statmount 457 /* Linux 6.8 */
        #endif
        #ifndef __NR_setxattrat
        #define __NR_setxattrat 463 /* Linux 6.13 */
        #define __NR_getxattrat 464
        #define __NR_listxattrat 465
        #define __NR_removexattrat 466
        #endif
        /* Linux 6.13: linux/xattr.h has it there. */
        struct our_xattr_args { __u64 value __attribute__((aligned(8))); __u32 size; __u32 flags; };
        """)
        .Constants(typeof(Errno), name => name == nameof(Errno.None) ? null : name)
        .Constants(typeof(OpenFlags), name => name switch
        {
            nameof(OpenFlags.ReadOnly) => "O_RDONLY",
            nameof(OpenFlags.WriteOnly) => "O_WRONLY",
            nameof(OpenFlags.ReadWrite) => "O_RDWR",
            nameof(OpenFlags.AccessMode) => "O_ACCMODE",
            nameof(OpenFlags.Execute) => null, // not for user space, but FUSE shows it
            nameof(OpenFlags.Create) => "O_CREAT",
            nameof(OpenFlags.Exclusive) => "O_EXCL",
            nameof(OpenFlags.NoCtty) => "O_NOCTTY",
            nameof(OpenFlags.Truncate) => "O_TRUNC",
            nameof(OpenFlags.DataSync) => "O_DSYNC",
            nameof(OpenFlags.NoAccessTime) => "O_NOATIME",
            nameof(OpenFlags.CloseOnExec) => "O_CLOEXEC",
            nameof(OpenFlags.TemporaryFile) => "O_TMPFILE",
            _ => "O_" + name.ToUpperInvariant(),
        })
        .Constants(typeof(ResolveFlags), name => name switch
        {
            nameof(ResolveFlags.None) => "0",
            nameof(ResolveFlags.NoCrossDevice) => "RESOLVE_NO_XDEV",
            nameof(ResolveFlags.NoMagicLinks) => "RESOLVE_NO_MAGICLINKS",
            nameof(ResolveFlags.NoSymbolicLinks) => "RESOLVE_NO_SYMLINKS",
            nameof(ResolveFlags.InRoot) => "RESOLVE_IN_ROOT",
            nameof(ResolveFlags.Confined) => "RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV",
            _ => "RESOLVE_" + name.ToUpperInvariant(),
        })
        .Constants(typeof(RenameFlags), name => name == nameof(RenameFlags.None) ? "0" : "RENAME_" + name.ToUpperInvariant())
        .Constants(typeof(AllocateMode), name => name switch
        {
            nameof(AllocateMode.Default) => "0",
            nameof(AllocateMode.KeepSize) => "FALLOC_FL_KEEP_SIZE",
            nameof(AllocateMode.PunchHole) => "FALLOC_FL_PUNCH_HOLE",
            nameof(AllocateMode.CollapseRange) => "FALLOC_FL_COLLAPSE_RANGE",
            nameof(AllocateMode.ZeroRange) => "FALLOC_FL_ZERO_RANGE",
            nameof(AllocateMode.InsertRange) => "FALLOC_FL_INSERT_RANGE",
            _ => name,
        })
        .Constants(typeof(SeekWhence), name => "SEEK_" + name.ToUpperInvariant())
        .Constants(typeof(XattrFlags), name => name == nameof(XattrFlags.None) ? "0" : "XATTR_" + name.ToUpperInvariant())
        .Constants(typeof(MountFlags), name => name switch
        {
            nameof(MountFlags.None) => "0",
            nameof(MountFlags.ReadOnly) => "MS_RDONLY",
            nameof(MountFlags.NoSetUid) => "MS_NOSUID",
            nameof(MountFlags.NoDevices) => "MS_NODEV",
            nameof(MountFlags.NoExecute) => "MS_NOEXEC",
            nameof(MountFlags.DirectorySynchronous) => "MS_DIRSYNC",
            nameof(MountFlags.NoSymbolicLinks) => "MS_NOSYMFOLLOW",
            nameof(MountFlags.NoAccessTime) => "MS_NOATIME",
            nameof(MountFlags.NoDirectoryAccessTime) => "MS_NODIRATIME",
            nameof(MountFlags.RelativeAccessTime) => "MS_RELATIME",
            nameof(MountFlags.StrictAccessTime) => "MS_STRICTATIME",
            nameof(MountFlags.MandatoryLocks) => "MS_MANDLOCK",
            _ => "MS_" + name.ToUpperInvariant(),
        })
        .Constants(typeof(MountAttributes), name => name switch
        {
            nameof(MountAttributes.None) => "0",
            nameof(MountAttributes.ReadOnly) => "MOUNT_ATTR_RDONLY",
            nameof(MountAttributes.NoSetUid) => "MOUNT_ATTR_NOSUID",
            nameof(MountAttributes.NoDevices) => "MOUNT_ATTR_NODEV",
            nameof(MountAttributes.NoExecute) => "MOUNT_ATTR_NOEXEC",
            nameof(MountAttributes.NoSymbolicLinks) => "MOUNT_ATTR_NOSYMFOLLOW",
            nameof(MountAttributes.StrictAccessTime) => "MOUNT_ATTR_STRICTATIME",
            nameof(MountAttributes.NoAccessTime) => "MOUNT_ATTR_NOATIME",
            nameof(MountAttributes.AccessTimeField) => "MOUNT_ATTR__ATIME",
            nameof(MountAttributes.NoDirectoryAccessTime) => "MOUNT_ATTR_NODIRATIME",
            _ => name,
        })
        .Constants(typeof(StatxMask), name => name switch
        {
            nameof(StatxMask.None) => "0",
            nameof(StatxMask.Basic) => "STATX_BASIC_STATS",
            nameof(StatxMask.BirthTime) => "STATX_BTIME",
            nameof(StatxMask.MountId) => "STATX_MNT_ID",
            nameof(StatxMask.UniqueMountId) => null, // Linux 6.8
            _ => name,
        })
        .Structure(typeof(StatxTime), "struct statx_timestamp", "tv_sec tv_nsec __reserved")
        .Structure(typeof(Statx), "struct statx", """
            stx_mask stx_blksize stx_attributes stx_nlink stx_uid stx_gid stx_mode __spare0 stx_ino stx_size stx_blocks
            stx_attributes_mask stx_atime stx_btime stx_ctime stx_mtime stx_rdev_major stx_rdev_minor stx_dev_major
            stx_dev_minor stx_mnt_id
            """)
        .Constant(nameof(Statx), "STATX_ATTR_MOUNT_ROOT", (long)Statx.AttributeMountRoot)
        .Structure(typeof(StatFs), "struct statfs",
            "f_type f_bsize f_blocks f_bfree f_bavail f_files f_ffree f_fsid f_namelen f_frsize f_flags")
        .Constant(nameof(StatFs), "FUSE_SUPER_MAGIC", StatFs.FuseMagic)
        .Constant(nameof(StatFs), "OVERLAYFS_SUPER_MAGIC", StatFs.OverlayMagic)
        .Structure(typeof(TimeSpec), "struct __kernel_timespec", "tv_sec tv_nsec")
        .Structure(Private("OpenHow"), "struct open_how", "flags mode resolve")
        .Structure(Private("MountAttributeArguments"), "struct mount_attr", "attr_set attr_clr propagation userns_fd")
        .Structure(Private("XattrArguments"), "struct our_xattr_args", "value size flags")
        .Constant("At", "AT_FDCWD", Libc.AtCwd)
        .Constant("At", "AT_SYMLINK_NOFOLLOW", Number("AtSymlinkNoFollow"))
        .Constant("At", "AT_REMOVEDIR", Number("AtRemoveDirectory"))
        .Constant("At", "AT_SYMLINK_FOLLOW", Number("AtSymlinkFollow"))
        .Constant("At", "AT_EMPTY_PATH", Number("AtEmptyPath"))
        .Constant("At", "AT_EACCESS", Number("AtEffectiveIds"))
        .Constant("Ioctl", "FICLONE", Number("FiClone"))
        .Constant("Syscall", "__NR_openat2", Number("SysOpenAt2"))
        .Constant("Syscall", "__NR_pidfd_open", Number("SysPidFdOpen"))
        .Constant("Syscall", "__NR_faccessat2", Number("SysFaccessAt2"))
        .Constant("Syscall", "__NR_fchmodat2", Number("SysFchmodAt2"))
        .Constant("Syscall", "__NR_getdents64", Number("SysGetDents64"))
        .Constant("Syscall", "__NR_statmount", Number("SysStatMount"))
        .Constant("Syscall", "__NR_setxattrat", Number("SysSetXattrAt"))
        .Constant("Syscall", "__NR_getxattrat", Number("SysGetXattrAt"))
        .Constant("Syscall", "__NR_listxattrat", Number("SysListXattrAt"))
        .Constant("Syscall", "__NR_removexattrat", Number("SysRemoveXattrAt"))
        .Constant("Syscall", "__NR_open_tree", Number("SysOpenTree"))
        .Constant("Syscall", "__NR_mount_setattr", Number("SysMountSetAttr"))
        .Constant("Syscall", "__NR_setfsuid", Number("SysSetFsUid"))
        .Constant("Syscall", "__NR_setfsgid", Number("SysSetFsGid"))
        .Structure(Ring("Parameters"), "struct io_uring_params", """
            sq_entries cq_entries flags sq_thread_cpu sq_thread_idle features wq_fd resv[0] resv[1] resv[2] sq_off cq_off
            """)
        .Structure(Ring("SubmissionOffsets"), "struct io_sqring_offsets", "head tail ring_mask ring_entries flags dropped array resv1 -")
        .Structure(Ring("CompletionOffsets"), "struct io_cqring_offsets", "head tail ring_mask ring_entries overflow cqes flags resv1 -")
        .Structure(Ring("SubmissionEntry"), "struct io_uring_sqe", "opcode fd cmd_op addr len user_data -",
            size: "2 * sizeof(struct io_uring_sqe)")
        .Structure(Ring("CompletionEntry"), "struct io_uring_cqe", "user_data res flags")
        .Constant("IoUring", "offsetof(struct io_uring_sqe, cmd)", Layout.Of(Ring("SubmissionEntry"))[^1].Offset)
        .Constant("IoUring", "__NR_io_uring_setup", NumberOf(typeof(IoUring), "SysSetup"))
        .Constant("IoUring", "__NR_io_uring_enter", NumberOf(typeof(IoUring), "SysEnter"))
        .Constant("IoUring", "__NR_io_uring_register", NumberOf(typeof(IoUring), "SysRegister"))
        .Constant("IoUring", "IORING_SETUP_R_DISABLED", NumberOf(typeof(IoUring), "SetupDisabled"))
        .Constant("IoUring", "IORING_SETUP_SQE128", NumberOf(typeof(IoUring), "SetupSubmissionEntry128"))
        .Constant("IoUring", "IORING_SETUP_SINGLE_ISSUER", NumberOf(typeof(IoUring), "SetupSingleIssuer"))
        .Constant("IoUring", "IORING_SETUP_DEFER_TASKRUN", NumberOf(typeof(IoUring), "SetupDeferTaskRun"))
        .Constant("IoUring", "IORING_SETUP_NO_SQARRAY", NumberOf(typeof(IoUring), "SetupNoArray"))
        .Constant("IoUring", "IORING_ENTER_GETEVENTS", NumberOf(typeof(IoUring), "EnterGetEvents"))
        .Constant("IoUring", "IORING_REGISTER_ENABLE_RINGS", NumberOf(typeof(IoUring), "RegisterEnableRings"))
        .Constant("IoUring", "IORING_OFF_SQES", NumberOf(typeof(IoUring), "OffsetOfEntries"))
        .Constant("IoUring", "IORING_OP_URING_CMD", NumberOf(typeof(IoUring), "OpcodeUringCommand"));

    /// <summary>What only the C library's headers have; they do not go together with the kernel's.</summary>
    private static readonly CFacts library = new CFacts("""
        #define _GNU_SOURCE
        #include <sys/types.h>
        #include <fcntl.h>
        #include <unistd.h>
        #include <sys/stat.h>
        #include <sys/sysmacros.h>
        #include <sys/mman.h>
        #include <sys/socket.h>
        #include <sys/resource.h>
        #include <sys/un.h>
        #include <poll.h>
        #include <spawn.h>
        #include <time.h>
        """)
        .Structure(typeof(FileHandle), "struct file_handle", "handle_bytes handle_type -")
        .Constant("FileHandle content", "offsetof(struct file_handle, f_handle)", Layout.Of(typeof(FileHandle))[2].Offset)
        .Constant("FileHandle content", "MAX_HANDLE_SZ", FileHandle.MaxLength)
        .Structure(typeof(TimeSpec), "struct timespec", "tv_sec tv_nsec")
        .Constant(nameof(TimeSpec), "UTIME_NOW", TimeSpec.NowNanoseconds)
        .Constant(nameof(TimeSpec), "UTIME_OMIT", TimeSpec.OmitNanoseconds)
        .Constants(typeof(FileType), name => name switch
        {
            nameof(FileType.Mask) => "S_IFMT",
            nameof(FileType.Socket) => "S_IFSOCK",
            nameof(FileType.SymbolicLink) => "S_IFLNK",
            nameof(FileType.Regular) => "S_IFREG",
            nameof(FileType.BlockDevice) => "S_IFBLK",
            nameof(FileType.Directory) => "S_IFDIR",
            nameof(FileType.CharacterDevice) => "S_IFCHR",
            nameof(FileType.Fifo) => "S_IFIFO",
            _ => name,
        })
        .Constants(typeof(ModeBits), name => name switch
        {
            nameof(ModeBits.Mask) => "07777",
            nameof(ModeBits.SetUid) => "S_ISUID",
            nameof(ModeBits.SetGid) => "S_ISGID",
            nameof(ModeBits.GroupExecute) => "S_IXGRP",
            _ => name,
        })
        .Constants(typeof(AccessMode), name => name switch
        {
            nameof(AccessMode.Execute) => "X_OK",
            nameof(AccessMode.Write) => "W_OK",
            nameof(AccessMode.Read) => "R_OK",
            _ => name,
        })
        .Constant("Map", "PROT_READ", NumberOf(typeof(IoUring), "ProtectRead"))
        .Constant("Map", "PROT_WRITE", NumberOf(typeof(IoUring), "ProtectWrite"))
        .Constant("Map", "MAP_SHARED", NumberOf(typeof(IoUring), "MapShared"))
        .Constant("Map", "MAP_POPULATE", NumberOf(typeof(IoUring), "MapPopulate"))
        .Structure(Private("IoVec"), "struct iovec", "iov_base iov_len")
        .Structure(Private("MessageHeader"), "struct msghdr",
            "msg_name msg_namelen msg_iov msg_iovlen msg_control msg_controllen msg_flags")
        .Structure(Private("PollDescriptor"), "struct pollfd", "fd events revents")
        .Constant(nameof(PollEvents), "POLLIN", (long)PollEvents.In)
        .Constant("Socket", "AF_UNIX", Number("FamilyUnix"))
        .Constant("Socket", "SOCK_STREAM", Number("SocketStream"))
        .Constant("Socket", "SOCK_DGRAM", Number("SocketDatagram"))
        .Constant("Socket", "SOCK_CLOEXEC", Number("SocketCloseOnExec"))
        .Constant("Socket", "MSG_NOSIGNAL", Number("MessageNoSignal"))
        .Constant("Socket", "MSG_DONTWAIT", Number("MessageDontWait"))
        .Constant("Socket", "MSG_CMSG_CLOEXEC", Number("MessageCloseOnExec"))
        .Constant("Socket", "sizeof(struct sockaddr_un)", 110)
        .Constant("Socket", "CMSG_SPACE(sizeof(int))", Layout.SizeOf(Private("ControlMessage")))
        .Constant("Socket", "CMSG_LEN(sizeof(int))", 20)
        .Constant("Spawn", "POSIX_SPAWN_SETSIGDEF", Number("SpawnSetSignalDefault"))
        .Constant("Spawn", "POSIX_SPAWN_SETSIGMASK", Number("SpawnSetSignalMask"))
        .Constant("Spawn", "POSIX_SPAWN_SETSID", Number("SpawnSetSession"))
        .Constant("Spawn", "sizeof(posix_spawnattr_t) <= 512 && sizeof(posix_spawn_file_actions_t) <= 512 && sizeof(sigset_t) <= 512", 1)
        .Constant("Limit", "RLIMIT_NOFILE", Number("LimitOpenFiles"))
        .Constant("Limit", "sizeof(struct rlimit)", 2 * sizeof(ulong))
        .Constant(nameof(DeviceNumber), "makedev(0, 0)", DeviceNumber.Encode(0, 0))
        .Constant(nameof(DeviceNumber), "makedev(8, 1)", DeviceNumber.Encode(8, 1))
        .Constant(nameof(DeviceNumber), "makedev(4095, 255)", DeviceNumber.Encode(4095, 255))
        .Constant(nameof(DeviceNumber), "makedev(259, 1048575)", DeviceNumber.Encode(259, 1048575))
        .Constant(nameof(DeviceNumber), "major(0xFEDCBA98)", DeviceNumber.Major(0xFEDCBA98))
        .Constant(nameof(DeviceNumber), "minor(0xFEDCBA98)", DeviceNumber.Minor(0xFEDCBA98));

    public static TheoryData<string> KernelGroups => [.. kernel.Groups];

    public static TheoryData<string> LibraryGroups => [.. library.Groups.Where(group => group != nameof(FileHandle))];

    [Theory, MemberData(nameof(KernelGroups))]
    public void The_kernels_headers_agree(string group) => kernel.AssertAgree(group);

    [Theory, MemberData(nameof(LibraryGroups))]
    public void The_librarys_headers_agree(string group) => library.AssertAgree(group);

    [Fact]
    public void A_file_handle_has_room_for_the_largest()
    {
        // In C the content has no length: sizeof counts the header only.
        IReadOnlyList<Field> fields = Layout.Of(typeof(FileHandle));
        Assert.Equal([("length", 0, 4), ("type", 4, 4)], fields.Take(2).Select(field => (field.Name, field.Offset, field.Size)));
        Assert.Equal(8 + FileHandle.MaxLength, Layout.SizeOf(typeof(FileHandle)));
    }
}
