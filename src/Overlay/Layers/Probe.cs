using Veneer.Linux;

namespace Veneer.Overlay.Layers;

/// <summary>What the upper's filesystem can do, beyond what an overlay cannot do without.</summary>
/// <param name="TemporaryFiles">O_TMPFILE.</param>
/// <param name="RenameWhiteout">RENAME_WHITEOUT; without it, renames that must leave a whiteout fail with EINVAL, as with the kernel.</param>
internal sealed record UpperFeatures(bool TemporaryFiles, bool RenameWhiteout)
{
    /// <summary>Of an overlay without an upper.</summary>
    public static readonly UpperFeatures None = new(false, false);
}

/// <summary>Looks at the layers before they are used: what cannot work is refused with one sentence, while nothing has changed yet.</summary>
/// <remarks>
/// The rules are the kernel's, seen on 6.18: a layer is used once (conflicting paths, ELOOP), a lower lies in no other
/// layer (overlapping paths, ELOOP), though upper and work may lie in a lower; upper and work are on one mount and
/// neither is in the other.
/// <para>
/// Crash safety. The probes work in a directory of their own in work; one that a killed mount has left is removed by
/// the next.
/// </para>
/// </remarks>
internal static class Probe
{
    /// <summary>Opens a layer, O_PATH. The caller owns the descriptor.</summary>
    /// <param name="path">As the user wrote it; the kernel resolves it.</param>
    /// <param name="role">What it is for: <c>lower</c>, <c>upper</c> or <c>work</c>.</param>
    public static int OpenDirectory(string path, string role)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out int descriptor);
        switch (error)
        {
            case Errno.None:
                break;
            case Errno.ENOENT:
                throw new OverlayMountException($"The {role} directory {path} does not exist: create it, or correct {role}dir.");
            case Errno.ENOTDIR:
                throw new OverlayMountException($"The {role} directory {path} is not a directory: correct {role}dir.");
            case Errno.EACCES:
                throw new OverlayMountException($"The {role} directory {path} cannot be reached: give this user permission to search the directories above it.");
            case Errno.ELOOP:
                throw new OverlayMountException($"The {role} directory {path} leads through too many symbolic links: correct {role}dir.");
            case Errno.EMFILE:
                throw new OverlayMountException($"The {role} directory {path} cannot be opened, since the limit of open files is reached: raise it with ulimit -n.");
            default:
                throw new OverlayMountException($"The {role} directory {path} cannot be opened ({error}): correct {role}dir.");
        }

        AccessMode needed = AccessMode.Read | AccessMode.Execute | (role == "lower" ? 0 : AccessMode.Write);
        error = Libc.Access(descriptor, needed);
        // An immutable directory: in upper the kernel's answer comes when it is to be changed, without work the overlay is read-only.
        bool isImmutable = error == Errno.EPERM && role != "lower";
        if (!error.IsError || error == Errno.ENOSYS || isImmutable) { return descriptor; }
        Libc.Close(descriptor);
        throw new OverlayMountException(error switch
        {
            Errno.EROFS => ReadOnlyFileSystem(path, role),
            _ when role == "lower" => $"The {role} directory {path} cannot be read: give this user permission to list and search it.",
            _ => $"The {role} directory {path} cannot be written: give this user permission to write it.",
        });
    }

    /// <summary>Checks the layers against each other. Nothing is changed.</summary>
    /// <param name="options">For the names in the sentences.</param>
    /// <param name="lowers">The lower directories as <see cref="OpenDirectory"/> gave them, in the order of the options.</param>
    /// <param name="upper">The upper directory, or -1.</param>
    /// <param name="work">The work directory, or -1.</param>
    /// <returns>Where they lie: upper, work and the lowers, of those that there are.</returns>
    /// <exception cref="OverlayMountException">They cannot be used like this.</exception>
    public static List<Place> CheckLayers(OverlayOptions options, IReadOnlyList<int> lowers, int upper, int work)
    {
        if (lowers.Count > OverlayOptions.MaxLowerDirectories)
        {
            throw new OverlayMountException($"{lowers.Count} lower directories are given, and an overlay has at most {OverlayOptions.MaxLowerDirectories}: merge some of them.");
        }
        for (int i = 0; i < lowers.Count; i++)
        {
            // Kernel: ovl_dentry_weird()
            if (Libc.StatFileSystem(lowers[i], out StatFs status).IsError || status.Type != StatFs.ProcMagic) { continue; }
            throw new OverlayMountException($"The lower directory {options.LowerDirectories[i]} is on a proc filesystem, whose files change by themselves: leave it out, and mount proc inside the overlay instead.");
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

        // What is given first is the first to be named; the lowers come last, as they may not lie in any other.
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
            throw new OverlayMountException($"The {upper} and the {work} are on the same filesystem but reached through different mounts: name both through one of them.");
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

    /// <summary>Checks that upper can hold an overlay's changes, by making some in work.</summary>
    /// <exception cref="OverlayMountException">It cannot.</exception>
    public static UpperFeatures CheckUpper(OverlayOptions options, int upper, int work)
    {
        string upperPath = options.UpperDirectory!;
        string workPath = options.WorkDirectory!;
        if (!Libc.StatFileSystem(upper, out StatFs status).IsError && status.Type == StatFs.OverlayMagic)
        {
            throw new OverlayMountException($"The upper directory {upperPath} is on a kernel overlay, which cannot hold another overlay's whiteouts: use a directory on an ordinary filesystem, such as a tmpfs.");
        }

        ReadOnlySpan<byte> name = "#veneer-probe\0"u8;
        Errno error = Libc.MakeDirectoryAt(work, name, 0x1C0); // 0700
        if (error == Errno.EEXIST)
        {
            RemoveProbe(work, name);
            error = Libc.MakeDirectoryAt(work, name, 0x1C0);
        }
        switch (error)
        {
            case Errno.None:
                break;
            case Errno.EROFS:
                throw new OverlayMountException(ReadOnlyFileSystem(workPath, "work"));
            case Errno.ENOSPC or Errno.EDQUOT when !Libc.StatAt(work, "work\0"u8, StatxMask.Basic, out Statx left).IsError && left.IsDirectory:
                return new UpperFeatures(HasTemporaryFiles(work), RenameWhiteout: true); // as below: what the last mount left is all that is needed
            case Errno.ENOSPC or Errno.EDQUOT or Errno.EPERM:
                throw OverlayMountException.OfWork(error, $"Nothing can be created in the work directory {workPath} ({error}): see its permissions and its filesystem.");
            default:
                throw new OverlayMountException($"Nothing can be created in the work directory {workPath} ({error}): see its permissions and its filesystem.");
        }
        try
        {
            error = Libc.OpenAt(work, name, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int directory);
            if (error.IsError)
            {
                throw new OverlayMountException($"The work directory {workPath} cannot be used ({error}): see its permissions and its filesystem.");
            }
            using var probe = new Fd(directory);
            return Try(options, directory);
        }
        finally
        {
            RemoveProbe(work, name);
        }
    }

    /// <summary>Does in an empty directory what an overlay does in upper.</summary>
    private static UpperFeatures Try(OverlayOptions options, int directory)
    {
        string path = options.UpperDirectory!;

        // Attributes, on a directory as an opaque one has them.
        ReadOnlySpan<byte> attribute = options.UserXattr ? "user.overlay.opaque\0"u8 : "trusted.overlay.opaque\0"u8;
        string space = options.UserXattr ? "user.overlay" : "trusted.overlay";
        Errno error = Libc.SetXattrAt(directory, Libc.Self, attribute, "n"u8, XattrFlags.None);
        switch (error)
        {
            case Errno.None:
                _ = Libc.RemoveXattrAt(directory, Libc.Self, attribute); // best effort: the directory goes as well
                break;
            case Errno.EPERM when !options.UserXattr:
                throw new OverlayMountException($"Only root in the initial user namespace may write the {space}.* attributes that the upper directory {path} needs: add -o userxattr.");
            case Errno.EOPNOTSUPP:
                throw new OverlayMountException($"The filesystem of the upper directory {path} has no {space}.* attributes: use one that has, such as ext4, xfs, btrfs or tmpfs.");
            default:
                throw new OverlayMountException($"The attributes {space}.* cannot be written in the filesystem of the upper directory {path} ({error}): use one where they can, such as ext4, xfs, btrfs or tmpfs.");
        }

        // Full: what it can do is not to be seen, and so is believed. Kernel: ovl_make_workdir(), which mounts all the same.
        if (IsFull(directory)) { return new UpperFeatures(HasTemporaryFiles(directory), RenameWhiteout: true); }

        error = Libc.MakeNodeAt(directory, "whiteout\0"u8, FileType.CharacterDevice, 0);
        if (!error.IsError)
        {
            error = Libc.StatAt(directory, "whiteout\0"u8, StatxMask.Basic, out Statx whiteout);
            if (!error.IsError && !whiteout.IsWhiteoutDevice) { error = Errno.EINVAL; }
        }
        if (error.IsError)
        {
            throw new OverlayMountException($"The filesystem of the upper directory {path} does not take whiteouts, which are character devices 0:0 ({error}): use one that does, such as ext4, xfs, btrfs or tmpfs.");
        }

        error = Libc.MakeDirectoryAt(directory, "one\0"u8, 0x1C0);
        if (!error.IsError) { error = Libc.RenameAt(directory, "one\0"u8, directory, "two\0"u8, RenameFlags.NoReplace); }
        if (!error.IsError) { error = Libc.RenameAt(directory, "two\0"u8, directory, "whiteout\0"u8, RenameFlags.Exchange); }
        if (error.IsError)
        {
            throw new OverlayMountException($"The filesystem of the upper directory {path} cannot exchange two names at once ({error}): use one that can, such as ext4, xfs, btrfs or tmpfs.");
        }

        bool renameWhiteout = !Libc.RenameAt(directory, "whiteout\0"u8, directory, "one\0"u8, RenameFlags.Whiteout).IsError;
        return new UpperFeatures(HasTemporaryFiles(directory), renameWhiteout);
    }

    private static bool HasTemporaryFiles(int directory)
    {
        Errno error = Libc.OpenAt(directory, ".\0"u8, OpenFlags.TemporaryFile | OpenFlags.ReadWrite, 0x180, ResolveFlags.None, out int temporary);
        if (!error.IsError) { Libc.Close(temporary); }
        return error is Errno.None or Errno.ENOSPC or Errno.EDQUOT;
    }

    /// <summary>Whether there is no room for one more name.</summary>
    private static bool IsFull(int directory)
    {
        Errno error = Libc.MakeDirectoryAt(directory, "one\0"u8, 0x1C0);
        if (!error.IsError) { _ = Libc.RemoveDirectoryAt(directory, "one\0"u8); } // best effort: the directory goes as well
        return error is Errno.ENOSPC or Errno.EDQUOT;
    }

    private static void RemoveProbe(int work, ReadOnlySpan<byte> name)
    {
        Errno error = Libc.OpenAt(work, name, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int directory);
        if (!error.IsError)
        {
            foreach (string file in (ReadOnlySpan<string>)["one", "two", "whiteout"])
            {
                byte[] bytes = PathText.Encode(file);
                if (Libc.UnlinkAt(directory, bytes) == Errno.EISDIR)
                {
                    _ = Libc.RemoveDirectoryAt(directory, bytes); // best effort: the next mount tries again
                }
            }
            Libc.Close(directory);
        }
        _ = Libc.RemoveDirectoryAt(work, name); // best effort: the next mount tries again
    }

    private static string ReadOnlyFileSystem(string path, string role) =>
        $"The {role} directory {path} is on a read-only filesystem: remount that with rw, or leave upperdir and workdir out for an overlay that cannot be written.";
}
