using System.Globalization;
using Veneer.Linux;

namespace Veneer.Overlay.Changes;

/// <summary>Where a diff goes on that is read in parts.</summary>
/// <param name="Since">When it began: what changes from then on moves under it.</param>
/// <param name="After">The last path that was listed, without NUL; empty at the beginning.</param>
internal readonly record struct DiffPosition(Timestamp Since, byte[] After)
{
    /// <summary>The beginning, now: waits for the next tick of the clock.</summary>
    public static DiffPosition Begin() => new(Timestamp.Next(), []);

    /// <summary>Text that says nothing to anybody else.</summary>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Since.Seconds}.{Since.Nanoseconds}.{Convert.ToHexString(After)}");

    /// <summary>Reads what <see cref="ToString"/> wrote; nothing is the beginning.</summary>
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
