using System.Globalization;
using System.Reflection;
using System.Text;
using Veneer.Fuse.Wire;
using Veneer.Linux.Tests;

namespace Veneer.Fuse.Tests;

/// <summary>The protocol's structures and numbers, compared with the C compiler's.</summary>
public sealed class WireTests
{
    /// <summary>
    /// What is newer than the header of protocol 7.38 that long-lived distributions have. Only what a program that
    /// speaks the protocol must know: places, widths and numbers.
    /// </summary>
    private const string Newer = """
        #include <stdint.h>
        #include <sys/ioctl.h>
        #include <linux/fuse.h>

        #ifndef FUSE_CREATE_SUPP_GROUP
        #define FUSE_CREATE_SUPP_GROUP (1ULL << 34)
        #endif
        #ifndef FUSE_DIRECT_IO_ALLOW_MMAP
        #define FUSE_DIRECT_IO_ALLOW_MMAP (1ULL << 36)
        #endif
        #ifndef FUSE_PASSTHROUGH
        #define FUSE_PASSTHROUGH (1ULL << 37)
        #endif
        #ifndef FUSE_NO_EXPORT_SUPPORT
        #define FUSE_NO_EXPORT_SUPPORT (1ULL << 38)
        #endif
        #ifndef FUSE_HAS_RESEND
        #define FUSE_HAS_RESEND (1ULL << 39)
        #endif
        #ifndef FUSE_ALLOW_IDMAP
        #define FUSE_ALLOW_IDMAP (1ULL << 40)
        #endif
        #ifndef FUSE_OVER_IO_URING
        #define FUSE_OVER_IO_URING (1ULL << 41)
        #endif
        #ifndef FUSE_REQUEST_TIMEOUT
        #define FUSE_REQUEST_TIMEOUT (1ULL << 42)
        #endif
        #ifndef FOPEN_PASSTHROUGH
        #define FOPEN_PASSTHROUGH (1 << 7)
        #endif

        #if FUSE_KERNEL_MINOR_VERSION >= 39
        #define our_statx_in fuse_statx_in
        #define our_statx_out fuse_statx_out
        #define our_statx fuse_statx
        #else
        #define FUSE_STATX 52
        struct our_time { int64_t seconds; uint32_t nanoseconds; int32_t none; };
        struct our_statx
        {
            uint32_t mask; uint32_t blksize; uint64_t attributes; uint32_t nlink; uint32_t uid; uint32_t gid;
            uint16_t mode; uint16_t none0[1]; uint64_t ino; uint64_t size; uint64_t blocks; uint64_t attributes_mask;
            struct our_time atime; struct our_time btime; struct our_time ctime; struct our_time mtime;
            uint32_t rdev_major; uint32_t rdev_minor; uint32_t dev_major; uint32_t dev_minor; uint64_t none1[14];
        };
        struct our_statx_in { uint32_t getattr_flags; uint32_t reserved; uint64_t fh; uint32_t sx_flags; uint32_t sx_mask; };
        struct our_statx_out { uint64_t attr_valid; uint32_t attr_valid_nsec; uint32_t flags; uint64_t spare[2]; struct our_statx stat; };
        #endif

        #if FUSE_KERNEL_MINOR_VERSION >= 40
        #define our_backing_map fuse_backing_map
        #define our_open_out fuse_open_out
        #else
        #define FUSE_NOTIFY_RESEND 7
        struct our_backing_map { int32_t fd; uint32_t flags; uint64_t padding; };
        struct our_open_out { uint64_t fh; uint32_t open_flags; int32_t backing_id; };
        #define FUSE_DEV_IOC_BACKING_OPEN _IOW(FUSE_DEV_IOC_MAGIC, 1, struct our_backing_map)
        #define FUSE_DEV_IOC_BACKING_CLOSE _IOW(FUSE_DEV_IOC_MAGIC, 2, uint32_t)
        #endif

        #if FUSE_KERNEL_MINOR_VERSION >= 43
        #define our_init_out fuse_init_out
        #else
        struct our_init_out
        {
            uint32_t major; uint32_t minor; uint32_t max_readahead; uint32_t flags; uint16_t max_background;
            uint16_t congestion_threshold; uint32_t max_write; uint32_t time_gran; uint16_t max_pages;
            uint16_t map_alignment; uint32_t flags2; uint32_t max_stack_depth; uint16_t request_timeout; uint16_t unused[11];
        };
        #endif

        #if FUSE_KERNEL_MINOR_VERSION < 44
        #define FUSE_NOTIFY_INC_EPOCH 8
        #endif

        #if FUSE_KERNEL_MINOR_VERSION >= 45
        #define our_copy_file_range_out fuse_copy_file_range_out
        #else
        #define FUSE_COPY_FILE_RANGE_64 53
        struct our_copy_file_range_out { uint64_t bytes_copied; };
        #endif
        #if FUSE_KERNEL_MINOR_VERSION >= 42
        #define our_uring_cmd_req fuse_uring_cmd_req
        #define our_uring_ent_in_out fuse_uring_ent_in_out
        #define our_uring_req_header fuse_uring_req_header
        #else
        struct our_uring_cmd_req { uint64_t flags; uint64_t commit_id; uint16_t qid; uint8_t padding[6]; };
        struct our_uring_ent_in_out { uint64_t flags; uint64_t commit_id; uint32_t payload_sz; uint32_t padding; uint64_t reserved; };
        struct our_uring_req_header { char in_out[128]; char op_in[128]; struct our_uring_ent_in_out ring_ent_in_out; };
        #endif

        #define OUR_NOTIFY_PRUNE 9 /* came to 7.45 later than the number */

        struct our_create_out { struct fuse_entry_out entry; struct our_open_out open; };
        struct our_notify_store { struct fuse_out_header header; struct fuse_notify_store_out content; };
        struct our_notify_retrieve { struct fuse_out_header header; struct fuse_notify_retrieve_out content; };
        struct our_notify_inval_inode { struct fuse_out_header header; struct fuse_notify_inval_inode_out content; };
        """;

