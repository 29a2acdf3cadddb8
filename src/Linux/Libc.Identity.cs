using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <remarks>
/// The calls that set filesystem ids change the calling thread only: they are raw system calls. Calls of glibc that set ids
/// change every thread.
/// </remarks>
public static unsafe partial class Libc
{
    private const long SysSetFsUid = 122;
    private const long SysSetFsGid = 123;

    [LibraryImport(Library)]
    private static partial uint geteuid();

    [LibraryImport(Library)]
    private static partial uint getegid();

    [LibraryImport(Library)]
    private static partial uint umask(uint mask);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int unshare(int flags);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int prctl(int option, nuint a, nuint b, nuint c, nuint d);

    [LibraryImport(Library)]
    private static partial int getpid();

    /// <summary>The effective user id of this process.</summary>
    public static uint EffectiveUid => geteuid();

    /// <summary>The effective group id of this process.</summary>
    public static uint EffectiveGid => getegid();

    /// <summary>The process id.</summary>
    public static int ProcessId => getpid();

    /// <summary>Sets the calling thread's filesystem user id. The kernel does not say whether it was allowed. See setfsuid(2).</summary>
    public static void SetFileSystemUid(uint uid) => _ = syscall(SysSetFsUid, (nint)uid, 0, 0, 0, 0, 0);

    /// <summary>Sets the calling thread's filesystem group id. See setfsgid(2).</summary>
    public static void SetFileSystemGid(uint gid) => _ = syscall(SysSetFsGid, (nint)gid, 0, 0, 0, 0, 0);

    /// <summary>
    /// The calling thread's filesystem user id. Setting an impossible id changes nothing and returns the current one.
    /// </summary>
    public static uint FileSystemUid => (uint)syscall(SysSetFsUid, -1, 0, 0, 0, 0, 0);

    /// <summary>The calling thread's filesystem group id.</summary>
    public static uint FileSystemGid => (uint)syscall(SysSetFsGid, -1, 0, 0, 0, 0, 0);

    /// <summary>Sets the umask of the process, or of the thread alone after <see cref="UnshareFileSystemAttributes"/>.</summary>
    public static uint SetUmask(uint mask) => umask(mask);

    /// <summary>Gives the calling thread a umask and a working directory of its own (CLONE_FS). See unshare(2).</summary>
    public static Errno UnshareFileSystemAttributes() => Check(unshare(0x200));

    [LibraryImport(Library, SetLastError = true)]
    private static partial int setns(int descriptor, int type);

    /// <summary>
    /// Moves the calling thread into a mount namespace. The thread needs <see cref="UnshareFileSystemAttributes"/> first.
    /// See setns(2).
    /// </summary>
    public static Errno EnterMountNamespace(int descriptor) => Check(setns(descriptor, 0x20000));

    /// <summary>Moves the calling thread into a network namespace. See setns(2).</summary>
    public static Errno EnterNetworkNamespace(int descriptor) => Check(setns(descriptor, 0x40000000));

    [StructLayout(LayoutKind.Sequential)]
    private struct MountNamespaceInfo
    {
        public uint Size;
        public uint Mounts;
        public ulong Id;
    }

    /// <summary>
    /// Opens the next or previous mount namespace of the machine, in the order of their creation, also one without a
    /// process. See ioctl_nsfs(2).
    /// </summary>
    /// <param name="descriptor">A descriptor of the mount namespace to start from.</param>
    /// <param name="isNext">Whether to open the next one (NS_MNT_GET_NEXT) or the previous one (NS_MNT_GET_PREV).</param>
    /// <param name="other">The descriptor of the neighbor, which the caller closes.</param>
    /// <returns>
    /// <see cref="Errno.ENOENT"/> when there is no neighbor, <see cref="Errno.EPERM"/> without privilege,
    /// <see cref="Errno.ENOTTY"/> before Linux 6.12.
    /// </returns>
    public static Errno NeighborOfMountNamespace(int descriptor, bool isNext, out int other)
    {
        var info = new MountNamespaceInfo { Size = (uint)sizeof(MountNamespaceInfo) };
        Errno error = Ioctl(descriptor, isNext ? 0x8010B70BUL : 0x8010B70CUL, ref info, out other);
        if (error.IsError) { other = -1; }
        return error;
    }

    /// <summary>Makes the calling thread keep its capabilities when its filesystem user id changes (SECBIT_NO_SETUID_FIXUP).</summary>
    /// <remarks>Other secure bits stay, since a container may have locked some.</remarks>
    /// <returns><see cref="Errno.EPERM"/> without CAP_SETPCAP.</returns>
    public static Errno KeepCapabilitiesOnSetUid()
    {
        const int prGetSecureBits = 27, prSetSecureBits = 28, noSetUidFixup = 4;
        Errno error = Check(prctl(prGetSecureBits, 0, 0, 0, 0), out int bits);
        return error.IsError ? error : Check(prctl(prSetSecureBits, (nuint)(bits | noSetUidFixup), 0, 0, 0));
    }
}
