using System.Runtime.InteropServices;
using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Upper;

/// <summary>Copies extended attributes, ACLs and capabilities among them. Kernel: ovl_copy_xattr().</summary>
internal static unsafe class XattrCopy
{
    private const int MaxSize = 64 * 1024;

    /// <summary>Copies all but the overlay's own.</summary>
    /// <param name="source">The directory of what has them.</param>
    /// <param name="sourceName">Its name, with its NUL.</param>
    /// <param name="sourceXattr">How the overlay's own are named there.</param>
    /// <param name="target">The directory of what gets them, in upper.</param>
    /// <param name="targetName">Its name, with its NUL.</param>
    /// <param name="xattr">How the overlay's own are named in upper.</param>
    public static Errno Run(int source, ReadOnlySpan<byte> sourceName, OverlayXattr sourceXattr, int target, ReadOnlySpan<byte> targetName, OverlayXattr xattr)
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
                // Who has no number here cannot be named in the copy either.
                if (PosixAcl.IsOne(name) && PosixAcl.NamesUnmapped(value[..length])) { return Errno.EOVERFLOW; }
                error = renames
                    ? SetRenamed(target, targetName, name, value[..length], sourceXattr, xattr)
                    : Libc.SetXattrAt(target, targetName, name, value[..length], XattrFlags.None);
                // Upper may lack a namespace that only decorates; one that protects must not get lost. Kernel: ovl_must_copy_xattr()
                if (error.IsError && (error != Errno.EOPNOTSUPP || MustCopy(name))) { return error; }
            }
            return Errno.None;
        }
        finally
        {
            NativeMemory.Free(memory);
        }
    }

    /// <summary>As the user sees it there, and then as that is stored here.</summary>
    private static Errno SetRenamed(int target, ReadOnlySpan<byte> targetName, ReadOnlySpan<byte> name, ReadOnlySpan<byte> value, OverlayXattr sourceXattr, OverlayXattr xattr)
    {
        Span<byte> seen = stackalloc byte[256];
        name.CopyTo(seen);
        Errno error = xattr.Escape(seen[..sourceXattr.Filter(seen[..name.Length])], stackalloc byte[256], out ReadOnlySpan<byte> stored);
        return error.IsError ? error : Libc.SetXattrAt(target, targetName, stored, value, XattrFlags.None);
    }

    private static bool MustCopy(ReadOnlySpan<byte> name) =>
        name.StartsWith("system.posix_acl_"u8) || name.StartsWith("security."u8);
}
