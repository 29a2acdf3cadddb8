using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <remarks>Writing to the disk, finding failed writes, and setting up filesystems without mounting them anywhere.</remarks>
public static unsafe partial class Libc
{
    private const long SysCacheStat = 451;
    private const long SysFsOpen = 430;
    private const long SysFsConfig = 431;
    private const long SysFsMount = 432;
    private const long SysBpf = 321;
    private const uint WaitBefore = 1, StartWrite = 2, WaitAfter = 4;

    [LibraryImport(Library, SetLastError = true)]
    private static partial int syncfs(int descriptor);

    /// <summary>
    /// Writes all dirty data of the filesystem that holds a file to the disk. The descriptor must not be an O_PATH one. See
    /// syncfs(2).
    /// </summary>
    /// <returns>
    /// Also the error of a failed write to that filesystem, by anybody, since the descriptor was opened or last reported
    /// one.
    /// </returns>
    public static Errno SyncFileSystem(int descriptor) => Check(syncfs(descriptor));

    [LibraryImport(Library, SetLastError = true)]
    private static partial int sync_file_range(int descriptor, long offset, long length, uint flags);

    /// <summary>
    /// Writes the dirty pages of a range to the disk and waits for them. Writes no attributes, and does not flush the
    /// device's cache. See sync_file_range(2).
    /// </summary>
    /// <returns>Also the error of a failed write to the file since the descriptor was opened or last reported one.</returns>
    public static Errno SyncRange(int descriptor, long offset, long length) =>
        Check(sync_file_range(descriptor, offset, length, WaitBefore | StartWrite | WaitAfter));

    /// <summary>
    /// Reports a failed write to the file since the descriptor was opened or last reported one. Writes nothing and does not
    /// wait.
    /// </summary>
    /// <remarks>
    /// Waits for a range beyond the end of any file, which has no pages. Each descriptor reports an error once, on its own.
    /// </remarks>
    public static Errno WritebackError(int descriptor) => Check(sync_file_range(descriptor, 1L << 62, 1, WaitBefore));

    [StructLayout(LayoutKind.Sequential)]
    private struct CacheStatRange
    {
        public ulong Offset;
        public ulong Length;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct CacheStat
    {
        public ulong Cached;
        public ulong Dirty;
        public ulong Writeback;
        public ulong Evicted;
        public ulong RecentlyEvicted;
    }

    /// <summary>
    /// Whether a range of a file has pages that are not on the disk. True where cachestat(2), Linux 6.5, is missing.
    /// </summary>
    public static bool IsDirty(int descriptor, long offset, long length)
    {
        var range = new CacheStatRange { Offset = (ulong)offset, Length = (ulong)length };
        CacheStat stat;
        return Check(syscall(SysCacheStat, descriptor, (nint)(&range), (nint)(&stat), 0, 0, 0)).IsError || stat.Dirty + stat.Writeback > 0;
    }

    /// <summary>Begins to set up a filesystem. See fsopen(2).</summary>
    public static Errno OpenFileSystem(ReadOnlySpan<byte> type, out int context)
    {
        const int closeOnExec = 1;
        fixed (byte* t = type)
        {
            Errno error = Check(syscall(SysFsOpen, (nint)t, closeOnExec, 0, 0, 0, 0), out context);
            if (error.IsError) { context = -1; }
            return error;
        }
    }

    /// <summary>Sets an option of a filesystem that is being set up. An empty value sets a flag. See fsconfig(2).</summary>
    public static Errno ConfigureFileSystem(int context, ReadOnlySpan<byte> option, ReadOnlySpan<byte> value)
    {
        const int setFlag = 0, setString = 1;
        fixed (byte* o = option, v = value)
        {
            return Check(syscall(SysFsConfig, context, value.IsEmpty ? setFlag : setString, (nint)o, (nint)v, 0, 0));
        }
    }

    /// <summary>
    /// Sets an option of a filesystem that is being set up to the object behind a descriptor. See FSCONFIG_SET_FD in
    /// fsconfig(2).
    /// </summary>
    public static Errno AddToFileSystem(int context, ReadOnlySpan<byte> option, int descriptor)
    {
        const int setDescriptor = 5;
        fixed (byte* o = option) { return Check(syscall(SysFsConfig, context, setDescriptor, (nint)o, 0, descriptor, 0)); }
    }

    /// <summary>Creates the filesystem and a detached mount of it. See fsconfig(2) and fsmount(2).</summary>
    /// <param name="context">The context that <see cref="OpenFileSystem"/> returned.</param>
    /// <param name="mount">The descriptor of the detached mount.</param>
    /// <param name="attributes">The attributes of the mount.</param>
    public static Errno MountFileSystem(int context, out int mount, MountAttributes attributes = MountAttributes.None)
    {
        const int create = 6, closeOnExec = 1;
        mount = -1;
        Errno error = Check(syscall(SysFsConfig, context, create, 0, 0, 0, 0));
        if (error.IsError) { return error; }
        error = Check(syscall(SysFsMount, context, closeOnExec, (nint)attributes, 0, 0, 0), out mount);
        if (error.IsError) { mount = -1; }
        return error;
    }

    /// <summary>Runs a command of bpf(2).</summary>
    internal static Errno Bpf(uint command, void* attributes, int size, out int result)
    {
        Errno error = Check(syscall(SysBpf, (nint)command, (nint)attributes, size, 0, 0, 0), out result);
        if (error.IsError) { result = -1; }
        return error;
    }
}
