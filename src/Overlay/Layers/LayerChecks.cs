using Veneer.Linux;
using Veneer.Overlay.Host;

namespace Veneer.Overlay.Layers;

/// <summary>
/// Checks the layers before they are used: an impossible arrangement is refused with one sentence, while nothing has changed
/// yet.
/// </summary>
/// <remarks>
/// The rules are the kernel's, as observed on 6.18. A layer is used once (conflicting paths, ELOOP). A lower lies in no
/// other layer (overlapping paths, ELOOP), but upper and work may lie in a lower. Upper and work are on one mount, and
/// neither is inside the other.
/// </remarks>
internal static class LayerChecks
{
    /// <summary>Opens a layer, O_PATH. The caller owns the descriptor.</summary>
    /// <param name="path">The path as the user wrote it; the kernel resolves it.</param>
    /// <param name="role">The directory's role: <c>lower</c>, <c>upper</c> or <c>work</c>.</param>
    /// <exception cref="OverlayMountException">The directory cannot be opened, or not be used in its role.</exception>
    public static int OpenDirectory(string path, string role)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None,
            out int descriptor);
        switch (error)
        {
            case Errno.None:
                break;
            case Errno.ENOENT:
                throw new OverlayMountException($"The {role} directory {path} does not exist: create it, or correct {role}dir.");
            case Errno.ENOTDIR:
                throw new OverlayMountException($"The {role} directory {path} is not a directory: correct {role}dir.");
            case Errno.EACCES:
                throw new OverlayMountException($"The {role} directory {path} cannot be reached: give this user permission to search "
                    + "the directories above it.");
            case Errno.ELOOP:
                throw new OverlayMountException($"The {role} directory {path} leads through too many symbolic links: correct {role}dir.");
            default:
                throw new OverlayMountException(error.Explain(
                    $"The {role} directory {path} cannot be opened ({error}): correct {role}dir."));
        }

        AccessMode needed = AccessMode.Read | AccessMode.Execute | (role == "lower" ? 0 : AccessMode.Write);
        error = Libc.Access(descriptor, needed);
        // EPERM means an immutable directory: in upper, the kernel answers when it is to be changed; without work, the overlay is
        // read-only. EPERM and ENOSYS may also come from a filter of system calls that does not know this call.
        if (error is Errno.None or Errno.ENOSYS or Errno.EPERM) { return descriptor; }
        Libc.Close(descriptor);
        throw new OverlayMountException(error switch
        {
            Errno.EROFS => ReadOnlyFileSystem(path, role),
            _ when role == "lower" => $"The {role} directory {path} cannot be read: give this user permission to list and search it.",
            _ => $"The {role} directory {path} cannot be written: give this user permission to write it.",
        });
    }

    /// <summary>Checks the layers against each other. Nothing is changed.</summary>
    /// <param name="options">The options, for the names in the sentences.</param>
    /// <param name="lowers">Descriptors of the lower directories from <see cref="OpenDirectory"/>, in the order of the options.</param>
    /// <param name="upper">A descriptor of the upper directory, or -1.</param>
    /// <param name="work">A descriptor of the work directory, or -1.</param>
    /// <returns>The places of upper and work, as far as they exist, and of the lowers.</returns>
    /// <exception cref="OverlayMountException">The layers cannot be used together.</exception>
    public static List<Place> CheckLayers(OverlayOptions options, IReadOnlyList<int> lowers, int upper, int work)
    {
        if (lowers.Count > OverlayOptions.MaxLowerDirectories)
        {
            throw new OverlayMountException($"{lowers.Count} lower directories are given, and an overlay has at most "
                + $"{OverlayOptions.MaxLowerDirectories}: merge some of them.");
        }
        for (int i = 0; i < lowers.Count; i++)
        {
            // Kernel: ovl_dentry_weird()
            if (Libc.StatFileSystem(lowers[i], out StatFs status).IsError || status.Type != StatFs.ProcMagic) { continue; }
            throw new OverlayMountException($"The lower directory {options.LowerDirectories[i]} is on a proc filesystem, whose files "
                + "change by themselves: leave it out, and mount proc inside the overlay instead.");
        }
        return CheckOverlaps(options, lowers, upper, work);
    }

    private static List<Place> CheckOverlaps(OverlayOptions options, IReadOnlyList<int> lowers, int upper, int work)
    {
        var mounts = new Dictionary<ulong, MountEntry>();
        _ = MountTable.Read(out List<MountEntry> table); // best effort: without /proc only equal directories are noticed
        foreach (MountEntry entry in table) { mounts[(ulong)entry.Id] = entry; }

        Place? upperPlace = upper < 0 ? null : Place.Of("upper", options.UpperDirectory!, upper, mounts);
        Place? workPlace = work < 0 ? null : Place.Of("work", options.WorkDirectory!, work, mounts);
        if (upperPlace is not null && workPlace is not null) { CheckPair(upperPlace, workPlace); }

        // In a sentence the layer that comes first here is named first. The lowers come last, since they may not lie in another layer.
        var places = new List<Place>(lowers.Count + 2);
        if (upperPlace is not null) { places.Add(upperPlace); }
        if (workPlace is not null) { places.Add(workPlace); }
        for (int i = 0; i < lowers.Count; i++) { places.Add(Place.Of("lower", options.LowerDirectories[i], lowers[i], mounts)); }

        var byInode = new Dictionary<(ulong Dev, ulong Ino), Place>();
        var byPath = new Dictionary<(string Device, string Inside), Place>();
        foreach (Place place in places)
        {
            Place? same = null;
            bool isKnown = RealIdentities.Of(place.Descriptor) == RealIdentity.Names
                ? place.Device is not null && place.Inside is not null && byPath.TryGetValue((place.Device, place.Inside), out same)
                : byInode.TryGetValue((place.Status.Dev, place.Status.Ino), out same);
            if (isKnown && same is not null)
            {
                throw new OverlayMountException(same.Role == place.Role
                    ? $"The {same} is given twice{Spelling(same, place)}: take one out, a layer counts once."
                    : $"The {same} is also a {place.Role} directory{Spelling(same, place)}: give each role a directory of its own.");
            }
            byInode[(place.Status.Dev, place.Status.Ino)] = place;
            if (place.Device is not null && place.Inside is not null) { byPath[(place.Device, place.Inside)] = place; }
        }
        foreach (Place inner in places)
        {
            if (inner.Role != "lower" || inner.Device is null || inner.Inside is null) { continue; } // upper and work may lie in a lower
            string parent = inner.Inside;
            while (parent.Length > 1)
            {
                parent = parent[..Math.Max(1, parent.LastIndexOf('/'))];
                if (byPath.TryGetValue((inner.Device, parent), out Place? outer))
                {
                    throw new OverlayMountException($"The {inner} lies inside the {outer}: move one of them, layers must not overlap.");
                }
            }
        }
        return places;
    }

    private static string Spelling(Place first, Place second) => first.Path == second.Path ? "" : $" (as {second.Path})";

    private static void CheckPair(Place upper, Place work)
    {
        if (upper.IsSame(work))
        {
            throw new OverlayMountException($"The {upper} is also the work directory: give workdir an empty directory beside it.");
        }
        if (upper.Status.Dev != work.Status.Dev && upper.Device != work.Device)
        {
            throw new OverlayMountException($"The {upper} and the {work} are on different filesystems: put work beside upper.");
        }
        if (upper.Status.MountId != work.Status.MountId)
        {
            throw new OverlayMountException($"The {upper} and the {work} are on the same filesystem but reached through different "
                + "mounts: name both through one of them.");
        }
        if (work.IsInside(upper))
        {
            throw new OverlayMountException($"The {work} lies inside the {upper}: put work beside upper.");
        }
        if (upper.IsInside(work))
        {
            throw new OverlayMountException($"The {upper} lies inside the {work}: put upper beside work.");
        }
    }

    /// <summary>The sentence for a directory that cannot be written because its filesystem is read-only.</summary>
    internal static string ReadOnlyFileSystem(string path, string role) =>
        $"The {role} directory {path} is on a read-only filesystem: remount that with rw, or leave upperdir and workdir out for an "
            + "overlay that cannot be written.";
}
