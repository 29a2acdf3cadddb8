using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Host;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Usage;

/// <summary>A file that a process uses, and its place.</summary>
/// <param name="Use">The file, and how the process uses it.</param>
/// <param name="Device">The device number of its filesystem, as in mountinfo.</param>
/// <param name="Inside">Its path from the filesystem's root, or null when it is unknown.</param>
internal readonly record struct UsedFile(FileUse Use, string Device, string? Inside);

/// <summary>A directory that was given to a server as a layer.</summary>
/// <param name="Role"><c>upper</c>, <c>work</c> or <c>lower</c>.</param>
/// <param name="Descriptor">The server's descriptor of the directory.</param>
/// <param name="Device">The device number of its filesystem, as in mountinfo.</param>
/// <param name="Inside">Its path from the filesystem's root.</param>
/// <param name="Owner">The owner record on the directory; null for a lower.</param>
internal readonly record struct GivenLayer(string Role, int Descriptor, string Device, string Inside, OwnerRecord? Owner);

/// <summary>A socket of a process.</summary>
/// <param name="Descriptor">The descriptor of the socket.</param>
/// <param name="Number">The inode number of the socket.</param>
/// <param name="Description">The path of the descriptor's file in <c>fdinfo</c>.</param>
internal readonly record struct UsedSocket(int Descriptor, uint Number, string Description);

/// <summary>A process, with the files, sockets and namespaces that it uses.</summary>
internal sealed class UsingProcess
{
    /// <summary>
    /// How long examining a process may take before the others are examined without waiting for it, in milliseconds.
    /// </summary>
    private const int Patience = 500;

    /// <summary>How long examining a process may take in all, in milliseconds.</summary>
    private const int LongPatience = 10_000;

    private readonly HostMounts mounts;
    private readonly string directory;
    private readonly List<UsedFile> files = [];
    private readonly HashSet<FileUse> seen = [];
    private readonly List<Keeper> keeps = [];
    private readonly List<GivenLayer> layers = [];
    private readonly List<UsedSocket> sockets = [];
    private readonly HashSet<ulong> spaces = [];
    private readonly Dictionary<ulong, string> networks = [];
    private readonly List<(FileUse Use, int MountId)> revoked = [];
    private string memory = ""; // the directory in /proc of a thread that still has the memory
    private string? formerRecord;
    private List<FormerLayer>? formerLayers;
    private bool hasRing;

    private UsingProcess(int pid, string name, ulong space, HostMounts mounts)
    {
        Process = new ProcessName(pid, name);
        Space = space;
        directory = pid.ToString(CultureInfo.InvariantCulture);
        this.mounts = mounts;
    }

    /// <summary>The pid and name of the process.</summary>
    public ProcessName Process { get; }

    /// <summary>The inode number of its mount namespace; 0 when it may not be known.</summary>
    public ulong Space { get; private set; }

    /// <summary>The mount namespaces that its threads are in.</summary>
    public IReadOnlySet<ulong> Spaces => spaces;

    /// <summary>The files that it uses.</summary>
    public IReadOnlyList<UsedFile> Files => files;

    /// <summary>The mount namespaces that its descriptors keep.</summary>
    public IReadOnlyList<Keeper> Keeps => keeps;

    /// <summary>The sockets that it has descriptors of.</summary>
    public IReadOnlyList<UsedSocket> Sockets => sockets;

    /// <summary>
    /// The network namespaces that it is in or has descriptors of, by their inode numbers, with paths that lead there.
    /// </summary>
    public IReadOnlyDictionary<ulong, string> Networks => networks;

    /// <summary>Whether it has an io_uring whose registered files /proc does not show.</summary>
    public bool HasUntoldRing { get; private set; }

    /// <summary>Whether it has a group of fanotify(7), whose events hold files until they are read.</summary>
    public bool HasEvents { get; private set; }

    /// <summary>The device of the mount that it serves over /dev/fuse, or null.</summary>
    public string? Connection { get; private set; }

    /// <summary>The layers that it was given, if it is a server of Veneer.</summary>
    public IReadOnlyList<GivenLayer> Layers => layers;

    /// <summary>The layers that it had until it was shut down; users of its files may still hold their filesystems.</summary>
    public IReadOnlyList<FormerLayer> FormerLayers =>
        formerLayers ??= formerRecord is { } record && layers.Count == 0 ? FormerLayer.Read(record) : [];

    /// <summary>The owner record on the server's upper or work, or null.</summary>
    public OwnerRecord? Owner => layers.Select(layer => layer.Owner).FirstOrDefault(owner => owner is not null);

