using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>Flags of renameat2(2).</summary>
[Flags]
public enum RenameFlags : uint
{
    /// <summary>Replace an object at the target.</summary>
    None = 0,
    /// <summary>RENAME_NOREPLACE.</summary>
    NoReplace = 1,
    /// <summary>RENAME_EXCHANGE.</summary>
    Exchange = 2,
    /// <summary>RENAME_WHITEOUT: leave a whiteout at the source.</summary>
    Whiteout = 4,
}

public static unsafe partial class Libc
{
    private const long SysFchmodAt2 = 452;
    private const long SysGetDents64 = 217;

    [LibraryImport(Library, SetLastError = true)]
    private static partial int statx(int directory, byte* path, int flags, uint mask, Statx* result);

    /// <summary>
    /// Gets the attributes of a name, not following a symbolic link, or of the descriptor itself with <see cref="Self"/>.
    /// See statx(2).
    /// </summary>
    public static Errno StatAt(int directory, ReadOnlySpan<byte> name, StatxMask mask, out Statx result)
    {
        fixed (byte* p = name)
        fixed (Statx* r = &result)
        {
            return Check(statx(directory, p, AtSymlinkNoFollow | AtEmptyPath, (uint)mask, r));
        }
    }

    /// <summary>
    /// Gets attributes as <see cref="StatAt"/> does, but asks the server of a FUSE or network filesystem instead of the
    /// kernel's cache.
    /// </summary>
    public static Errno StatAnew(int directory, ReadOnlySpan<byte> name, StatxMask mask, out Statx result)
    {
        const int forceSync = 0x2000;
        fixed (byte* p = name)
        fixed (Statx* r = &result)
        {
            return Check(statx(directory, p, AtSymlinkNoFollow | AtEmptyPath | forceSync, (uint)mask, r));
        }
    }

