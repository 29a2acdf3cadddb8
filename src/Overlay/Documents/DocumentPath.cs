using System.Diagnostics.CodeAnalysis;
using System.Text;
using Veneer.Linux;

namespace Veneer.Overlay.Documents;

/// <summary>Converts paths in documents. Only this class knows how JSON holds a path that is not UTF-8.</summary>
/// <remarks>
/// Programs hold such a path as the text of <see cref="PathText"/>. A document holds it in two members. One is for people,
/// with U+FFFD for each byte that is not UTF-8. The other has <c>_base64</c> at the end of its name, and holds the bytes. A
/// path that is UTF-8 has only the first.
/// <para>
/// A type with a property <c>Path</c> has a second one, <c>PathBase64</c>, which takes its value from <see cref="BytesOf"/>
/// and gives what was read to <see cref="TextOf"/>. <see cref="DocumentText"/> does the rest.
/// </para>
/// </remarks>
internal static class DocumentPath
{
    /// <summary>The value of the member for people: U+FFFD for each byte that is not UTF-8.</summary>
    public static string Readable(string path)
    {
        if (PathText.IsUtf8(path)) { return path; }
        var readable = new StringBuilder(path.Length);
        foreach (Rune rune in path.EnumerateRunes()) { readable.Append(rune); } // a lone surrogate comes as U+FFFD
        return readable.ToString();
    }

    /// <summary>The value of the member with the bytes; null when the path is UTF-8.</summary>
    public static byte[]? BytesOf(string? path) => path is null || PathText.IsUtf8(path) ? null : PathText.Encode(path)[..^1];

    /// <summary>Makes the path from the two members.</summary>
    /// <param name="bytes">The member with the bytes, or null.</param>
    /// <param name="readable">The member for people.</param>
    [return: NotNullIfNotNull(nameof(readable))]
    public static string? TextOf(byte[]? bytes, string? readable) => bytes is null ? readable : PathText.Decode(bytes);

    /// <summary>The most bytes that the members of a path can take in a document.</summary>
    public static int MostBytes(string? path)
    {
        int bytes = 0;
        foreach (char character in path ?? "")
        {
            bool isPlain = char.IsAsciiLetterOrDigit(character) || character is '/' or '.' or '-' or '_';
            // An escaped character has at most 6 bytes; in base64 its UTF-8, at most 3 bytes, takes 4 more.
            // A plain character takes 1 byte, and at most 2 in base64 if another character makes the path not UTF-8.
            bytes += isPlain ? 3 : 10;
        }
        return bytes;
    }
}
