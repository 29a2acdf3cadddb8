using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Layers;

/// <summary>The protattr attribute of an object of upper.</summary>
internal static class ProtectionAttribute
{
    /// <summary>What it forbids; nothing when there is none, or it cannot be read.</summary>
    /// <param name="directory">Where the object is, or with an empty name the object.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="xattr">Names of upper's attributes.</param>
    public static Protection Read(int directory, ReadOnlySpan<byte> name, OverlayXattr xattr)
    {
        Span<byte> letters = stackalloc byte[32];
        return Libc.GetXattrAt(directory, name, xattr.ProtAttr, letters, out int length).IsError ? Protection.None : Protections.Parse(letters[..length]);
    }
}
