using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Layers;

/// <summary>Reads the protattr attribute of an object in upper.</summary>
internal static class ProtectionAttribute
{
    /// <summary>What the attribute forbids; nothing when there is none, or it cannot be read.</summary>
    /// <param name="directory">A descriptor of the object's directory, or with an empty name of the object.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="xattr">The names of the overlay's attributes in upper.</param>
    public static Protection Read(int directory, ReadOnlySpan<byte> name, OverlayXattr xattr)
    {
        Span<byte> letters = stackalloc byte[32];
        return Libc.GetXattrAt(directory, name, xattr.ProtAttr, letters, out int length).IsError
            ? Protection.None
            : Protections.Parse(letters[..length]);
    }
}
