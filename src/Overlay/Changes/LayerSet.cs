using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Changes;

/// <summary>The layers of an overlay for reading only. Upper is held as a lower is, so that reading leaves no trace in it.</summary>
internal sealed class LayerSet : IDisposable
{
    /// <summary>The most descriptors of real directories that stay open.</summary>
    private const int MaxDirectories = 256;

    /// <summary>The longest value, and the longest list of names, in bytes (XATTR_SIZE_MAX, XATTR_LIST_MAX).</summary>
    private const int MaxXattr = 65536;

    private readonly DirectoryCache directories;
    private readonly bool isOwner;

    private LayerSet(LayerStack layers, DirectoryCache directories, bool followRedirects, bool followMetacopies, bool isOwner)
    {
        this.directories = directories;
        this.isOwner = isOwner;
        Layers = layers;
        Reader = new LayerReader(directories, layers);
        Lookup = new LayeredLookup(Reader, layers, followRedirects, followMetacopies);
        Root = new DirectoryStack(layers.Upper?.Root, layers.LowerRoots);
    }

    /// <summary>The layers.</summary>
    public LayerStack Layers { get; }

    /// <summary>Reads single names in real directories.</summary>
    public LayerReader Reader { get; }

    /// <summary>Finds names.</summary>
    public LayeredLookup Lookup { get; }

    /// <summary>The root of the overlay.</summary>
    public DirectoryStack Root { get; }

    /// <summary>Holds layers that are open.</summary>
    /// <param name="upper">A descriptor, for which O_PATH suffices, and a name for messages; null without upper.</param>
    /// <param name="lowers">The same for each lower, topmost first. The caller keeps all descriptors.</param>
    /// <param name="userXattr">Whether the overlay's attributes are <c>user.overlay.*</c>.</param>
    /// <param name="lowerUserXattr">
    /// Whether the overlay's attributes in the lowers are <c>user.overlay.*</c>; null if they are as in upper.
    /// </param>
    /// <exception cref="OverlayMountException">A layer cannot be held.</exception>
    public static LayerSet Hold((int Descriptor, string Path)? upper, IReadOnlyList<(int Descriptor, string Path)> lowers,
        bool userXattr, bool? lowerUserXattr = null)
    {
        Layer? top = null;
        var opened = new List<Layer>();
        try
        {
            if (upper is { } named) { top = Layer.OpenLower(Layer.UpperIndex, named.Path, named.Descriptor); }
            foreach ((int descriptor, string path) in lowers)
            {
                opened.Add(Layer.OpenLower(Layer.UpperIndex + 1 + opened.Count, path, descriptor));
            }
            var stack = new LayerStack(top, [.. opened], new OverlayXattr(userXattr), new OverlayXattr(lowerUserXattr ?? userXattr));
            stack.CheckOrigins();
            // No overlay follows redirects and metacopies in attributes that any owner of a file may write.
            return new LayerSet(stack, new DirectoryCache(MaxDirectories), followRedirects: !userXattr, followMetacopies: !userXattr,
                isOwner: true);
        }
        catch
        {
            top?.Dispose();
            foreach (Layer layer in opened) { layer.Dispose(); }
            throw;
        }
    }

    /// <summary>
    /// Uses the layers of an overlay that is being served. Names that are renamed meanwhile may be missed, as in any walk
    /// through upper.
    /// </summary>
    /// <param name="layers">The layers. The caller keeps them.</param>
    /// <param name="directories">Descriptors of real directories.</param>
    /// <param name="options">The options; they tell whether redirects and metacopies are followed.</param>
    public static LayerSet Borrow(LayerStack layers, DirectoryCache directories, OverlayOptions options) =>
        new(layers, directories, options.FollowsRedirects, options.Metacopy, isOwner: false);

    /// <summary>Reads the attributes of a real object with stat(2).</summary>
    public Errno Stat(RealName real, out Statx stat)
    {
        stat = default;
        Errno error = directories.Borrow(real.Directory, out BorrowedDirectory borrowed);
        if (error.IsError) { return error; }
        using (borrowed) { return Libc.StatAt(borrowed.Descriptor, real.Name, StatxMask.Basic, out stat); }
    }

