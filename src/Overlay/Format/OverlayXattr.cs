using Veneer.Linux;

namespace Veneer.Overlay.Format;

/// <summary>The names of overlayfs's extended attributes: <c>trusted.overlay.*</c>, or <c>user.overlay.*</c> with userxattr.</summary>
/// <remarks>
/// Names include the NUL at the end. A user's own attribute of that prefix is stored with the prefix twice
/// (<c>trusted.overlay.overlay.x</c>), so that an overlay can be a layer of an overlay. Kernel: fs/overlayfs/xattrs.c.
/// </remarks>
internal sealed class OverlayXattr
{
    private readonly byte[] prefix;
    private readonly byte[] escapedPrefix;

    /// <param name="user">Whether the mount has userxattr.</param>
    public OverlayXattr(bool user)
    {
        IsUser = user;
        prefix = user ? "user.overlay."u8.ToArray() : "trusted.overlay."u8.ToArray();
        escapedPrefix = [.. prefix, .. "overlay."u8];
        Opaque = Name("opaque"u8);
        Redirect = Name("redirect"u8);
        Metacopy = Name("metacopy"u8);
        Origin = Name("origin"u8);
        Impure = Name("impure"u8);
        ProtAttr = Name("protattr"u8);
        Whiteout = Name("whiteout"u8);
        Volatile = Name("volatile"u8);
    }

    /// <summary>Whether the names begin with <c>user.</c>.</summary>
    public bool IsUser { get; }
    /// <summary>
    /// On a directory. <c>y</c>: nothing below shows through. <c>x</c>: it may hold whiteouts in the form of attributes.
    /// </summary>
    public byte[] Opaque { get; }
    /// <summary>The path of the object in the lower layers: a name in the same directory, or a path from the root.</summary>
    public byte[] Redirect { get; }
    /// <summary>On a regular file: the file has attributes only, and its data is in a lower layer.</summary>
    public byte[] Metacopy { get; }
    /// <summary>The file handle of the lower object that the object was copied up from.</summary>
    public byte[] Origin { get; }
    /// <summary>On a directory: its entries may have an origin.</summary>
    public byte[] Impure { get; }
    /// <summary>The flags immutable and append-only, which the real file in upper must not have.</summary>
    public byte[] ProtAttr { get; }
    /// <summary>On an empty regular file: the file is a whiteout.</summary>
    public byte[] Whiteout { get; }

    /// <summary>
    /// On upper, and on the kernel's mark of a volatile upper: the record by which a volatile upper is judged. An attribute
    /// of Veneer's own.
    /// </summary>
    public byte[] Volatile { get; }

    private byte[] Name(ReadOnlySpan<byte> suffix) => [.. prefix, .. suffix, 0];

    /// <summary>Whether a stored attribute is the overlay's own, which users never see. Kernel: ovl_is_private_xattr().</summary>
    public bool IsPrivate(ReadOnlySpan<byte> stored) => IsOwn(stored) && !stored.StartsWith(escapedPrefix);

    /// <summary>Whether an attribute has the overlay's prefix. Kernel: ovl_is_own_xattr().</summary>
    public bool IsOwn(ReadOnlySpan<byte> name) => name.StartsWith(prefix);

    /// <summary>Makes the name under which a user's attribute is stored.</summary>
    /// <param name="name">The name as the user gives it.</param>
    /// <param name="space">A buffer of at least 256 bytes.</param>
    /// <param name="stored">The stored name: <paramref name="name"/> itself, or in <paramref name="space"/>.</param>
    /// <returns>
    /// <see cref="Errno.EOPNOTSUPP"/> when the stored name would be too long, <see cref="Errno.EINVAL"/> for the prefix alone.
    /// Kernel: ovl_xattr_escape_name(), xattr_resolve_name().
    /// </returns>
    public Errno Escape(ReadOnlySpan<byte> name, Span<byte> space, out ReadOnlySpan<byte> stored)
    {
        stored = name;
        if (!IsOwn(name)) { return Errno.None; }
        if (name[prefix.Length..] is [] or [0]) { return Errno.EINVAL; }
        int length = name.Length + "overlay."u8.Length;
        if (length > 256)
        {
            return Errno.EOPNOTSUPP;
        }
        escapedPrefix.CopyTo(space);
        name[prefix.Length..].CopyTo(space[escapedPrefix.Length..]);
        stored = space[..length];
        return Errno.None;
    }

    /// <summary>
    /// Turns a list of stored names into the list that users see, in place: private names are dropped, escaped names
    /// unescaped.
    /// </summary>
    /// <param name="list">Names, each with its NUL.</param>
    /// <returns>The new length in bytes.</returns>
    public int Filter(Span<byte> list)
    {
        int written = 0;
        for (int read = 0; read < list.Length;)
        {
            int length = list[read..].IndexOf((byte)0) + 1;
            if (length == 0) { length = list.Length - read; }
            ReadOnlySpan<byte> name = list.Slice(read, length);
            read += length;
            if (IsPrivate(name)) { continue; }
            if (name.StartsWith(escapedPrefix))
            {
                // The bytes move only to the left: the name shrinks, and nothing before it has grown.
                ReadOnlySpan<byte> suffix = name[escapedPrefix.Length..];
                prefix.CopyTo(list[written..]);
                suffix.CopyTo(list[(written + prefix.Length)..]);
                written += prefix.Length + suffix.Length;
            }
            else
            {
                name.CopyTo(list[written..]);
                written += name.Length;
            }
        }
        return written;
    }
}
