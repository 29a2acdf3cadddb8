using System.Text;
using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>Type of a lock of fcntl(2).</summary>
public enum LockType : short
{
    Read = 0,
    Write = 1,
    None = 2,
}

/// <summary>Whose lock it is: the process's (F_SETLK), or the open file's (F_OFD_SETLK).</summary>
public enum LockOwner
{
    Process,
    OpenFile,
}

/// <summary>An open file in a test. It has no finalizer, since an <see cref="Actor"/> has a table of descriptors of its own.</summary>
public sealed unsafe class Descriptor(int value) : IDisposable
{
    private int value = value;

    public int Value => value;

    /// <summary>The file as a path, for the thread that opened it.</summary>
    public FilePath Proc => $"/proc/thread-self/fd/{value}";

    public void Dispose()
    {
        if (value < 0) { return; }
        Libc.Close(value);
        value = -1;
    }

    public Statx Stat()
    {
        SysException.ThrowIf(Libc.StatAt(value, Libc.Self, StatxMask.Basic | StatxMask.BirthTime, out Statx result), "fstat");
        return result;
    }

    public byte[] ReadToEnd()
    {
        var content = new MemoryStream();
        byte[] buffer = new byte[128 * 1024];
        while (true)
        {
            SysException.ThrowIf(Libc.Read(value, buffer, out int count), "read");
            if (count == 0) { return content.ToArray(); }
            content.Write(buffer, 0, count);
        }
    }

    public byte[] ReadAt(long offset, int count)
    {
        byte[] buffer = new byte[count];
        SysException.ThrowIf(Libc.ReadAt(value, buffer, offset, out int got), "pread");
        return buffer[..got];
    }

    public string TextAt(long offset, int count) => Encoding.Latin1.GetString(ReadAt(offset, count));

    /// <summary>All of the file, from its beginning, without moving the position.</summary>
    public byte[] ReadAll()
    {
        var content = new MemoryStream();
        while (true)
        {
            byte[] part = ReadAt(content.Length, 128 * 1024);
            if (part.Length == 0) { return content.ToArray(); }
            content.Write(part);
        }
    }

    public string ReadAllText() => Encoding.Latin1.GetString(ReadAll());

    public int Write(ReadOnlySpan<byte> content)
    {
        int written = 0;
        do
        {
            SysException.ThrowIf(Libc.Write(value, content[written..], out int count), "write");
            written += count;
        }
        while (written < content.Length);
        return written;
    }

    public int Write(string content) => Write(Encoding.Latin1.GetBytes(content));

    public int WriteAt(ReadOnlySpan<byte> content, long offset)
    {
        SysException.ThrowIf(Libc.WriteAt(value, content, offset, out int count), "pwrite");
        return count;
    }

    public int WriteAt(string content, long offset) => WriteAt(Encoding.Latin1.GetBytes(content), offset);

    /// <summary>pread(2) of a whole map.</summary>
    public int ReadInto(Map map, long offset)
    {
        SysException.ThrowIf(Libc.ReadAt(value, map.Memory, offset, out int count), "pread");
        return count;
    }

    /// <summary>pwrite(2) of a whole map.</summary>
    public int WriteFrom(Map map, long offset) => WriteAt(map.Memory, offset);

    /// <summary>pwritev2(2), with RWF_ flags.</summary>
    public int WriteAt(ReadOnlySpan<byte> content, long offset, int flags)
    {
        fixed (byte* p = content)
        {
            nint* vector = stackalloc nint[2] { (nint)p, content.Length };
            long count = Native.pwritev2(value, vector, 1, offset, flags);
            SysException.ThrowIf(Native.Check(count), "pwritev2");
            return (int)count;
        }
    }

    /// <summary>fcntl(2) with F_SETFL.</summary>
    public void SetStatus(OpenFlags flags) =>
        SysException.ThrowIf(Native.Check(Native.fcntl(value, 4, (void*)(nint)(uint)flags)), "F_SETFL");

    public void Truncate(long length) => SysException.ThrowIf(Libc.Truncate(value, length), "ftruncate");

    public void Allocate(AllocateMode mode, long offset, long length) =>
        SysException.ThrowIf(Libc.Allocate(value, mode, offset, length), "fallocate");

    public void Sync() => SysException.ThrowIf(Libc.Sync(value, dataOnly: false), "fsync");

