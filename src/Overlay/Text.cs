using System.Globalization;
using System.Text;

namespace Veneer.Overlay;

/// <summary>Makes names readable for people.</summary>
internal static class Text
{
    /// <summary>Writes each byte of a name that is not printable ASCII, and each backslash, as \xNN.</summary>
    public static string Printable(ReadOnlySpan<byte> name)
    {
        var text = new StringBuilder();
        foreach (byte b in name)
        {
            if (b is >= 0x20 and < 0x7F and not (byte)'\\') { text.Append((char)b); }
            else { text.Append(CultureInfo.InvariantCulture, $"\\x{b:x2}"); }
        }
        return text.ToString();
    }
}
