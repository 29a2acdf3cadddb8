namespace Veneer.Fuse.Wire;

#pragma warning disable CS1591 // the names are the protocol's: include/uapi/linux/fuse.h says what each means
/// <summary>The capabilities that kernel and server agree on in INIT (FUSE_ flags; the upper half travels in flags2).</summary>
[Flags]
public enum InitFlags : ulong
{
    None = 0,
    AsyncRead = 1UL << 0,
    PosixLocks = 1UL << 1,
    AtomicOTrunc = 1UL << 3,
    ExportSupport = 1UL << 4,
    BigWrites = 1UL << 5,
    DontMask = 1UL << 6,
    SpliceWrite = 1UL << 7,
    SpliceMove = 1UL << 8,
    SpliceRead = 1UL << 9,
    FlockLocks = 1UL << 10,
    HasIoctlDir = 1UL << 11,
    AutoInvalData = 1UL << 12,
    DoReadDirPlus = 1UL << 13,
    ReadDirPlusAuto = 1UL << 14,
    AsyncDio = 1UL << 15,
    WritebackCache = 1UL << 16,
    NoOpenSupport = 1UL << 17,
    ParallelDirOps = 1UL << 18,
    HandleKillPriv = 1UL << 19,
    PosixAcl = 1UL << 20,
    AbortError = 1UL << 21,
    MaxPages = 1UL << 22,
    CacheSymlinks = 1UL << 23,
    NoOpenDirSupport = 1UL << 24,
    ExplicitInvalData = 1UL << 25,
    MapAlignment = 1UL << 26,
    Submounts = 1UL << 27,
    HandleKillPrivV2 = 1UL << 28,
    SetXattrExt = 1UL << 29,
    InitExt = 1UL << 30,
    SecurityCtx = 1UL << 32,
    HasInodeDax = 1UL << 33,
    CreateSuppGroup = 1UL << 34,
    HasExpireOnly = 1UL << 35,
    DirectIoAllowMmap = 1UL << 36,
    Passthrough = 1UL << 37,
    NoExportSupport = 1UL << 38,
    HasResend = 1UL << 39,
    AllowIdmap = 1UL << 40,
    OverIoUring = 1UL << 41,
    RequestTimeout = 1UL << 42,
}

/// <summary>How the kernel is to treat an open file (FOPEN_ flags).</summary>
[Flags]
public enum OpenReply : uint
{
    None = 0,
    DirectIo = 1 << 0,
    KeepCache = 1 << 1,
    NonSeekable = 1 << 2,
    CacheDir = 1 << 3,
    Stream = 1 << 4,
    NoFlush = 1 << 5,
    ParallelDirectWrites = 1 << 6,
    Passthrough = 1 << 7,
}

/// <summary>The fields that a SETATTR sets (FATTR_ flags).</summary>
[Flags]
public enum SetAttrValid : uint
{
    None = 0,
    Mode = 1 << 0,
    Uid = 1 << 1,
    Gid = 1 << 2,
    Size = 1 << 3,
    AccessTime = 1 << 4,
    ModifyTime = 1 << 5,
    Fh = 1 << 6,
    AccessTimeNow = 1 << 7,
    ModifyTimeNow = 1 << 8,
    LockOwner = 1 << 9,
    ChangeTime = 1 << 10,
    KillSuidGid = 1 << 11,
}

/// <summary>Flags of a WRITE.</summary>
[Flags]
public enum WriteFlags : uint
{
    None = 0,
    Cache = 1 << 0,
    LockOwner = 1 << 1,
    KillSuidGid = 1 << 2,
}

/// <summary>Flags of an IOCTL.</summary>
[Flags]
public enum IoctlFlags : uint
{
    None = 0,
    Compat = 1 << 0,
    Unrestricted = 1 << 1,
    Retry = 1 << 2,
    Is32Bit = 1 << 3,
    Directory = 1 << 4,
    CompatX32 = 1 << 5,
}

/// <summary>The kinds of notification (<c>enum fuse_notify_code</c>).</summary>
public enum NotifyCode
{
    None = 0,
    Poll = 1,
    InvalidateInode = 2,
    InvalidateEntry = 3,
    Store = 4,
    Retrieve = 5,
    Delete = 6,
    Resend = 7,
    IncrementEpoch = 8,
    Prune = 9,
}
#pragma warning restore CS1591
