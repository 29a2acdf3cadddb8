using System.Globalization;
using Veneer.Linux;

namespace Veneer.Overlay.Changes;

/// <summary>The position at which a diff that is read in parts goes on.</summary>
/// <param name="Since">The time when the diff began: objects that change from then on are disturbed.</param>
/// <param name="After">The last path that was listed, without a NUL; empty at the beginning.</param>
internal readonly record struct DiffPosition(Timestamp Since, byte[] After)
{
    /// <summary>Makes the position at the beginning of a diff that begins now. Waits for the next tick of the kernel's clock.</summary>
    public static DiffPosition Begin() => new(Timestamp.Next(), []);

    /// <summary>The position as text, which only <see cref="TryParse"/> need understand.</summary>
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"{Since.Seconds}.{Since.Nanoseconds}.{Convert.ToHexString(After)}");

    /// <summary>Reads a position that <see cref="ToString"/> wrote. Empty text is the beginning.</summary>
    /// <returns>False when the text is no position.</returns>
    public static bool TryParse(ReadOnlySpan<byte> text, out DiffPosition position)
    {
        position = text.IsEmpty ? Begin() : default;
        if (text.IsEmpty) { return true; }
        string[] parts = PathText.Decode(text).Split('.');
        if (parts.Length != 3 || parts[2].Length % 2 != 0 || !parts[2].All(char.IsAsciiHexDigit)
            || !long.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out long seconds)
            || !uint.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out uint nanoseconds)) { return false; }
        position = new DiffPosition(new Timestamp(seconds, nanoseconds), Convert.FromHexString(parts[2]));
        return true;
    }
}
