namespace Veneer.Linux;

/// <summary>The kinds of access that faccessat(2) checks.</summary>
[Flags]
public enum AccessMode
{
    /// <summary>X_OK: to execute a file, to search a directory.</summary>
    Execute = 1,
    /// <summary>W_OK.</summary>
    Write = 2,
    /// <summary>R_OK.</summary>
    Read = 4,
}

public static unsafe partial class Libc
{
    private const long SysFaccessAt2 = 439;
    private const int AtEffectiveIds = 0x200;

    /// <summary>
    /// Checks whether the effective ids of this process allow access to the object behind a descriptor. See faccessat2(2),
    /// Linux 5.8.
    /// </summary>
    public static Errno Access(int descriptor, AccessMode mode)
    {
        fixed (byte* p = Self)
        {
            return Check(syscall(SysFaccessAt2, descriptor, (nint)p, (nint)mode, AtEmptyPath | AtEffectiveIds, 0, 0));
        }
    }
}
