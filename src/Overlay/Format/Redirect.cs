namespace Veneer.Overlay.Format;

/// <summary>The value of the redirect attribute. Kernel: ovl_get_redirect_xattr(), ovl_get_redirect().</summary>
internal static class Redirect
{
    /// <summary>Longest redirect that is written, in bytes (the kernel's redirect_max).</summary>
    public const int MaxLength = 256;

    /// <summary>
    /// Whether a stored value can be followed: one name, or a path from the root whose components are names.
    /// </summary>
    /// <remarks>The kernel looks components up one by one, where "." and ".." are refused; they are refused here.</remarks>
    public static bool IsValid(ReadOnlySpan<byte> value)
    {
        if (value.IsEmpty || value.Contains((byte)0)) { return false; }
        if (value[0] != '/') { return !value.Contains((byte)'/') && IsName(value); }
        value = value[1..];
        while (true)
        {
            int slash = value.IndexOf((byte)'/');
            if (!IsName(slash < 0 ? value : value[..slash])) { return false; }
            if (slash < 0) { return true; }
            value = value[(slash + 1)..];
        }
    }

    private static bool IsName(ReadOnlySpan<byte> name) => !name.IsEmpty && !name.SequenceEqual("."u8) && !name.SequenceEqual(".."u8);
}
