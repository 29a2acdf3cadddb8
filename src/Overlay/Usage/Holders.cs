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
public static class Holders
{
    /// <summary>The most files that are reported of one process.</summary>
    private const int MostFiles = 64;

    /// <summary>Finds the holders of a directory or a mount.</summary>
    /// <param name="path">The path as the user gave it.</param>
    /// <param name="report">The holders.</param>
    /// <returns>An error when the path cannot be examined; <see cref="Errno.ENOTDIR"/> when it is not a directory.</returns>
    public static Errno Find(string path, out HolderReport report)
    {
        report = null!;
        var mounts = new HostMounts();
        if (mounts.Spaces.Count == 0) { return Errno.ENODEV; }
        Errno error = HolderTarget.Find(path, mounts, out HolderTarget target);
        if (error.IsError) { return error; }
        var machine = new MachineState(mounts);
        report = Report(machine, target);
        if (target.Mount is null || report.IsHeldByUsers) { return Errno.None; }
        bool? isBusy = BusyProbe.IsBusy(target.Path);
        if (isBusy == false) { report = report with { IsBusy = false }; }
        else { report = report with { IsBusy = isBusy, Gaps = [.. report.Gaps, .. Unseen(machine, target, isBusy == true)] }; }
        return Errno.None;
    }

    /// <summary>The holders that a mount may have but that cannot be seen, one sentence each.</summary>
    /// <param name="machine">What can be seen of the machine.</param>
    /// <param name="target">The mount.</param>
    /// <param name="isBusy">Whether the mount is known to be in use; otherwise that is unknown.</param>
    private static List<string> Unseen(MachineState machine, HolderTarget target, bool isBusy)
    {
        var sentences = new List<string>();
        if (!Processes.AreAllNamespacesSeen())
        {
            sentences.Add("Processes of other pid namespaces than this one's are not seen from here: look from outside of the container.");
        }
        if (!isBusy) { return sentences; }
        foreach (UsingProcess user in machine.Users)
        {
            string process = $"{PathText.Printable(user.Process.Name)} ({user.Process.Pid})";
            int inFlight = user.Sockets.Sum(socket => Processes.DescriptorsInFlight(socket.Description));
            if (inFlight > 0)
            {
                sentences.Add(
                    $"{process} has a socket to which {(inFlight == 1 ? "a descriptor was" : $"{inFlight} descriptors were")} "
                    + "sent that nobody has received yet; of what cannot be told.");
            }
            if (user.HasHiddenRing) { sentences.Add($"{process} has an io_uring whose registered files are not told."); }
            if (user.HasEvents) { sentences.Add($"{process} watches files with fanotify, and holds those of which it has not read yet."); }
        }
        if (machine.MissedNetworks > 0)
        {
            sentences.Add(
                $"Sockets of {(machine.MissedNetworks == 1 ? "a network namespace" : $"{machine.MissedNetworks} network namespaces")} "
                + "cannot be looked at by this user.");
        }
        foreach (UsedFile file in ProcessReader.OwnOutput(machine.Mounts).Where(file => target.Held.Has(file.Device, file.Inside)))
        {
            sentences.Add(
                $"This command holds it itself, as its descriptor {file.Use.Descriptor} ({PathText.Printable(file.Use.Path)}) "
                + "shows.");
        }
        sentences.Add(
            $"{PathText.Printable(target.Path)} is in use all the same, perhaps by what no process has a descriptor of: a "
            + "descriptor in flight, a request that the kernel is at, an export over NFS, a probe of the kernel's.");
        return sentences;
    }

    private static HolderReport Report(MachineState machine, HolderTarget target)
    {
        machine.AddHidden();
        var overlays = new OverlaySearch(machine, target);
        overlays.Run();

        HeldObject asked = target.Held;
        List<HeldObject> wanted = [asked, .. overlays.Found.Select(one => one.Overlay).Where(one => one.Device.Length > 0)];
        foreach (HeldObject held in wanted) { FindMounts(machine, held); }
        foreach (UsingProcess user in machine.Users)
        {
            foreach (HeldObject held in wanted)
            {
                if (held == asked && overlays.IsServer(user)) { continue; } // reported as a server
                var files = new List<FileUse>();
                foreach (UsedFile file in user.Files.All)
                {
                    if (files.Count < MostFiles && held.Has(file.Device, file.Inside)) { files.Add(file.Use); }
                }
                if (files.Count > 0) { held.Users.Add(new ProcessUse(user.Process, user.Space, files)); }
            }
        }

        List<FileUse> ofNobody = [.. machine.Unowned.Where(file => asked.Has(file.Device, file.Inside)).Select(file => file.Use)];
        if (ofNobody.Count > 0) { asked.Users.Add(new ProcessUse(new ProcessName(0, ""), 0, ofNobody)); }

        var kernel = new KernelFiles(machine.Mounts, machine.Gaps);
        return new HolderReport
        {
            Target = target.Path,
            MountType = target.Mount?.Type,
            Server = overlays.Server,
            Overlays = [.. overlays.Found.Select(one => one.Holder with { Uses = UsesOf(machine, one.Overlay) })],
            Uses = UsesOf(machine, asked),
            LoopDevices = kernel.LoopDevices(asked),
            SwapFiles = kernel.SwapFiles(asked),
            Gaps = machine.Gaps,
        };
    }

