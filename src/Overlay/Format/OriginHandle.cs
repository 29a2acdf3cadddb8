using Veneer.Linux;

namespace Veneer.Overlay.Format;

/// <summary>The value of the origin attribute: <c>struct ovl_fb</c>, a file handle with the UUID of its filesystem.</summary>
/// <remarks>
/// Bytes: version (0), magic (0xFB), length of the whole, flags, handle type, UUID (16), handle.
/// Kernel: ovl_encode_real_fh(), ovl_check_fb_len().
/// </remarks>
internal static class OriginHandle
{
    /// <summary>Room for any value, in bytes.</summary>
    public const int MaxLength = HeaderLength + FileHandle.MaxLength;

    private const int HeaderLength = 21;
    private const byte Version = 0;
    private const byte Magic = 0xFB;
    private const byte BigEndian = 1;
    private const byte AnyEndian = 2;
    private const byte UpperPath = 4;

    /// <summary>Writes the value for a lower object.</summary>
    /// <returns>Its length; 0 when the handle is too long for the format, which says "origin unknown".</returns>
    public static int Encode(in FileHandle handle, ReadOnlySpan<byte> uuid, Span<byte> value)
    {
        int length = HeaderLength + handle.Content.Length;
        if (length > byte.MaxValue || handle.Type is < 0 or > byte.MaxValue) { return 0; }
        value[0] = Version;
        value[1] = Magic;
        value[2] = (byte)length;
        value[3] = BitConverter.IsLittleEndian ? (byte)0 : BigEndian;
        value[4] = (byte)handle.Type;
        uuid.CopyTo(value.Slice(5, 16));
        handle.Content.CopyTo(value[HeaderLength..]);
        return length;
    }

    /// <summary>Reads a value.</summary>
    /// <returns>False when it says nothing that can be used: empty, malformed, of a newer version, or of the other byte order.</returns>
    public static bool TryDecode(ReadOnlySpan<byte> value, out FileHandle handle, out ReadOnlySpan<byte> uuid)
    {
        handle = default;
        uuid = default;
        if (value.Length <= HeaderLength || value[0] != Version || value[1] != Magic || value[2] > value.Length || value[2] <= HeaderLength) { return false; }
        byte flags = value[3];
        if ((flags & ~(BigEndian | AnyEndian | UpperPath)) != 0) { return false; }
        if ((flags & AnyEndian) == 0 && (flags & BigEndian) != 0 == BitConverter.IsLittleEndian) { return false; }
        ReadOnlySpan<byte> content = value[HeaderLength..value[2]];
        if (content.Length > FileHandle.MaxLength) { return false; }
        handle = new FileHandle(value[4], content);
        uuid = value.Slice(5, 16);
        return true;
    }
}