    private static readonly CFacts protocol = new CFacts(Newer)
        .Structure(typeof(InHeader), "struct fuse_in_header", "len opcode unique nodeid uid gid pid total_extlen padding")
        .Structure(typeof(OutHeader), "struct fuse_out_header", "len error unique")
        .Structure(typeof(InitIn), "struct fuse_init_in", "major minor max_readahead flags flags2 - - - - - - - - - - -")
        .Structure(typeof(InitOut), "struct our_init_out", """
            major minor max_readahead flags max_background congestion_threshold max_write time_gran max_pages map_alignment
            flags2 max_stack_depth request_timeout - - - - - -
            """)
        .Structure(typeof(Attr), "struct fuse_attr",
            "ino size blocks atime mtime ctime atimensec mtimensec ctimensec mode nlink uid gid rdev blksize flags")
        .Structure(typeof(EntryOut), "struct fuse_entry_out",
            "nodeid generation entry_valid attr_valid entry_valid_nsec attr_valid_nsec attr")
        .Structure(typeof(ForgetIn), "struct fuse_forget_in", "nlookup")
        .Structure(typeof(ForgetOne), "struct fuse_forget_one", "nodeid nlookup")
        .Structure(typeof(BatchForgetIn), "struct fuse_batch_forget_in", "count dummy")
        .Structure(typeof(GetAttrIn), "struct fuse_getattr_in", "getattr_flags dummy fh")
        .Structure(typeof(AttrOut), "struct fuse_attr_out", "attr_valid attr_valid_nsec dummy attr")
        .Structure(typeof(StatXIn), "struct our_statx_in", "getattr_flags reserved fh sx_flags sx_mask")
        .Structure(typeof(StatXOut), "struct our_statx_out", "attr_valid attr_valid_nsec flags spare[0] spare[1] stat")
        .Structure(typeof(MkNodIn), "struct fuse_mknod_in", "mode rdev umask padding")
        .Structure(typeof(MkDirIn), "struct fuse_mkdir_in", "mode umask")
        .Structure(typeof(RenameIn), "struct fuse_rename_in", "newdir")
        .Structure(typeof(Rename2In), "struct fuse_rename2_in", "newdir flags padding")
        .Structure(typeof(LinkIn), "struct fuse_link_in", "oldnodeid")
        .Structure(typeof(SetAttrIn), "struct fuse_setattr_in", """
            valid padding fh size lock_owner atime mtime ctime atimensec mtimensec ctimensec mode unused4 uid gid unused5
            """)
        .Structure(typeof(OpenIn), "struct fuse_open_in", "flags open_flags")
        .Structure(typeof(CreateIn), "struct fuse_create_in", "flags mode umask open_flags")
        .Structure(typeof(OpenOut), "struct our_open_out", "fh open_flags backing_id")
        .Structure(typeof(CreateOut), "struct our_create_out", "entry open")
        .Structure(typeof(ReleaseIn), "struct fuse_release_in", "fh flags release_flags lock_owner")
        .Structure(typeof(FlushIn), "struct fuse_flush_in", "fh unused padding lock_owner")
        .Structure(typeof(ReadIn), "struct fuse_read_in", "fh offset size read_flags lock_owner flags padding")
        .Structure(typeof(WriteIn), "struct fuse_write_in", "fh offset size write_flags lock_owner flags padding")
        .Structure(typeof(WriteOut), "struct fuse_write_out", "size padding")
        .Structure(typeof(StatFsOut), "struct fuse_kstatfs", "blocks bfree bavail files ffree bsize namelen frsize padding - - - - - -")
        .Structure(typeof(FSyncIn), "struct fuse_fsync_in", "fh fsync_flags padding")
        .Structure(typeof(SetXattrIn), "struct fuse_setxattr_in", "size flags setxattr_flags padding")
        .Structure(typeof(SetXattrInShort), "struct fuse_setxattr_in", "size flags", size: "FUSE_COMPAT_SETXATTR_IN_SIZE")
        .Structure(typeof(GetXattrIn), "struct fuse_getxattr_in", "size padding")
        .Structure(typeof(GetXattrOut), "struct fuse_getxattr_out", "size padding")
        .Structure(typeof(AccessIn), "struct fuse_access_in", "mask padding")
        .Structure(typeof(InterruptIn), "struct fuse_interrupt_in", "unique")
        .Structure(typeof(IoctlIn), "struct fuse_ioctl_in", "fh flags cmd arg in_size out_size")
        .Structure(typeof(IoctlOut), "struct fuse_ioctl_out", "result flags in_iovs out_iovs")
        .Structure(typeof(FAllocateIn), "struct fuse_fallocate_in", "fh offset length mode padding")
        .Structure(typeof(LSeekIn), "struct fuse_lseek_in", "fh offset whence padding")
        .Structure(typeof(LSeekOut), "struct fuse_lseek_out", "offset")
        .Structure(typeof(CopyFileRangeIn), "struct fuse_copy_file_range_in", "fh_in off_in nodeid_out fh_out off_out len flags")
        .Structure(typeof(CopyFileRangeOut), "struct our_copy_file_range_out", "bytes_copied")
        .Structure(typeof(RingCommand), "struct our_uring_cmd_req", "flags commit_id qid - - -")
        .Structure(typeof(RingEntryInOut), "struct our_uring_ent_in_out", "flags commit_id payload_sz padding reserved")
        .Structure(typeof(RingHeader), "struct our_uring_req_header", "in_out op_in ring_ent_in_out")
        .Structure(typeof(DirEnt), "struct fuse_dirent", "ino off namelen type")
        .Structure(typeof(NotifyInvalidateInodeOut), "struct our_notify_inval_inode", "header content.ino content.off content.len")
        .Structure(typeof(NotifyStoreOut), "struct our_notify_store", "header content.nodeid content.offset content.size content.padding")
        .Structure(typeof(NotifyRetrieveOut), "struct our_notify_retrieve",
            "header content.notify_unique content.nodeid content.offset content.size content.padding")
        .Structure(typeof(BackingMap), "struct our_backing_map", "fd flags padding")
        // The attributes of STATX travel in the same structure as those of statx(2); the mount id is in what FUSE leaves free.
        .Structure(typeof(Veneer.Linux.Statx), "struct our_statx", """
            mask blksize attributes nlink uid gid mode - ino size blocks attributes_mask atime btime ctime mtime rdev_major
            rdev_minor dev_major dev_minor -
            """)
        .Constants(typeof(Opcode), name => "FUSE_" + name switch
        {
            nameof(Opcode.GetLock) => "GETLK",
            nameof(Opcode.SetLock) => "SETLK",
            nameof(Opcode.SetLockWait) => "SETLKW",
            nameof(Opcode.BatchForget) or nameof(Opcode.NotifyReply) or nameof(Opcode.CopyFileRange) => Snake(name),
            nameof(Opcode.CopyFileRange64) => "COPY_FILE_RANGE_64",
            _ => name.ToUpperInvariant(),
        })
        .Constants(typeof(InitFlags), name => name == nameof(InitFlags.None) ? "0" : "FUSE_" + Snake(name))
        .Constants(typeof(OpenReply), name => name switch
        {
            nameof(OpenReply.None) => "0",
            nameof(OpenReply.NonSeekable) => "FOPEN_NONSEEKABLE",
            nameof(OpenReply.NoFlush) => "FOPEN_NOFLUSH",
            _ => "FOPEN_" + Snake(name),
        })
        .Constants(typeof(SetAttrValid), name => name switch
        {
            nameof(SetAttrValid.None) => "0",
            nameof(SetAttrValid.AccessTime) => "FATTR_ATIME",
            nameof(SetAttrValid.ModifyTime) => "FATTR_MTIME",
            nameof(SetAttrValid.ChangeTime) => "FATTR_CTIME",
            nameof(SetAttrValid.AccessTimeNow) => "FATTR_ATIME_NOW",
            nameof(SetAttrValid.ModifyTimeNow) => "FATTR_MTIME_NOW",
            nameof(SetAttrValid.LockOwner) => "FATTR_LOCKOWNER",
            _ => "FATTR_" + Snake(name),
        })
        .Constants(typeof(WriteFlags), name => name switch
        {
            nameof(WriteFlags.None) => "0",
            nameof(WriteFlags.LockOwner) => "FUSE_WRITE_LOCKOWNER",
            _ => "FUSE_WRITE_" + Snake(name),
        })
        .Constants(typeof(IoctlFlags), name => name switch
        {
            nameof(IoctlFlags.None) => "0",
            nameof(IoctlFlags.Is32Bit) => "FUSE_IOCTL_32BIT",
            nameof(IoctlFlags.Directory) => "FUSE_IOCTL_DIR",
            nameof(IoctlFlags.CompatX32) => "FUSE_IOCTL_COMPAT_X32",
            _ => "FUSE_IOCTL_" + Snake(name),
        })
        .Constants(typeof(NotifyCode), name => name switch
        {
            nameof(NotifyCode.None) => "0",
            nameof(NotifyCode.InvalidateInode) => "FUSE_NOTIFY_INVAL_INODE",
            nameof(NotifyCode.InvalidateEntry) => "FUSE_NOTIFY_INVAL_ENTRY",
            nameof(NotifyCode.IncrementEpoch) => "FUSE_NOTIFY_INC_EPOCH",
            nameof(NotifyCode.Prune) => "OUR_NOTIFY_PRUNE",
            _ => "FUSE_NOTIFY_" + Snake(name),
        })
        .Constant("Version", "FUSE_KERNEL_VERSION", Server.Major)
        .Constant("Bits", "FUSE_GETATTR_FH", Bit(bit => new GetAttrIn { Flags = bit }.HasFh))
        .Constant("Bits", "FUSE_GETATTR_FH", Bit(bit => new StatXIn { GetAttrFlags = bit }.HasFh))
        .Constant("Bits", "FUSE_OPEN_KILL_SUIDGID", Bit(bit => new OpenIn { FuseFlags = bit }.KillSuidGid))
        .Constant("Bits", "FUSE_OPEN_KILL_SUIDGID", Bit(bit => new CreateIn { FuseFlags = bit }.KillSuidGid))
        .Constant("Bits", "FUSE_FSYNC_FDATASYNC", Bit(bit => new FSyncIn { Flags = bit }.DataOnly))
        .Constant("Bits", "FUSE_SETXATTR_ACL_KILL_SGID", Bit(bit => new SetXattrIn { SetXattrFlags = bit }.KillSgid))
        .Constant("Ioctl", "FUSE_DEV_IOC_CLONE", Request("CloneRequest"))
        .Constant("Ioctl", "FUSE_DEV_IOC_BACKING_OPEN", Request("BackingOpenRequest"))
        .Constant("Ioctl", "FUSE_DEV_IOC_BACKING_CLOSE", Request("BackingCloseRequest"));

