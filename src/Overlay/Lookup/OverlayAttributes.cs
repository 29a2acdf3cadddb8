using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Lookup;

/// <summary>Reads the overlay's own attributes of a real object.</summary>
/// <remarks>Each method takes the descriptor of the object's directory and the object's name, with its NUL.</remarks>
internal static class OverlayAttributes
{
    /// <summary>Whether a regular file is a metacopy. Kernel: ovl_check_metacopy_xattr().</summary>
    /// <returns><see cref="Errno.EIO"/> when the attribute's value is too short for any version of the format.</returns>
    public static Errno ReadMetacopy(int directory, ReadOnlySpan<byte> name, OverlayXattr xattr, out bool isMetacopy)
    {
        const int shortest = 4;
        isMetacopy = false;
        Errno error = Libc.GetXattrAt(directory, name, xattr.Metacopy, default, out int length);
        // A server that may not read the file may not read its user.* attributes either.
        if (error.IsNoXattr || (error == Errno.EACCES && xattr.IsUser)) { return Errno.None; }
        if (error.IsError) { return error; }
        if (length is > 0 and < shortest) { return Errno.EIO; }
        isMetacopy = true;
        return Errno.None;
    }

    /// <summary>Reads an attribute whose value is one byte.</summary>
    /// <returns>The byte, or 0 when there is no such attribute or its value is longer.</returns>
    public static byte ReadFlag(int directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> attribute)
    {
        Span<byte> value = stackalloc byte[1];
        Errno error = Libc.GetXattrAt(directory, name, attribute, value, out int length);
        return error.IsError || length != 1 ? (byte)0 : value[0];
    }

    /// <summary>Reads the redirect of an object.</summary>
    /// <param name="directory">The descriptor of its directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="xattr">The names of attributes in its layer.</param>
    /// <param name="space">A buffer of some 1,024 bytes; for a longer redirect one is allocated.</param>
    /// <param name="redirect">A name, or a path from the root, without a NUL.</param>
    /// <returns>
    /// <see cref="Errno.ENODATA"/> or <see cref="Errno.EOPNOTSUPP"/> when there is none; <see cref="Errno.EINVAL"/> for a value that
    /// is no redirect.
    /// </returns>
    public static Errno ReadRedirect(
        int directory, ReadOnlySpan<byte> name, OverlayXattr xattr, Span<byte> space, out ReadOnlySpan<byte> redirect)
    {
        redirect = default;
        Errno error = Libc.GetXattrAt(directory, name, xattr.Redirect, space, out int length);
        if (error == Errno.ERANGE)
        {
            space = new byte[Redirect.MaxStored];
            error = Libc.GetXattrAt(directory, name, xattr.Redirect, space, out length);
        }
        if (error.IsError) { return error; }
        return Redirect.TryRead(space[..length], out redirect) ? Errno.None : Errno.EINVAL;
    }
}

/// <summary>The names of an object's extended attributes, read by one call.</summary>
internal readonly ref struct XattrNames
{
    /// <summary>Room for the names, in bytes. When they need more, every attribute is read.</summary>
    public const int Room = 1024;

    private readonly ReadOnlySpan<byte> list;
    private readonly bool isUnknown;

    /// <summary>Reads the names.</summary>
    /// <param name="directory">The descriptor of the object's directory.</param>
    /// <param name="name">The object's name, with its NUL.</param>
    /// <param name="space">Room for the names.</param>
    public XattrNames(int directory, ReadOnlySpan<byte> name, Span<byte> space)
    {
        Errno error = Libc.ListXattrAt(directory, name, space, out int length);
        isUnknown = error.IsError && error != Errno.EOPNOTSUPP;
        list = error.IsError ? default : space[..length];
    }

    /// <summary>Whether the object may have an attribute, so that reading it is worthwhile.</summary>
    /// <param name="attribute">The attribute's name. Its NUL keeps a longer name from matching.</param>
    public bool MayHave(ReadOnlySpan<byte> attribute) => isUnknown || list.IndexOf(attribute) >= 0;
}
