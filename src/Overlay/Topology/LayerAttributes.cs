using System.Buffers.Text;
using System.Text;
using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Topology;

/// <summary>The values of the attributes that tell of an object's layers: see <see cref="AnsweredXattr"/>.</summary>
internal static class LayerAttributes
{
    /// <summary>Makes an attribute's value for an object; empty when the object has no such attribute.</summary>
    /// <param name="name">The attribute's name, with its NUL.</param>
    /// <param name="parts">What the layers contribute to the object.</param>
    /// <param name="uuidOf">Gets the UUID of a layer's filesystem by the layer's index.</param>
    public static byte[] Value(ReadOnlySpan<byte> name, IReadOnlyList<ObjectPart> parts, Func<int, byte[]> uuidOf)
    {
        if (!name.StartsWith(AnsweredXattr.HandlePrefix)) { return Encoding.UTF8.GetBytes(Describe(parts)); }
        ReadOnlySpan<byte> digits = name[AnsweredXattr.HandlePrefix.Length..^AnsweredXattr.HandleSuffix.Length];
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