    /// <summary>Examines every process but this one, on threads that are left behind when a process keeps them.</summary>
    /// <param name="mounts">The mounts of the machine.</param>
    /// <param name="gaps">Receives a sentence about each process that could not be examined.</param>
    public static List<UsingProcess> OfAll(HostMounts mounts, List<string> gaps)
    {
        List<int> all = Processes.All();
        all.Remove(Libc.ProcessId);
        var users = new List<UsingProcess>();
        var late = new List<(int Pid, Look Look)>();
        for (int next = 0; next < all.Count;)
        {
            var look = new Look(all, next, mounts);
            next = look.Collect(users);
            if (next < all.Count) { late.Add((all[next++], look)); }
        }
        foreach ((int pid, Look look) in late)
        {
            if (!look.CollectLast(users)) { gaps.Add($"Process {pid} does not let itself be looked at."); }
        }
        List<UsingProcess> hidden = users.FindAll(user => user.Space == 0);
        if (hidden.Count > 0)
        {
            gaps.Add(
                $"Process {hidden[0].directory} ({hidden[0].Process.Name}) "
                + $"{(hidden.Count == 1 ? "" : $"and {hidden.Count - 1} more ")}may not be looked at by this user.");
        }
        return users;
    }

    /// <summary>The files behind this process's standard input, output and error.</summary>
    public static List<UsedFile> OwnOutput(HostMounts mounts)
    {
        var own = new UsingProcess(Libc.ProcessId, "", 0, mounts);
        for (int descriptor = 0; descriptor <= 2; descriptor++) { own.AddDescriptor(own.directory, descriptor); }
        return own.files;
    }

    /// <summary>A thread that examines processes until one takes too long.</summary>
    private sealed class Look
    {
        // not disposed of, since the thread may be left behind
        private readonly System.Collections.Concurrent.BlockingCollection<UsingProcess?> found = [];
        private readonly int first;
        private readonly int count;
        private volatile bool isLeft;
        private long began;

        public Look(List<int> all, int first, HostMounts mounts)
        {
            this.first = first;
            count = all.Count;
            began = Environment.TickCount64;
            new Thread(() =>
            {
                for (int i = first; i < all.Count && !isLeft; i++) { found.Add(Of(all[i], mounts)); }
            }) { IsBackground = true }.Start();
        }

        /// <summary>Takes the processes that the thread has examined.</summary>
        /// <returns>The index of the process that took too long, or the number of processes.</returns>
        public int Collect(List<UsingProcess> users)
        {
            for (int i = first; i < count; i++)
            {
                began = Environment.TickCount64;
                if (!Take(users, Patience))
                {
                    isLeft = true;
                    return i;
                }
            }
            return count;
        }

        /// <summary>Takes the process that took too long, if it comes in time after all.</summary>
        public bool CollectLast(List<UsingProcess> users) => Take(users, (int)Math.Max(0, began + LongPatience - Environment.TickCount64));

        private bool Take(List<UsingProcess> users, int milliseconds)
        {
            if (!found.TryTake(out UsingProcess? user, milliseconds)) { return false; }
            if (user is not null) { users.Add(user); }
            return true;
        }
    }

    /// <summary>Examines a process.</summary>
    /// <returns>Null when the process has ended.</returns>
    private static UsingProcess? Of(int pid, HostMounts mounts)
    {
        string process = pid.ToString(CultureInfo.InvariantCulture);
        string name = Processes.NameOf(process);
        if (name == "?") { return null; }
        ulong space = Processes.NamespaceOf(process, "mnt");
        List<int> threads = Processes.NumbersIn($"/proc/{process}/task");
        threads.Remove(pid);
        // The first thread may have ended while others live.
        if (space == 0 && threads.Count == 0 && Processes.HasEnded(process)) { return null; }
        var user = new UsingProcess(pid, name, space, mounts);
        user.LookAt(threads);
        return user;
    }

    /// <param name="others">The ids of its threads, except the first.</param>
    private void LookAt(List<int> others)
    {
        AddNetwork(Processes.Link($"/proc/{directory}/ns/net"), $"/proc/{directory}/ns/net");
        if (Space != 0) { spaces.Add(Space); }
        // All threads share the memory, and the first may have released it.
        memory = directory;
        if (others.Count > 0 && Processes.Link($"/proc/{directory}/exe") is null)
        {
            memory = string.Create(CultureInfo.InvariantCulture, $"{directory}/task/{others[0]}");
        }
        var tables = new List<int>();
        var places = new List<int>();
        LookAt(Process.Pid, directory, tables, places);
        foreach (int thread in others)
        {
            string task = string.Create(CultureInfo.InvariantCulture, $"{directory}/task/{thread}");
            if (Processes.NamespaceOf(task, "mnt") is var space and > 0)
            {
                spaces.Add(space);
                if (Space == 0) { Space = space; }
            }
            LookAt(thread, task, tables, places);
        }
        if (Connection is not null) { FindLayers(); }
        AddMaps();
    }

