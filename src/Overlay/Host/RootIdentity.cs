using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Host;

/// <summary>
/// The identity of the real directory of a directory in a kernel overlay. The root's real directory is upper, or the
/// topmost lower without an upper.
/// </summary>
/// <remarks>
/// The kernel gives it as the overlay's own file handle (Linux 6.6), which holds the handle of the real directory and the
/// UUID of its filesystem. It stays the same wherever the layers are moved or mounted later. Kernel: ovl_encode_fh().
/// </remarks>
internal sealed record RootIdentity
{
    private const int Type = 0xF8; // OVL_FILEID_V1

    /// <summary>The bytes in an overlay's handle before the handle of the real directory, for alignment.</summary>
    private const int Padding = 3;

    private readonly FileHandle handle;
    private readonly byte[] uuid;

    private RootIdentity(FileHandle handle, byte[] uuid)
    {
        this.handle = handle;
        this.uuid = uuid;
    }

    /// <summary>Reads the identity of a directory.</summary>
    /// <param name="directory">A directory of a kernel overlay; O_PATH will do.</param>
    /// <returns>Null when the kernel does not tell it, or the layer's filesystem has no handles.</returns>
    public static RootIdentity? Of(int directory) =>
        !FileHandle.IdentifierOf(directory, Libc.Self, out FileHandle outer).IsError && outer.Type == Type && outer.Content.Length > Padding
        && OriginHandle.TryDecode(outer.Content[Padding..], out FileHandle handle, out ReadOnlySpan<byte> uuid)
            ? new RootIdentity(handle, uuid.ToArray())
            : null;

    /// <summary>
    /// Whether a directory is the real directory. True also for that directory on a byte-for-byte copy of the filesystem.
    /// </summary>
    /// <param name="directory">A descriptor of the directory; O_PATH will do.</param>
    public bool Matches(int directory)
    {
        if (FileHandle.Of(directory, Libc.Self, out FileHandle other).IsError || other.Type != handle.Type
            || !other.Content.SequenceEqual(handle.Content))
        {
            return false;
        }
        byte[] here = FileSystemUuid.OfPath(directory);
        return !here.AsSpan().ContainsAnyExcept((byte)0) || here.AsSpan().SequenceEqual(uuid);
    }
}
