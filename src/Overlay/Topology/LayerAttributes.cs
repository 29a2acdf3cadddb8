using System.Buffers.Text;
using System.Text;
using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Topology;

/// <summary>
/// Attributes that every object of a mount has. No list of attributes shows them, so that no program copies them. See
/// docs/control.md.
/// </summary>
internal static class LayerAttributes
{
    private static ReadOnlySpan<byte> Prefix => "trusted.overlay.layers."u8;

    private static ReadOnlySpan<byte> Suffix => ".fh\0"u8;

    /// <summary>Whether a name, with its NUL, is one of these attributes.</summary>
    public static bool Matches(ReadOnlySpan<byte> name) =>
        name.SequenceEqual("user.veneer.layers\0"u8) || (name.StartsWith(Prefix) && name.EndsWith(Suffix));

    /// <summary>Makes an attribute's value for an object; empty when the object has no such attribute.</summary>
    /// <param name="name">The attribute's name, with its NUL.</param>
    /// <param name="parts">What the layers contribute to the object.</param>
    /// <param name="uuidOf">Gets the UUID of a layer's filesystem by the layer's index.</param>
    public static byte[] Value(ReadOnlySpan<byte> name, IReadOnlyList<ObjectPart> parts, Func<int, byte[]> uuidOf)
    {
        if (!name.StartsWith(Prefix)) { return Encoding.UTF8.GetBytes(Describe(parts)); }
        ReadOnlySpan<byte> digits = name[Prefix.Length..^Suffix.Length];
        if (!Utf8Parser.TryParse(digits, out int index, out int used) || used != digits.Length) { return []; }
        foreach (ObjectPart part in parts)
        {
            if (part.Layer != index || part.Handle.Length == 0) { continue; }
            Span<byte> space = stackalloc byte[OriginHandle.MaxLength];
            int length = OriginHandle.Encode(new FileHandle(part.HandleType, Convert.FromHexString(part.Handle)), uuidOf(index), space);
            return space[..length].ToArray();
        }
        return [];
    }

    private static string Describe(IReadOnlyList<ObjectPart> parts)
    {
        var text = new StringBuilder();
        foreach (ObjectPart part in parts)
        {
            text.Append(part.Layer).Append(' ').AppendJoin(',', OverlayTopology.Words(part.Roles));
            if (part.Roles.HasFlag(PartRoles.Redirected) && part.Path is { } path) { text.Append(' ').Append(PathText.Printable(path)); }
            text.Append('\n');
        }
        return text.ToString();
    }
}