    public void ChangeMode(uint mode) => SysException.ThrowIf(Native.Check(Native.fchmod(value, mode)), "fchmod");

    public void ChangeOwner(uint uid, uint gid) => SysException.ThrowIf(Libc.ChangeOwnerAt(value, Libc.Self, uid, gid), "fchown");

    public void ChangeTimes(TimeSpec access, TimeSpec modify)
    {
        TimeSpec* times = stackalloc TimeSpec[] { access, modify };
        SysException.ThrowIf(Native.Check(Native.futimens(value, times)), "futimens");
    }

    public byte[] GetXattr(string name)
    {
        byte[] buffer = new byte[65536];
        SysException.ThrowIf(Libc.GetXattrAt(value, Libc.Self, PathText.Encode(name), buffer, out int size), $"fgetxattr({name})");
        return buffer[..size];
    }

    public void SetXattr(string name, string content) =>
        SysException.ThrowIf(Libc.SetXattrAt(value, Libc.Self, PathText.Encode(name), Encoding.Latin1.GetBytes(content), XattrFlags.None),
            $"fsetxattr({name})");

    /// <summary>Gives an O_TMPFILE file a name.</summary>
    public void LinkTo(FilePath path) => Sys.Link(Proc, path, follow: true);

    /// <summary>Opens the same file again through /proc.</summary>
    public Descriptor Reopen(OpenFlags flags) => Sys.Open(Proc, flags);

    /// <summary>lseek(2) with SEEK_DATA or SEEK_HOLE.</summary>
    public long Seek(long offset, SeekWhence whence)
    {
        SysException.ThrowIf(Libc.Seek(value, offset, whence, out long position), $"lseek({whence})");
        return position;
    }

    public long CopyRangeTo(Descriptor target, long from, long to, long length)
    {
        SysException.ThrowIf(Libc.CopyFileRange(value, ref from, target.value, ref to, length, out long copied), "copy_file_range");
        return copied;
    }

    /// <summary>sendfile(2) of all of the file, from its beginning, without moving the position.</summary>
    public void SendAllTo(Descriptor target)
    {
        long offset = 0, count;
        do
        {
            count = Native.sendfile(target.value, value, &offset, 1 << 20);
            SysException.ThrowIf(Native.Check(count), "sendfile");
        }
        while (count > 0);
    }

    /// <summary>FS_IOC_GETFLAGS.</summary>
    public uint GetFlags()
    {
        ulong flags = 0;
        SysException.ThrowIf(Libc.Ioctl(value, 0x80086601, ref flags, out _), "FS_IOC_GETFLAGS");
        return (uint)flags;
    }

    /// <summary>FS_IOC_SETFLAGS.</summary>
    public void SetFlags(uint flags)
    {
        ulong argument = flags;
        SysException.ThrowIf(Libc.Ioctl(value, 0x40086602, ref argument, out _), "FS_IOC_SETFLAGS");
    }

    /// <summary>FS_IOC_FSGETXATTR: fsx_xflags, then the rest of <c>struct fsxattr</c>.</summary>
    public uint[] GetExtendedFlags()
    {
        uint[] attributes = new uint[7];
        SysException.ThrowIf(Libc.Ioctl(value, 0x801C581F, ref attributes[0], out _), "FS_IOC_FSGETXATTR");
        return attributes;
    }

    /// <summary>FS_IOC_FSSETXATTR.</summary>
    public void SetExtendedFlags(uint[] attributes) =>
        SysException.ThrowIf(Libc.Ioctl(value, 0x401C5820, ref attributes[0], out _), "FS_IOC_FSSETXATTR");

    // Directories.

    /// <summary>Every entry from the current position on.</summary>
    /// <param name="chunk">Size of each getdents64(2) buffer.</param>
    public List<DirectoryEntry> ReadDirectory(int chunk = 64 * 1024)
    {
        var entries = new List<DirectoryEntry>();
        while (ReadSomeEntries(entries, chunk)) { }
        return entries;
    }

    /// <summary>One getdents64(2).</summary>
    /// <returns>False at the end.</returns>
    public bool ReadSomeEntries(List<DirectoryEntry> into, int chunk)
    {
        byte[] buffer = new byte[chunk];
        SysException.ThrowIf(Libc.ReadDirectory(value, buffer, out int count), "getdents64");
        Sys.ParseEntries(buffer.AsSpan(0, count), into);
        return count > 0;
    }

