using System.Runtime.InteropServices;
using Veneer.Linux;

namespace Veneer.Fuse.Wire;

#pragma warning disable CS1591 // the fields are the protocol's: include/uapi/linux/fuse.h says what each means

/// <summary><c>struct fuse_in_header</c>: starts every request.</summary>
[StructLayout(LayoutKind.Sequential), WireSize(40)]
public struct InHeader
{
    public uint Length;
    public Opcode Opcode;
    public ulong Unique;
    public ulong NodeId;
    /// <summary>The caller's filesystem user id, in the mount's user namespace.</summary>
    public uint Uid;
    /// <summary>The caller's filesystem group id, in the mount's user namespace.</summary>
    public uint Gid;
    /// <summary>The id of the calling thread in the server's pid namespace; 0 when it has none there.</summary>
    public uint Pid;
    /// <summary>The length of the extensions at the end of the request, in units of 8 bytes.</summary>
    public ushort TotalExtensionLength;
    private ushort padding;
}

/// <summary><c>struct fuse_out_header</c>: starts every reply and notification.</summary>
[StructLayout(LayoutKind.Sequential), WireSize(16)]
public struct OutHeader
{
    public uint Length;
    /// <summary>Zero or a negative errno in a reply; a <see cref="NotifyCode"/> in a notification.</summary>
    public int Error;
    /// <summary>The number of the request; 0 in a notification.</summary>
    public ulong Unique;
}

[StructLayout(LayoutKind.Sequential), WireSize(64)]
public struct InitIn
{
    public uint Major;
    public uint Minor;
    public uint MaxReadAhead;
    public uint Flags;
    public uint Flags2;
    private uint unused0, unused1, unused2, unused3, unused4, unused5, unused6, unused7, unused8, unused9, unused10;

    public readonly InitFlags AllFlags => (InitFlags)(Flags | ((Flags & (uint)InitFlags.InitExt) != 0 ? (ulong)Flags2 << 32 : 0));
}

[StructLayout(LayoutKind.Sequential), WireSize(64)]
public struct InitOut
{
    public uint Major;
    public uint Minor;
    public uint MaxReadAhead;
    public uint Flags;
    public ushort MaxBackground;
    public ushort CongestionThreshold;
    public uint MaxWrite;
    public uint TimeGranularity;
    public ushort MaxPages;
    public ushort MapAlignment;
    public uint Flags2;
    public uint MaxStackDepth;
    public ushort RequestTimeout;
    private ushort unused0;
    private uint unused1, unused2, unused3, unused4, unused5;
}

/// <summary><c>struct fuse_attr</c>.</summary>
[StructLayout(LayoutKind.Sequential), WireSize(88)]
public struct Attr
{
    public ulong Ino;
    public ulong Size;
    public ulong Blocks;
    public ulong AccessTime;
    public ulong ModifyTime;
    public ulong ChangeTime;
    public uint AccessTimeNanoseconds;
    public uint ModifyTimeNanoseconds;
    public uint ChangeTimeNanoseconds;
    public uint Mode;
    public uint Nlink;
    public uint Uid;
    public uint Gid;
    public uint Rdev;
    public uint BlockSize;
    public uint Flags;

    /// <summary>Copies the attributes of a statx(2), except the inode number and the link count.</summary>
    public static Attr From(in Statx stat, ulong ino, uint nlink) => new()
    {
        Ino = ino,
        Size = stat.Size,
        Blocks = stat.Blocks,
        AccessTime = (ulong)stat.AccessTime.Seconds,
        ModifyTime = (ulong)stat.ModifyTime.Seconds,
        ChangeTime = (ulong)stat.ChangeTime.Seconds,
        AccessTimeNanoseconds = stat.AccessTime.Nanoseconds,
        ModifyTimeNanoseconds = stat.ModifyTime.Nanoseconds,
        ChangeTimeNanoseconds = stat.ChangeTime.Nanoseconds,
        Mode = stat.Mode,
        Nlink = nlink,
        Uid = stat.Uid,
        Gid = stat.Gid,
        Rdev = stat.Rdev,
        BlockSize = stat.BlockSize,
    };
}

