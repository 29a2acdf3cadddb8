using System.Globalization;
using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>Something that keeps a mount namespace alive besides the processes in it.</summary>
/// <param name="Namespace">The namespace's inode number.</param>
/// <param name="Description">A description for people.</param>
/// <param name="Paths">
/// The paths that lead to the namespace. The first is a path from here; each further one is a path in the namespace that
/// the path before it leads to.
/// </param>
internal readonly record struct NamespaceReference(ulong Namespace, string Description, IReadOnlyList<string> Paths);

/// <summary>The mounts of every mount namespace that this process may read.</summary>
internal sealed class HostMounts
{
    private readonly Dictionary<ulong, (MountNamespace Space, MountEntry Mount)> byId = [];
    private readonly Dictionary<ulong, MountNamespace> spacesById = [];
    private readonly Dictionary<ulong, List<NamespaceReference>> references = [];
    private readonly Dictionary<ulong, string> networks = [];

    public HostMounts()
    {
        foreach (MountNamespace space in MountNamespace.Visible(withThreads: true)) { Add(space); }
    }

    /// <summary>The namespaces, this process's own first; empty without /proc.</summary>
    public List<MountNamespace> Spaces { get; } = [];

    /// <summary>The inode number of this process's own namespace.</summary>
    public ulong OwnNamespace { get; } = Processes.NamespaceOf("self", "mnt");

    /// <summary>
    /// The network namespaces whose files are mounted somewhere, by their inode numbers, with the paths of these files.
    /// </summary>
    public IReadOnlyDictionary<ulong, string> Networks => networks;

    /// <summary>Finds a namespace by its inode number, or null.</summary>
    public MountNamespace? Space(ulong id) => spacesById.GetValueOrDefault(id);

    /// <summary>All mounts of all namespaces, each once.</summary>
    public IEnumerable<MountEntry> All => byId.Values.Select(one => one.Mount);

    private void Add(MountNamespace space)
    {
        Spaces.Add(space);
        spacesById.TryAdd(space.Id, space);
        foreach (MountEntry entry in space.Mounts)
        {
            byId.TryAdd((ulong)entry.Id, (space, entry));
            if (entry.Type != "nsfs") { continue; }
            if (entry.Root.StartsWith("net:[", StringComparison.Ordinal))
            {
                networks.TryAdd(Processes.NamespaceNumber(entry.Root), $"/proc/{space.Process}/root{entry.MountPoint}");
            }
            if (Processes.MountNamespaceOf(entry.Root) is var kept and > 0)
            {
                IReadOnlyList<string> ways = space.Process.Length > 0
                    ? [$"/proc/{space.Process}/root{entry.MountPoint}"]
                    : [.. references.TryGetValue(space.Id, out List<NamespaceReference>? outer) ? outer[0].Paths : [], entry.MountPoint];
                AddReference(new NamespaceReference(kept, $"its file, mounted on {entry.MountPoint}", ways));
            }
        }
    }

    private void AddReference(NamespaceReference reference)
    {
        if (!references.TryGetValue(reference.Namespace, out List<NamespaceReference>? all)) { references[reference.Namespace] = all = []; }
        all.Add(reference);
    }

    /// <summary>What keeps a namespace alive besides the processes in it.</summary>
    public IReadOnlyList<NamespaceReference> ReferencesTo(ulong space) => references.GetValueOrDefault(space) ?? [];

    /// <summary>Adds the namespaces without processes that something else keeps, by entering them.</summary>
    /// <param name="others">What keeps namespaces alive, other than mounted files of namespaces.</param>
    /// <param name="gaps">Receives a sentence about each namespace that cannot be entered.</param>
    public void AddEmpty(IEnumerable<NamespaceReference> others, List<string> gaps)
    {
        foreach (NamespaceReference reference in others) { AddReference(reference); }
        // The file of another namespace may be mounted in this one.
        var tried = new HashSet<ulong>();
        while (references.Keys.FirstOrDefault(id => !spacesById.ContainsKey(id) && !tried.Contains(id)) is var id and > 0)
        {
            tried.Add(id);
            if (MountNamespace.Enter(id, references[id][0].Paths) is { } space) { Add(space); }
            else { gaps.Add($"Mount namespace {id}, which is kept by {references[id][0].Description}, cannot be entered by this user."); }
        }
    }

    /// <summary>Adds the namespaces to which no visible path leads. The kernel lists them to root, from Linux 6.12 on.</summary>
    public void AddUnseen()
    {
        foreach (bool isNext in (ReadOnlySpan<bool>)[true, false])
        {
            if (Libc.OpenAt(Libc.AtCwd, "/proc/self/ns/mnt\0"u8, OpenFlags.ReadOnly, 0, ResolveFlags.None, out int current).IsError)
            {
                return;
            }
            while (true)
            {
                Errno error = Libc.NeighborOfMountNamespace(current, isNext, out int other);
                Libc.Close(current);
                if (error.IsError) { break; }
                current = other;
                string path = string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{other}");
                ulong id = Processes.NamespaceNumber(Processes.Link(path) ?? "");
                if (id == 0 || spacesById.ContainsKey(id) || references.ContainsKey(id)) { continue; }
                if (MountNamespace.Enter(id, [path]) is { } space) { Add(space); }
            }
        }
    }

    /// <summary>Finds a mount by its id; null when no table has it.</summary>
    public MountEntry? Find(ulong id) => byId.TryGetValue(id, out var found) ? found.Mount : null;

    /// <summary>Finds the mounts of a device in all namespaces.</summary>
    public IEnumerable<(MountNamespace Space, MountEntry Mount)> Of(string device) =>
        Spaces.SelectMany(space => space.Mounts.Where(entry => entry.Device == device).Select(entry => (space, entry)));

    /// <summary>
    /// The place of an object: the device of its filesystem, and its path from the filesystem's root, null when that is
    /// unknown.
    /// </summary>
    /// <param name="stat">The object's attributes from <see cref="Libc.StatPlace"/>.</param>
    /// <param name="path">The object's path as /proc shows it.</param>
    public (string Device, string? Inside) PlaceOf(in Statx stat, string path)
    {
        // A mount in no table is detached: unmounted lazily, or a private copy.
        return Find(stat.MountId) is { } mount
            ? (mount.Device, Place.InsideOf(mount, path))
            : (string.Create(CultureInfo.InvariantCulture, $"{stat.DevMajor}:{stat.DevMinor}"), null);
    }

    /// <summary>Whether touching a filesystem may mean waiting for a server.</summary>
    public static bool MayHang(MountEntry mount) =>
        mount.Type is "autofs" or "cifs" or "smb3" or "9p" or "ceph" or "afs" or "fuse" or "fuseblk"
        || mount.Type.StartsWith("nfs", StringComparison.Ordinal) || mount.Type.StartsWith("fuse.", StringComparison.Ordinal);
}