    private static Uses UsesOf(MachineState machine, HeldObject held)
    {
        var uses = new List<NamespaceUse>();
        foreach (IGrouping<ulong, (MountNamespace Space, MountUse Mount)> group in held.Mounts.GroupBy(one => one.Space.Id))
        {
            bool isOwn = group.Key == machine.Mounts.OwnNamespace;
            uses.Add(new NamespaceUse
            {
                Id = group.Key,
                IsOwn = isOwn,
                Mounts = [.. group.Select(one => one.Mount)],
                Processes = isOwn ? [] : [.. machine.Users.Where(user => user.Spaces.Contains(group.Key)).Select(user => user.Process)],
                KeptBy = isOwn ? [] : [.. machine.Mounts.ReferencesTo(group.Key).Select(reference => reference.Description)],
            });
        }
        return new Uses(uses, held.Users);
    }

    private static void FindMounts(MachineState machine, HeldObject held)
    {
        foreach (MountNamespace space in machine.Mounts.Spaces)
        {
            foreach (MountEntry entry in space.Mounts)
            {
                if (entry.Id == held.Except) { continue; }
                if (held.Has(entry.Device, entry.Root))
                {
                    MountRelation relation = Pin.IsIn(entry.MountPoint) ? MountRelation.Pin : MountRelation.Copy;
                    held.Mounts.Add((space, new MountUse(entry.Id, entry.MountPoint, entry.Type, relation)));
                }
                // The mount of an image holds the file of the image.
                else if (entry.Type == "erofs" && entry.Source.StartsWith('/') && space.Covering(entry.Source) is { } image
                    && held.Has(image.Device, Place.InsideOf(image, entry.Source)))
                {
                    held.Mounts.Add((space, new MountUse(entry.Id, entry.MountPoint, entry.Type, MountRelation.Image)));
                }
                // A mount holds its mount point, and the mount that the mount point is in. Mounts on a pin are reported
                // with the pin.
                else if (!Pin.IsIn(entry.MountPoint) && machine.Mounts.Find((ulong)entry.Parent) is { } parent
                    && held.Has(parent.Device, Place.InsideOf(parent, entry.MountPoint)))
                {
                    held.Mounts.Add((space, new MountUse(entry.Id, entry.MountPoint, entry.Type, MountRelation.Nested)));
                }
            }
        }
    }

    /// <summary>
    /// Finds the overlays of Veneer whose server can be seen, or that are mounted in a namespace that can be read.
    /// </summary>
    /// <param name="missing">What could not be examined, one sentence each.</param>
    /// <returns>The overlays, in the order of their mount points.</returns>
    public static List<VeneerOverlay> Instances(out IReadOnlyList<string> missing)
    {
        var machine = new MachineState(new HostMounts());
        HostMounts mounts = machine.Mounts;
        if (mounts.Spaces.Count == 0) { machine.Gaps.Add("Without /proc nothing is seen: mount it."); }
        missing = machine.Gaps;
        var found = new Dictionary<string, VeneerOverlay>(StringComparer.Ordinal);
        foreach (UsingProcess user in machine.Users)
        {
            if (user.Connection is not { } device || found.ContainsKey(device) || !machine.IsServer(user)) { continue; }
            OverlayHolder server = machine.Describe(user, "");
            found[device] = new VeneerOverlay
            {
                Device = device,
                Mounts = MountsOf(device),
                Pid = user.Process.Pid,
                Command = server.Command,
                Since = server.Since,
                Layers = [.. user.Layers.Given
                    .OrderBy(layer => layer.Role switch { "upper" => 0, "lower" => 1, _ => 2 })
                    .Select(layer => (layer.Role, Processes.Link($"/proc/{user.Process.Pid}/fd/{layer.Descriptor}") ?? layer.Inside))],
                UpperFileSystem = UsageOf(user),
            };
        }
        foreach (MountEntry entry in mounts.All)
        {
            if (entry.Type == "fuse.veneer" && !found.ContainsKey(entry.Device))
            {
                found[entry.Device] = new VeneerOverlay { Device = entry.Device, Mounts = MountsOf(entry.Device) };
            }
        }
        return [.. found.Values.OrderBy(
            one => one.Mounts.Count > 0 ? one.Mounts[0].Mount.MountPoint : one.Device, StringComparer.Ordinal)];

        List<(string, ulong, MountEntry)> MountsOf(string device) =>
            [.. mounts.Of(device).Select(one => (one.Space.Process, one.Space.Id, one.Mount))];

        StatFs? UsageOf(UsingProcess user)
        {
            GivenLayer upper = user.Layers.Given.FirstOrDefault(layer => layer.Role == "upper");
            if (upper.Role is null || mounts.All.Where(entry => entry.Device == upper.Device).All(HostMounts.MayHang)
                || user.Layers.Open(upper.Descriptor) is not { } opened)
            {
                return null;
            }
            using (opened) { return Libc.StatFileSystem(opened.Value, out StatFs usage).IsError ? null : usage; }
        }
    }
}