    /// <summary>seekdir(3): goes on after the entry whose offset this is; 0 is the beginning.</summary>
    public void SeekDirectory(long offset) => SysException.ThrowIf(Native.Check(Native.lseek(value, offset, 0)), "lseek");

    // Locks.

    /// <summary>flock(2).</summary>
    public Errno Flock(LockType type, bool wait = false)
    {
        int operation = type switch { LockType.Read => 1, LockType.Write => 2, _ => 8 };
        return Native.Check(Native.flock(value, operation | (wait ? 0 : 4)));
    }

    /// <summary>fcntl(2) with F_SETLK, F_SETLKW, or the same for the open file.</summary>
    public Errno Lock(LockType type, long start = 0, long length = 0, LockOwner owner = LockOwner.Process, bool wait = false)
    {
        FileLock request = new() { Type = type, Start = start, Length = length };
        int command = owner == LockOwner.Process ? (wait ? 7 : 6) : (wait ? 38 : 37);
        return Native.Check(Native.fcntl(value, command, &request));
    }

    /// <summary>F_GETLK: the lock that would be in the way, or <see cref="LockType.None"/>.</summary>
    public (LockType Type, long Start, long Length) TestLock(LockType type, long start = 0, long length = 0,
        LockOwner owner = LockOwner.Process)
    {
        FileLock request = new() { Type = type, Start = start, Length = length };
        SysException.ThrowIf(Native.Check(Native.fcntl(value, owner == LockOwner.Process ? 5 : 36, &request)), "F_GETLK");
        return (request.Type, request.Start, request.Length);
    }

    [System.Runtime.InteropServices.StructLayout(System.Runtime.InteropServices.LayoutKind.Sequential)]
    private struct FileLock
    {
        public LockType Type;
        public short Whence;
        public long Start;
        public long Length;
        public int Pid;
    }

    /// <summary>Maps the file.</summary>
    public Map Map(long length, bool write = false, bool shared = true) => new(value, length, write, shared);
}

/// <summary>A map of a file.</summary>
/// <remarks>
/// Its bytes are touched inside a system library only: a page fault that a server never answers would otherwise stop the
/// garbage collector, and with it the watch that ends a hung test.
/// </remarks>
public sealed unsafe class Map : IDisposable
{
    private readonly nint address;
    private readonly nuint length;

    internal Map(int descriptor, long length, bool write, bool shared)
    {
        this.length = (nuint)length;
        address = Native.mmap(0, this.length, write ? 3 : 1, shared ? 1 : 2, descriptor, 0);
        if (address == -1) { throw new SysException((Errno)System.Runtime.InteropServices.Marshal.GetLastPInvokeError(), "mmap"); }
    }

    /// <summary>Memory that begins on a page and belongs to no file, as O_DIRECT wants it.</summary>
    public static Map Anonymous(int length) => new(length);

    private Map(int length)
    {
        this.length = (nuint)length;
        address = Native.mmap(0, this.length, 3, 0x22, -1, 0);
    }

    public Span<byte> Memory => new((void*)address, (int)length);

    public byte[] Read(long offset, int count)
    {
        byte[] copy = new byte[count];
        fixed (byte* p = copy) { Native.memcpy(p, (byte*)address + offset, (nuint)count); }
        return copy;
    }

    public string Text(long offset, int count) => Encoding.Latin1.GetString(Read(offset, count));

    public void Write(long offset, string content)
    {
        byte[] bytes = Encoding.Latin1.GetBytes(content);
        fixed (byte* p = bytes) { Native.memcpy((byte*)address + offset, p, (nuint)bytes.Length); }
    }

    public void Sync() => SysException.ThrowIf(Native.Check(Native.msync(address, length, 4)), "msync");

    /// <summary>
    /// Brings the pages in, as reading them would. Gives <see cref="Errno.EFAULT"/> where a reader would get SIGBUS. See
    /// MADV_POPULATE_READ in madvise(2).
    /// </summary>
    public Errno Populate() => Native.Check(Native.syscall(28, address, (nint)length, 22, 0, 0, 0));

    public void Dispose() => _ = Native.munmap(address, length); // best effort: the address is ours
}