    /// <summary>
    /// Gets the device and the mount of an object, and nothing else. Follows symbolic links, those of /proc among them.
    /// Asks no server, neither of FUSE nor across the network, and so does not wait for one that hangs.
    /// </summary>
    /// <param name="directory">The directory at which a relative path begins.</param>
    /// <param name="name">A path in which only the last component may be on a filesystem that hangs.</param>
    /// <param name="result">
    /// Only <see cref="Statx.Dev"/>, <see cref="Statx.MountId"/> and <see cref="Statx.AttributeMountRoot"/> are valid.
    /// </param>
    public static Errno StatPlace(int directory, ReadOnlySpan<byte> name, out Statx result)
    {
        const int noAutomount = 0x800, doNotSync = 0x4000;
        fixed (byte* p = name)
        fixed (Statx* r = &result)
        {
            // The kernel returns the mount id without being asked. Asking needs permission for the mount of another user.
            return Check(statx(directory, p, AtEmptyPath | noAutomount | doNotSync, 0, r));
        }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int mkdirat(int directory, byte* name, uint mode);

    /// <summary>See mkdirat(2); the umask applies.</summary>
    public static Errno MakeDirectoryAt(int directory, ReadOnlySpan<byte> name, uint mode)
    {
        fixed (byte* p = name) { return Check(mkdirat(directory, p, mode)); }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int mknodat(int directory, byte* name, uint mode, ulong device);

    /// <summary>See mknodat(2); the umask applies.</summary>
    /// <param name="mode">File type and permissions.</param>
    /// <param name="device">The device number in the kernel's 32-bit encoding.</param>
    public static Errno MakeNodeAt(int directory, ReadOnlySpan<byte> name, uint mode, uint device)
    {
        fixed (byte* p = name) { return Check(mknodat(directory, p, mode, device)); }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int symlinkat(byte* target, int directory, byte* name);

    /// <summary>See symlinkat(2).</summary>
    public static Errno SymbolicLinkAt(ReadOnlySpan<byte> target, int directory, ReadOnlySpan<byte> name)
    {
        fixed (byte* t = target, p = name) { return Check(symlinkat(t, directory, p)); }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int linkat(int directory, byte* name, int newDirectory, byte* newName, int flags);

    /// <summary>Gives a file another name. See linkat(2).</summary>
    public static Errno LinkAt(int directory, ReadOnlySpan<byte> name, int newDirectory, ReadOnlySpan<byte> newName)
    {
        fixed (byte* from = name, to = newName) { return Check(linkat(directory, from, newDirectory, to, 0)); }
    }

    /// <summary>
    /// Gives the file behind a descriptor a name: the first one of an O_TMPFILE file, or one more of an O_PATH descriptor's
    /// file.
    /// </summary>
    public static Errno LinkDescriptor(int descriptor, int newDirectory, ReadOnlySpan<byte> newName)
    {
        fixed (byte* empty = Self, to = newName)
        {
            // AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH; without it, the answer is ENOENT.
            if (!emptyPathRefused)
            {
                Errno error = Check(linkat(descriptor, empty, newDirectory, to, AtEmptyPath));
                if (error != Errno.ENOENT) { return error; }
            }
            Span<byte> path = stackalloc byte[ProcPathSize];
            FormatProcPath(path, descriptor, default);
            fixed (byte* from = path)
            {
                Errno error = Check(linkat(AtCwd, from, newDirectory, to, AtSymlinkFollow));
                emptyPathRefused |= !error.IsError;
                return error;
            }
        }
    }

    private static bool emptyPathRefused;

    [LibraryImport(Library, SetLastError = true)]
    private static partial int unlinkat(int directory, byte* name, int flags);

    /// <summary>See unlinkat(2).</summary>
    public static Errno UnlinkAt(int directory, ReadOnlySpan<byte> name)
    {
        fixed (byte* p = name) { return Check(unlinkat(directory, p, 0)); }
    }

    /// <summary>See unlinkat(2) with AT_REMOVEDIR.</summary>
    public static Errno RemoveDirectoryAt(int directory, ReadOnlySpan<byte> name)
    {
        fixed (byte* p = name) { return Check(unlinkat(directory, p, AtRemoveDirectory)); }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int renameat2(int oldDirectory, byte* oldName, int newDirectory, byte* newName, uint flags);

    /// <summary>Renames one name, atomically. See renameat2(2).</summary>
    /// <returns><see cref="Errno.EINVAL"/> when the filesystem does not know <paramref name="flags"/>.</returns>
    public static Errno RenameAt(int oldDirectory, ReadOnlySpan<byte> oldName, int newDirectory, ReadOnlySpan<byte> newName,
        RenameFlags flags)
    {
        fixed (byte* from = oldName, to = newName)
        {
            return Check(renameat2(oldDirectory, from, newDirectory, to, (uint)flags));
        }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint readlinkat(int directory, byte* name, byte* buffer, nuint size);

    /// <summary>Reads the target of a symbolic link, without a NUL. See readlinkat(2).</summary>
    public static Errno ReadLinkAt(int directory, ReadOnlySpan<byte> name, Span<byte> buffer, out int length)
    {
        fixed (byte* p = name, b = buffer) { return Check(readlinkat(directory, p, b, (nuint)buffer.Length), out length); }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int fchmod(int descriptor, uint mode);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int chmod(byte* path, uint mode);

    /// <summary>
    /// Changes permissions without following a symbolic link: with fchmodat2(2), Linux 6.6, and before that through /proc.
    /// </summary>
    public static Errno ChangeModeAt(int directory, ReadOnlySpan<byte> name, uint mode)
    {
        fixed (byte* p = name)
        {
            Errno error = Check(syscall(SysFchmodAt2, directory, (nint)p, (nint)mode, AtSymlinkNoFollow | AtEmptyPath, 0, 0));
            if (!MayBeUnknown(error, directory)) { return error; }
        }
        return ChangeModeThroughProc(directory, name, mode);
    }

    /// <summary>
    /// Whether a call may have failed because the kernel lacks it, or because a container's filter, some of which answer
    /// EPERM, does not know it.
    /// </summary>
    /// <remarks>EPERM for a path from the working directory is believed: there is no other way to ask.</remarks>
    private static bool MayBeUnknown(Errno error, int directory) => error == Errno.ENOSYS || (error == Errno.EPERM && directory != AtCwd);

    /// <summary>Changes permissions on kernels before 6.6.</summary>
    internal static Errno ChangeModeThroughProc(int directory, ReadOnlySpan<byte> name, uint mode)
    {
        int descriptor = directory;
        if (name.Length > 1)
        {
            Errno opened = OpenAt(directory, name, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.None, out descriptor);
            if (opened.IsError) { return opened; }
        }
        Errno error = StatAt(descriptor, Self, StatxMask.Basic, out Statx stat);
        // The magic link leads to the symbolic link itself, whose mode some of these kernels would change on some
        // filesystems.
        if (!error.IsError && stat.IsSymbolicLink) { error = Errno.EOPNOTSUPP; }
        if (!error.IsError)
        {
            Span<byte> path = stackalloc byte[ProcPathSize];
            FormatProcPath(path, descriptor, default);
            fixed (byte* p = path) { error = Check(chmod(p, mode)); }
        }
        if (descriptor != directory) { Close(descriptor); }
        return error;
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int fchownat(int directory, byte* name, uint uid, uint gid, int flags);

    /// <summary>
    /// Changes owner and group, also of a symbolic link. <see cref="uint.MaxValue"/> leaves an id as it is. See
    /// fchownat(2).
    /// </summary>
    public static Errno ChangeOwnerAt(int directory, ReadOnlySpan<byte> name, uint uid, uint gid)
    {
        fixed (byte* p = name) { return Check(fchownat(directory, p, uid, gid, AtSymlinkNoFollow | AtEmptyPath)); }
    }

    [LibraryImport(Library)]
    private static partial int clock_gettime(int clock, TimeSpec* time);

    /// <summary>
    /// The time stamp that a change to a file would get now. It advances with each tick, every few milliseconds. See
    /// clock_gettime(2), CLOCK_REALTIME_COARSE.
    /// </summary>
    public static TimeSpec FileTime => TimeOf(5);

    /// <summary>The exact current time; no file's time stamp is later. See clock_gettime(2), CLOCK_REALTIME.</summary>
    public static TimeSpec Now => TimeOf(0);

    private static TimeSpec TimeOf(int clock)
    {
        TimeSpec time;
        _ = clock_gettime(clock, &time); // cannot fail for clocks that every kernel has
        return time;
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int utimensat(int directory, byte* name, TimeSpec* times, int flags);

    /// <summary>Sets the access and modification times, also of a symbolic link. See utimensat(2).</summary>
    public static Errno ChangeTimesAt(int directory, ReadOnlySpan<byte> name, TimeSpec access, TimeSpec modify)
    {
        TimeSpec* times = stackalloc TimeSpec[2];
        times[0] = access;
        times[1] = modify;
        fixed (byte* p = name) { return Check(utimensat(directory, p, times, AtSymlinkNoFollow | AtEmptyPath)); }
    }

    /// <summary>
    /// Reads entries (<c>struct linux_dirent64</c>) from the descriptor's position in a directory. Zero bytes mean the end.
    /// See getdents64(2).
    /// </summary>
    public static Errno ReadDirectory(int descriptor, Span<byte> buffer, out int count)
    {
        fixed (byte* p = buffer) { return Check(syscall(SysGetDents64, descriptor, (nint)p, buffer.Length, 0, 0, 0), out count); }
    }
}
