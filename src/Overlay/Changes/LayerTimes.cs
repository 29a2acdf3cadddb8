using System.Globalization;

namespace Veneer.Overlay.Changes;

/// <summary>How times of modification are written in a layer, so that the same content gives the same bytes on another day.</summary>
/// <param name="Seconds">A time, in seconds since 1970; null keeps all times.</param>
/// <param name="IsLimit">Whether only later times are replaced by that time. If not, all are.</param>
public readonly record struct LayerTimes(long? Seconds, bool IsLimit)
{
    /// <summary>
    /// Reads the time of <c>SOURCE_DATE_EPOCH</c>: decimal digits alone. See reproducible-builds.org/specs/source-date-epoch.
    /// </summary>
    public static bool TryParseEpoch(string text, out long seconds) =>
        long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out seconds);

    /// <summary>
    /// Reads a time as in GNU tar's <c>--mtime</c>: <c>@SECONDS</c>, or a date with or without a time of day, in UTC unless it
    /// names a zone.
    /// </summary>
    public static bool TryParse(string text, out long seconds)
    {
        if (text.StartsWith('@'))
        {
            return long.TryParse(text.AsSpan(1), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out seconds);
        }
        bool isDate =
            DateTimeOffset.TryParse(text, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out DateTimeOffset date)
            && text.Length > 0 && char.IsAsciiDigit(text[0]) && text.Contains('-', StringComparison.Ordinal);
        seconds = isDate ? date.ToUnixTimeSeconds() : 0;
        return isDate;
    }

    internal Timestamp Of(Timestamp time) =>
        Seconds is not { } to || (IsLimit && time.IsUpTo(new Timestamp(to, 0))) ? time : new Timestamp(to, 0);
}