/// <summary><c>struct fuse_entry_out</c>: the answer when a name was found or made.</summary>
[StructLayout(LayoutKind.Sequential), WireSize(128)]
public struct EntryOut
{
    /// <summary>The inode; 0 when there is no such name, which the kernel may cache for <see cref="EntryValid"/>.</summary>
    public ulong NodeId;
    public ulong Generation;
    public ulong EntryValid;
    public ulong AttrValid;
    public uint EntryValidNanoseconds;
    public uint AttrValidNanoseconds;
    public Attr Attr;
}

[StructLayout(LayoutKind.Sequential), WireSize(8)]
public struct ForgetIn
{
    public ulong Lookups;
}

[StructLayout(LayoutKind.Sequential), WireSize(16)]
public struct ForgetOne
{
    public ulong NodeId;
    public ulong Lookups;
}

[StructLayout(LayoutKind.Sequential), WireSize(8)]
public struct BatchForgetIn
{
    public uint Count;
    private uint dummy;
}

[StructLayout(LayoutKind.Sequential), WireSize(16)]
public struct GetAttrIn
{
    public uint Flags;
    private uint dummy;
    public ulong Fh;

    /// <summary>FUSE_GETATTR_FH: <see cref="Fh"/> is set.</summary>
    public readonly bool HasFh => (Flags & 1) != 0;
}

[StructLayout(LayoutKind.Sequential), WireSize(104)]
public struct AttrOut
{
    public ulong AttrValid;
    public uint AttrValidNanoseconds;
    private uint dummy;
    public Attr Attr;
}

[StructLayout(LayoutKind.Sequential), WireSize(24)]
public struct StatXIn
{
    public uint GetAttrFlags;
    private uint reserved;
    public ulong Fh;
    public uint Flags;
    public uint Mask;

    /// <summary>FUSE_GETATTR_FH: <see cref="Fh"/> is set.</summary>
    public readonly bool HasFh => (GetAttrFlags & 1) != 0;
}

[StructLayout(LayoutKind.Sequential), WireSize(288)]
public struct StatXOut
{
    public ulong AttrValid;
    public uint AttrValidNanoseconds;
    public uint Flags;
    private ulong spare0, spare1;
    /// <summary><c>struct fuse_statx</c> has the layout of the first 256 bytes of <c>struct statx</c>.</summary>
    public Statx Stat;
}

[StructLayout(LayoutKind.Sequential), WireSize(16)]
public struct MkNodIn
{
    public uint Mode;
    public uint Rdev;
    public uint Umask;
    private uint padding;
}

[StructLayout(LayoutKind.Sequential), WireSize(8)]
public struct MkDirIn
{
    public uint Mode;
    public uint Umask;
}

[StructLayout(LayoutKind.Sequential), WireSize(8)]
public struct RenameIn
{
    public ulong NewDirectory;
}

[StructLayout(LayoutKind.Sequential), WireSize(16)]
public struct Rename2In
{
    public ulong NewDirectory;
    public RenameFlags Flags;
    private uint padding;
}

[StructLayout(LayoutKind.Sequential), WireSize(8)]
public struct LinkIn
{
    public ulong OldNodeId;
}

[StructLayout(LayoutKind.Sequential), WireSize(88)]
public struct SetAttrIn
{
    public SetAttrValid Valid;
    private uint padding;
    public ulong Fh;
    public ulong Size;
    public ulong LockOwner;
    public ulong AccessTime;
    public ulong ModifyTime;
    public ulong ChangeTime;
    public uint AccessTimeNanoseconds;
    public uint ModifyTimeNanoseconds;
    public uint ChangeTimeNanoseconds;
    public uint Mode;
    private uint unused4;
    public uint Uid;
    public uint Gid;
    private uint unused5;
}

[StructLayout(LayoutKind.Sequential), WireSize(8)]
public struct OpenIn
{
    public OpenFlags Flags;
    /// <summary>FUSE_OPEN_ flags.</summary>
    public uint FuseFlags;

    /// <summary>FUSE_OPEN_KILL_SUIDGID: the open truncates, so set-id bits go.</summary>
    public readonly bool KillSuidGid => (FuseFlags & 1) != 0;
}

[StructLayout(LayoutKind.Sequential), WireSize(16)]
public struct CreateIn
{
    public OpenFlags Flags;
    public uint Mode;
    public uint Umask;
    /// <summary>FUSE_OPEN_ flags.</summary>
    public uint FuseFlags;

    /// <summary>FUSE_OPEN_KILL_SUIDGID: the open truncates, so set-id bits go.</summary>
    public readonly bool KillSuidGid => (FuseFlags & 1) != 0;
}

