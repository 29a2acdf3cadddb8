using System.Buffers.Binary;
using System.Globalization;
using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>A mount of kernel overlayfs in some mount namespace.</summary>
internal sealed class KernelMount(MountNamespace space, MountEntry mount)
{
    /// <summary>The mount namespace in which the mount is seen.</summary>
    public MountNamespace Namespace => space;

    /// <summary>The mount's entry in the mount table.</summary>
    public MountEntry Mount => mount;

    private static ReadOnlySpan<byte> Mark => " - overlay "u8;

    /// <summary>
    /// Enumerates the overlays that can be seen, each once, however many namespaces have copies of it. A returned overlay
    /// is valid until the next one is asked for.
    /// </summary>
    public static IEnumerable<KernelMount> All()
    {
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach (MountNamespace space in CanExist() ? MountNamespace.All() : [])
        {
            foreach (MountEntry entry in OverlaysOf(space.Table))
            {
                // A mount of a subdirectory does not show the root: it counts only until a mount of the whole overlay is found.
                if (entry.Root == "/" ? seen.Add(entry.Device) : !seen.Contains(entry.Device))
                {
                    yield return new KernelMount(space, entry);
                }
            }
        }
    }

    /// <summary>Whether this kernel can have kernel overlays at all: examining hundreds of namespaces takes time.</summary>
    private static bool CanExist()
    {
        if (Libc.ReadWhole("/proc/filesystems\0"u8, out byte[] types).IsError) { return true; }
        if (types.AsSpan().IndexOf("\toverlay\n"u8) < 0) { return false; }
        // The number of mounts, where overlayfs is a module.
        return Libc.ReadWhole("/sys/module/overlay/refcnt\0"u8, out byte[] count).IsError || !count.AsSpan().SequenceEqual("0\n"u8);
    }

    private static List<MountEntry> OverlaysOf(ReadOnlySpan<byte> table)
    {
        var overlays = new List<MountEntry>();
        for (int mark = table.IndexOf(Mark); mark >= 0; mark = table.IndexOf(Mark))
        {
            table = table[(table[..mark].LastIndexOf((byte)'\n') + 1)..];
            if (MountTable.Parse(MountTable.NextLine(ref table)) is { Type: "overlay" } entry) { overlays.Add(entry); }
        }
        return overlays;
    }

    /// <summary>Finds the directories that are the upper or the work of this overlay, or lie in one of them.</summary>
    /// <remarks>
    /// What the kernel says about the overlay's root decides. A path is what somebody wrote when it was mounted: it may be
    /// relative, lead through a mount that is gone, or lead to an object that was put there since. For work there is only a
    /// path.
    /// </remarks>
    /// <returns>Each directory with its relation, such as <c>is the upper</c> or <c>lies in the work</c>.</returns>
    public List<(Place Place, string Relation)> UsesOf(IReadOnlyList<Place> places)
    {
        var uses = new List<(Place, string)>();
        if (KernelOverlay.Of(Mount) is not { UpperDirectory: not null } overlay) { return uses; }
        bool isKnown = false; // whether upper is still at its path
        var roles = ((string, IReadOnlyList<string>)[])[("upper", overlay.UpperReadings), ("work", overlay.WorkReadings)];
        foreach ((string role, IReadOnlyList<string> readings) in roles)
        {
            var found = new HashSet<Place>();
            foreach (string reading in readings)
            {
                string path = reading.TrimEnd('/');
                // If no place has the name in its path, the rest can be skipped: there may be hundreds of overlays.
                string name = path[(path.LastIndexOf('/') + 1)..];
                if (name.Length == 0 || places.All(place => place.Inside is null || !place.Inside.Contains(name, StringComparison.Ordinal)))
                {
                    continue;
                }
                if (path[0] != '/')
                {
                    // What the path leads to is unknown, and so is what lies below.
                    foreach (Place place in places)
                    {
                        if (IsRelative(place, path, overlay.UpperReadings) && found.Add(place)) { uses.Add((place, $"is the {role}")); }
                    }
                    continue;
                }
                MountEntry? covering = Namespace.Covering(path);
                if (covering is null) { continue; }
                string? inside = Place.InsideOf(covering, path);
                using Fd? directory = Open(covering, path);
                if (role == "upper" && directory is not null && IsUpper(directory.Value) is { } isUpper)
                {
                    if (!isUpper) { continue; } // another object has the path by now
                    isKnown = true;
                }
                (ulong Dev, ulong Ino)? numbers = directory is not null
                    && !Libc.StatAt(directory.Value, Libc.Self, StatxMask.Basic, out Statx stat).IsError
                    ? (stat.Dev, stat.Ino)
                    : null;
                foreach (Place place in places)
                {
                    bool isSameFileSystem = place.Device == covering.Device && place.Inside is not null && inside is not null;
                    bool isSame = numbers == (place.Status.Dev, place.Status.Ino) || (isSameFileSystem && place.Inside == inside);
                    if ((isSame || (isSameFileSystem && Place.IsBelow(place.Inside!, inside!))) && found.Add(place))
                    {
                        uses.Add((place, isSame ? $"is the {role}" : $"lies in the {role}"));
                    }
                }
            }
            // Skipped where upper's path still leads to it: a copy of a filesystem has the same handles.
            if (isKnown || Identity is null) { continue; }
            foreach (Place place in places)
            {
                if (found.Contains(place)) { continue; }
                if (role == "work") { if (IsBesideUpper(place, overlay)) { uses.Add((place, "is the work")); } }
                else if (IsUpper(place.Descriptor) == true) { uses.Add((place, "is the upper")); }
                else if (LiesInUpper(place)) { uses.Add((place, "lies in the upper")); }
            }
        }
        return uses;
    }

