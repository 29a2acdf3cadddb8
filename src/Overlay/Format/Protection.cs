using Veneer.Linux;

namespace Veneer.Overlay.Format;

/// <summary>What the file flags of chattr(1) forbid.</summary>
[Flags]
internal enum Protection : byte
{
    /// <summary>Nothing.</summary>
    None = 0,
    /// <summary>Immutable: forbids every change.</summary>
    Immutable = 1,
    /// <summary>Append-only: forbids every change but appending to a file and adding names to a directory.</summary>
    AppendOnly = 2,
}

/// <summary>
/// Reads and writes the two forms of a protection: the letters of the protattr attribute, and the flags of statx(2).
/// </summary>
internal static class Protections
{
    /// <summary>The most letters, in bytes.</summary>
    public const int MaxLength = 2;

    /// <summary>Decodes the letters, up to an unknown one. Kernel: ovl_check_protattr().</summary>
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

    /// <summary>Encodes the letters. Kernel: ovl_set_protattr().</summary>
    /// <param name="protection">What is forbidden.</param>
    /// <param name="letters">A buffer of at least <see cref="MaxLength"/> bytes.</param>
    /// <returns>The number of letters; if it is zero, there is no attribute.</returns>
    public static int Write(Protection protection, Span<byte> letters)
    {
        int length = 0;
        if ((protection & Protection.AppendOnly) != 0) { letters[length++] = (byte)'a'; }
        if ((protection & Protection.Immutable) != 0) { letters[length++] = (byte)'i'; }
        return length;
    }

    /// <summary>The protection by the object's own flags (STATX_ATTR_IMMUTABLE, STATX_ATTR_APPEND).</summary>
    public static Protection Of(in Statx stat) => OfFlags((uint)(stat.Attributes & stat.AttributesMask));

    /// <summary>
    /// The protection by the flags of chattr(1) (FS_IMMUTABLE_FL, FS_APPEND_FL), whose values are those of statx(2).
    /// </summary>
    public static Protection OfFlags(uint flags) =>
        ((flags & Immutable) != 0 ? Protection.Immutable : Protection.None)
        | ((flags & AppendOnly) != 0 ? Protection.AppendOnly : Protection.None);

    private const uint Immutable = 0x10, AppendOnly = 0x20;
}