    private static long Request(string name) =>
        (long)(ulong)typeof(Device).GetField(name, BindingFlags.NonPublic | BindingFlags.Static)!.GetRawConstantValue()!;

    /// <summary>The only bit for which the question is answered with yes.</summary>
    private static long Bit(Func<uint, bool> question) =>
        Enumerable.Range(0, 32).Select(shift => 1u << shift).Where(question).Aggregate(0u, (all, bit) => all | bit);

    /// <summary>AtomicOTrunc becomes ATOMIC_O_TRUNC; the header writes some pairs as one word.</summary>
    private static string Snake(string name)
    {
        var words = new StringBuilder();
        foreach (char c in name)
        {
            if (char.IsUpper(c) && words.Length > 0) { words.Append('_'); }
            words.Append(char.ToUpper(c, CultureInfo.InvariantCulture));
        }
        foreach (string pair in new[] { "READ_DIR", "READDIR_PLUS", "OPEN_DIR", "DIR_OPS", "KILL_PRIV", "SET_XATTR", "SUID_GID" })
        {
            words.Replace(pair, pair.Replace("_", "", StringComparison.Ordinal));
        }
        return words.ToString();
    }

    private static IEnumerable<Type> Structures => typeof(InHeader).Assembly.GetTypes()
        .Where(type => type.Namespace == typeof(InHeader).Namespace && type is { IsValueType: true, IsEnum: false, IsNested: false });