    /// <summary>Examines what a thread does not share with the threads examined before.</summary>
    /// <param name="thread">The thread's id.</param>
    /// <param name="task">The thread's directory in /proc.</param>
    /// <param name="tables">The threads whose descriptors have been examined.</param>
    /// <param name="places">The threads whose directories have been examined.</param>
    private void LookAt(int thread, string task, List<int> tables, List<int> places)
    {
        if (IsOwn(thread, ThreadPart.Directories, places))
        {
            foreach (string link in (ReadOnlySpan<string>)["cwd", "root"]) { AddFile(link, -1, $"/proc/{task}/{link}"); }
        }
        if (thread == Process.Pid) { AddFile("exe", -1, $"/proc/{memory}/exe"); }
        if (IsOwn(thread, ThreadPart.Descriptors, tables))
        {
            foreach (int descriptor in Processes.NumbersIn($"/proc/{task}/fd")) { AddDescriptor(task, descriptor); }
        }

        // Where sharing cannot be determined, each thread is examined.
        static bool IsOwn(int thread, ThreadPart part, List<int> known)
        {
            foreach (int other in known)
            {
                if (!Libc.Compare(other, thread, part, out bool isShared).IsError && isShared) { return false; }
            }
            known.Add(thread);
            return true;
        }
    }

    private void AddDescriptor(string task, int descriptor)
    {
        string path = string.Create(CultureInfo.InvariantCulture, $"/proc/{task}/fd/{descriptor}");
        string description = string.Create(CultureInfo.InvariantCulture, $"/proc/{task}/fdinfo/{descriptor}");
        if (Processes.Link(path) is not { Length: > 0 } target) { return; }
        if (target[0] != '/')
        {
            if (Processes.MountNamespaceOf(target) is var space and > 0)
            {
                keeps.Add(new Keeper(space, $"descriptor {descriptor} of {Process.Name} ({directory})", [path]));
            }
            else if (target.StartsWith("socket:[", StringComparison.Ordinal))
            {
                sockets.Add(new UsedSocket(descriptor, (uint)Processes.NamespaceNumber(target), description));
            }
            else if (target == "anon_inode:[io_uring]") { AddRegistered(description); }
            else if (target == "anon_inode:[fanotify]") { HasEvents = true; }
            else { AddNetwork(target, path); }
            return;
        }
        if (target == "/dev/null") { return; }
        if (target.StartsWith("/dev/fuse", StringComparison.Ordinal)) { Connection ??= Processes.FuseConnectionOf(directory, descriptor); }
        if (target.StartsWith(FormerLayer.LinkName, StringComparison.Ordinal)) { formerRecord = path; }
        AddFile("open", descriptor, path);
    }

    private void AddNetwork(string? name, string path)
    {
        if (name is not null && name.StartsWith("net:[", StringComparison.Ordinal))
        {
            networks.TryAdd(Processes.NamespaceNumber(name), path);
        }
    }

    /// <summary>Adds the files that are registered with an io_uring: they need no descriptor.</summary>
    private void AddRegistered(string description)
    {
        hasRing = true;
        if (Processes.RegisteredFiles(description) is not { } paths)
        {
            HasUntoldRing = true;
            return;
        }
        foreach (string path in paths)
        {
            (string? device, string? inside) = WhereIs(path);
            if (device is not null) { Add(new UsedFile(new FileUse("registered", -1, path), device, inside)); }
        }
    }

    /// <summary>Adds the files that its sockets are bound to.</summary>
    /// <param name="bound">All bound sockets, by their inode numbers.</param>
    public void AddSockets(IReadOnlyDictionary<uint, BoundSocket> bound)
    {
        foreach (UsedSocket socket in sockets)
        {
            if (!bound.TryGetValue(socket.Number, out BoundSocket file)) { continue; }
            // where the socket was most likely bound
            string path = file.Path.StartsWith('/') ? file.Path : $"{Processes.Link($"/proc/{directory}/cwd")}/{file.Path}";
            string device = string.Create(CultureInfo.InvariantCulture, $"{file.DeviceMajor}:{file.DeviceMinor}");
            (string? there, string? inside) = WhereIs(path);
            Add(new UsedFile(new FileUse("socket", socket.Descriptor, file.Path), device, there == device ? inside : null));
        }
    }

    /// <summary>Finds where a path of this process's mount namespace leads, by the mount table alone.</summary>
    private (string? Device, string? Inside) WhereIs(string path) =>
        mounts.Space(Space)?.Covering(path) is { } covering ? (covering.Device, Place.InsideOf(covering, path)) : (null, null);

