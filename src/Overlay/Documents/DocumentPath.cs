using System.Diagnostics.CodeAnalysis;
using System.Text;
using Veneer.Linux;

namespace Veneer.Overlay.Documents;

/// <summary>Paths in documents. This is the only place that knows how JSON has a path that is not UTF-8.</summary>
/// <remarks>
/// Programs have such a path as the text of <see cref="PathText"/>. A document has it twice: a member with U+FFFD for each
/// byte that is not UTF-8, for people, and beside it a member with <c>_base64</c> at the end of its name, which has the bytes.
/// A path that is UTF-8 has no such member.
/// <para>
/// A type with a property <c>Path</c> has a second one, <c>PathBase64</c>, which takes its value from <see cref="BytesOf"/>
/// and gives what was read to <see cref="TextOf"/>. <see cref="DocumentText"/> does the rest.
/// </para>
/// </remarks>
internal static class DocumentPath
{
    /// <summary>What the member for people has: U+FFFD for each byte that is not UTF-8.</summary>
    public static string Readable(string path)
    {
        if (PathText.IsUtf8(path)) { return path; }
        var readable = new StringBuilder(path.Length);
        foreach (Rune rune in path.EnumerateRunes()) { readable.Append(rune); } // a lone surrogate comes as U+FFFD
        return readable.ToString();
    }

    /// <summary>What the member with the bytes has; null when there is none.</summary>
    public static byte[]? BytesOf(string? path) => path is null || PathText.IsUtf8(path) ? null : PathText.Encode(path)[..^1];

    /// <summary>The path of the two members.</summary>
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
            // Escaped, a character has at most 6 bytes, and it has at most 3 of UTF-8, which are 4 of base64.
            // Where another character of the path is not UTF-8, a plain one is in base64 too.
            bytes += isPlain ? 3 : 10;
        }
        return bytes;
    }
}
