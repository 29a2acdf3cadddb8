using Veneer.Fuse;
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

/// <summary>An overlay whose layers are open, ready to be served.</summary>
public sealed class OverlayMount : IDisposable
{
    /// <summary>The most descriptors of real directories that stay open; a quarter of the limit of open files if that is less.</summary>
    private const int MaxDirectories = 2048;

    /// <summary>
    /// The most descriptors that are reserved for requests, so that users' open files cannot take them; a quarter of the limit
    /// if that is less.
    /// </summary>
    private const int MaxReserve = 1024;

    private readonly Volume volume;
    private readonly List<IDisposable> held;
    private readonly OverlayFileSystem fileSystem;
    private bool disposed;

    private OverlayMount(Volume volume, List<IDisposable> held)
    {
        this.volume = volume;
        this.held = held;
        fileSystem = new OverlayFileSystem(volume);
        fileSystem.Shutdown.LetGo = Dispose;
        if (LayerWatch.Start(volume.Places, fileSystem.Response.ActOnLoss) is { } watch) { held.Add(watch); }
    }

    /// <summary>A sentence for the user when the overlay differs from what was asked for; otherwise null.</summary>
    public string? Warning { get; private set; }

    /// <summary>Whether the overlay cannot be written, for want of an upper or because its work directory cannot be changed.</summary>
    public bool IsReadOnly => !volume.Upper.IsWritable;

    /// <summary>The filesystem that answers the kernel's requests.</summary>
    public IFileSystem FileSystem => fileSystem;

    /// <summary>The number of stacked filesystems that may lie below a passed-through file.</summary>
    public uint MaxStackDepth => 1;

    /// <summary>Opens and checks the layers, and empties work.</summary>
    /// <param name="options">The overlay to mount. Relative paths begin at the working directory.</param>
    /// <param name="log">Called later with one line for each problem of which no caller is told.</param>
    /// <exception cref="OverlayMountException">A layer is missing or unfit; the message is a sentence for the user.</exception>
    public static OverlayMount Open(OverlayOptions options, Action<string> log)
    {
        try
        {
            return OpenAsAsked(options, log);
        }
        catch (OverlayMountException problem) when (problem.WorkError.IsError && !HasMark(options))
        {
            // Kernel overlayfs does the same: ovl_get_workdir(). Upper shows what it has, like any lower.
            OverlayMount overlay = OpenAsAsked(
                options with
                {
                    LowerDirectories = [options.UpperDirectory!, .. options.LowerDirectories],
                    UpperDirectory = null,
                    WorkDirectory = null,
                    Sync = Sync.Auto,
                    SyncOnUnmount = false,
                    ReadOnly = true
                },
                log);
            overlay.Warning = problem.WorkError is Errno.ENOSPC or Errno.EDQUOT
                ? $"There is no space left in the work directory {options.WorkDirectory}, so the overlay is mounted read-only: "
                    + "free some, and mount it anew."
                : $"The work directory {options.WorkDirectory} cannot be changed ({problem.WorkError}), "
                    + $"so the overlay is mounted read-only: see lsattr -d {options.WorkDirectory} and what is in it, and mount it anew.";
            return overlay;
        }
    }

    /// <summary>
    /// Whether upper was mounted with volatile, or with an unknown feature, so that it must be judged before it is used.
    /// </summary>
    private static bool HasMark(OverlayOptions options) =>
        Libc.StatAt(Libc.AtCwd, PathText.Encode(options.WorkDirectory! + "/work/incompat"), StatxMask.Basic, out _)
            is not (Errno.ENOENT or Errno.ENOTDIR);

    private static OverlayMount OpenAsAsked(OverlayOptions options, Action<string> log)
    {
        var opened = new List<IDisposable>();
        try
        {
            return new OverlayMount(OpenVolume(options, log, opened), opened);
        }
        catch
        {
            for (int i = opened.Count - 1; i >= 0; i--) { opened[i].Dispose(); } // in reverse: later objects use earlier ones
            throw;
        }
    }

