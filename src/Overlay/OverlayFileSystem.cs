using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Control;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Requests;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay;

/// <summary>Answers the kernel's requests: takes the locks, calls a room, fills the reply.</summary>
internal sealed partial class OverlayFileSystem : IFileSystem
{
    /// <summary>How long the kernel may trust names and attributes: nobody else changes the layers while mounted.</summary>
    private const ulong CacheSeconds = 24 * 60 * 60;

    /// <summary>Bytes of garbage that are worth a collection.</summary>
    private const long EnoughGarbage = 4 << 20;

    /// <summary>Bytes of inodes that are moved while somebody waits for an answer: some 130,000 of them.</summary>
    private const long MostLiving = 24 << 20;

    private const InitFlags Wanted =
        InitFlags.AsyncRead | InitFlags.AtomicOTrunc | InitFlags.BigWrites | InitFlags.DontMask | InitFlags.HasIoctlDir |
        InitFlags.DoReadDirPlus | InitFlags.ReadDirPlusAuto | InitFlags.AsyncDio | InitFlags.ParallelDirOps |
        InitFlags.PosixAcl | InitFlags.AbortError | InitFlags.MaxPages | InitFlags.CacheSymlinks |
        InitFlags.ExplicitInvalData | InitFlags.HandleKillPrivV2 | InitFlags.SetXattrExt | InitFlags.NoExportSupport | InitFlags.NoOpenDirSupport;

    private readonly Volume volume;
    private readonly CopyUp copyUp;
    private readonly Create create;
    private readonly Remove remove;
    private readonly Rename rename;
    private readonly SameFile sameFile;
    private readonly LookAhead ahead;
    private readonly OpenFiles files;
    private readonly byte[] serverIdentity;
    private readonly ControlChannel control;
    private readonly WritebackErrors errors;
    private bool opensDirectoriesItself;
    private Connection? connection;
    private BackingIds? backings;
    private string? withoutPassthrough, withoutIoUring; // why, unless they are there or not wanted
    private Gate? gate;
    private Workers? workers;
    private Notifier? notifier;
    private readonly SmallReads smallReads = new();
    private long collected; // bytes of garbage at the last collection

    public OverlayFileSystem(Volume volume)
    {
        this.volume = volume;
        bool acts = volume.Mark is not null || volume.Options.Errors != OnError.Continue;
        files = new OpenFiles(volume.MaxOpenFiles, Libc.EffectiveUid);
        errors = new WritebackErrors(volume.Sentinel, volume.IsInMemory, acts ? ActOnError : null);
        control = new ControlChannel(Libc.EffectiveUid, Answer);
        remove = new Remove(volume);
        copyUp = new CopyUp(volume, remove);
        create = new Create(volume);
        rename = new Rename(volume, copyUp, remove);
        sameFile = new SameFile(volume);
        ahead = new LookAhead(volume.Lookup, volume.Listings, volume.Inodes, volume.Keys, volume.Log);
        serverIdentity = ReadServerIdentity(hasUpper: volume.Layers.Upper is not null);
    }

    public InitFlags Negotiate(InitFlags offered)
    {
        InitFlags flags = Wanted;
        if (volume.Options.Passthrough != KernelFeature.Off) { flags |= InitFlags.Passthrough; }
        if (volume.Options.IoUring != KernelFeature.Off) { flags |= InitFlags.OverIoUring; }
        return flags;
    }

    public void Start(Connection connection)
    {
        this.connection = connection;
        workers = copyUp.Workers = connection.Workers;
        notifier = copyUp.Notifier = connection.Notifier;
        gate = connection.Gate;
        opensDirectoriesItself = (connection.Flags & InitFlags.NoOpenDirSupport) != 0;
        Libc.SetUmask(0); // modes come with the caller's umask
        bool isOffered = (connection.Flags & InitFlags.Passthrough) != 0;
        if (isOffered && BackingIds.IsPermitted) { backings = new BackingIds(connection.Device, volume.Log); }
        else if (volume.Options.Passthrough == KernelFeature.Require)
        {
            throw new OverlayMountException("passthrough=require cannot be had, which takes Linux 6.9 and root in the initial user namespace: mount with passthrough=auto.");
        }
        else if (volume.Options.Passthrough == KernelFeature.Auto)
        {
            withoutPassthrough = isOffered ? "it takes root in the initial user namespace" : "the kernel does not offer it, which takes Linux 6.9";
        }
        if ((connection.Flags & InitFlags.OverIoUring) == 0) { DoWithoutIoUring(connection.RingError); }
        if (volume.Mark is { } mark) { mark.IsServed = true; }
    }