/// <summary><c>struct fuse_open_out</c>: the answer to OPEN, OPENDIR and the second half of CREATE.</summary>
[StructLayout(LayoutKind.Sequential), WireSize(16)]
public struct OpenOut
{
    public ulong Fh;
    public OpenReply Flags;
    /// <summary>
    /// The id from FUSE_DEV_IOC_BACKING_OPEN; read only with <see cref="OpenReply.Passthrough"/> (protocol 7.40).
    /// </summary>
    public int BackingId;
}

/// <summary>The answer to CREATE and TMPFILE.</summary>
[StructLayout(LayoutKind.Sequential), WireSize(144)]
public struct CreateOut
{
    public EntryOut Entry;
    public OpenOut Open;
}

[StructLayout(LayoutKind.Sequential), WireSize(24)]
public struct ReleaseIn
{
    public ulong Fh;
    public OpenFlags Flags;
    public uint ReleaseFlags;
    public ulong LockOwner;
}

[StructLayout(LayoutKind.Sequential), WireSize(24)]
public struct FlushIn
{
    public ulong Fh;
    private uint unused;
    private uint padding;
    public ulong LockOwner;
}

[StructLayout(LayoutKind.Sequential), WireSize(40)]
public struct ReadIn
{
    public ulong Fh;
    public ulong Offset;
    public uint Size;
    public uint ReadFlags;
    public ulong LockOwner;
    public OpenFlags Flags;
    private uint padding;
}

[StructLayout(LayoutKind.Sequential), WireSize(40)]
public struct WriteIn
{
    public ulong Fh;
    public ulong Offset;
    public uint Size;
    public WriteFlags WriteFlags;
    public ulong LockOwner;
    public OpenFlags Flags;
    private uint padding;
}

[StructLayout(LayoutKind.Sequential), WireSize(8)]
public struct WriteOut
{
    public uint Size;
    private uint padding;
}

/// <summary><c>struct fuse_kstatfs</c>, the answer to STATFS.</summary>
[StructLayout(LayoutKind.Sequential), WireSize(80)]
public struct StatFsOut
{
    public ulong Blocks;
    public ulong BlocksFree;
    public ulong BlocksAvailable;
    public ulong Files;
    public ulong FilesFree;
    public uint BlockSize;
    public uint NameLength;
    public uint FragmentSize;
    private uint padding;
    private uint spare0, spare1, spare2, spare3, spare4, spare5;
}

[StructLayout(LayoutKind.Sequential), WireSize(16)]
public struct FSyncIn
{
    public ulong Fh;
    public uint Flags;
    private uint padding;

    /// <summary>FUSE_FSYNC_FDATASYNC.</summary>
    public readonly bool DataOnly => (Flags & 1) != 0;
}

[StructLayout(LayoutKind.Sequential), WireSize(16)]
public struct SetXattrIn
{
    public uint Size;
    public XattrFlags Flags;
    public uint SetXattrFlags;
    private uint padding;

    /// <summary>FUSE_SETXATTR_ACL_KILL_SGID.</summary>
    public readonly bool KillSgid => (SetXattrFlags & 1) != 0;
}

/// <summary>
/// The part of <see cref="SetXattrIn"/> that is sent unless <see cref="InitFlags.SetXattrExt"/> is in force (protocol
/// 7.33).
/// </summary>
[StructLayout(LayoutKind.Sequential), WireSize(8)]
public struct SetXattrInShort
{
    public uint Size;
    public XattrFlags Flags;
}

[StructLayout(LayoutKind.Sequential), WireSize(8)]
public struct GetXattrIn
{
    public uint Size;
    private uint padding;
}

[StructLayout(LayoutKind.Sequential), WireSize(8)]
public struct GetXattrOut
{
    public uint Size;
    private uint padding;
}

[StructLayout(LayoutKind.Sequential), WireSize(8)]
public struct AccessIn
{
    public uint Mask;
    private uint padding;
}

[StructLayout(LayoutKind.Sequential), WireSize(8)]
public struct InterruptIn
{
    public ulong Unique;
}

[StructLayout(LayoutKind.Sequential), WireSize(32)]
public struct IoctlIn
{
    public ulong Fh;
    public IoctlFlags Flags;
    public uint Command;
    public ulong Argument;
    public uint InSize;
    public uint OutSize;
}