    /// <summary>Opens the layers of an overlay and makes the objects that serve it.</summary>
    /// <param name="options">The overlay to mount.</param>
    /// <param name="log">Called as for <see cref="Open"/>.</param>
    /// <param name="opened">Receives what must be disposed of with the overlay, in the order of opening.</param>
    /// <param name="names">Gives names their offsets in listings; by default a hash that users cannot predict.</param>
    internal static Volume OpenVolume(OverlayOptions options, Action<string> log, List<IDisposable> opened, NameHash? names = null)
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
            options = ChooseUserXattr(options, work);
        }
        if (upper >= 0 && !features.HasOpaque)
        {
            if (options.Sync == Sync.Volatile)
            {
                throw new OverlayMountException($"The filesystem of the upper directory {options.UpperDirectory} has no attributes, "
                    + "which the mark of a volatile upper needs: mount without the option volatile.");
            }
            log($"veneer: the filesystem of the upper directory {options.UpperDirectory} takes no attributes of the overlay: "
                + "see veneer status for what stands in their place");
        }

        Layer? upperLayer = null;
        WorkDirectory? workDirectory = null;
        var lowerXattr = new OverlayXattr(options.UserXattr);
        OverlayXattr xattr = features.Attributes == AttributeSpace.User && !options.UserXattr ? new OverlayXattr(user: true) : lowerXattr;
        VolatileMark? mark = null;
        ErrorSentinel? sentinel = null;
        if (upper >= 0)
        {
            (upperLayer, workDirectory, mark, sentinel) = OpenUpper(options, upper, work, features, inUse.HasWork, xattr, opened);
            upperLayer.Named = upper;
        }
        var lowerLayers = new Layer[lowers.Count];
        for (int i = 0; i < lowers.Count; i++)
        {
            lowerLayers[i] = Layer.OpenLower(i + 1, options.LowerDirectories[i], lowers[i]);
            lowerLayers[i].Named = lowers[i];
            opened.Add(lowerLayers[i]);
        }
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
        var lookup = new LayeredLookup(reader, directories, layers, options.FollowsRedirects, options.Metacopy) { RemembersLowers = true };
        var tree = new ObjectTree
        {
            RenameLock = renameLock,
            Layers = layers,
            Directories = directories,
            Numbers = numbers,
            Keys = new ObjectKeys(numbers, layers),
            Inodes = new InodeTable(directories, log, keepsAllNames: layers.UpperIdentity == RealIdentity.Names),
            Objects = new RealObjects(directories, workRoot, renameLock),
            Listings = new Listings(names ?? NameHash.Secret, layers, lookup),
            Lookup = lookup,
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
                Orphans = () => tree.Orphans.Count + directories.KeptOpen,
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

    /// <summary>
    /// Chooses user attributes for upper, since its filesystem takes no others, or an earlier mount found that it takes none.
    /// </summary>
    /// <returns>
    /// The options with userxattr, if this process cannot see trusted attributes. Otherwise the same options: the lowers keep
    /// their trusted attributes.
    /// </returns>
    private static OverlayOptions ChooseUserXattr(OverlayOptions options, int work)
    {
        string why = $"The filesystem of the upper directory {options.UpperDirectory} takes no trusted.overlay.* attributes "
            + "from this user, and user.overlay.* ones exclude";
        if (options.RedirectDirectory == RedirectDirectory.On)
        {
            throw new OverlayMountException($"{why} redirect_dir=on: leave that out.");
        }
        if (options.Metacopy) { throw new OverlayMountException($"{why} metacopy=on: leave that out."); }
        Errno error = UpperProbe.RecordUser(work);
        if (error.IsError)
        {
            throw new OverlayMountException($"Nothing can be created in the work directory {options.WorkDirectory} ({error}): "
                + "see its permissions and its filesystem.");
        }
        return Capabilities.SeesTrustedAttributes
            ? options
            : options with { UserXattr = true, RedirectDirectory = RedirectDirectory.NoFollow };
    }

    private static int Hold(int descriptor, List<IDisposable> opened)
    {
        opened.Add(new Fd(descriptor));
        return descriptor;
    }

    private static (Layer Upper, WorkDirectory Work, VolatileMark Mark, ErrorSentinel? Sentinel) OpenUpper(
        OverlayOptions options, int upper, int work, UpperFeatures features, bool hasWork, OverlayXattr xattr, List<IDisposable> opened)
    {
        Layer layer;
        int workRoot = work;
        bool isPrivate = CommonMount.TryClone(upper, work, out int clone, out byte[] upperPath, out byte[] workPath);
        if (isPrivate)
        {
            Hold(clone, opened);
            layer = Layer.OpenUpper(options.UpperDirectory!, clone, isPrivate: true, upperPath);
            opened.Add(layer);
            Errno error = Libc.OpenAt(clone, [.. workPath, 0], OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out workRoot);
            if (error.IsError)
            {
                throw new OverlayMountException(
                    $"The work directory {options.WorkDirectory} cannot be opened ({error}): see its permissions.");
            }
            Hold(workRoot, opened);
        }
        else
        {
            layer = Layer.OpenUpper(options.UpperDirectory!, upper, isPrivate: false, "."u8);
            opened.Add(layer);
        }
        layer.KeepTimes(CommonMount.TimesOf(options.MountFlags | (options.ReadOnly ? MountFlags.ReadOnly : MountFlags.None)));
        VolatileMark mark = Judge(options, upper, work, layer, xattr);
        WorkDirectory workDirectory = WorkDirectory.Open(workRoot, options.WorkDirectory!, layer.Root.Descriptor, features, xattr,
            isShared: !hasWork);
        opened.Add(workDirectory);
        // The kernel looks for whiteouts in the form of files only in a layer whose root is marked to have some.
        Errno announced = workDirectory.AnnounceWhiteout(layer.Root.Descriptor);
        if (announced.IsError)
        {
            throw new OverlayMountException($"The upper directory {options.UpperDirectory} cannot be marked as one that holds "
                + $"whiteouts as files ({announced}): see its permissions and its filesystem.");
        }
        ErrorSentinel? sentinel = Watch(options, work, workRoot, workDirectory, mark);
        if (sentinel is not null) { opened.Add(sentinel); }
        // Judged again: a write may have failed before the sentinel existed.
        if (mark.Exists) { mark = Judge(options, upper, work, layer, xattr); }
        if (options.Sync != Sync.Volatile) { return (layer, workDirectory, mark, sentinel); }
        if (!mark.Exists) { opened.Add(new MarkRemoval(mark)); }
        Errno marked = mark.Lay(workDirectory.Descriptor);
        if (marked.IsError)
        {
            throw new OverlayMountException($"The work directory {options.WorkDirectory} cannot be marked as volatile ({marked}): "
                + "mount without the option volatile.");
        }
        return (layer, workDirectory, mark, sentinel);
    }

    /// <summary>Refuses an upper that may lack data that was written while it was volatile.</summary>
    /// <param name="options">The overlay to mount.</param>
    /// <param name="upper">A descriptor of upper as the user named it: its mount tells more than the private copy.</param>
    /// <param name="work">A descriptor of work as the user named it.</param>
    /// <param name="layer">Upper through the private copy.</param>
    /// <param name="xattr">The names of the overlay's attributes in upper.</param>
    /// <exception cref="OverlayMountException">Upper must not be mounted like this.</exception>
    private static VolatileMark Judge(OverlayOptions options, int upper, int work, Layer layer, OverlayXattr xattr)
    {
        byte[] path = CommonMount.PathFrom(upper, work);
        if (Libc.Reopen(upper, OpenFlags.ReadOnly | OpenFlags.Directory, out int readable).IsError)
        {
            throw new OverlayMountException($"The upper directory {options.UpperDirectory} cannot be read: give this user permission "
                + "to list it.");
        }
        using var opened = new Fd(readable);
        var mark = new VolatileMark(readable, layer.Root.Descriptor, work, xattr, path);
        if (!mark.Exists) { return mark; }
        string upperPath = options.UpperDirectory!, workPath = options.WorkDirectory!;
        VolatileState state = mark.Judge();
        switch (state.Kind)
        {
            case VolatileStateKind.Doubtful:
                throw new OverlayMountException($"The upper directory {upperPath} was last mounted with volatile and has not been synced, "
                    + $"and {state.Reason}: run veneer sync {upperPath}.");
            case VolatileStateKind.Unreadable:
                throw new OverlayMountException(state.Sentence($"the upper directory {upperPath}")!);
            case VolatileStateKind.Lost or VolatileStateKind.OtherVersion or VolatileStateKind.Damaged:
                throw new OverlayMountException($"The upper directory {upperPath} was last mounted with volatile and may lack what was "
                    + $"written then, since {state.Reason}: {state.Remedy}discard it and {workPath}.");
            case VolatileStateKind.Unknown:
                throw new OverlayMountException($"The upper directory {upperPath} was last mounted with volatile and may lack what was "
                    + $"written then, since {state.Reason}: discard it and {workPath}, or, if the machine has not crashed since, "
                    + $"sync their filesystem and remove {workPath}/work/incompat/volatile.");
        }
        if (options.Sync != Sync.Volatile)
        {
            throw new OverlayMountException($"The upper directory {upperPath} was last mounted with volatile and has not been synced: "
                + $"run veneer sync {upperPath}, or mount it with volatile again.");
        }
        return mark;
    }

    /// <summary>Begins to watch for failed writes to upper's filesystem, so that none is missed from now on.</summary>
    /// <returns>Null for a filesystem in memory, and where not all errors can be watched.</returns>
    private static ErrorSentinel? Watch(OverlayOptions options, int work, int workRoot, WorkDirectory workDirectory, VolatileMark mark)
    {
        if (mark.Now.IsInMemory) { return null; }
        Errno error = ErrorSentinel.Create(work, workRoot, workDirectory.Features.Attributes == AttributeSpace.User,
            out ErrorSentinel? sentinel);
        bool isUnseen = error == Errno.EIO || mark.Now.Errors is { } errors and not 0 && (errors & ErrorSequence.Seen) == 0;
        if (isUnseen && options.Sync == Sync.Volatile)
        {
            sentinel?.Dispose();
            // The kernel does the same: ovl_fill_super()
            throw new OverlayMountException($"Writing to the filesystem of the upper directory {options.UpperDirectory} has failed, "
                + $"and nobody has been told of it yet: run sync -f {options.UpperDirectory} and see what is lost "
                + "before you mount it with volatile.");
        }
        return sentinel;
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

    /// <summary>The place of the pins, for <see cref="Pin.Release"/> after this process has ended; null without pins.</summary>
    public string? PinDirectory => volume.Pin?.Directory;

    /// <summary>Records on upper and work where the overlay is mounted, for users who find them in use.</summary>
    /// <param name="mountPoint">The full path of the mount point.</param>
    /// <param name="mountId">The mount id, as in mountinfo.</param>
    /// <param name="device">The device number of the mount, as in mountinfo.</param>
    public void Announce(string mountPoint, int mountId, string device)
    {
        fileSystem.Shutdown.Device = device;
        volume.InUse.Announce(mountPoint, mountId, device);
    }

    /// <summary>
    /// Syncs upper if <see cref="OverlayOptions.SyncOnUnmount"/> asks for it. To be called after the mount is gone, and before
    /// <see cref="Dispose"/>. May take any time.
    /// </summary>
    public void SyncAtEnd()
    {
        if (!fileSystem.Shutdown.IsShutDown) { fileSystem.Sync.RunAtEnd(); }
    }

    /// <summary>
    /// Makes another process look up names in a directory, which is a mount point of this overlay:
    /// <see cref="Gate.RevokedPrefix"/> with each number from 0 to below the given one. Returns whether all were found. This is
    /// how a shutdown revokes passed-through files; if it is null, they are not revoked.
    /// </summary>
    public Func<string, int, bool>? LookUpRevoked
    {
        get => fileSystem.Shutdown.LookUpRevoked;
        set => fileSystem.Shutdown.LookUpRevoked = value;
    }

    /// <summary>
    /// Releases upper, work and the pins although a thread may still hang in a lower that does not answer. For a process that
    /// is about to end, whose descriptors the kernel closes only after its last thread has returned.
    /// </summary>
    public void Abandon()
    {
        fileSystem.Abandon();
        volume.InUse.Dispose();
        volume.Tree.Directories.CloseAll();
        for (int i = held.Count - 1; i >= 0; i--) // in reverse: later objects use earlier ones
        {
            if (held[i] is not LayerWatch) { held[i].Dispose(); } // a LayerWatch would wait for its thread
        }
    }

    /// <summary>Releases all layers.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref disposed, true)) { return; }
        for (int i = held.Count - 1; i >= 0; i--) { held[i].Dispose(); }
    }
}
