using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Format;
using Veneer.Overlay.Host;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay;

/// <summary>One opened overlay: everything that its parts are wired with.</summary>
internal sealed class Volume
{
    /// <summary>The most descriptors of real directories that stay open; a quarter of the limit of open files if that is less.</summary>
    private const int MaxDirectories = 2048;

    /// <summary>
    /// The most descriptors that are reserved for requests, so that users' open files cannot take them; a quarter of the limit
    /// if that is less.
    /// </summary>
    private const int MaxReserve = 1024;

    /// <summary>The options of the mount.</summary>
    public required OverlayOptions Options { get; init; }

    /// <summary>Whether the user asked for user attributes, which the kernel then uses in all layers.</summary>
    public required bool IsUserXattrAsked { get; init; }

    /// <summary>The tree of objects.</summary>
    public required ObjectTree Tree { get; init; }

    /// <summary>Upper, as it is written.</summary>
    public required UpperLayer Upper { get; init; }

    /// <summary>The mark of a volatile upper; null when upper is not volatile.</summary>
    public required VolatileMark? Mark { get; init; }

    /// <summary>Watches all errors of upper's filesystem; null where only errors of open files can be noticed.</summary>
    public required ErrorSentinel? Sentinel { get; init; }

    /// <summary>An O_PATH descriptor of work through the mount in which it was named; -1 when the overlay has no work.</summary>
    public int NamedWork { get; init; } = -1;

    /// <summary>Keeps the layers from being removed or renamed; null without the option pin.</summary>
    public Pin? Pin { get; init; }

    /// <summary>The layers as they were named.</summary>
    public required IReadOnlyList<Place> Places { get; init; }

    /// <summary>The locks on upper and work.</summary>
    public required InUseLock InUse { get; init; }

    /// <summary>The most files that users may have open at once.</summary>
    public required int MaxOpenFiles { get; init; }

    /// <summary>Called with one line for each problem of which no caller is told.</summary>
    public required Action<string> Log { get; init; }

    /// <summary>Opens the layers of an overlay and makes the objects that serve it.</summary>
    /// <param name="options">The overlay to mount.</param>
    /// <param name="log">Called as for <see cref="OverlayMount.Open"/>.</param>
    /// <param name="opened">Receives what must be disposed of with the overlay, in the order of opening.</param>
    /// <param name="names">Gives names their offsets in listings; by default a hash that users cannot predict.</param>
    public static Volume Open(OverlayOptions options, Action<string> log, List<IDisposable> opened, NameHash? names = null)
    {
        var lowers = new List<int>();
        foreach (string path in options.LowerDirectories) { lowers.Add(Hold(LayerChecks.OpenDirectory(path, "lower"), opened)); }
        int upper = -1, work = -1;
        if (options.UpperDirectory is { } upperPath && options.WorkDirectory is { } workPath)
        {
            upper = Hold(LayerChecks.OpenDirectory(upperPath, "upper"), opened);
            work = Hold(LayerChecks.OpenDirectory(workPath, "work"), opened);
        }
        List<Place> places = LayerChecks.CheckLayers(options, lowers, upper, work);
        CheckIdentities(options, places);
        InUseLock inUse = InUseLock.Take(options, places, log);
        opened.Add(inUse);
        Pin? pin = options.Pin ? Pin.Hold(places) : null;
        if (pin is not null) { opened.Add(pin); }
        UpperFeatures features = upper < 0 ? UpperFeatures.None : UpperProbe.Run(options, work);
        bool isUserXattrAsked = options.UserXattr;
        if (upper >= 0 && features.Attributes == AttributeSpace.User && !isUserXattrAsked)
        {
            options = UpperOpening.ChooseUserXattr(options, work);
        }
        if (upper >= 0 && !features.HasOpaque) { UpperOpening.WarnOfNoAttributes(options, log); }

        Layer? upperLayer = null;
        WorkDirectory? workDirectory = null;
        var lowerXattr = new OverlayXattr(options.UserXattr);
        OverlayXattr xattr = features.Attributes == AttributeSpace.User && !options.UserXattr ? new OverlayXattr(user: true) : lowerXattr;
        VolatileMark? mark = null;
        ErrorSentinel? sentinel = null;
        if (upper >= 0)
        {
            (upperLayer, workDirectory, mark, sentinel) = UpperOpening.Open(options, upper, work, features, inUse.HasWork, xattr, opened);
            upperLayer.NamedRoot = upper;
        }
        Layer[] lowerLayers = OpenLowers(options, lowers, opened);
        var layers = new LayerStack(upperLayer, lowerLayers, xattr, lowerXattr)
        {
            NameLength = LayerStack.NameLengthOf(upperLayer, lowerLayers)
        };
        layers.CheckOrigins();

        if (Libc.OpenFileLimit(out ulong descriptors).IsError) { descriptors = 1024; }
        int quarter = (int)Math.Min(descriptors, int.MaxValue) / 4;
        int reserve = Math.Min(quarter, MaxReserve);
        var directories = new DirectoryCache(Math.Min(quarter, MaxDirectories));
        var numbers = new InodeNumbers();
        // In the order of the layers, so that a filesystem has the same number in st_ino in every mount.
        foreach (Layer layer in layers.All) { _ = numbers.Key(layer.Device, 0); }
        var owners = new Owners(layers, log);
        opened.Add(owners);
        var renameLock = new SharedLock(OverlayLocks.Rename);
        RealDirectory? workRoot = workDirectory is null ? null : new RealDirectory(upperLayer!, workDirectory.Descriptor);
        var reader = new LayerReader(directories, layers)
        {
            RenameLock = renameLock,
            Owners = owners,
            Traps = upper >= 0 ? [IdentityOf(upper, options.UpperDirectory!), IdentityOf(work, options.WorkDirectory!)] : [],
        };
        var tree = new ObjectTree
        {
            RenameLock = renameLock,
            Layers = layers,
            Directories = directories,
            Numbers = numbers,
            Keys = new ObjectKeys(numbers, layers),
            Inodes = new InodeTable(directories, log, keepsAllNames: layers.UpperIdentity == RealIdentity.Names),
            Objects = new RealObjects(directories, workRoot, renameLock),
            Reader = reader,
            Listings = new Listings(names ?? NameHash.Secret, reader),
            Lookup = new LayeredLookup(reader, layers, options.FollowsRedirects, options.Metacopy) { RemembersLowers = true },
            Owners = owners,
        };
        var overlay = new Volume
        {
            Options = options,
            IsUserXattrAsked = isUserXattrAsked,
            Tree = tree,
            Upper = new UpperLayer
            {
                Path = options.UpperDirectory,
                Features = features,
                Work = workDirectory,
                WorkRoot = workRoot,
                Options = options,
                IsOnXfs = upper >= 0 && !Libc.StatFileSystem(upper, out StatFs upperStatus).IsError && upperStatus.Type == StatFs.XfsMagic,
                IsInMemory = mark?.Now.IsInMemory ?? true,
                IsReadOnly = options.ReadOnly,
                Orphans = () => tree.Inodes.Orphans.Count + directories.KeptOpen,
                MaxOrphans = reserve / 4,
            },
            Mark = options.Sync == Sync.Volatile ? mark : null,
            Sentinel = sentinel,
            NamedWork = work,
            Pin = pin,
            Places = places,
            InUse = inUse,
            MaxOpenFiles = Math.Max(
                quarter,
                (4 * quarter) - Math.Min(quarter, MaxDirectories) - reserve - Math.Max(0, DescriptorsOf(layers) - (reserve / 4))),
            Log = log,
        };
        AddRoot(tree);
        return overlay;
    }