    private void AddFile(string use, int descriptor, string path)
    {
        if (Processes.Link(path) is not { } target || !target.StartsWith('/')) { return; }
        if (Libc.StatPlace(Libc.AtCwd, PathText.Encode(path), out Statx stat).IsError)
        {
            // The file may be of an overlay that was shut down.
            if (descriptor >= 0 && Processes.MountIdOf(path.Replace("/fd/", "/fdinfo/", StringComparison.Ordinal)) is { } id)
            {
                revoked.Add((new FileUse(use, descriptor, target), id));
            }
            return;
        }
        (string device, string? inside) = mounts.PlaceOf(stat, target);
        Add(new UsedFile(new FileUse(use, descriptor, target), device, inside));
    }

    /// <summary>Adds the files of which the kernel tells nothing but their mount id.</summary>
    /// <param name="devices">The devices of mounts that may be in no table any more, by mount id.</param>
    public void AddRevoked(IReadOnlyDictionary<int, string> devices)
    {
        foreach ((FileUse use, int id) in revoked)
        {
            if (mounts.Find((ulong)id) is { } mount) { Add(new UsedFile(use, mount.Device, Place.InsideOf(mount, use.Path))); }
            else if (devices.TryGetValue(id, out string? device)) { Add(new UsedFile(use, device, null)); }
        }
    }

    private void Add(UsedFile file)
    {
        if (seen.Add(file.Use)) { files.Add(file); }
    }

    /// <summary>
    /// Finds the layers of a server: the directories that it has open with O_PATH. Upper and work it has locked as well.
    /// </summary>
    /// <remarks>These are opened following symbolic links; directories inside the layers are not, which tells them apart.</remarks>
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
            else if ((flags & OpenFlags.Path) != 0 && (flags & OpenFlags.NoFollow) == 0 && !given.Exists(other => AreSame(other, file)))
            {
                given.Add(file);
            }
        }
        // With inuse=warn the server locks nothing that others have locked, and an upper cannot be told from a lower.
        string unlocked = Processes.CommandLineOf(directory).Contains("inuse=warn", StringComparison.Ordinal) ? "layer" : "lower";
        foreach (UsedFile layer in given)
        {
            int index = locked.FindIndex(other => AreSame(other, layer));
            OwnerRecord? owner = index < 0 ? null : ReadOwner(locked[index].Use.Descriptor);
            string role = index < 0 ? unlocked : owner?.Role ?? (index == 0 ? "upper" : "work"); // upper is locked first
            layers.Add(new GivenLayer(role, layer.Use.Descriptor, layer.Device, layer.Inside!, owner));
        }

        static bool AreSame(in UsedFile one, in UsedFile other) => one.Device == other.Device && one.Inside == other.Inside;
    }

    private OwnerRecord? ReadOwner(int descriptor)
    {
        if (Open(descriptor) is not { } opened) { return null; }
        using (opened) { return InUseLock.ReadOwner(opened.Value); }
    }

    /// <summary>Opens what the process has open, with O_PATH, or returns null.</summary>
    public Fd? Open(int descriptor)
    {
        string path = string.Create(CultureInfo.InvariantCulture, $"/proc/{directory}/fd/{descriptor}");
        return Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.Path, 0, ResolveFlags.None, out int opened).IsError
            ? null
            : new Fd(opened);
    }

    private void AddMaps()
    {
        if (Libc.ReadWhole(PathText.Encode($"/proc/{memory}/maps"), out byte[] maps).IsError) { return; }
        ReadOnlySpan<byte> rest = maps;
        while (rest.Length > 0)
        {
            // 7f00-7f01 r-xp 00000000 fe:00 1234    /path
            ReadOnlySpan<byte> bytes = MountTable.NextLine(ref rest);
            // the ring has no descriptor, and so /proc shows nothing of it
            HasUntoldRing |= !hasRing && bytes.EndsWith("anon_inode:[io_uring]"u8);
            int start = bytes.IndexOf((byte)'/');
            if (start < 0) { continue; }
            string path = PathText.Decode(bytes[start..]);
            if (seen.Contains(new FileUse("map", -1, path))) { continue; }
            string[] fields = PathText.Decode(bytes[..start]).Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (fields is not [_, _, _, var number, ..] || number.Split(':') is not [var major, var minor]) { continue; }
            if (!uint.TryParse(major, NumberStyles.HexNumber, CultureInfo.InvariantCulture, out uint a)
                || !uint.TryParse(minor, NumberStyles.HexNumber, CultureInfo.InvariantCulture, out uint b))
            {
                continue;
            }
            string device = string.Create(CultureInfo.InvariantCulture, $"{a}:{b}");
            (string? there, string? inside) = WhereIs(path);
            Add(new UsedFile(new FileUse("map", -1, path), device, there == device ? inside : null));
        }
    }
}
