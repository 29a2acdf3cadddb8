using System.Buffers.Binary;
using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Host;

/// <summary>A mount of the kernel's overlayfs, in some mount namespace.</summary>
internal sealed class KernelMount(MountNamespace space, MountEntry mount) : IDisposable
{
    /// <summary>The namespace it is seen in.</summary>
    public MountNamespace Namespace => space;

    /// <summary>The mount.</summary>
    public MountEntry Mount => mount;

    private static ReadOnlySpan<byte> Mark => " - overlay "u8;

    /// <summary>Each overlay that can be seen, once, however many namespaces have copies of it.</summary>
    public static IEnumerable<KernelMount> All()
    {
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach (MountNamespace space in CanExist() ? MountNamespace.Visible() : [])
        {
            foreach (MountEntry entry in OverlaysOf(space.Table))
            {
                if (seen.Add(entry.Device)) { yield return new KernelMount(space, entry); }
            }
        }
    }

    /// <summary>Whether this kernel can have any: looking at hundreds of namespaces is not free.</summary>
    private static bool CanExist()
    {
        if (Libc.ReadWhole("/proc/filesystems\0"u8, out byte[] types).IsError) { return true; }
        if (types.AsSpan().IndexOf("\toverlay\n"u8) < 0) { return false; }
        // How many there are, where overlayfs is a module.
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
    /// <returns>Each with <c>is the upper</c>, <c>lies in the work</c> and so on.</returns>
    public List<(Place Place, string Relation)> UsesOf(IReadOnlyList<Place> places)
    {
        var uses = new List<(Place, string)>();
        foreach (string role in (ReadOnlySpan<string>)["upper", "work"])
        {
            string path = Mount.Option(role + "dir")?.TrimEnd('/') ?? "";
            // A name that none of them has, and nothing above them, spares the rest: there may be hundreds of overlays.
            string name = path[(path.LastIndexOf('/') + 1)..];
            if (name.Length == 0 || places.All(place => place.Inside is null || !place.Inside.Contains(name, StringComparison.Ordinal))) { continue; }
            if (path[0] != '/')
            {
                // What it leads to is not known, nor what lies below.
                foreach (Place place in places) { if (IsRelative(place, path)) { uses.Add((place, $"is the {role}")); } }
                continue;
            }
            MountEntry? covering = Namespace.Covering(path);
            if (covering is null) { continue; }
            string? inside = Place.InsideOf(covering, path);
            (ulong Dev, ulong Ino)? identity = IdentityOf(covering, path);
            foreach (Place place in places)
            {
                bool isSameFileSystem = place.Device == covering.Device && place.Inside is not null && inside is not null;
                if (identity == (place.Status.Dev, place.Status.Ino) || (isSameFileSystem && place.Inside == inside)) { uses.Add((place, $"is the {role}")); }
                else if (isSameFileSystem && Place.IsBelow(place.Inside!, inside!)) { uses.Add((place, $"lies in the {role}")); }
            }
        }
        return uses;
    }

    private Fd? root;

    /// <summary>The root directory that the paths of the namespace start at.</summary>
    private int Root()
    {
        if (root is null)
        {
            Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode($"/proc/{Namespace.Process}/root"), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out int opened);
            root = new Fd(error.IsError ? -1 : opened);
        }
        return root.Value;
    }

    /// <inheritdoc/>
    public void Dispose() => root?.Dispose();

    /// <summary>What the path leads to, over symbolic links perhaps. Filesystems whose server may hang are not asked.</summary>
    private (ulong Dev, ulong Ino)? IdentityOf(MountEntry covering, string path)
    {
        if (HostMounts.MayHang(covering)) { return null; }
        if (Root() < 0 || Libc.OpenAt(Root(), PathText.Encode(path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.InRoot, out int found).IsError) { return null; }
        using var directory = new Fd(found);
        return Libc.StatAt(found, Libc.Self, StatxMask.Basic, out Statx stat).IsError ? null : (stat.Dev, stat.Ino);
    }

    /// <summary>The path, seen from the namespace's root, of what a path leads to over symbolic links; null when it leads nowhere or may hang.</summary>
    public string? Resolve(MountEntry covering, string path)
    {
        if (HostMounts.MayHang(covering) || Root() < 0 || Libc.OpenAt(Root(), PathText.Encode(path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.InRoot, out int found).IsError) { return null; }
        using var directory = new Fd(found);
        return Processes.Link(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{found}"));
    }

    /// <summary>Whether a path that was relative to a directory nobody knows any more is the place.</summary>
    /// <remarks>
    /// The place must end like it, and from there the overlay's upper must be where it is: the overlay's root has its inode
    /// number, below bits that may tell the layer (xino), and the overlay has an id that comes from it.
    /// </remarks>
    private bool IsRelative(Place place, string path)
    {
        const ulong withoutLayer = (1UL << 48) - 1;
        string[] parts = [.. path.Split('/').Where(part => part is not ("" or "."))];
        if (place.Inside is null || Array.IndexOf(parts, "..") >= 0 || !place.Inside.EndsWith("/" + string.Join('/', parts), StringComparison.Ordinal)) { return false; }
        if (Mount.Option("upperdir") is not { Length: > 0 } upper || upper[0] == '/') { return false; }

        string fromPlace = string.Concat(Enumerable.Repeat("../", parts.Length)) + upper;
        if (Libc.StatAt(place.Descriptor, PathText.Encode(fromPlace), StatxMask.Basic, out Statx wanted).IsError) { return false; }
        string merged = $"/proc/{Namespace.Process}/root{Mount.MountPoint}";
        return !Libc.StatAt(Libc.AtCwd, PathText.Encode(merged), StatxMask.Basic, out Statx found).IsError && (found.Ino & withoutLayer) == (wanted.Ino & withoutLayer)
            && HasIdOf(merged, place.Descriptor, fromPlace);
    }

    /// <summary>Whether the overlay's f_fsid is that of its upper's filesystem, or that of the UUID that it has given its upper. Kernel: ovl_statfs()</summary>
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
        if (Libc.OpenAt(directory, PathText.Encode(path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out int opened).IsError) { return false; }
        using var descriptor = new Fd(opened);
        bool isKnown = !Libc.StatFileSystem(opened, out StatFs status).IsError;
        id = status.FsId;
        return isKnown;
    }
}
