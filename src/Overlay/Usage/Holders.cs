using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Host;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Usage;

/// <summary>Finds the holders of a directory or a mount.</summary>
/// <remarks>
/// Nothing below a mount that may hang is touched: /proc tells what a process uses, and the mount tables where that lies.
/// For an object in no mount table, only the device is asked for, which the kernel knows without a server. A process that
/// cannot be examined in ten seconds is left out and named.
/// </remarks>
public sealed class Holders
{
    /// <summary>The most files that are reported of one process.</summary>
    private const int MostFiles = 64;

    private readonly HostMounts machine;
    private readonly List<string> gaps;
    private readonly List<UsingProcess> users;
    private readonly List<UsedFile> lost = [];
    private int missedNetworks;

    /// <summary>The directory, or the whole mount, whose users are wanted.</summary>
    /// <param name="Device">The device number of its filesystem, as in mountinfo.</param>
    /// <param name="Inside">Its path from the filesystem's root.</param>
    /// <param name="Except">The id of the mount that was asked about, or -1.</param>
    private sealed record Subject(string Device, string Inside, int Except)
    {
        public List<(MountNamespace Space, MountUse Mount)> Mounts { get; } = [];
        public List<ProcessUse> Users { get; } = [];

        /// <summary>
        /// Whether an object of a filesystem is in the subject. An object of unknown path is only if the subject is the
        /// whole filesystem.
        /// </summary>
        public bool Has(string device, string? inside) =>
            device == Device && (Inside == "/" || inside == Inside || (inside is not null && Place.IsBelow(inside, Inside)));
    }

    private Holders(HostMounts mounts)
    {
        machine = mounts;
        gaps = [];
        if (Processes.AreOthersHidden())
        {
            gaps.Add("Processes of other users may be left out, since /proc is mounted with hidepid: become root.");
        }
        users = UsingProcess.OfAll(mounts, gaps);
        mounts.AddEmpty(users.SelectMany(user => user.Keeps), gaps);
    }

    /// <summary>Finds the holders of a directory or a mount.</summary>
    /// <param name="path">The path as the user gave it.</param>
    /// <param name="report">The holders.</param>
    /// <returns>An error when the path cannot be examined; <see cref="Errno.ENOTDIR"/> when it is not a directory.</returns>
    public static Errno Find(string path, out HolderReport report)
    {
        report = null!;
        var mounts = new HostMounts();
        if (mounts.Spaces.Count == 0) { return Errno.ENODEV; }
        Errno error = Locate(path, mounts, out string full, out MountEntry? mount, out Place? directory, out Subject? subject);
        if (error.IsError) { return error; }
        var holders = new Holders(mounts);
        report = holders.Look(full, mount, directory, subject!);
        if (mount is null || report.IsHeldByUsers) { return Errno.None; }
        bool? isBusy = BusyProbe.IsBusy(full);
        if (isBusy == false) { report = report with { IsBusy = false }; }
        else { report = report with { IsBusy = isBusy, Gaps = [.. report.Gaps, .. holders.Unseen(full, isBusy == true, subject!)] }; }
        return Errno.None;
    }

