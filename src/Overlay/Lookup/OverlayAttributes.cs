using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Lookup;

/// <summary>Reads the overlay's attributes of real objects. Whoever asks for an object in upper holds the rename lock.</summary>
internal static class OverlayAttributes
{
    /// <summary>Room for all redirects but very long ones, in bytes.</summary>
    public const int RedirectRoom = 1024;

    /// <summary>Reads an attribute whose value is one byte.</summary>
    /// <returns>The byte, or 0 when there is no such attribute or its value is longer.</returns>
    public static byte ReadFlag(int directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> attribute)
    {
        Span<byte> value = stackalloc byte[1];
        Errno error = Libc.GetXattrAt(directory, name, attribute, value, out int length);
        return error.IsError || length != 1 ? (byte)0 : value[0];
    }

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

    /// <summary>Reads the redirect of a directory or a metacopy.</summary>
    /// <param name="directory">A descriptor of the object's directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="xattr">The names of the overlay's attributes in the layer.</param>
    /// <param name="room"><see cref="RedirectRoom"/> bytes. A longer redirect is read into an array of its own.</param>
    /// <param name="redirect">A name, or a path from the root; without a NUL.</param>
    /// <returns>
    /// <see cref="Errno.ENODATA"/> or <see cref="Errno.EOPNOTSUPP"/> when there is no redirect; <see cref="Errno.EINVAL"/> when
    /// the redirect cannot be followed.
    /// </returns>
    public static Errno ReadRedirect(int directory, ReadOnlySpan<byte> name, OverlayXattr xattr, Span<byte> room,
        out ReadOnlySpan<byte> redirect)
    {
        redirect = default;
        Errno error = Libc.GetXattrAt(directory, name, xattr.Redirect, room, out int length);
        if (error == Errno.ERANGE)
        {
            room = new byte[Redirect.MaxStored];
            error = Libc.GetXattrAt(directory, name, xattr.Redirect, room, out length);
        }
        if (error.IsError) { return error; }
        return Redirect.TryRead(room[..length], out redirect) ? Errno.None : Errno.EINVAL;
    }
}
