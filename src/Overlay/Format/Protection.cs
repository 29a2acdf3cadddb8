using Veneer.Linux;

namespace Veneer.Overlay.Format;

/// <summary>What the file flags of chattr(1) forbid.</summary>
[Flags]
internal enum Protection : byte
{
    /// <summary>Nothing.</summary>
    None = 0,
    /// <summary>Immutable: every change.</summary>
    Immutable = 1,
    /// <summary>Append-only: every change but adding at the end, and names in a directory.</summary>
    AppendOnly = 2,
}

/// <summary>The forms in which files say what is forbidden: letters in the protattr attribute, and the flags of statx(2).</summary>
internal static class Protections
{
    /// <summary>Room for the letters, in bytes.</summary>
    public const int MaxLength = 2;

    /// <summary>Reads the letters; an unknown one ends them. Kernel: ovl_check_protattr().</summary>
    public static Protection Parse(ReadOnlySpan<byte> letters)
    {
        Protection all = Protection.None;
        foreach (byte letter in letters)
        {
            if (letter == 'a') { all |= Protection.AppendOnly; }
            else if (letter == 'i') { all |= Protection.Immutable; }
            else { break; }
        }
        return all;
    }

    /// <summary>Writes the letters. Kernel: ovl_set_protattr().</summary>
    /// <param name="protection">What is forbidden.</param>
    /// <param name="letters">Room for <see cref="MaxLength"/> bytes.</param>
    /// <returns>How many there are; with none there is no attribute.</returns>
    public static int Write(Protection protection, Span<byte> letters)
    {
        int length = 0;
        if ((protection & Protection.AppendOnly) != 0) { letters[length++] = (byte)'a'; }
        if ((protection & Protection.Immutable) != 0) { letters[length++] = (byte)'i'; }
        return length;
    }

    /// <summary>What the object's own flags forbid (STATX_ATTR_IMMUTABLE, STATX_ATTR_APPEND).</summary>
    public static Protection Of(in Statx stat) => OfFlags((uint)(stat.Attributes & stat.AttributesMask));

    /// <summary>What the flags of chattr(1) forbid (FS_IMMUTABLE_FL, FS_APPEND_FL), whose values are those of statx(2).</summary>
    public static Protection OfFlags(uint flags) =>
        ((flags & Immutable) != 0 ? Protection.Immutable : Protection.None) | ((flags & AppendOnly) != 0 ? Protection.AppendOnly : Protection.None);

    private const uint Immutable = 0x10, AppendOnly = 0x20;
}
