namespace Veneer.Overlay.Format;

/// <summary>Reads values of the redirect attribute. Kernel: ovl_get_redirect_xattr(), ovl_get_redirect().</summary>
internal static class Redirect
{
    /// <summary>The longest redirect that is written, in bytes (the kernel's redirect_max).</summary>
    public const int MaxLength = 256;

    /// <summary>The longest redirect that can be stored, in bytes (XATTR_SIZE_MAX).</summary>
    public const int MaxStored = 64 * 1024;

    /// <summary>
    /// Reads a stored value: one name, or a path from the root without empty components. A component may still be <c>.</c>
    /// or <c>..</c>.
    /// </summary>
    /// <param name="value">The value as it is stored.</param>
    /// <param name="redirect">The part up to the first NUL: the kernel reads a string.</param>
    /// <returns>False when the redirect cannot be followed.</returns>
    public static bool TryRead(ReadOnlySpan<byte> value, out ReadOnlySpan<byte> redirect)
    {
        int end = value.IndexOf((byte)0);
        redirect = end < 0 ? value : value[..end];
        if (value.IsEmpty) { return false; }
        if (redirect is not [(byte)'/', ..]) { return !redirect.Contains((byte)'/'); }
        return redirect[^1] != '/' && redirect.IndexOf("//"u8) < 0;
    }
}
