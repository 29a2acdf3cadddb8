using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Host;

/// <summary>A file that a process uses, and where that lies.</summary>
/// <param name="Use">The file and what it is to the process.</param>
/// <param name="Device">The number of its filesystem's device, as mountinfo has it.</param>
/// <param name="Inside">Its path from the filesystem's root, or null when that is not known.</param>
internal readonly record struct UsedFile(FileUse Use, string Device, string? Inside);

/// <summary>A directory that a server was given as a layer.</summary>
/// <param name="Role"><c>upper</c>, <c>work</c> or <c>lower</c>.</param>
/// <param name="Descriptor">The server's descriptor of it.</param>
/// <param name="Device">The number of its filesystem's device, as mountinfo has it.</param>
/// <param name="Inside">Its path from the filesystem's root.</param>
/// <param name="Claim">What the server says there of itself; null for a lower.</param>
internal readonly record struct GivenLayer(string Role, int Descriptor, string Device, string Inside, Claim? Claim);

/// <summary>A process, with what it uses that lies somewhere.</summary>
internal sealed class Sight
{
    /// <summary>How long one process may take, in milliseconds.</summary>
    private const int Patience = 2000;

    private readonly HostMounts mounts;
    private readonly string directory;
    private readonly List<UsedFile> files = [];
    private readonly List<Keeper> keeps = [];
    private readonly List<GivenLayer> layers = [];
    private readonly HashSet<ulong> spaces = [];

    private Sight(int pid, string name, ulong space, HostMounts mounts)
    {
        Process = new ProcessName(pid, name);
        Space = space;
        directory = pid.ToString(CultureInfo.InvariantCulture);
        this.mounts = mounts;
    }

    /// <summary>The process.</summary>
    public ProcessName Process { get; }

    /// <summary>The inode number of its mount namespace; 0 when that may not be known.</summary>
    public ulong Space { get; }

    /// <summary>The mount namespaces that its threads are in.</summary>
    public IReadOnlySet<ulong> Spaces => spaces;

    /// <summary>What it uses.</summary>
    public IReadOnlyList<UsedFile> Files => files;

    /// <summary>The namespaces that it keeps by descriptors of them.</summary>
    public IReadOnlyList<Keeper> Keeps => keeps;

    /// <summary>The device of the mount that it serves over /dev/fuse, or null.</summary>
    public string? Connection { get; private set; }

    /// <summary>The layers that it was given, if it is a server of Veneer.</summary>
    public IReadOnlyList<GivenLayer> Layers => layers;

    /// <summary>What a server says of itself on its upper or work, or null.</summary>
    public Claim? Claim => layers.Select(layer => layer.Claim).FirstOrDefault(claim => claim is not null);

    /// <summary>Looks at every process but this one, on a thread that is left behind when one keeps it.</summary>
    /// <param name="mounts">The mounts of the machine.</param>
    /// <param name="gaps">Gets a sentence about what could not be looked at.</param>
    public static List<Sight> OfAll(HostMounts mounts, List<string> gaps)
    {
        List<int> all = Processes.All();
        all.Remove(Libc.ProcessId);
        var sights = new List<Sight>();
        for (int next = 0; next < all.Count; next++)
        {
            next = OfSome(all, next, mounts, sights);
            if (next < all.Count) { gaps.Add($"Process {all[next]} does not let itself be looked at."); }
        }
        List<Sight> hidden = sights.FindAll(sight => sight.Space == 0);
        if (hidden.Count > 0)
        {
            gaps.Add($"Process {hidden[0].directory} ({hidden[0].Process.Name}) {(hidden.Count == 1 ? "" : $"and {hidden.Count - 1} more ")}may not be looked at by this user.");
        }
        return sights;
    }

    /// <summary>Looks at processes until one takes too long.</summary>
    /// <returns>That one's index, or the number of all.</returns>
    private static int OfSome(List<int> all, int first, HostMounts mounts, List<Sight> sights)
    {
        var found = new System.Collections.Concurrent.BlockingCollection<Sight?>(); // not disposed of: a thread that is left behind may add to it
        var thread = new Thread(() =>
        {
            for (int i = first; i < all.Count; i++) { found.Add(Of(all[i], mounts)); }
        }) { IsBackground = true };
        thread.Start();
        for (int i = first; i < all.Count; i++)
        {
            if (!found.TryTake(out Sight? sight, Patience)) { return i; }
            if (sight is not null) { sights.Add(sight); }
        }
        return all.Count;
    }

    /// <summary>Looks at a process.</summary>
    /// <returns>Null when it has ended.</returns>
    private static Sight? Of(int pid, HostMounts mounts)
    {
        string process = pid.ToString(CultureInfo.InvariantCulture);
        ulong space = Processes.NamespaceOf(process, "mnt");
        string name = Processes.NameOf(process);
        if (name == "?" || (space == 0 && Processes.HasEnded(process))) { return null; }
        var sight = new Sight(pid, name, space, mounts);
        sight.Look();
        return sight;
    }

