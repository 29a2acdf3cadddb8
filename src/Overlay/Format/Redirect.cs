namespace Veneer.Overlay.Format;

/// <summary>The value of the redirect attribute. Kernel: ovl_get_redirect_xattr(), ovl_get_redirect().</summary>
internal static class Redirect
{
    /// <summary>Longest redirect that is written, in bytes (the kernel's redirect_max).</summary>
    public const int MaxLength = 256;

    /// <summary>Longest redirect that can be stored, in bytes (XATTR_SIZE_MAX).</summary>
    public const int MaxStored = 64 * 1024;

    /// <summary>Whether a stored value can be followed: one name, or a path from the root without empty components.</summary>
    public static bool IsValid(ReadOnlySpan<byte> value)
    {
        if (value.IsEmpty || value.Contains((byte)0)) { return false; }
        if (value[0] != '/') { return !value.Contains((byte)'/'); }
        return value[^1] != '/' && value.IndexOf("//"u8) < 0;
    }

    /// <summary>Whether a component is "." or "..", which would lead elsewhere than a name does. Kernel: lookup_noperm_common()</summary>
    public static bool HasDots(ReadOnlySpan<byte> value)
    {
        foreach (Range component in value.Split((byte)'/'))
        {
            if (value[component].SequenceEqual("."u8) || value[component].SequenceEqual(".."u8)) { return true; }
        }
        return false;
    }
}