    /// <summary>Opens a real directory or a regular file for reading. O_NOATIME is asked for, unless that is not permitted.</summary>
    public Errno Open(RealName real, OpenFlags flags, out int descriptor)
    {
        descriptor = -1;
        Errno error = directories.Borrow(real.Directory, out BorrowedDirectory borrowed);
        if (error.IsError) { return error; }
        using (borrowed)
        {
            ReadOnlySpan<byte> name = real.Name.Length > 1 ? real.Name : ".\0"u8;
            flags |= OpenFlags.NoFollow | OpenFlags.NonBlock | OpenFlags.NoCtty;
            error = Libc.OpenAt(borrowed.Descriptor, name, flags | OpenFlags.NoAccessTime, 0, ResolveFlags.Confined, out descriptor);
            // Only a file's owner may ask for O_NOATIME; through a private mount it is not needed.
            if (error == Errno.EPERM) { error = Libc.OpenAt(borrowed.Descriptor, name, flags, 0, ResolveFlags.Confined, out descriptor); }
            return error.IsError || (flags & OpenFlags.Directory) != 0 ? error : RealReference.CheckRegular(ref descriptor);
        }
    }

    /// <summary>Reads the target of a symbolic link, without a NUL.</summary>
    public Errno ReadLink(RealName real, out byte[] target)
    {
        target = [];
        Errno error = directories.Borrow(real.Directory, out BorrowedDirectory borrowed);
        if (error.IsError) { return error; }
        using (borrowed)
        {
            Span<byte> space = stackalloc byte[4096];
            error = Libc.ReadLinkAt(borrowed.Descriptor, real.Name, space, out int length);
            if (!error.IsError) { target = space[..length].ToArray(); }
            return error;
        }
    }

    /// <summary>Reads the extended attributes of a real object that users see, sorted by the names under which they are stored.</summary>
    public Errno ReadXattrs(RealName real, out SortedDictionary<string, byte[]> attributes)
    {
        attributes = new SortedDictionary<string, byte[]>(StringComparer.Ordinal);
        Errno error = directories.Borrow(real.Directory, out BorrowedDirectory borrowed);
        if (error.IsError) { return error; }
        using (borrowed)
        {
            int size = 1024;
            byte[] list;
            do
            {
                list = new byte[size];
                error = Libc.ListXattrAt(borrowed.Descriptor, real.Name, list, out size);
                if (error == Errno.ERANGE) { size = MaxXattr; }
            }
            while (error == Errno.ERANGE && list.Length < MaxXattr);
            if (error.IsError) { return error.IsNoXattr ? Errno.None : error; }
            for (int at = 0; at < size;)
            {
                int length = list.AsSpan(at, size - at).IndexOf((byte)0) + 1;
                ReadOnlySpan<byte> name = list.AsSpan(at, length);
                at += length;
                if (Layers.XattrOf(real.Directory.Layer).IsPrivate(name)) { continue; }
                error = GetXattr(borrowed.Descriptor, real.Name, name, out byte[] value);
                if (error.IsNoXattr) { continue; } // removed meanwhile
                if (error.IsError) { return error; }
                attributes[PathText.Decode(name)] = value;
            }
        }
        return Errno.None;
    }

    /// <summary>Reads one extended attribute of a real object.</summary>
    /// <returns>Null when there is no such attribute, or it cannot be read.</returns>
    public byte[]? ReadXattr(RealName real, ReadOnlySpan<byte> attribute)
    {
        if (directories.Borrow(real.Directory, out BorrowedDirectory borrowed).IsError) { return null; }
        using (borrowed) { return GetXattr(borrowed.Descriptor, real.Name, attribute, out byte[] value).IsError ? null : value; }
    }

    /// <summary>Reads the handle of a real object, by which an origin attribute names it.</summary>
    public Errno ReadHandle(RealName real, out FileHandle handle)
    {
        handle = default;
        Errno error = directories.Borrow(real.Directory, out BorrowedDirectory borrowed);
        if (error.IsError) { return error; }
        using (borrowed) { return FileHandle.Of(borrowed.Descriptor, real.Name, out handle); }
    }

    private static Errno GetXattr(int directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> attribute, out byte[] value)
    {
        value = new byte[256];
        Errno error = Libc.GetXattrAt(directory, name, attribute, value, out int length);
        if (error == Errno.ERANGE)
        {
            value = new byte[MaxXattr];
            error = Libc.GetXattrAt(directory, name, attribute, value, out length);
        }
        value = error.IsError ? [] : value[..length];
        return error;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (!isOwner) { return; }
        directories.CloseAll();
        foreach (Layer layer in Layers.All) { layer.Dispose(); }
    }
}