    public static TheoryData<string> Groups => [.. protocol.Groups];

    [Theory, MemberData(nameof(Groups))]
    public void The_kernels_header_agrees(string group) => protocol.AssertAgree(group);

    [Fact]
    public void Every_structure_says_its_size_and_has_it()
    {
        Assert.All(Structures, type =>
        {
            WireSizeAttribute? said = type.GetCustomAttribute<WireSizeAttribute>();
            Assert.True(said is not null, $"{type.Name} has no [WireSize]");
            Assert.True(said.Size == Layout.SizeOf(type), $"{type.Name} has {Layout.SizeOf(type)} bytes and says {said.Size}");
        });
    }

    [Fact]
    public void Every_structure_and_number_of_the_protocol_is_compared()
    {
        IEnumerable<string> enums = typeof(InHeader).Assembly.GetTypes()
            .Where(type => type.Namespace == typeof(InHeader).Namespace && type.IsEnum).Select(type => type.Name);

        Assert.Empty(Structures.Select(type => type.Name).Concat(enums).Except(protocol.Groups));
    }

    [Fact]
    public void No_structure_has_a_gap_that_would_carry_old_bytes()
    {
        Assert.All(Structures, type =>
        {
            int end = 0;
            foreach (Field field in Layout.Of(type))
            {
                Assert.True(field.Offset == end, $"{type.Name} has a gap before {field.Name}");
                end += field.Size;
            }
            Assert.True(end == Layout.SizeOf(type), $"{type.Name} has a gap at its end");
        });
    }

