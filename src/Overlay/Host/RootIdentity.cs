using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Host;

/// <summary>The real directory that a directory of a kernel overlay is: of the root, its upper, or its topmost lower where it has none.</summary>
/// <remarks>
/// The kernel tells it as the overlay's own file handle (Linux 6.6), which holds that of the real directory and the UUID of
/// its filesystem: it stays the same wherever the layers have been moved or mounted since. Kernel: ovl_encode_fh().
/// </remarks>
internal sealed record RootIdentity
{
    private const int Type = 0xF8; // OVL_FILEID_V1

    /// <summary>What the handle of an overlay has before the one within, for the alignment.</summary>
    private const int Padding = 3;

    private readonly FileHandle handle;
    private readonly byte[] uuid;

    private RootIdentity(FileHandle handle, byte[] uuid)
    {
        this.handle = handle;
        this.uuid = uuid;
    }

    /// <summary>Reads it.</summary>
    /// <param name="directory">A directory of a kernel overlay; O_PATH will do.</param>
    /// <returns>Null when the kernel does not tell, or the filesystem of the layer has no handles.</returns>
    public static RootIdentity? Of(int directory) =>
        !FileHandle.IdentifierOf(directory, Libc.Self, out FileHandle outer).IsError && outer.Type == Type && outer.Content.Length > Padding
        && OriginHandle.TryDecode(outer.Content[Padding..], out FileHandle handle, out ReadOnlySpan<byte> uuid)
            ? new RootIdentity(handle, uuid.ToArray())
            : null;

    /// <summary>Whether it is a directory, which may be another one on a copy of the filesystem, byte for byte.</summary>
    /// <param name="directory">O_PATH will do.</param>
    public bool Is(int directory)
    {
        if (FileHandle.Of(directory, Libc.Self, out FileHandle other).IsError || other.Type != handle.Type || !other.Content.SequenceEqual(handle.Content)) { return false; }
        byte[] here = FileSystemUuid.OfPath(directory);
        return !here.AsSpan().ContainsAnyExcept((byte)0) || here.AsSpan().SequenceEqual(uuid);
    }
}
