using System.Runtime.InteropServices;
using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Upper;

/// <summary>Copies extended attributes, including ACLs and capabilities. Kernel: ovl_copy_xattr().</summary>
internal static unsafe class XattrCopy
{
    /// <summary>The largest value, and the largest list of names, that the kernel allows, in bytes.</summary>
    private const int MaxSize = 64 * 1024;

    /// <summary>Copies all extended attributes of an object, except those of the overlay.</summary>
    /// <param name="source">A descriptor of the directory that has the object.</param>
    /// <param name="sourceName">The name of the object, with its NUL.</param>
    /// <param name="sourceXattr">The names of the overlay's attributes there.</param>
    /// <param name="target">A descriptor of the directory that has the copy, or of the copy itself.</param>
    /// <param name="targetName">The name of the copy, with its NUL; empty but for the NUL for the copy itself.</param>
    /// <param name="xattr">The names of the overlay's attributes in upper.</param>
    public static Errno Run(
        int source, ReadOnlySpan<byte> sourceName, OverlayXattr sourceXattr,
        int target, ReadOnlySpan<byte> targetName, OverlayXattr xattr)
    {
        Errno error = Libc.ListXattrAt(source, sourceName, default, out int size);
        if (error == Errno.EOPNOTSUPP || (!error.IsError && size == 0)) { return Errno.None; }
        if (error.IsError) { return error; }
        byte* memory = (byte*)NativeMemory.Alloc(2 * MaxSize);
        try
        {
            error = Libc.ListXattrAt(source, sourceName, new Span<byte>(memory, MaxSize), out size);
            if (error.IsError) { return error; }
            ReadOnlySpan<byte> names = new(memory, size);
            var value = new Span<byte>(memory + MaxSize, MaxSize);
            bool renames = sourceXattr.IsUser != xattr.IsUser;
            while (names.Length > 0)
            {
                ReadOnlySpan<byte> name = names[..(names.IndexOf((byte)0) + 1)];
                names = names[name.Length..];
                if (sourceXattr.IsPrivate(name) || name.SequenceEqual("security.evm\0"u8)) { continue; }
                error = Libc.GetXattrAt(source, sourceName, name, value, out int length);
                if (error == Errno.ENODATA) { continue; }
                if (error.IsError) { return error; }
                // An ACL that names a user or a group without a number here cannot be copied.
                if (PosixAcl.IsOne(name) && PosixAcl.NamesUnmapped(value[..length])) { return Errno.EOVERFLOW; }
                error = renames
                    ? SetRenamed(target, targetName, name, value[..length], sourceXattr, xattr)
                    : Libc.SetXattrAt(target, targetName, name, value[..length], XattrFlags.None);
                // Upper may refuse a namespace, unless its attributes protect the object. Kernel: ovl_must_copy_xattr().
                if (error.IsError && (error != Errno.EOPNOTSUPP || MustCopy(name))) { return error; }
            }
            return Errno.None;
        }
        finally
        {
            NativeMemory.Free(memory);
        }
    }

    /// <summary>
    /// Sets an attribute under the name that it has in upper. An attribute that users see under the same name is stored under
    /// another one if the overlay's attributes have other names there.
    /// </summary>
    private static Errno SetRenamed(
        int target, ReadOnlySpan<byte> targetName, ReadOnlySpan<byte> name, ReadOnlySpan<byte> value,
        OverlayXattr sourceXattr, OverlayXattr xattr)
    {
        Span<byte> seen = stackalloc byte[256];
        name.CopyTo(seen);
        Errno error = xattr.Escape(seen[..sourceXattr.Filter(seen[..name.Length])], stackalloc byte[256], out ReadOnlySpan<byte> stored);
        return error.IsError ? error : Libc.SetXattrAt(target, targetName, stored, value, XattrFlags.None);
    }

    /// <summary>Whether an attribute protects the object, so that it must not get lost.</summary>
    private static bool MustCopy(ReadOnlySpan<byte> name) =>
        name.StartsWith("system.posix_acl_"u8) || name.StartsWith("security."u8);
}
