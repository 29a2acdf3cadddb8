using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>Flags of setxattr(2).</summary>
[Flags]
public enum XattrFlags : uint
{
    /// <summary>Create or replace.</summary>
    None = 0,
    /// <summary>XATTR_CREATE.</summary>
    Create = 1,
    /// <summary>XATTR_REPLACE.</summary>
    Replace = 2,
}

/// <remarks>
/// Linux 6.13 has getxattrat(2) and its siblings, which take a directory and a name and do not follow a symbolic link. On
/// older kernels, /proc/self/fd/DIRECTORY/NAME serves, whose last component lgetxattr(2) and its siblings do not follow. A
/// descriptor itself is reached through /proc/self/fd as well: with an empty name, the new calls refuse an O_PATH
/// descriptor.
/// </remarks>
public static unsafe partial class Libc
{
    private const long SysSetXattrAt = 463;
    private const long SysGetXattrAt = 464;
    private const long SysListXattrAt = 465;
    private const long SysRemoveXattrAt = 466;

    private static bool xattrAtMissing;

    [StructLayout(LayoutKind.Sequential)]
    private struct XattrArguments
    {
        public ulong Value;
        public uint Size;
        public uint Flags;
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint lgetxattr(byte* path, byte* name, void* value, nuint size);

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint getxattr(byte* path, byte* name, void* value, nuint size);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int lsetxattr(byte* path, byte* name, void* value, nuint size, int flags);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int setxattr(byte* path, byte* name, void* value, nuint size, int flags);

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint llistxattr(byte* path, byte* list, nuint size);

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint listxattr(byte* path, byte* list, nuint size);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int lremovexattr(byte* path, byte* name);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int removexattr(byte* path, byte* name);

    /// <summary>Gets the value of an extended attribute. An empty buffer asks for the size. See getxattr(2).</summary>
    /// <returns>
    /// <see cref="Errno.ERANGE"/> when the buffer is too small, <see cref="Errno.ENODATA"/> when there is no such
    /// attribute.
    /// </returns>
    public static Errno GetXattrAt(int directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> attribute, Span<byte> value, out int size)
    {
        fixed (byte* p = name, a = attribute, v = value)
        {
            if (!xattrAtMissing && name.Length > 1)
            {
                var arguments = new XattrArguments { Value = (ulong)v, Size = (uint)value.Length };
                Errno error = Check(syscall(SysGetXattrAt, directory, (nint)p, AtSymlinkNoFollow | AtEmptyPath, (nint)a,
                    (nint)(&arguments), sizeof(XattrArguments)), out size);
                if (!MayBeUnknown(error, directory)) { return error; }
                xattrAtMissing = error == Errno.ENOSYS;
            }
            if (name.Length > MaxName)
            {
                size = -1;
                return Errno.ENAMETOOLONG;
            }
            Span<byte> path = stackalloc byte[ProcPathSize];
            FormatProcPath(path, directory, name);
            fixed (byte* full = path)
            {
                return Check(name.Length > 1
                    ? lgetxattr(full, a, v, (nuint)value.Length)
                    : getxattr(full, a, v, (nuint)value.Length), out size);
            }
        }
    }

    /// <summary>Sets an extended attribute. See setxattr(2).</summary>
    public static Errno SetXattrAt(int directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> attribute, ReadOnlySpan<byte> value,
        XattrFlags flags)
    {
        fixed (byte* p = name, a = attribute, v = value)
        {
            if (!xattrAtMissing)
            {
                var arguments = new XattrArguments { Value = (ulong)v, Size = (uint)value.Length, Flags = (uint)flags };
                Errno error = Check(syscall(SysSetXattrAt, directory, (nint)p, AtSymlinkNoFollow | AtEmptyPath, (nint)a,
                    (nint)(&arguments), sizeof(XattrArguments)));
                if (error != Errno.EBADF && !MayBeUnknown(error, directory)) { return error; }
                xattrAtMissing = error == Errno.ENOSYS; // EBADF: an O_PATH descriptor with an empty name
            }
            if (name.Length > MaxName) { return Errno.ENAMETOOLONG; }
            Span<byte> path = stackalloc byte[ProcPathSize];
            FormatProcPath(path, directory, name);
            fixed (byte* full = path)
            {
                return Check(name.Length > 1
                    ? lsetxattr(full, a, v, (nuint)value.Length, (int)flags)
                    : setxattr(full, a, v, (nuint)value.Length, (int)flags));
            }
        }
    }

    /// <summary>
    /// Lists the names of all extended attributes, each with its NUL. An empty buffer asks for the size. See listxattr(2).
    /// </summary>
    public static Errno ListXattrAt(int directory, ReadOnlySpan<byte> name, Span<byte> list, out int size)
    {
        fixed (byte* p = name, l = list)
        {
            if (!xattrAtMissing && name.Length > 1)
            {
                Errno error = Check(syscall(SysListXattrAt, directory, (nint)p, AtSymlinkNoFollow | AtEmptyPath, (nint)l, list.Length, 0),
                    out size);
                if (!MayBeUnknown(error, directory)) { return error; }
                xattrAtMissing = error == Errno.ENOSYS;
            }
            if (name.Length > MaxName)
            {
                size = -1;
                return Errno.ENAMETOOLONG;
            }
            Span<byte> path = stackalloc byte[ProcPathSize];
            FormatProcPath(path, directory, name);
            fixed (byte* full = path)
            {
                return Check(name.Length > 1 ? llistxattr(full, l, (nuint)list.Length) : listxattr(full, l, (nuint)list.Length), out size);
            }
        }
    }

    /// <summary>Removes an extended attribute. See removexattr(2).</summary>
    public static Errno RemoveXattrAt(int directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> attribute)
    {
        fixed (byte* p = name, a = attribute)
        {
            if (!xattrAtMissing && name.Length > 1)
            {
                Errno error = Check(syscall(SysRemoveXattrAt, directory, (nint)p, AtSymlinkNoFollow | AtEmptyPath, (nint)a, 0, 0));
                if (!MayBeUnknown(error, directory)) { return error; }
                xattrAtMissing = error == Errno.ENOSYS;
            }
            if (name.Length > MaxName) { return Errno.ENAMETOOLONG; }
            Span<byte> path = stackalloc byte[ProcPathSize];
            FormatProcPath(path, directory, name);
            fixed (byte* full = path)
            {
                return Check(name.Length > 1 ? lremovexattr(full, a) : removexattr(full, a));
            }
        }
    }
}