    /// <summary>Whether a directory is the upper, judged by the overlay's root; null where the root does not tell.</summary>
    private bool? IsUpper(int directory)
    {
        if (Identity is not { } root) { return null; }
        if (Mount.Root == "/") { return root.Matches(directory); }
        // The root of a mount of a part tells which directory of upper it is, if it is in upper at all.
        if (Libc.OpenAt(directory, PathText.Encode(Mount.Root[1..]), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.Confined,
            out int opened).IsError)
        {
            return null;
        }
        using var part = new Fd(opened);
        return root.Matches(opened) ? true : null;
    }

    /// <summary>
    /// Whether a place lies where work would lie if upper and work had been moved, or mounted elsewhere, together.
    /// </summary>
    private bool IsBesideUpper(Place place, KernelOverlay overlay)
    {
        foreach ((string upper, string work) in overlay.UpperReadings.Zip(overlay.WorkReadings))
        {
            int common = upper.AsSpan().CommonPrefixLength(work);
            common = common == 0 ? 0 : upper.LastIndexOf('/', Math.Min(common, upper.Length - 1)) + 1;
            if (IsRelative(place, work[common..], [upper[common..]])) { return true; }
        }
        return false;
    }

    /// <summary>Whether a directory above a place, up to the root of its mount, is the upper.</summary>
    private bool LiesInUpper(Place place)
    {
        if (Libc.Duplicate(place.Descriptor, out int current).IsError) { return false; }
        Statx below = place.Status;
        while ((below.Attributes & Statx.AttributeMountRoot) == 0)
        {
            Errno error = Libc.OpenAt(current, "..\0"u8, OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out int parent);
            Libc.Close(current);
            current = parent;
            if (error.IsError) { return false; }
            if (Libc.StatAt(current, Libc.Self, StatxMask.Basic | StatxMask.MountId, out Statx above).IsError
                || above.Dev != below.Dev || above.Ino == below.Ino)
            {
                break;
            }
            if (IsUpper(current) == true)
            {
                Libc.Close(current);
                return true;
            }
            below = above;
        }
        Libc.Close(current);
        return false;
    }

    private RootIdentity? identity;
    private bool isIdentified;

    /// <summary>
    /// The real directory of the mount's root; null when it cannot be determined, as on an older kernel, or under another
    /// mount.
    /// </summary>
    private RootIdentity? Identity
    {
        get
        {
            if (isIdentified) { return identity; }
            isIdentified = true;
            if (MayHangOnTheWay() || Namespace.Root() < 0) { return null; }
            if (Libc.OpenAt(Namespace.Root(), PathText.Encode(Mount.MountPoint), OpenFlags.Path | OpenFlags.Directory, 0,
                ResolveFlags.InRoot, out int opened).IsError)
            {
                return null;
            }
            using var directory = new Fd(opened);
            bool isIt = !Libc.StatPlace(opened, Libc.Self, out Statx stat).IsError
                && Mount.Device == string.Create(CultureInfo.InvariantCulture, $"{stat.DevMajor}:{stat.DevMinor}");
            return identity = isIt ? RootIdentity.Of(opened) : null;
        }
    }

    private bool MayHangOnTheWay()
    {
        int id = Mount.Parent;
        for (int steps = 0;
            steps < 64 && Namespace.Mounts.FirstOrDefault(entry => entry.Id == id) is { } parent && parent.Parent != id;
            steps++)
        {
            if (HostMounts.MayHang(parent)) { return true; }
            id = parent.Parent;
        }
        return false;
    }