    /// <summary>Finds the directory or mount at a path, without entering a mount whose server may hang.</summary>
    private static Errno Locate(string path, HostMounts mounts, out string full, out MountEntry? mount, out Place? directory,
        out Subject? subject)
    {
        (mount, directory, subject) = (null, null, null);
        full = path.StartsWith('/') ? path : $"{Processes.Link("/proc/self/cwd")}/{path}";
        if (full.Length > 1) { full = full.TrimEnd('/'); }
        string plain = Plain(full);
        if (mounts.Spaces[0].Covering(plain) is { } outer && HostMounts.MayHang(outer) && outer.MountPoint != plain)
        {
            full = plain;
            subject = new Subject(outer.Device, Place.InsideOf(outer, full) ?? "/", -1);
            return Errno.None;
        }
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(full), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None,
            out int opened);
        if (error.IsError) { return error; }
        using var target = new Fd(opened);
        full = Processes.Link($"/proc/self/fd/{opened}") ?? full;
        error = Libc.StatPlace(opened, Libc.Self, out Statx stat);
        if (error.IsError) { return error; }
        if (mounts.Find(stat.MountId) is not { } entry) { return Errno.ENOENT; }
        if (entry.MountPoint == full)
        {
            mount = entry;
            subject = new Subject(entry.Device, entry.Root, entry.Id);
        }
        else
        {
            subject = new Subject(entry.Device, Place.InsideOf(entry, full) ?? "/", -1);
        }
        if (!HostMounts.MayHang(entry) && !Libc.Reopen(opened, OpenFlags.ReadOnly | OpenFlags.Directory, out int readable).IsError)
        {
            using var lockable = new Fd(readable);
            if (Libc.StatAt(opened, Libc.Self, StatxMask.Basic, out Statx status).IsError || !Libc.TryLockShared(readable).IsError)
            {
                return Errno.None;
            }
            directory = new Place("", full, -1, status, entry.Device, subject.Inside) { Owner = InUseLock.ReadOwner(opened) };
        }
        return Errno.None;
    }

    /// <summary>Removes <c>.</c> and <c>..</c> from a path, without following symbolic links.</summary>
    private static string Plain(string path)
    {
        var names = new List<string>();
        foreach (string name in path.Split('/'))
        {
            if (name is "" or ".") { continue; }
            if (name != "..") { names.Add(name); }
            else if (names.Count > 0) { names.RemoveAt(names.Count - 1); }
        }
        return "/" + string.Join('/', names);
    }

    /// <summary>The holders that a mount may have but that cannot be seen, one sentence each.</summary>
    /// <param name="full">The mount point.</param>
    /// <param name="isBusy">Whether the mount is known to be in use; otherwise that is unknown.</param>
    /// <param name="target">The subject.</param>
    private List<string> Unseen(string full, bool isBusy, Subject target)
    {
        var sentences = new List<string>();
        if (!Processes.AreAllNamespacesSeen())
        {
            sentences.Add("Processes of other pid namespaces than this one's are not seen from here: look from outside of the container.");
        }
        if (!isBusy) { return sentences; }
        foreach (UsingProcess user in users)
        {
            string process = $"{PathText.Printable(user.Process.Name)} ({user.Process.Pid})";
            int inFlight = user.Sockets.Sum(socket => Processes.DescriptorsInFlight(socket.Description));
            if (inFlight > 0)
            {
                sentences.Add(
                    $"{process} has a socket to which {(inFlight == 1 ? "a descriptor was" : $"{inFlight} descriptors were")} "
                    + "sent that nobody has received yet; of what cannot be told.");
            }
            if (user.HasUntoldRing) { sentences.Add($"{process} has an io_uring whose registered files are not told."); }
            if (user.HasEvents) { sentences.Add($"{process} watches files with fanotify, and holds those of which it has not read yet."); }
        }
        if (missedNetworks > 0)
        {
            sentences.Add(
                $"Sockets of {(missedNetworks == 1 ? "a network namespace" : $"{missedNetworks} network namespaces")} cannot "
                + "be looked at by this user.");
        }
        foreach (UsedFile file in UsingProcess.OwnOutput(machine).Where(file => target.Has(file.Device, file.Inside)))
        {
            sentences.Add(
                $"This command holds it itself, as its descriptor {file.Use.Descriptor} ({PathText.Printable(file.Use.Path)}) "
                + "shows.");
        }
        sentences.Add(
            $"{PathText.Printable(full)} is in use all the same, perhaps by what no process has a descriptor of: a "
            + "descriptor in flight, a request that the kernel is at, an export over NFS, a probe of the kernel's.");
        return sentences;
    }

    private HolderReport Look(string full, MountEntry? mount, Place? locked, Subject target)
    {
        machine.AddUnseen();
        FindSockets();
        Dictionary<int, string> former = FormerLayer.MountsOf(users.SelectMany(user => user.FormerLayers));
        foreach (UsingProcess user in users) { user.AddRevoked(former); }
        var overlays = new List<(OverlayHolder Holder, Subject Subject)>();
        var servers = new HashSet<int>();
        ProcessName? server = null;

        foreach (UsingProcess user in users)
        {
            if (user.Connection is null || !IsOurs(user, machine)) { continue; }
            if (user.Connection == target.Device) { server = user.Process; }
            string roles = RolesOf(user, target);
            if (roles.Length == 0)
            {
                // A directory is free then, but its filesystem may still be held.
                if (target.Except >= 0 && FormerRolesOf(user, target) is { Length: > 0 } had) { AddShutDown(user, had, overlays); }
                continue;
            }
            servers.Add(user.Process.Pid);
            overlays.Add((Describe(user, roles), new Subject(user.Connection, "/", -1)));
        }
        if (locked is not null && overlays.TrueForAll(one => one.Holder.Role is "lower" or "layer"))
        {
            AddUnseen(locked, target, overlays);
        }
        AddKernelOverlays(target, overlays);

        List<Subject> subjects = [target, .. overlays.Select(one => one.Subject).Where(one => one.Device.Length > 0)];
        foreach (Subject subject in subjects) { FindMounts(subject); }
        foreach (UsingProcess user in users)
        {
            foreach (Subject subject in subjects)
            {
                if (subject == target && servers.Contains(user.Process.Pid)) { continue; } // reported as a server
                var files = new List<FileUse>();
                foreach (UsedFile file in user.Files)
                {
                    if (files.Count < MostFiles && subject.Has(file.Device, file.Inside)) { files.Add(file.Use); }
                }
                if (files.Count > 0) { subject.Users.Add(new ProcessUse(user.Process, user.Space, files)); }
            }
        }

        List<FileUse> ofNobody = [.. lost.Where(file => target.Has(file.Device, file.Inside)).Select(file => file.Use)];
        if (ofNobody.Count > 0) { target.Users.Add(new ProcessUse(new ProcessName(0, ""), 0, ofNobody)); }

        return new HolderReport
        {
            Target = full,
            MountType = mount?.Type,
            Server = server,
            Overlays = [.. overlays.Select(one => one.Holder with { Uses = UsesOf(one.Subject) })],
            Uses = UsesOf(target),
            LoopDevices = LoopDevices(target),
            SwapFiles = SwapFiles(target),
            Gaps = gaps,
        };
    }

    private Uses UsesOf(Subject subject)
    {
        var uses = new List<NamespaceUse>();
        foreach (IGrouping<ulong, (MountNamespace Space, MountUse Mount)> group in subject.Mounts.GroupBy(one => one.Space.Id))
        {
            bool isOwn = group.Key == machine.Own;
            uses.Add(new NamespaceUse
            {
                Id = group.Key,
                IsOwn = isOwn,
                Mounts = [.. group.Select(one => one.Mount)],
                Processes = isOwn ? [] : [.. users.Where(user => user.Spaces.Contains(group.Key)).Select(user => user.Process)],
                KeptBy = isOwn ? [] : [.. machine.KeepersOf(group.Key).Select(keeper => keeper.Words)],
            });
        }
        return new Uses(uses, subject.Users);
    }

    private void FindMounts(Subject subject)
    {
        foreach (MountNamespace space in machine.Spaces)
        {
            foreach (MountEntry entry in space.Mounts)
            {
                if (entry.Id == subject.Except) { continue; }
                if (subject.Has(entry.Device, entry.Root))
                {
                    MountRelation relation = Pin.IsIn(entry.MountPoint) ? MountRelation.Pin : MountRelation.Copy;
                    subject.Mounts.Add((space, new MountUse(entry.Id, entry.MountPoint, entry.Type, relation)));
                }
                // A mount holds its mount point, and the mount that the mount point is in. Mounts on a pin are reported
                // with the pin.
                else if (entry.Type == "erofs" && entry.Source.StartsWith('/') && space.Covering(entry.Source) is { } image
                    && subject.Has(image.Device, Place.InsideOf(image, entry.Source)))
                {
                    subject.Mounts.Add((space, new MountUse(entry.Id, entry.MountPoint, entry.Type, MountRelation.Image)));
                }
                else if (!Pin.IsIn(entry.MountPoint) && machine.Find((ulong)entry.Parent) is { } parent
                    && subject.Has(parent.Device, Place.InsideOf(parent, entry.MountPoint)))
                {
                    subject.Mounts.Add((space, new MountUse(entry.Id, entry.MountPoint, entry.Type, MountRelation.Nested)));
                }
            }
        }
    }

    private static string RolesOf(UsingProcess user, Subject target) =>
        string.Join(", ", user.Layers
            .Where(layer => target.Has(layer.Device, layer.Inside))
            .Select(layer => layer.Role)
            .Distinct(StringComparer.Ordinal));

    private static string FormerRolesOf(UsingProcess user, Subject target) =>
        string.Join(", ", user.FormerLayers
            .Where(layer => target.Has(layer.Device, layer.Inside))
            .Select(layer => layer.Role)
            .Distinct(StringComparer.Ordinal));

    /// <summary>Adds an overlay that was shut down, if a process still uses passed-through files of it.</summary>
    private void AddShutDown(UsingProcess server, string roles, List<(OverlayHolder, Subject)> overlays)
    {
        bool isUsed = users.Exists(user => user.Files.Any(file =>
            file.Device == server.Connection && file.Use.Use is "exe" or "map" or "open"));
        if (isUsed) { overlays.Add((Describe(server, roles) with { IsShutDown = true }, new Subject(server.Connection!, "/", -1))); }
    }

    /// <summary>Adds the files of sockets to what the processes use. A socket without a process is reported on its own.</summary>
    private void FindSockets()
    {
        var networks = new Dictionary<ulong, string>(machine.Networks);
        foreach ((ulong id, string path) in users.SelectMany(user => user.Networks)) { networks.TryAdd(id, path); }
        Dictionary<uint, BoundSocket> bound = Sockets.In(networks, out missedNetworks);
        foreach (UsingProcess user in users)
        {
            user.AddSockets(bound);
            foreach (UsedSocket socket in user.Sockets) { bound.Remove(socket.Number); }
        }
        foreach (BoundSocket socket in bound.Values)
        {
            lost.Add(new UsedFile(new FileUse("socket", -1, socket.Path),
                string.Create(CultureInfo.InvariantCulture, $"{socket.DeviceMajor}:{socket.DeviceMinor}"), null));
        }
    }

    private OverlayHolder Describe(UsingProcess user, string roles)
    {
        string process = user.Process.Pid.ToString(CultureInfo.InvariantCulture);
        // The mount point in the server's namespace if there is one, otherwise anywhere.
        MountEntry? mount = machine.Of(user.Connection!)
            .OrderByDescending(one => one.Space.Id == user.Space)
            .Select(one => one.Mount)
            .FirstOrDefault();
        return new OverlayHolder
        {
            IsKernel = false,
            Role = roles,
            Pid = user.Process.Pid,
            Command = user.Owner?.Command ?? Processes.CommandLineOf(process),
            Since = user.Owner?.Since ?? Processes.StartOf(process),
            MountPoint = user.Owner?.MountPoint ?? mount?.MountPoint,
            Device = user.Connection!,
            Uses = new Uses([], []),
        };
    }

    /// <summary>Adds the holder of a locked directory that is not one of the servers seen.</summary>
    private static void AddUnseen(Place locked, Subject target, List<(OverlayHolder, Subject)> overlays)
    {
        int pid = Processes.HolderOfLock(locked.Device!, locked.Status.Ino);
        if (locked.Owner is { } owner && (pid == 0 || pid == owner.Pid))
        {
            overlays.Add((new OverlayHolder
            {
                IsKernel = false,
                Role = owner.Role,
                Pid = owner.Pid,
                PidNamespace = owner.PidNamespace == Processes.NamespaceOf("self", "pid") ? 0 : owner.PidNamespace,
                Command = owner.Command,
                Since = owner.Since,
                MountPoint = owner.MountPoint,
                Device = owner.Device,
                Uses = new Uses([], []),
            }, new Subject(owner.Device, "/", -1)));
            return;
        }
        var name = new ProcessName(pid, pid == 0 ? "" : Processes.NameOf($"{pid}"));
        ulong space = pid == 0 ? 0 : Processes.NamespaceOf($"{pid}", "mnt");
        target.Users.Add(new ProcessUse(name, space, [new FileUse("lock", -1, locked.Path)]));
    }

    private void AddKernelOverlays(Subject target, List<(OverlayHolder, Subject)> overlays)
    {
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach (MountNamespace space in machine.Spaces)
        {
            foreach (MountEntry entry in space.Mounts)
            {
                if (entry.Device == target.Device || seen.Contains(entry.Device) || KernelOverlay.Of(entry) is not { } overlay)
                {
                    continue;
                }
                var mount = new KernelMount(space, entry);
                var roles = new List<string>();
                if (overlay.UpperReadings.Any(path => IsIn(mount, path))) { roles.Add("upper"); }
                if (overlay.WorkReadings.Any(path => IsIn(mount, path))) { roles.Add("work"); }
                if (overlay.LowerDirectories.Concat(overlay.DataDirectories).Any(path => IsIn(mount, path))) { roles.Add("lower"); }
                if (roles.Count == 0) { continue; }
                seen.Add(entry.Device);
                overlays.Add((
                    new OverlayHolder
                    {
                        IsKernel = true,
                        Role = string.Join(", ", roles),
                        MountPoint = entry.MountPoint,
                        Device = entry.Device,
                        Uses = new Uses([], []),
                    },
                    new Subject(entry.Device, "/", -1)));
            }
        }

        bool IsIn(KernelMount mount, string path)
        {
            if (!path.StartsWith('/')) { return IsRelative(mount, path); }
            if (mount.Namespace.Covering(path) is not { } covering) { return false; }
            if (target.Has(covering.Device, Place.InsideOf(covering, path))) { return true; }
            return mount.Resolve(covering, path) is { } real && mount.Namespace.Covering(real) is { } other
                && target.Has(other.Device, Place.InsideOf(other, real));
        }

        bool IsRelative(KernelMount mount, string path)
        {
            string end = "/" + path.TrimStart('.', '/');
            if (!target.Inside.EndsWith(end, StringComparison.Ordinal)) { return false; }
            foreach (MountEntry way in machine.Spaces[0].Mounts)
            {
                // Any mount of this namespace through which the subject can be reached.
                if (way.Device != target.Device || HostMounts.MayHang(way)
                    || !(way.Root == "/" || way.Root == target.Inside || Place.IsBelow(target.Inside, way.Root)))
                {
                    continue;
                }
                string here = (way.MountPoint == "/" ? "" : way.MountPoint)
                    + (way.Root == "/" ? target.Inside : target.Inside[way.Root.Length..]);
                if (Libc.OpenAt(Libc.AtCwd, PathText.Encode(here), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None,
                    out int opened).IsError)
                {
                    continue;
                }
                using var directory = new Fd(opened);
                if (Libc.StatAt(opened, Libc.Self, StatxMask.Basic, out Statx stat).IsError) { continue; }
                return mount.UsesOf([new Place("", here, opened, stat, target.Device, target.Inside)]).Count > 0;
            }
            return false;
        }
    }

    /// <summary>
    /// Finds the overlays of Veneer whose server can be seen, or that are mounted in a namespace that can be read.
    /// </summary>
    /// <param name="missing">What could not be examined, one sentence each.</param>
    /// <returns>The overlays, in the order of their mount points.</returns>
    public static List<Instance> Instances(out IReadOnlyList<string> missing)
    {
        var holders = new Holders(new HostMounts());
        HostMounts mounts = holders.machine;
        if (mounts.Spaces.Count == 0) { holders.gaps.Add("Without /proc nothing is seen: mount it."); }
        missing = holders.gaps;
        var found = new Dictionary<string, Instance>(StringComparer.Ordinal);
        foreach (UsingProcess user in holders.users)
        {
            if (user.Connection is not { } device || found.ContainsKey(device) || !IsOurs(user, mounts)) { continue; }
            OverlayHolder server = holders.Describe(user, "");
            found[device] = new Instance
            {
                Device = device,
                Mounts = MountsOf(device),
                Pid = user.Process.Pid,
                Command = server.Command,
                Since = server.Since,
                Layers = [.. user.Layers
                    .OrderBy(layer => layer.Role switch { "upper" => 0, "lower" => 1, _ => 2 })
                    .Select(layer => (layer.Role, Processes.Link($"/proc/{user.Process.Pid}/fd/{layer.Descriptor}") ?? layer.Inside))],
                UpperFileSystem = UsageOf(user),
            };
        }
        foreach (MountEntry entry in mounts.All)
        {
            if (entry.Type == "fuse.veneer" && !found.ContainsKey(entry.Device))
            {
                found[entry.Device] = new Instance { Device = entry.Device, Mounts = MountsOf(entry.Device) };
            }
        }
        return [.. found.Values.OrderBy(
            one => one.Mounts.Count > 0 ? one.Mounts[0].Mount.MountPoint : one.Device, StringComparer.Ordinal)];

        List<(string, ulong, MountEntry)> MountsOf(string device) =>
            [.. mounts.Of(device).Select(one => (one.Space.Process, one.Space.Id, one.Mount))];

        StatFs? UsageOf(UsingProcess user)
        {
            GivenLayer upper = user.Layers.FirstOrDefault(layer => layer.Role == "upper");
            if (upper.Role is null || mounts.All.Where(entry => entry.Device == upper.Device).All(HostMounts.MayHang)
                || user.Open(upper.Descriptor) is not { } opened)
            {
                return null;
            }
            using (opened) { return Libc.StatFileSystem(opened.Value, out StatFs usage).IsError ? null : usage; }
        }
    }

    /// <summary>Whether a FUSE server is one of Veneer.</summary>
    private static bool IsOurs(UsingProcess user, HostMounts mounts) =>
        user.Process.Name.StartsWith("veneer", StringComparison.Ordinal) || user.FormerLayers.Count > 0
            || mounts.Of(user.Connection!).Any(one => one.Mount.Type == "fuse.veneer");

    private List<FileHolder> LoopDevices(Subject target)
    {
        var found = new List<FileHolder>();
        if (Libc.OpenAt(Libc.AtCwd, "/sys/block\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None,
            out int blocks).IsError)
        {
            gaps.Add("Loop devices are not looked at, since there is no /sys: mount it.");
            return found;
        }
        using var directory = new Fd(blocks);
        using var reader = new DirectoryReader(blocks);
        while (reader.MoveNext())
        {
            if (!reader.Name.StartsWith("loop"u8)) { continue; }
            string name = PathText.Decode(reader.Name);
            Errno error = Libc.ReadWhole(blocks, PathText.Encode($"{name}/loop/backing_file"), out byte[] content);
            if (error == Errno.ENOENT) { continue; } // the loop device has no file
            string path = content is [.., (byte)'\n'] ? PathText.Decode(content.AsSpan()[..^1]) : "";
            string? device = DeviceOf(name);
            if (device is not null && !machine.All.Any(entry => entry.Device == device)) { device = null; } // the device of a subvolume
            List<(MountEntry Mount, string? Inside)> ways = WaysTo(path, size: null);
            bool isIn = device is null
                ? ways.Count > 0 && target.Has(ways[0].Mount.Device, ways[0].Inside)
                : target.Has(device, ways.Find(way => way.Mount.Device == device).Inside);
            if (isIn) { found.Add(new FileHolder(path, $"/dev/{name}")); }
        }
        return found;
    }

    /// <summary>The number of the device that holds a loop device's file; null when it cannot be determined.</summary>
    private static string? DeviceOf(string loop)
    {
        const uint getStatus = 0x4C05; // LOOP_GET_STATUS64
        const int patience = 2000;
        if (Libc.OpenAt(Libc.AtCwd, PathText.Encode($"/dev/{loop}"), OpenFlags.ReadOnly | OpenFlags.NonBlock, 0, ResolveFlags.None,
            out int opened).IsError)
        {
            return null;
        }
        string? number = null;
        // The kernel asks the file's filesystem, whose server may hang: then the thread is left behind.
        var thread = new Thread(() =>
        {
            using var device = new Fd(opened);
            var status = default(LoopStatus);
            if (!Libc.Ioctl(opened, getStatus, ref status, out _).IsError)
            {
                Volatile.Write(ref number, string.Create(CultureInfo.InvariantCulture,
                    $"{DeviceNumber.Major((uint)status.Device)}:{DeviceNumber.Minor((uint)status.Device)}"));
            }
        }) { IsBackground = true };
        thread.Start();
        return thread.Join(patience) ? Volatile.Read(ref number) : null;
    }

    /// <summary><c>struct loop_info64</c>: only its first member is used, the device that holds the file.</summary>
    [System.Runtime.InteropServices.StructLayout(System.Runtime.InteropServices.LayoutKind.Sequential, Size = 232)]
    private struct LoopStatus
    {
        public ulong Device;
    }

    private List<FileHolder> SwapFiles(Subject target)
    {
        var found = new List<FileHolder>();
        if (Libc.ReadWhole("/proc/swaps\0"u8, out byte[] content).IsError) { return found; }
        ReadOnlySpan<byte> rest = content;
        _ = MountTable.NextLine(ref rest); // the column headers
        while (rest.Length > 0)
        {
            // /path with\040blank    file    2044    0    -2
            string[] fields = PathText.Decode(MountTable.NextLine(ref rest)).Split([' ', '\t'], StringSplitOptions.RemoveEmptyEntries);
            if (fields is not [var name, "file", var size, ..]
                || !ulong.TryParse(size, NumberStyles.None, CultureInfo.InvariantCulture, out ulong kibibytes))
            {
                continue;
            }
            string path = MountTable.Unescape(PathText.Encode(name).AsSpan()[..^1]);
            List<(MountEntry Mount, string? Inside)> ways = WaysTo(path, kibibytes);
            if (ways.Count > 0 && target.Has(ways[0].Mount.Device, ways[0].Inside)) { found.Add(new FileHolder(path)); }
        }
        return found;
    }

    /// <summary>
    /// Finds where a path may lead. The kernel tells such a path without its mount namespace. The likeliest place comes
    /// first.
    /// </summary>
    /// <param name="path">The path of a regular file.</param>
    /// <param name="size">The file's size in units of 1024 bytes, without its first page; null when unknown.</param>
    /// <returns>The places where the file exists, and then those where it cannot be seen, since it may be unlinked.</returns>
    private List<(MountEntry Mount, string? Inside)> WaysTo(string path, ulong? size)
    {
        var ways = new List<(MountEntry, string?)>();
        var others = new List<(MountEntry, string?)>();
        if (!path.StartsWith('/')) { return ways; }
        foreach (MountNamespace space in machine.Spaces)
        {
            if (space.Covering(path) is not { } covering) { continue; }
            (HostMounts.MayHang(covering) || IsThere(space, path, size) ? ways : others).Add((covering, Place.InsideOf(covering, path)));
        }
        ways.AddRange(others);
        return ways;

        static bool IsThere(MountNamespace space, string path, ulong? size)
        {
            const ulong largestPage = 64;
            return space.Process.Length > 0
                && !Libc.StatAt(Libc.AtCwd, PathText.Encode($"/proc/{space.Process}/root{path}"), StatxMask.Basic, out Statx stat).IsError
                && stat.IsRegular
                && (size is not { } expected || (stat.Size / 1024 >= expected && stat.Size / 1024 <= expected + largestPage));
        }
    }
}