[StructLayout(LayoutKind.Sequential), WireSize(16)]
public struct IoctlOut
{
    public int Result;
    public uint Flags;
    public uint InIovecs;
    public uint OutIovecs;
}

[StructLayout(LayoutKind.Sequential), WireSize(32)]
public struct FAllocateIn
{
    public ulong Fh;
    public ulong Offset;
    public ulong Length;
    public AllocateMode Mode;
    private uint padding;
}

[StructLayout(LayoutKind.Sequential), WireSize(24)]
public struct LSeekIn
{
    public ulong Fh;
    public ulong Offset;
    public SeekWhence Whence;
    private uint padding;
}

[StructLayout(LayoutKind.Sequential), WireSize(8)]
public struct LSeekOut
{
    public ulong Offset;
}

[StructLayout(LayoutKind.Sequential), WireSize(56)]
public struct CopyFileRangeIn
{
    public ulong FhIn;
    public ulong OffsetIn;
    public ulong NodeIdOut;
    public ulong FhOut;
    public ulong OffsetOut;
    public ulong Length;
    public ulong Flags;
}

/// <summary>The answer to COPY_FILE_RANGE_64 (protocol 7.45).</summary>
[StructLayout(LayoutKind.Sequential), WireSize(8)]
public struct CopyFileRangeOut
{
    public ulong Copied;
}

/// <summary><c>struct fuse_dirent</c>: a directory entry. The name follows, padded to 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential), WireSize(24)]
public struct DirEnt
{
    public ulong Ino;
    public ulong Offset;
    public uint NameLength;
    public uint Type;
}

[StructLayout(LayoutKind.Sequential), WireSize(40)]
public struct NotifyInvalidateInodeOut
{
    public OutHeader Header;
    public ulong NodeId;
    public long Offset;
    public long Length;
}

/// <summary>The header of a notification with bytes for the kernel's pages of a file, which follow.</summary>
[StructLayout(LayoutKind.Sequential), WireSize(40)]
public struct NotifyStoreOut
{
    public OutHeader Header;
    public ulong NodeId;
    public ulong Offset;
    public uint Size;
    private uint padding;
}

/// <summary>A notification that asks for the kernel's pages of a file; a NOTIFY_REPLY brings them.</summary>
[StructLayout(LayoutKind.Sequential), WireSize(48)]
public struct NotifyRetrieveOut
{
    public OutHeader Header;
    /// <summary>The number that the NOTIFY_REPLY will have.</summary>
    public ulong Unique;
    public ulong NodeId;
    public ulong Offset;
    public uint Size;
    private uint padding;
}

/// <summary><c>struct fuse_backing_map</c>, for FUSE_DEV_IOC_BACKING_OPEN.</summary>
[StructLayout(LayoutKind.Sequential), WireSize(16)]
public struct BackingMap
{
    public int Descriptor;
    public uint Flags;
    private ulong padding;
}
#pragma warning restore CS1591

/// <summary><c>struct fuse_uring_cmd_req</c>: the payload of a command to the device over io_uring.</summary>
[StructLayout(LayoutKind.Sequential), WireSize(24)]
internal struct RingCommand
{
    public ulong Flags;
    /// <summary>The request that the reply is for; 0 in a REGISTER.</summary>
    public ulong CommitId;
    /// <summary>The queue, numbered as its CPU.</summary>
    public ushort Queue;
    private ushort padding0, padding1, padding2;
}

/// <summary><c>struct fuse_uring_ent_in_out</c>: the third part of an entry's header.</summary>
[StructLayout(LayoutKind.Sequential), WireSize(32)]
internal struct RingEntryInOut
{
    public ulong Flags;
    /// <summary>The id to return with the reply.</summary>
    public ulong CommitId;
    /// <summary>The length of the payload in bytes.</summary>
    public uint PayloadSize;
    private uint padding;
    private ulong reserved;
}

/// <summary><c>struct fuse_uring_req_header</c>: the memory of an entry without the payload.</summary>
[StructLayout(LayoutKind.Sequential), WireSize(288)]
internal unsafe struct RingHeader
{
    /// <summary>The size of each of the first two parts in bytes.</summary>
    public const int PartSize = 128;

    /// <summary>The header of the request, and later that of the reply.</summary>
    public fixed byte InOut[PartSize];
    /// <summary>The structure of the request, if it has one.</summary>
    public fixed byte Operation[PartSize];
    public RingEntryInOut Entry;
}
