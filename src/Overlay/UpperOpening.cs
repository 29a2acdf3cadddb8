using Veneer.Linux;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay;

/// <summary>Opens upper and work: refuses an upper that may lack data, empties work, and marks a volatile upper.</summary>
internal static class UpperOpening
{
    /// <summary>
    /// Chooses user attributes for upper, since its filesystem takes no others, or an earlier mount found that it takes none.
    /// </summary>
    /// <returns>
    /// The options with userxattr, if this process cannot see trusted attributes. Otherwise the same options: the lowers keep
    /// their trusted attributes.
    /// </returns>
    public static OverlayOptions ChooseUserXattr(OverlayOptions options, int work)
    {
        if (options.Metacopy || options.RedirectDirectory == RedirectDirectory.On)
        {
            // metacopy=on implies redirect_dir=on, which the user may not have written.
            bool areBoth = options.Metacopy && options.Spelled.Any(word => word.StartsWith("redirect_dir=", StringComparison.Ordinal));
            string excluded = areBoth ? "metacopy=on and redirect_dir=on: leave both out"
                : options.Metacopy ? "metacopy=on: leave that out"
                : "redirect_dir=on: leave that out";
            throw new OverlayMountException($"The filesystem of the upper directory {options.UpperDirectory} takes no "
                + $"trusted.overlay.* attributes from this user, and user.overlay.* ones exclude {excluded}.");
        }
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

    /// <summary>Notes that upper's filesystem takes no attributes of the overlay, and refuses such an upper that is volatile.</summary>
    /// <param name="options">The overlay to mount.</param>
    /// <param name="log">Told of an upper that is not refused.</param>
    /// <exception cref="OverlayMountException">Upper would be volatile, and could not be marked as that.</exception>
    public static void WarnOfNoAttributes(OverlayOptions options, Action<string> log)
    {
        if (options.Sync == Sync.Volatile)
        {
            throw new OverlayMountException($"The filesystem of the upper directory {options.UpperDirectory} has no attributes, "
                + "which the mark of a volatile upper needs: mount without the option volatile.");
        }
        log($"veneer: the filesystem of the upper directory {options.UpperDirectory} takes no attributes of the overlay: "
            + "see veneer status for what stands in their place");
    }

    /// <summary>Opens upper and work.</summary>
    /// <param name="options">The overlay to mount.</param>
    /// <param name="upper">A descriptor of upper as the user named it.</param>
    /// <param name="work">A descriptor of work as the user named it.</param>
    /// <param name="features">What upper's filesystem can do.</param>
    /// <param name="hasWork">Whether work is locked for this overlay alone.</param>
    /// <param name="xattr">The names of the overlay's attributes in upper.</param>
    /// <param name="opened">Receives what must be disposed of with the overlay, in the order of opening.</param>
    /// <exception cref="OverlayMountException">Upper must not be mounted like this.</exception>
    public static (Layer Upper, WorkDirectory Work, VolatileMark Mark, ErrorSentinel? Sentinel) Open(
        OverlayOptions options, int upper, int work, UpperFeatures features, bool hasWork, OverlayXattr xattr, List<IDisposable> opened)
    {
        Layer layer;
        int workRoot = work;
        bool isPrivate = CommonMount.TryClone(upper, work, out int clone, out byte[] upperPath, out byte[] workPath);
        if (isPrivate)
        {
            opened.Add(new Fd(clone));
            layer = Layer.OpenUpper(options.UpperDirectory!, clone, isPrivate: true, upperPath);
            opened.Add(layer);
            Errno error = Libc.OpenAt(clone, [.. workPath, 0], OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out workRoot);
            if (error.IsError)
            {
                throw new OverlayMountException(error.Explain(
                    $"The work directory {options.WorkDirectory} cannot be opened ({error}): see its permissions."));
            }
            opened.Add(new Fd(workRoot));
        }
        else
        {
            layer = Layer.OpenUpper(options.UpperDirectory!, upper, isPrivate: false, "."u8);
            opened.Add(layer);
        }
        layer.SetAccessTimes(CommonMount.TimesOf(options.MountFlags | (options.ReadOnly ? MountFlags.ReadOnly : MountFlags.None)));
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
        Errno marked = mark.Write(workDirectory.Descriptor);
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
        Errno error = Libc.Reopen(upper, OpenFlags.ReadOnly | OpenFlags.Directory, out int readable);
        if (error.IsError)
        {
            throw new OverlayMountException(error.Explain($"The upper directory {options.UpperDirectory} cannot be read ({error}): "
                + "give this user permission to list it."));
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
}
