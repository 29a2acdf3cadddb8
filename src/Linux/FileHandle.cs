using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>A file handle: the filesystem's own name for an inode, valid across mounts and reboots. See name_to_handle_at(2).</summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct FileHandle
{
    /// <summary>Largest handle, in bytes (MAX_HANDLE_SZ).</summary>
    public const int MaxLength = 128;

    private uint length;
    private int type;
    private fixed byte bytes[MaxLength];

    /// <summary>Builds a handle from its stored type and bytes.</summary>
    /// <exception cref="ArgumentOutOfRangeException">
    /// <paramref name="content"/> is longer than <see cref="MaxLength"/> bytes.
    /// </exception>
    public FileHandle(int type, ReadOnlySpan<byte> content)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(content.Length, MaxLength);
        this.type = type;
        length = (uint)content.Length;
        content.CopyTo(MemoryMarshal.CreateSpan(ref bytes[0], MaxLength));
    }

    /// <summary>The filesystem's type number of the handle.</summary>
    public readonly int Type => type;

    /// <summary>The handle's bytes.</summary>
    [UnscopedRef]
    public readonly ReadOnlySpan<byte> Content => MemoryMarshal.CreateReadOnlySpan(ref Unsafe.AsRef(in bytes[0]), (int)length);

    /// <summary>Gets the handle of a name in a directory, or of the directory's descriptor with <see cref="Libc.Self"/>.</summary>
    /// <returns><see cref="Errno.EOPNOTSUPP"/> when the filesystem has no handles.</returns>
    public static Errno Of(int directory, ReadOnlySpan<byte> name, out FileHandle handle)
    {
        handle = default;
        handle.length = MaxLength;
        return Libc.NameToHandle(directory, name, ref handle, 0);
    }

    /// <summary>
    /// Gets a handle that identifies an inode but may not be opened (AT_HANDLE_FID, Linux 6.5). Some filesystems have
    /// handles of this kind only.
    /// </summary>
    /// <returns>
    /// <see cref="Errno.EOPNOTSUPP"/> when the filesystem has no such handles, <see cref="Errno.EINVAL"/> on an older
    /// kernel.
    /// </returns>
    public static Errno IdentifierOf(int directory, ReadOnlySpan<byte> name, out FileHandle handle)
    {
        const int identifierOnly = 0x200;
        handle = default;
        handle.length = MaxLength;
        return Libc.NameToHandle(directory, name, ref handle, identifierOnly);
    }
}

public static unsafe partial class Libc
{
    [LibraryImport(Library, SetLastError = true)]
    private static partial int name_to_handle_at(int directory, byte* name, FileHandle* handle, int* mountId, int flags);

    internal static Errno NameToHandle(int directory, ReadOnlySpan<byte> name, ref FileHandle handle, int flags)
    {
        int mountId;
        fixed (byte* p = name)
        fixed (FileHandle* h = &handle)
        {
            return Check(name_to_handle_at(directory, p, h, &mountId, AtEmptyPath | flags));
        }
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int open_by_handle_at(int mount, FileHandle* handle, int flags);

    /// <summary>Opens an inode by its handle. Needs CAP_DAC_READ_SEARCH. See open_by_handle_at(2).</summary>
    /// <returns><see cref="Errno.ESTALE"/> when the inode no longer exists.</returns>
    public static Errno OpenByHandle(int mount, ref FileHandle handle, OpenFlags flags, out int descriptor)
    {
        fixed (FileHandle* h = &handle)
        {
            Errno error = Check(open_by_handle_at(mount, h, (int)(flags | OpenFlags.CloseOnExec)), out descriptor);
            if (error.IsError) { descriptor = -1; }
            return error;
        }
    }
}
