using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Layers;

/// <summary>
/// A directory in a layer, known by its name in its parent. Its descriptor is opened when needed, and may be closed at any
/// time.
/// </summary>
/// <remarks>
/// Only directories of upper ever move: <see cref="MoveLocked"/> follows a rename, and the descriptor stays valid.
/// <see cref="DirectoryCache"/> owns the descriptor, the borrowers and the list.
/// </remarks>
internal sealed class RealDirectory
{
    /// <summary>Makes the root of a layer, whose descriptor stays open as long as the layer.</summary>
    internal RealDirectory(Layer layer, int descriptor)
    {
        Layer = layer;
        Descriptor = descriptor;
        Name = [0];
    }

    /// <summary>Makes a directory below another one.</summary>
    public RealDirectory(RealDirectory parent, byte[] name)
    {
        Layer = parent.Layer;
        Parent = parent;
        Name = name;
    }

    /// <summary>The layer that holds the directory.</summary>
    public Layer Layer { get; }

    /// <summary>The parent directory; null for a root.</summary>
    public RealDirectory? Parent { get; private set; }

    /// <summary>The directory's name in its parent, with its NUL; empty for a root.</summary>
    public byte[] Name { get; private set; }

    /// <summary>The directory's descriptor; -1 when it is closed. Protected by the cache's lock.</summary>
    internal int Descriptor { get; set; } = -1;

    /// <summary>The number of borrowers of the descriptor. Protected by the cache's lock.</summary>
    internal int Borrowers { get; set; }

    /// <summary>The next more recently used directory in the cache's list. Protected by the cache's lock.</summary>
    internal RealDirectory? Newer { get; set; }

    /// <summary>The next less recently used directory in the cache's list. Protected by the cache's lock.</summary>
    internal RealDirectory? Older { get; set; }

    /// <summary>Follows a rename. Caller holds the rename lock exclusively.</summary>
    public void MoveLocked(RealDirectory parent, byte[] name)
    {
        LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: true);
        Parent = parent;
        Name = name;
    }

    internal void CloseRoot()
    {
        if (Descriptor >= 0) { Libc.Close(Descriptor); }
        Descriptor = -1;
    }
}
