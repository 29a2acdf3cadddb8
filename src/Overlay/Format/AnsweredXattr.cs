namespace Veneer.Overlay.Format;

/// <summary>
/// Attributes that the server answers by itself, whatever the layers have stored under these names. No list of attributes shows
/// them, so that no program copies them. See docs/control.md.
/// </summary>
internal static class AnsweredXattr
{
    /// <summary>What the layers contribute to the object, in words.</summary>
    public static ReadOnlySpan<byte> Layers => "user.veneer.layers\0"u8;

    /// <summary>Of the mount's root: which process serves it.</summary>
    public static ReadOnlySpan<byte> Server => "user.veneer.server\0"u8;

    /// <summary>The name of the attribute with an object's handle in a layer, before the layer's index.</summary>
    public static ReadOnlySpan<byte> HandlePrefix => "trusted.overlay.layers."u8;

    /// <summary>The rest of that name, with its NUL.</summary>
    public static ReadOnlySpan<byte> HandleSuffix => ".fh\0"u8;

    /// <summary>Whether a name, with its NUL, is that of an attribute which tells of an object's layers.</summary>
    public static bool IsOfLayers(ReadOnlySpan<byte> name) =>
        name.SequenceEqual(Layers) || (name.StartsWith(HandlePrefix) && name.EndsWith(HandleSuffix));

    /// <summary>Whether a name, with its NUL, is answered for an object.</summary>
    /// <param name="name">The name.</param>
    /// <param name="isRoot">Whether the object is the mount's root.</param>
    public static bool Matches(ReadOnlySpan<byte> name, bool isRoot) => IsOfLayers(name) || (isRoot && name.SequenceEqual(Server));
}