    /// <summary>Checks, before anything is written, that the layers are those that the caller has examined.</summary>
    private static void CheckIdentities(OverlayOptions options, List<Place> places)
    {
        if (options.Identities.Count == 0
            || places.Select(place => (place.Status.Dev, place.Status.Ino)).SequenceEqual(options.Identities))
        {
            return;
        }
        throw new OverlayMountException($"A layer was replaced while it was mounted on {options.MountPoint}: see who did it, and "
            + "restore again.");
    }

    private static Layer[] OpenLowers(OverlayOptions options, List<int> named, List<IDisposable> opened)
    {
        var layers = new Layer[named.Count];
        for (int i = 0; i < layers.Length; i++)
        {
            layers[i] = Layer.OpenLower(i + 1, options.LowerDirectories[i], named[i]);
            layers[i].NamedRoot = named[i];
            opened.Add(layers[i]);
        }
        return layers;
    }

    private static int Hold(int descriptor, List<IDisposable> opened)
    {
        opened.Add(new Fd(descriptor));
        return descriptor;
    }

    /// <summary>
    /// The number of descriptors that the layers take, of which there may be hundreds: a new descriptor gets the lowest free
    /// number.
    /// </summary>
    private static int DescriptorsOf(LayerStack layers)
    {
        if (Libc.Duplicate(layers.Topmost.Root.Descriptor, out int next).IsError) { return 0; }
        Libc.Close(next);
        return next;
    }

    private static void AddRoot(ObjectTree tree)
    {
        var root = new DirectoryInode(new DirectoryStack(tree.Layers.Upper?.Root, tree.Layers.LowerRoots)) { Type = FileType.Directory };
        Statx stat = StatOf(root.Topmost);
        RealKey key = tree.Numbers.Key(stat.Dev, stat.Ino);
        root.Key = root.Topmost.Layer.Identity.IsByName(stat) ? InodeNumbers.KeyOfName(0, Libc.Self) : key;
        root.Ino = tree.Numbers.Number(key); // upper's number, although the root is merged: ovl_get_root()
        Span<byte> impure = stackalloc byte[1];
        root.IsImpure = root.Upper is { } upper && !Libc.GetXattrAt(upper.Descriptor, Libc.Self, tree.Xattr.Impure, impure, out _).IsError;
        tree.Inodes.AddRoot(root);
    }

    private static (ulong Device, ulong Ino) IdentityOf(int directory, string path)
    {
        Errno error = Libc.StatAt(directory, Libc.Self, StatxMask.Basic, out Statx stat);
        return error.IsError
            ? throw new OverlayMountException($"The layer {path} cannot be examined ({error}): see whether its filesystem still answers.")
            : (stat.Dev, stat.Ino);
    }

    private static Statx StatOf(RealDirectory directory)
    {
        Errno error = Libc.StatAt(directory.Descriptor, Libc.Self, StatxMask.Basic, out Statx stat);
        return error.IsError
            ? throw new OverlayMountException(
                $"The layer {directory.Layer.Path} cannot be examined ({error}): see whether its filesystem still answers.")
            : stat;
    }
}
