namespace Veneer.Linux;

/// <summary>The requests of ioctl_iflags(2), which chattr(1) uses.</summary>
public static class InodeFlags
{
    /// <summary>FS_IOC_GETFLAGS.</summary>
    public const uint Get = 0x80086601;
    /// <summary>FS_IOC_SETFLAGS.</summary>
    public const uint Set = 0x40086602;
    /// <summary>FS_IOC_FSGETXATTR.</summary>
    public const uint GetExtended = 0x801C581F;
    /// <summary>FS_IOC_FSSETXATTR.</summary>
    public const uint SetExtended = 0x401C5820;
}