    private void Look()
    {
        foreach (string link in (ReadOnlySpan<string>)["cwd", "root", "exe"]) { AddFile(link, -1, $"/proc/{directory}/{link}"); }
        if (Space != 0) { spaces.Add(Space); }
        foreach (int thread in Processes.NumbersIn($"/proc/{directory}/task"))
        {
            string task = string.Create(CultureInfo.InvariantCulture, $"{directory}/task/{thread}");
            if (thread == Process.Pid || Processes.NamespaceOf(task, "mnt") is not (var space and > 0) || !spaces.Add(space)) { continue; }
            foreach (string link in (ReadOnlySpan<string>)["cwd", "root"]) { AddFile(link, -1, $"/proc/{task}/{link}"); }
        }
        foreach (int descriptor in Processes.NumbersIn($"/proc/{directory}/fd")) { AddDescriptor(descriptor); }
        if (Connection is not null) { FindLayers(); }
        AddMaps();
    }

    private void AddDescriptor(int descriptor)
    {
        string path = string.Create(CultureInfo.InvariantCulture, $"/proc/{directory}/fd/{descriptor}");
        if (Processes.Link(path) is not { } target) { return; }
        ulong space = Processes.MountNamespaceOf(target);
        if (space > 0) { keeps.Add(new Keeper(space, $"descriptor {descriptor} of {Process.Name} ({directory})", path)); }
        if (!target.StartsWith('/') || target == "/dev/null") { return; }
        if (target.StartsWith("/dev/fuse", StringComparison.Ordinal)) { Connection ??= Processes.FuseConnectionOf(directory, descriptor); }
        AddFile("open", descriptor, path);
    }

    private void AddFile(string use, int descriptor, string path)
    {
        if (Processes.Link(path) is not { } target || !target.StartsWith('/') || Libc.StatPlace(Libc.AtCwd, PathText.Encode(path), out Statx stat).IsError) { return; }
        (string device, string? inside) = mounts.PlaceOf(stat, target);
        files.Add(new UsedFile(new FileUse(use, descriptor, target), device, inside));
    }

    /// <summary>The directories that a server was given are those that it has open by path alone where they were named, and upper and work locked as well.</summary>
    /// <remarks>Directories in the layers are opened without following a symbolic link, which tells them from these.</remarks>
    private void FindLayers()
    {
        var given = new List<UsedFile>();
        var locked = new List<UsedFile>();
        foreach (UsedFile file in files)
        {
            if (file.Use.Descriptor < 0 || file.Inside is null) { continue; }
            (OpenFlags flags, bool isLocked) = Processes.KindOf(directory, file.Use.Descriptor);
            if ((flags & OpenFlags.Directory) == 0) { continue; }
            if (isLocked) { locked.Add(file); }
            else if ((flags & OpenFlags.Path) != 0 && (flags & OpenFlags.NoFollow) == 0 && !given.Exists(other => AreSame(other, file))) { given.Add(file); }
        }
        // With that it holds no lock on what others have, and nothing tells an upper from a lower.
        string unlocked = Processes.CommandLineOf(directory).Contains("inuse=warn", StringComparison.Ordinal) ? "layer" : "lower";
        foreach (UsedFile layer in given)
        {
            int index = locked.FindIndex(other => AreSame(other, layer));
            Claim? claim = index < 0 ? null : ReadClaim(locked[index].Use.Descriptor);
            string role = index < 0 ? unlocked : claim?.Role ?? (index == 0 ? "upper" : "work"); // upper is locked first
            layers.Add(new GivenLayer(role, layer.Use.Descriptor, layer.Device, layer.Inside!, claim));
        }

        static bool AreSame(in UsedFile one, in UsedFile other) => one.Device == other.Device && one.Inside == other.Inside;
    }

    private Claim? ReadClaim(int descriptor)
    {
        if (Open(descriptor) is not { } opened) { return null; }
        using (opened) { return InUseLock.ReadClaim(opened.Value); }
    }

    /// <summary>Opens, O_PATH, what the process has open, or gives null.</summary>
    public Fd? Open(int descriptor)
    {
        string path = string.Create(CultureInfo.InvariantCulture, $"/proc/{directory}/fd/{descriptor}");
        return Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.Path, 0, ResolveFlags.None, out int opened).IsError ? null : new Fd(opened);
    }

    private void AddMaps()
    {
        if (Libc.ReadWhole(PathText.Encode($"/proc/{directory}/maps"), out byte[] maps).IsError) { return; }
        var seen = new HashSet<string>(StringComparer.Ordinal);
        MountNamespace? home = mounts.Spaces.Find(one => one.Id == Space);
        ReadOnlySpan<byte> rest = maps;
        while (rest.Length > 0)
        {
            // 7f00-7f01 r-xp 00000000 fe:00 1234    /path
            string line = PathText.Decode(MountTable.NextLine(ref rest));
            int start = line.IndexOf('/', StringComparison.Ordinal);
            if (start < 0 || !seen.Add(line[start..])) { continue; }
            string[] fields = line[..start].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (fields is not [_, _, _, var number, ..] || number.Split(':') is not [var major, var minor]) { continue; }
            if (!uint.TryParse(major, NumberStyles.HexNumber, CultureInfo.InvariantCulture, out uint a) || !uint.TryParse(minor, NumberStyles.HexNumber, CultureInfo.InvariantCulture, out uint b)) { continue; }
            string device = string.Create(CultureInfo.InvariantCulture, $"{a}:{b}");
            MountEntry? covering = home?.Covering(line[start..]);
            files.Add(new UsedFile(new FileUse("map", -1, line[start..]), device, covering?.Device == device ? Place.InsideOf(covering, line[start..]) : null));
        }
    }
}
