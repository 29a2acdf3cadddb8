using Veneer.Linux;

namespace Veneer.Overlay.Format;

/// <summary>The value of the origin attribute: <c>struct ovl_fb</c>, a file handle and the UUID of its filesystem.</summary>
/// <remarks>
/// The bytes are: version (0), magic (0xFB), length of the whole, flags, handle type, UUID (16 bytes), handle. Kernel:
/// ovl_encode_real_fh(), ovl_check_fb_len().
/// </remarks>
internal static class OriginHandle
{
    /// <summary>The size of the largest value, in bytes.</summary>
    public const int MaxLength = HeaderLength + FileHandle.MaxLength;

    private const int HeaderLength = 21;
    private const byte Version = 0;
    private const byte Magic = 0xFB;
    private const byte BigEndian = 1;
    private const byte AnyEndian = 2;
    private const byte UpperPath = 4;

    /// <summary>Encodes the origin of a lower object.</summary>
    /// <returns>
    /// The length of the value in bytes; 0 when the handle is too long for the format. An empty value means "origin
    /// unknown".
    /// </returns>
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

    /// <summary>Decodes an origin.</summary>
    /// <returns>False when the value cannot be used: empty, malformed, of a newer version, or of the other byte order.</returns>
    public static bool TryDecode(ReadOnlySpan<byte> value, out FileHandle handle, out ReadOnlySpan<byte> uuid)
    {
        handle = default;
        uuid = default;
        if (value.Length <= HeaderLength || value[0] != Version || value[1] != Magic || value[2] > value.Length || value[2] <= HeaderLength)
        {
            return false;
        }
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