    private void DoWithoutIoUring(Errno error)
    {
        if (volume.Options.IoUring == KernelFeature.Require)
        {
            throw new OverlayMountException(error.IsError
                ? $"io_uring: the system refuses to set it up ({error}): see sysctl kernel.io_uring_disabled and the container's filter of system calls, or mount with io_uring=auto."
                : "io_uring: the kernel does not offer it for FUSE: write Y to /sys/module/fuse/parameters/enable_uring as root (Linux 6.14), or mount with io_uring=auto.");
        }
        if (volume.Options.IoUring == KernelFeature.Off) { return; }
        withoutIoUring = error.IsError
            ? $"setting it up was refused ({error})"
            : "the kernel does not offer it for FUSE, which takes Linux 6.14 and Y in /sys/module/fuse/parameters/enable_uring";
    }

    public int FindKnownFiles(Span<ulong> nodeIds) => volume.Inodes.FindKnownFiles(nodeIds);

    /// <summary>Gives the memory of what the kernel has forgotten back to the system.</summary>
    /// <remarks>
    /// The steady path allocates nothing, so that the collector may have no occasion of its own. All threads stand still
    /// while it moves what lives, some 25 ms and 0.2 µs for each inode: it is done when four times as much has died, and while
    /// requests come only if that is soon over. Less than moving does not give the memory back.
    /// </remarks>
    public void Rest(bool isQuiet)
    {
        long garbage = volume.Listings.Discarded + (volume.Inodes.Dropped * InodeTable.BytesOfInode);
        long living = (long)volume.Inodes.Count * InodeTable.BytesOfInode;
        if (garbage - collected < Math.Max(EnoughGarbage, 4 * living) || (!isQuiet && living > MostLiving)) { return; }
        collected = garbage;
        volume.Inodes.DropRecycled();
        volume.Listings.DropRecycled();
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
    }

    public void Stop() => Stop(hangs: false);

    /// <param name="hangs">Whether a lower does not answer: nothing is done that would wait for it.</param>
    private void Stop(bool hangs)
    {
        ahead.Stop(isAwaited: !hangs);
        EndSync();
        if (errors.Check(-1).IsError) { NoteFailure(errors.Failure); }
        errors.Stop();
        foreach (OpenFile file in files.RemoveAll())
        {
            file.Backing.Leave(Writes(file.Flags), backings);
            if (file.Descriptor >= 0 && !(hangs && file.IsLower)) { Libc.Close(file.Descriptor); }
        }
        volume.Inodes.Clear();
    }

    /// <summary>What of <see cref="Stop()"/> waits for no lower.</summary>
    public void Abandon()
    {
        if (errors.Check(-1).IsError) { NoteFailure(errors.Failure); }
        foreach (OpenFile file in files.RemoveAll())
        {
            if (file.Descriptor >= 0 && !file.IsLower) { Libc.Close(file.Descriptor); }
        }
    }

    /// <summary>Writing something back has failed. Called once, by a thread of its own.</summary>
    private void ActOnError(Errno error)
    {
        NoteFailure(error);
        Act($"writing to the filesystem of the upper directory {volume.Options.UpperDirectory} failed ({error})", what => $"fsync fails from now on: {what}");
    }

    /// <summary>A layer was moved or removed. What is open goes on, but the next mount will not find it. Called by a thread of its own, once for each.</summary>
    /// <param name="what">A sentence without its full stop.</param>
    internal void ActOnLoss(string what) => Act(what, what => $"{what}: see who did it, and unmount");

    private void Act(string what, Func<string, string> warning)
    {
        switch (gate is null ? OnError.Continue : volume.Options.Errors) // before it is served, there is nothing to end
        {
            case OnError.Shutdown:
                _ = ShutDown($": {what}"); // what it could not do is logged
                break;
            case OnError.ReadOnly:
                volume.Log($"veneer: the overlay cannot be changed any more: {what}");
                gate?.Close(Service.Reading);
                break;
            default:
                volume.Log($"veneer: {warning(what)}");
                break;
        }
    }

    private void NoteFailure(Errno error)
    {
        if (volume.Mark is { } mark && mark.NoteFailure(error) is { IsError: true } problem)
        {
            volume.Log($"veneer: that writing to upper failed cannot be noted down ({problem}): discard it");
        }
    }

    /// <summary>Finds a name and lends the kernel one reference to what it leads to.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="entry">A nodeid of 0: there is nothing.</param>
    /// <param name="firstLower">The first of the directory's lowers that can have the name.</param>
    private Errno Lend(DirectoryInode parent, ReadOnlySpan<byte> name, out EntryOut entry, int firstLower = 0)
    {
        while (true)
        {
            entry = default;
            int version = volume.Inodes.VersionOf(parent);
            Errno error = volume.Lookup.Find(parent.Stack, name, out Found found, firstLower);
            if (error.IsError) { return error; }
            if (!found.Exists)
            {
                entry.EntryValid = CacheSeconds;
                return Errno.None;
            }
            if (TryLend(parent, name, found, null, version, out entry, out error)) { return error; }
        }
    }

