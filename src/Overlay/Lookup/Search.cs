using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Lookup;

/// <summary>What a search through the layers has learned so far. Kernel: struct ovl_lookup_data.</summary>
internal ref struct Search(bool isDirectory)
{
    /// <summary>Whether the search is for a directory.</summary>
    public bool IsDirectory = isDirectory;

    /// <summary>Whether the search has ended: nothing in the layers below counts.</summary>
    public bool Stop;

    /// <summary>Whether this is the lowest layer, so that attributes which lead further down are not read.</summary>
    public bool IsLast;

    /// <summary>Whether the last file that was found is a metacopy.</summary>
    public bool IsMetacopy;

    /// <summary>
    /// The redirect to look for instead of the name: a name, or a path from the root; with its NUL. Null without a redirect.
    /// </summary>
    public byte[]? Path;

    /// <summary>Whether <see cref="Path"/> is a path from the root.</summary>
    public readonly bool IsFromRoot => Path is [(byte)'/', ..];

    /// <summary>Reads the redirect of an object, and if there is one, goes on with it in the layers below.</summary>
    /// <param name="directory">A descriptor of the object's directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="xattr">The names of the overlay's attributes in the layer.</param>
    /// <param name="before">The part of the path before the name.</param>
    /// <param name="after">The part of the path after the name, with its NUL; empty when the redirect replaces all of the path.</param>
    public Errno FollowRedirect(int directory, ReadOnlySpan<byte> name, OverlayXattr xattr, ReadOnlySpan<byte> before = default,
        ReadOnlySpan<byte> after = default)
    {
        Errno error = OverlayAttributes.ReadRedirect(directory, name, xattr, stackalloc byte[OverlayAttributes.RedirectRoom],
            out ReadOnlySpan<byte> redirect);
        if (error.IsNoXattr) { return Errno.None; }
        if (error.IsError) { return error; }
        bool isAbsolute = redirect is [(byte)'/', ..];
        if (after.IsEmpty) { Path = [.. redirect, 0]; }
        else { Path = isAbsolute ? [.. redirect, .. after] : [.. before, .. redirect, .. after]; }
        // An opaque ancestor stops the search, but an absolute redirect leads elsewhere.
        if (isAbsolute) { Stop = false; }
        return Errno.None;
    }
}