    /// <summary>
    /// Opens what a path leads to, following symbolic links. Null when it leads nowhere, or its filesystem's server may
    /// hang.
    /// </summary>
    private Fd? Open(MountEntry covering, string path) =>
        HostMounts.MayHang(covering) || Namespace.Root() < 0
            || Libc.OpenAt(Namespace.Root(), PathText.Encode(path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.InRoot,
                out int found).IsError
            ? null
            : new Fd(found);

    /// <summary>
    /// Resolves the symbolic links of a path, seen from the namespace's root. Null when it leads nowhere, or its filesystem
    /// may hang.
    /// </summary>
    public string? Resolve(MountEntry covering, string path)
    {
        using Fd? directory = Open(covering, path);
        return directory is null ? null : Processes.Link(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{directory.Value}"));
    }

    /// <summary>Whether a path that was relative to an unknown directory leads to a place.</summary>
    /// <remarks>
    /// The place's path must end like it, and the overlay's upper must be where its own relative path leads from there. If
    /// the kernel does not tell what the overlay's root is, two things must match: the root has upper's inode number,
    /// without bits that may tell the layer (xino), and the overlay has a filesystem id that comes from upper.
    /// </remarks>
    private bool IsRelative(Place place, string path, IReadOnlyList<string> uppers)
    {
        const ulong withoutLayer = (1UL << 48) - 1;
        string[] parts = [.. path.Split('/').Where(part => part is not ("" or "."))];
        if (place.Inside is null || Array.IndexOf(parts, "..") >= 0
            || !place.Inside.EndsWith("/" + string.Join('/', parts), StringComparison.Ordinal))
        {
            return false;
        }
        foreach (string upper in uppers)
        {
            if (upper.Length == 0 || upper[0] == '/') { continue; }
            string fromPlace = string.Concat(Enumerable.Repeat("../", parts.Length)) + upper;
            if (Libc.OpenAt(place.Descriptor, PathText.Encode(fromPlace), OpenFlags.Path | OpenFlags.Directory, 0,
                ResolveFlags.None, out int opened).IsError)
            {
                continue;
            }
            using var wanted = new Fd(opened);
            if (IsUpper(opened) is { } isUpper)
            {
                if (isUpper) { return true; }
                continue;
            }
            if (Namespace.Process.Length == 0 || Libc.StatAt(opened, Libc.Self, StatxMask.Basic, out Statx stat).IsError) { continue; }
            string merged = $"/proc/{Namespace.Process}/root{Mount.MountPoint}";
            if (!Libc.StatAt(Libc.AtCwd, PathText.Encode(merged), StatxMask.Basic, out Statx found).IsError
                && (found.Ino & withoutLayer) == (stat.Ino & withoutLayer)
                && HasIdOf(merged, place.Descriptor, fromPlace)) { return true; }
        }
        return false;
    }

    /// <summary>
    /// Whether the overlay's f_fsid is that of upper's filesystem, or comes from the UUID that the overlay has given its
    /// upper. Kernel: ovl_statfs().
    /// </summary>
    private static bool HasIdOf(string merged, int directory, string upper)
    {
        if (!IdOf(Libc.AtCwd, merged, out ulong id) || !IdOf(directory, upper, out ulong ofUpper)) { return true; } // as far as can be told
        if (id == ofUpper) { return true; }
        Span<byte> uuid = stackalloc byte[16];
        foreach (string attribute in (ReadOnlySpan<string>)["trusted.overlay.uuid", "user.overlay.uuid"])
        {
            Errno error = Libc.GetXattrAt(directory, PathText.Encode(upper), PathText.Encode(attribute), uuid, out int length);
            bool isHidden = attribute[0] == 't' && !Capabilities.SeesTrustedAttributes;
            if (isHidden || (error.IsError && !error.IsNoXattr)) { return true; } // as far as can be told
            if (error.IsError || length != uuid.Length) { continue; }
            if (id == (BinaryPrimitives.ReadUInt64LittleEndian(uuid) ^ BinaryPrimitives.ReadUInt64LittleEndian(uuid[8..]))) { return true; }
        }
        return false;
    }

    private static bool IdOf(int directory, string path, out ulong id)
    {
        id = 0;
        if (Libc.OpenAt(directory, PathText.Encode(path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None,
            out int opened).IsError)
        {
            return false;
        }
        using var descriptor = new Fd(opened);
        bool isKnown = !Libc.StatFileSystem(opened, out StatFs status).IsError;
        id = status.FsId;
        return isKnown;
    }
}