    /// <summary>Lends the kernel one reference to what was found.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="found">What was found.</param>
    /// <param name="prefetched">What is behind it, if that is known: it is looked up for a new inode.</param>
    /// <param name="version">The directory's version before.</param>
    /// <param name="entry">The answer.</param>
    /// <param name="error">The error.</param>
    /// <returns>False when a name changed in the directory since <paramref name="version"/>: look again.</returns>
    private bool TryLend(DirectoryInode parent, ReadOnlySpan<byte> name, in Found found, Whole? prefetched, int version, out EntryOut entry, out Errno error)
    {
        entry = default;
        error = Errno.None;
        RealKey key = volume.Keys.Of(parent, name, found);
        if (!volume.Inodes.TryLend(key, parent, version, out Inode inode, out ulong nodeId))
        {
            Whole whole = prefetched.GetValueOrDefault();
            if (prefetched is null) { error = volume.Lookup.Complete(parent.Stack, name, found, out whole); }
            if (error.IsError) { return true; }
            Inode candidate = NewInode(parent, name, found, whole, key, out InoChoice ino);
            if (!volume.Inodes.TryAddAndLend(candidate, ino, version, out inode, out nodeId)) { return false; }
        }
        if (found.HasUpper && volume.Keys.DoubtsUpper && !found.Stat.IsDirectory && !volume.Inodes.IsAt(inode, parent, name))
        {
            error = sameFile.Check(inode, parent, name, version, found.Stat);
            if (error.IsError) { volume.Inodes.Forget(nodeId, 1); }
            if (error == Errno.EAGAIN) { return false; }
            if (error.IsError) { return true; }
        }
        bool hasSeveral = inode.Links is not null || (found.HasUpper && found.Stat.Nlink > 1 && !inode.IsDirectory);
        if (hasSeveral && !volume.Inodes.TryAddAlias(inode, parent, version, name, found.HasUpper))
        {
            volume.Inodes.Forget(nodeId, 1);
            return false;
        }
        error = FillEntry(inode, nodeId, found, out entry);
        if (error.IsError) { volume.Inodes.Forget(nodeId, 1); }
        return true;
    }

    private Errno FillEntry(Inode inode, ulong nodeId, in Found found, out EntryOut entry)
    {
        entry = default;
        if (inode.Links is null && inode.Metacopy is null && found.HasUpper == inode.HasUpper && !IsStattedAnew(inode))
        {
            entry = EntryOf(inode, nodeId, found.Stat);
            return Errno.None;
        }
        // The name shows another real object than the inode has by now, or the attributes are in two places.
        Errno error = ReadAttributes(inode, StatxMask.Basic, out Statx stat);
        if (!error.IsError) { entry = EntryOf(inode, nodeId, stat); }
        return error;
    }

    private static ulong AttrValidOf(Inode inode) => inode.ChangesUnseen ? 0 : CacheSeconds;

    private static EntryOut EntryOf(Inode inode, ulong nodeId, in Statx stat) => new()
    {
        NodeId = nodeId,
        EntryValid = CacheSeconds,
        AttrValid = AttrValidOf(inode),
        Attr = Attr.From(stat, inode.Ino, NlinkOf(inode, stat)),
    };

    /// <summary>What users see as st_nlink. A merged directory has 1, as with kernel overlayfs: find(1) then does not count on it.</summary>
    private static uint NlinkOf(Inode inode, in Statx stat)
    {
        if (inode.IsUnlinked) { return 0; }
        if (inode is DirectoryInode { IsMerged: true }) { return 1; }
        if (inode.IsKnownByName && !inode.IsDirectory) { return 1; } // each name is an object of its own
        return inode.Links is { } links ? links.Count : inode.WorkName is null ? stat.Nlink : stat.Nlink - 1;
    }

    /// <summary>Whether an object may be changed at all. Kernel: IS_IMMUTABLE() and IS_APPEND(), which FUSE inodes never are.</summary>
    /// <param name="inode">The object.</param>
    /// <param name="onlyAdds">Whether the change is one that append-only allows.</param>
    private static Errno CheckProtection(Inode inode, bool onlyAdds = false)
    {
        if (inode.Protection == Protection.None) { return Errno.None; }
        bool refused = (inode.Protection & Protection.Immutable) != 0 || ((inode.Protection & Protection.AppendOnly) != 0 && !onlyAdds);
        return refused ? Errno.EPERM : Errno.None;
    }

