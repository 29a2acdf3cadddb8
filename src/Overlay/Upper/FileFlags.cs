using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Upper;

/// <summary>
/// The flags of chattr(1), as FS_IOC_GETFLAGS has them and as <c>struct fsxattr</c> does. Kernel: ovl_copy_fileattr(),
/// ovl_set_protattr(), ovl_fileattr_set().
/// </summary>
/// <remarks>
/// The immutable and the append-only flag must not be set on an object of upper, since the server could not change it then.
/// They are kept in its protattr attribute, as letters.
/// </remarks>
internal static class FileFlags
{
    private const uint Sync = 0x8, Immutable = 0x10, AppendOnly = 0x20, NoAccessTime = 0x80;
    private const uint Protecting = Immutable | AppendOnly;
    private const uint Copied = Sync | NoAccessTime;
    private const uint ExtendedImmutable = 0x8, ExtendedAppendOnly = 0x10;

    /// <summary><c>struct fsxattr</c>.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 28)]
    private struct Extended
    {
        public uint Flags;
    }

    /// <summary>
    /// Gives a copy the flags of a lower object that count: immutable and append-only as an attribute, sync and noatime as flags.
    /// </summary>
    public static Errno CopyUp(in RealReference source, in Statx stat, int directory, ReadOnlySpan<byte> name, OverlayXattr xattr)
    {
        // The file is opened only if it may have flags.
        const ulong telling = Immutable | AppendOnly; // STATX_ATTR_IMMUTABLE and STATX_ATTR_APPEND have the same values
        bool isFree = (stat.AttributesMask & telling) == telling && (stat.Attributes & telling) == 0;
        if (isFree && source.Layer is { FileSystem.HasFileFlags: false }) { return Errno.None; }
        if (source.Open(OpenFlags.ReadOnly | OpenFlags.NonBlock, out int original).IsError) { return Errno.None; }
        uint flags = 0;
        Errno error = Libc.Ioctl(original, InodeFlags.Get, ref flags, out _);
        Libc.Close(original);
        if (error.IsError) { return Errno.None; } // the lower filesystem has no flags
        if ((flags & Copied) != 0)
        {
            error = Add(new RealReference(directory, name), flags & Copied);
            if (error.IsError) { return error; }
        }
        return (flags & Protecting) == 0 ? Errno.None : SetProtection(directory, name, Protections.OfFlags(flags), xattr);
    }

    /// <summary>Sets flags of a copy.</summary>
    private static Errno Add(in RealReference copy, uint flags)
    {
        if (copy.Open(OpenFlags.ReadOnly | OpenFlags.NonBlock, out int descriptor).IsError) { return Errno.None; }
        uint all = 0;
        Errno error = Libc.Ioctl(descriptor, InodeFlags.Get, ref all, out _);
        all |= flags;
        if (!error.IsError) { error = Libc.Ioctl(descriptor, InodeFlags.Set, ref all, out _); }
        Libc.Close(descriptor);
        return error is Errno.ENOTTY or Errno.EOPNOTSUPP ? Errno.None : error; // upper's filesystem has no such flags
    }

