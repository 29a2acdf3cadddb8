using Veneer.Linux;

namespace Veneer.Overlay.Layers;

/// <summary>One directory of the stack: upper, or one of the lowers.</summary>
/// <remarks>
/// A layer is reached through a private copy of its mount, attached nowhere: other mounts below it are not seen, and it
/// cannot be unmounted while we use it. For a lower layer the copy is read-only, has no usable devices and does not update access
/// times, so that no bug of ours, and no open of the kernel's for passthrough, can change a lower by a byte. Where a
/// private copy is refused (an unprivileged user), the layer is reached through the path that was named.
/// </remarks>
internal sealed class Layer : IDisposable
{
    private readonly Fd mount;

    private Layer(int index, string path, Fd mount, Fd root, bool isPrivate, ulong device)
    {
        Index = index;
        Device = device;
        Path = path;
        this.mount = mount;
        IsPrivate = isPrivate;
        FileSystem = LayerFileSystem.Of(root.Value);
        Root = new RealDirectory(this, root.Release());
    }

    /// <summary>The index of upper.</summary>
    public const int UpperIndex = 0;

    /// <summary>The layer's place in the stack: <see cref="UpperIndex"/>, or for a lower its number from 1, topmost first.</summary>
    public int Index { get; }

    /// <summary>The layer's path as the user named it.</summary>
    public string Path { get; }

    /// <summary>Whether the layer is held through a private copy of its mount.</summary>
    public bool IsPrivate { get; }

    /// <summary>Whether access times stay unchanged only if each open asks for O_NOATIME.</summary>
    public bool NeedsNoAccessTime { get; set; }

    /// <summary>The directory itself.</summary>
    public RealDirectory Root { get; }

    /// <summary>st_dev of the directory, as <see cref="Statx.Dev"/>.</summary>
    public ulong Device { get; }

    /// <summary>What the layer's filesystem can do, its UUID, and how reliable its inode numbers are.</summary>
    public LayerFileSystem FileSystem { get; }

    /// <summary>The UUID of the filesystem: see <see cref="LayerFileSystem.Uuid"/>.</summary>
    public byte[] Uuid => FileSystem.Uuid;

    /// <summary>What distinguishes the layer's objects from each other.</summary>
    public RealIdentity Identity => FileSystem.Identity;

    /// <summary>
    /// Whether an object of this layer is found by the handle in the origin attribute of its copy: handles can be opened, and
    /// lead to this filesystem alone.
    /// </summary>
    public bool FindsOrigins { get; set; }

    /// <summary>
    /// An O_PATH descriptor of the directory through the mount in which it was named, or -1. It tells where the layer is now.
    /// </summary>
    public int NamedRoot { get; set; } = -1;

    /// <summary>Whether this is upper.</summary>
    public bool IsUpper => Index == UpperIndex;

    /// <summary>A descriptor on the layer's mount for open_by_handle_at(2), which does not accept an O_PATH descriptor.</summary>
    public int MountDescriptor => Root.Descriptor;

    /// <summary>Opens a lower layer.</summary>
    /// <param name="index">From 1, topmost first; or <see cref="UpperIndex"/> for an upper that is only read.</param>
    /// <param name="path">The layer's path, for messages.</param>
    /// <param name="directory">An O_PATH descriptor of the directory. The caller keeps it.</param>
    public static Layer OpenLower(int index, string path, int directory)
    {
        bool isPrivate = TryHoldReadOnly(directory, out int root, out bool keepsTimes);
        if (!isPrivate) { root = Duplicate(directory, path); }
        Layer layer = Create(index, path, root, isPrivate, "."u8);
        layer.NeedsNoAccessTime = !keepsTimes;
        return layer;
    }

    private static int Duplicate(int directory, string path)
    {
        Errno error = Libc.Duplicate(directory, out int copy);
        return error.IsError
            ? throw new OverlayMountException(error.Explain($"The layer {path} cannot be opened ({error}): see its filesystem."))
            : copy;
    }

    private static bool TryHoldReadOnly(int directory, out int copy, out bool keepsTimes)
    {
        keepsTimes = false;
        if (Libc.CloneMount(directory, out copy).IsError) { return false; }
        const MountAttributes safe = MountAttributes.ReadOnly | MountAttributes.NoDevices;
        Errno error = Libc.SetMountAttributes(copy, safe | MountAttributes.NoAccessTime, MountAttributes.AccessTimeField);
        keepsTimes = !error.IsError;
        // In a user namespace the way of keeping access times may be locked; then each open asks for O_NOATIME.
        if (error == Errno.EPERM) { error = Libc.SetMountAttributes(copy, safe, MountAttributes.None); }
        if (!error.IsError) { return true; }
        Libc.Close(copy);
        copy = -1;
        return false;
    }

    /// <summary>
    /// Opens upper below a private copy of a directory that also contains work, so that renames between the two stay in one
    /// mount.
    /// </summary>
    /// <param name="path">The layer's path, for messages.</param>
    /// <param name="ancestor">A descriptor of the directory that contains upper and work. The caller keeps it.</param>
    /// <param name="isPrivate">Whether <paramref name="ancestor"/> is in a private copy of the mount.</param>
    /// <param name="relative">The path of upper from <paramref name="ancestor"/>, without a NUL.</param>
    public static Layer OpenUpper(string path, int ancestor, bool isPrivate, ReadOnlySpan<byte> relative)
    {
        return Create(UpperIndex, path, Duplicate(ancestor, path), isPrivate, relative);
    }

    /// <summary>
    /// Makes upper keep access times as the overlay's mount does, whatever upper's own mount says. Kernel: ovl_get_upper()
    /// </summary>
    public void SetAccessTimes(MountAttributes times)
    {
        // In a user namespace the mount's own setting may be locked.
        bool keeps = IsPrivate && !Libc.SetMountAttributes(mount.Value, times,
            MountAttributes.AccessTimeField | MountAttributes.NoDirectoryAccessTime).IsError;
        NeedsNoAccessTime = !keeps && (times & MountAttributes.NoAccessTime) != 0;
    }

    private static Layer Create(int index, string path, int mount, bool isPrivate, ReadOnlySpan<byte> relative)
    {
        Span<byte> name = stackalloc byte[relative.Length + 1];
        relative.CopyTo(name);
        Errno error = Libc.OpenAt(mount, name, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int root);
        if (error.IsError)
        {
            Libc.Close(mount);
            throw new OverlayMountException(error.Explain(
                $"The layer {path} cannot be read ({error}): give this user permission to list and search it."));
        }
        error = Libc.StatAt(root, Libc.Self, StatxMask.Basic, out Statx status);
        if (error.IsError)
        {
            Libc.Close(root);
            Libc.Close(mount);
            throw new OverlayMountException($"The layer {path} cannot be examined ({error}): see whether its filesystem still answers.");
        }
        return new Layer(index, path, new Fd(mount), new Fd(root), isPrivate, status.Dev);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Root.CloseRoot();
        mount.Dispose();
    }
}