    private Inode NewInode(DirectoryInode parent, ReadOnlySpan<byte> name, in Found found, in Whole whole, RealKey key, out InoChoice ino)
    {
        Inode inode;
        if (found.Stat.IsDirectory)
        {
            byte[] ownName = name.ToArray();
            var directory = new DirectoryInode(parent.Stack.Child(ownName, found.HasUpper, whole))
            {
                Redirect = whole.Redirect,
                Type = found.Stat.Type,
                IsOpaque = whole.IsOpaque,
                IsImpure = whole.IsImpure,
            };
            directory.SetName(ownName);
            inode = directory;
        }
        else
        {
            inode = volume.Inodes.Make(name);
            inode.LowerDirectory = whole.LowerDirectory;
            inode.Type = found.Stat.Type;
            inode.Metacopy = whole.Metacopy;
            inode.HasUpper = found.HasUpper;
            inode.IsSmall = !found.HasUpper && found.Stat.Size < SmallestImage;
            inode.HasOrigin = whole.HasOrigin || (found.HasUpper && volume.Numbers.TryGetRemembered(key, out _));
            if (whole.LowerName is { } lowerName) { inode.SetLowerName(lowerName); }
            if (volume.IsWritable && !found.HasUpper && found.Stat.Nlink > 1 && !key.IsByName) { inode.Links = new HardLinks(found.Stat.Nlink); }
        }
        inode.Parent = parent;
        Layer layer = (found.HasUpper ? parent.Upper! : found.LowerDirectory!).Layer;
        inode.Protection = whole.Protection | (layer.HasFileFlags ? Protections.Of(found.Stat) : Protection.None);
        inode.Key = key;
        ino = InoOf(name, found, whole, key);
        inode.Ino = ino.Ino;
        return inode;
    }

    /// <summary>The number of what the object was copied up from, else its own.</summary>
    private InoChoice InoOf(ReadOnlySpan<byte> name, in Found found, in Whole whole, RealKey key)
    {
        if (!found.HasUpper && key.IsByName) { return InoChoice.Own(InodeNumbers.NumberOfName(found.LowerDirectory!, name)); }
        ulong own = volume.Numbers.Number(volume.Numbers.Key(found.Stat.Dev, found.Stat.Ino));
        if (found.Stat.IsDirectory && whole.Lowers is [var lower, ..])
        {
            if (lower.Layer.Identity.IsByName(whole.LowerStat)) { return new InoChoice(InodeNumbers.NumberOfName(lower.Parent!, lower.Name), own, null); }
            RealKey merged = volume.Numbers.Key(whole.LowerStat.Dev, whole.LowerStat.Ino);
            return new InoChoice(volume.Numbers.Number(merged), own, merged);
        }
        if (whole.HasOrigin)
        {
            RealKey origin = volume.Numbers.Key(whole.OriginDevice, whole.OriginIno);
            return new InoChoice(volume.Numbers.Number(origin), own, origin);
        }
        return found.HasUpper && volume.Numbers.TryGetRemembered(key, out ulong kept) ? new InoChoice(kept, own, null) : InoChoice.Own(own);
    }

    /// <summary>
    /// Whether the attributes that upper's filesystem remembers under one name may be older than what was done by another, which
    /// may be gone by now: FUSE and network filesystems keep them by name.
    /// </summary>
    private bool IsStattedAnew(Inode inode) => volume.Keys.DoubtsUpper && inode.HasUpper && inode.AliasList is not null;

    /// <summary>Attributes of the real object, with the data's blocks for a metacopy. Caller holds no lock.</summary>
    private Errno ReadAttributes(Inode inode, StatxMask mask, out Statx stat)
    {
        bool wasNameless;
        Errno error;
        do
        {
            wasNameless = inode.IsNameless;
            stat = default;
            error = volume.Objects.Resolve(inode, out RealReference real);
            if (error.IsError) { return error; }
            using (real)
            {
                error = IsStattedAnew(inode) ? Libc.StatAnew(real.Directory, real.Name, mask, out stat) : Libc.StatAt(real.Directory, real.Name, mask, out stat);
                if (!error.IsError) { volume.Owners.Mark(real.Directory, real.Name, ref stat); }
            }
        }
        while (error == Errno.ENOENT && !wasNameless && inode.IsNameless); // unlinked while we were on the way through its name
        if (error.IsError || inode.Metacopy is not { } metacopy) { return error; }
        if (volume.Objects.Of(metacopy.Directory, metacopy.Name, out RealReference data).IsError) { return Errno.None; }
        using (data)
        {
            if (!Libc.StatAt(data.Directory, data.Name, StatxMask.Basic, out Statx dataStat).IsError) { stat.Blocks = dataStat.Blocks; }
        }
        return Errno.None;
    }
}
