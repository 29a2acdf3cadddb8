using System.Buffers;
using System.Globalization;
using System.Text;

namespace Veneer.Linux;

/// <summary>
/// Converts paths between bytes, as the kernel has them, and text, as command lines and messages have them, without loss.
/// </summary>
/// <remarks>
/// Bytes that are not UTF-8 become the lone surrogates U+DC80 to U+DCFF, as Python's surrogateescape does, and turn
/// back into the same bytes.
/// </remarks>
public static class PathText
{
    private const int Lone = 0xDC00;

    /// <summary>Decodes the bytes of a path, up to the first NUL or the end of the span.</summary>
    public static string Decode(ReadOnlySpan<byte> path)
    {
        int end = path.IndexOf((byte)0);
        if (end >= 0) { path = path[..end]; }
        var text = new StringBuilder(path.Length);
        Span<char> utf16 = stackalloc char[2];
        while (path.Length > 0)
        {
            OperationStatus status = Rune.DecodeFromUtf8(path, out Rune rune, out int used);
            if (status == OperationStatus.Done)
            {
                text.Append(utf16[..rune.EncodeToUtf16(utf16)]);
            }
            else
            {
                used = 1; // the other bytes of a broken sequence are decoded again, each on its own
                text.Append((char)(Lone + path[0]));
            }
            path = path[used..];
        }
        return text.ToString();
    }

    /// <summary>Encodes a path as bytes, with a NUL at the end.</summary>
    public static byte[] Encode(string path)
    {
        var bytes = new ArrayBufferWriter<byte>(path.Length + 1);
        ReadOnlySpan<char> rest = path;
        while (rest.Length > 0)
        {
            if (Rune.DecodeFromUtf16(rest, out Rune rune, out int used) == OperationStatus.Done)
            {
                bytes.Advance(rune.EncodeToUtf8(bytes.GetSpan(4)));
            }
            else
            {
                used = 1;
                if (rest[0] is >= (char)(Lone + 0x80) and <= (char)(Lone + 0xFF))
                {
                    bytes.Write([(byte)(rest[0] - Lone)]);
                }
                else
                {
                    bytes.Write("\uFFFD"u8);
                }
            }
            rest = rest[used..];
        }
        bytes.Write([(byte)0]);
        return bytes.WrittenSpan.ToArray();
    }

    /// <summary>Whether the bytes of a path are UTF-8.</summary>
    public static bool IsUtf8(string path)
    {
        for (ReadOnlySpan<char> rest = path; rest.Length > 0;)
        {
            if (Rune.DecodeFromUtf16(rest, out _, out int used) != OperationStatus.Done) { return false; }
            rest = rest[used..];
        }
        return true;
    }

    /// <summary>
    /// Makes a path fit for a terminal, on one line: bytes that are not UTF-8 and invisible characters become \xNN, and
    /// each backslash is doubled.
    /// </summary>
    public static string Printable(string path) => Escape(path, isDoubled: true);

    /// <summary>
    /// Makes a sentence that may hold paths fit for a terminal, as <see cref="Printable"/> does, but leaves backslashes
    /// alone, so that what is printable already does not change.
    /// </summary>
    public static string OnOneLine(string sentence) => Escape(sentence, isDoubled: false);

    /// <summary>Makes a name readable as ASCII: all other bytes, those that are not printable, and backslashes become \xNN.</summary>
    /// <param name="name">The name.</param>
    /// <param name="isWord">Whether spaces do as well, so that the name is one word.</param>
    public static string PrintableAscii(ReadOnlySpan<byte> name, bool isWord = false)
    {
        var text = new StringBuilder(name.Length);
        foreach (byte b in name)
        {
            if (b is > 0x20 and < 0x7F and not (byte)'\\' || (b == ' ' && !isWord)) { text.Append((char)b); }
            else { text.Append(CultureInfo.InvariantCulture, $"\\x{b:x2}"); }
        }
        return text.ToString();
    }

    private static string Escape(string path, bool isDoubled)
    {
        var text = new StringBuilder(path.Length);
        ReadOnlySpan<char> rest = path;
        Span<byte> utf8 = stackalloc byte[4];
        while (rest.Length > 0)
        {
            bool isText = Rune.DecodeFromUtf16(rest, out Rune rune, out int used) == OperationStatus.Done;
            if (isText && rune.Value == '\\')
            {
                text.Append(isDoubled ? @"\\" : @"\");
            }
            else if (isText && (rune.Value == ' ' || IsSeen(Rune.GetUnicodeCategory(rune))))
            {
                text.Append(rest[..used]);
            }
            else if (isText)
            {
                foreach (byte b in utf8[..rune.EncodeToUtf8(utf8)]) { text.Append(CultureInfo.InvariantCulture, $"\\x{b:x2}"); }
            }
            else
            {
                used = 1;
                text.Append(CultureInfo.InvariantCulture, $"\\x{(byte)(rest[0] - Lone):x2}");
            }
            rest = rest[used..];
        }
        return text.ToString();
    }

    private static bool IsSeen(UnicodeCategory category) =>
        category is not (UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.LineSeparator
        or UnicodeCategory.ParagraphSeparator or UnicodeCategory.SpaceSeparator or UnicodeCategory.PrivateUse
        or UnicodeCategory.OtherNotAssigned);
}