    [Fact]
    public void Flags_above_the_first_32_count_only_with_the_extension()
    {
        var request = new InitIn { Flags = (uint)InitFlags.AsyncRead, Flags2 = 1 << 5 };
        Assert.Equal(InitFlags.AsyncRead, request.AllFlags);

        request.Flags |= (uint)InitFlags.InitExt;
        Assert.Equal(InitFlags.AsyncRead | InitFlags.InitExt | InitFlags.Passthrough, request.AllFlags);
    }

    [Fact]
    public void Attributes_are_taken_from_what_statx_gave()
    {
        var stat = new Veneer.Linux.Statx
        {
            Ino = 1, Size = 2, Blocks = 3, Mode = 0x81A4, Nlink = 4, Uid = 5, Gid = 6, BlockSize = 4096,
            RdevMajor = 259, RdevMinor = 70_000,
            AccessTime = new() { Seconds = -7, Nanoseconds = 8 }, ModifyTime = new() { Seconds = 9, Nanoseconds = 10 },
            ChangeTime = new() { Seconds = 11, Nanoseconds = 12 },
        };

        Attr attr = Attr.From(stat, 100, 200);

        Assert.Equal((100u, 200u), (attr.Ino, attr.Nlink));
        Assert.Equal((2u, 3u, 0x81A4u, 5u, 6u, 4096u), (attr.Size, attr.Blocks, attr.Mode, attr.Uid, attr.Gid, attr.BlockSize));
        Assert.Equal(Veneer.Linux.DeviceNumber.Encode(259, 70_000), attr.Rdev);
        Assert.Equal((unchecked((ulong)-7L), 8u), (attr.AccessTime, attr.AccessTimeNanoseconds));
        Assert.Equal((9u, 10u), (attr.ModifyTime, attr.ModifyTimeNanoseconds));
        Assert.Equal((11u, 12u), (attr.ChangeTime, attr.ChangeTimeNanoseconds));
        Assert.Equal(0u, attr.Flags);
    }
}