    /// <summary>Answers FS_IOC_GETFLAGS or FS_IOC_FSGETXATTR.</summary>
    /// <param name="real">The object.</param>
    /// <param name="command">A request of <see cref="InodeFlags"/>.</param>
    /// <param name="isUpper">Whether the object is in upper.</param>
    /// <param name="xattr">The names of the overlay's attributes in upper.</param>
    /// <param name="output">Room for the answer.</param>
    /// <param name="length">The size of the answer in bytes.</param>
    public static Errno Read(in RealReference real, uint command, bool isUpper, OverlayXattr xattr, Span<byte> output, out int length)
    {
        length = command == InodeFlags.Get ? sizeof(uint) : Unsafe.SizeOf<Extended>();
        if (output.Length < length) { return Errno.EINVAL; }
        Errno error = real.Open(OpenFlags.ReadOnly | OpenFlags.NonBlock, out int descriptor);
        if (error.IsError) { return error; }
        Protection protection = isUpper ? ProtectionAttribute.Read(real.Directory, real.Name, xattr) : Protection.None;
        if (command == InodeFlags.Get)
        {
            uint flags = 0;
            error = Libc.Ioctl(descriptor, InodeFlags.Get, ref flags, out _);
            MemoryMarshal.Write(output, flags | Plain(protection));
        }
        else
        {
            var extended = default(Extended);
            error = Libc.Ioctl(descriptor, InodeFlags.GetExtended, ref extended, out _);
            if ((protection & Protection.Immutable) != 0) { extended.Flags |= ExtendedImmutable; }
            if ((protection & Protection.AppendOnly) != 0) { extended.Flags |= ExtendedAppendOnly; }
            MemoryMarshal.Write(output, extended);
        }
        Libc.Close(descriptor);
        return error;
    }

    /// <summary>Serves FS_IOC_SETFLAGS or FS_IOC_FSSETXATTR for an object of upper.</summary>
    /// <param name="real">The object.</param>
    /// <param name="command">A request of <see cref="InodeFlags"/>.</param>
    /// <param name="xattr">The names of the overlay's attributes in upper.</param>
    /// <param name="argument">The argument of the request.</param>
    /// <param name="protection">The flags that protect the object from now on, unless an error is returned.</param>
    public static Errno Write(
        in RealReference real, uint command, OverlayXattr xattr, ReadOnlySpan<byte> argument, out Protection protection)
    {
        protection = Protection.None;
        if (argument.Length < (command == InodeFlags.Set ? sizeof(uint) : Unsafe.SizeOf<Extended>())) { return Errno.EINVAL; }
        Errno error = real.Open(OpenFlags.ReadOnly | OpenFlags.NonBlock, out int descriptor);
        if (error.IsError) { return error; }
        // Flags that the object of upper itself has stay. Kernel: ovl_set_protattr(), which cannot write its attribute then.
        error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat);
        if (!error.IsError && Protections.Of(stat) != Protection.None) { error = Errno.EPERM; }
        if (error.IsError)
        {
            Libc.Close(descriptor);
            return error;
        }
        if (command == InodeFlags.Set)
        {
            uint flags = MemoryMarshal.Read<uint>(argument);
            protection = Protections.OfFlags(flags);
            flags &= ~Protecting;
            error = Libc.Ioctl(descriptor, InodeFlags.Set, ref flags, out _);
        }
        else
        {
            Extended extended = MemoryMarshal.Read<Extended>(argument);
            protection = ((extended.Flags & ExtendedImmutable) != 0 ? Protection.Immutable : Protection.None)
                | ((extended.Flags & ExtendedAppendOnly) != 0 ? Protection.AppendOnly : Protection.None);
            extended.Flags &= ~(ExtendedImmutable | ExtendedAppendOnly);
            error = Libc.Ioctl(descriptor, InodeFlags.SetExtended, ref extended, out _);
        }
        Libc.Close(descriptor);
        return error.IsError ? error : SetProtection(real.Directory, real.Name, protection, xattr);
    }

    private static uint Plain(Protection protection) =>
        ((protection & Protection.Immutable) != 0 ? Immutable : 0) | ((protection & Protection.AppendOnly) != 0 ? AppendOnly : 0);

    private static Errno SetProtection(int directory, ReadOnlySpan<byte> name, Protection protection, OverlayXattr xattr)
    {
        Span<byte> letters = stackalloc byte[Protections.MaxLength];
        int length = Protections.Write(protection, letters);
        if (length > 0) { return Libc.SetXattrAt(directory, name, xattr.ProtAttr, letters[..length], XattrFlags.None); }
        Errno error = Libc.RemoveXattrAt(directory, name, xattr.ProtAttr);
        return error.IsNoXattr ? Errno.None : error;
    }
}
