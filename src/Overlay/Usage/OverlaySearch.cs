using Veneer.Linux;
using Veneer.Overlay.Host;

namespace Veneer.Overlay.Usage;

/// <summary>Finds the overlays that have a directory as a layer, or directories below it.</summary>
/// <param name="machine">What can be seen of the machine.</param>
/// <param name="target">The directory.</param>
internal sealed class OverlaySearch(MachineState machine, HolderTarget target)
{
    private readonly HeldObject held = target.Held;
    private readonly List<(OverlayHolder Holder, HeldObject Overlay)> found = [];
    private readonly HashSet<int> servers = [];

    /// <summary>The overlays, each with what its own users use.</summary>
    public IReadOnlyList<(OverlayHolder Holder, HeldObject Overlay)> Found => found;

    /// <summary>The server of the mount that was asked about; null when it is not seen, or there is none.</summary>
    public ProcessName? Server { get; private set; }

    /// <summary>Whether a process is the server of an overlay that was found, so that it uses its layers as such.</summary>
    public bool IsServer(UsingProcess user) => servers.Contains(user.Process.Pid);

    /// <summary>Finds the overlays.</summary>
    public void Run()
    {
        foreach (UsingProcess user in machine.Users)
        {
            if (user.Connection is null || !machine.IsServer(user)) { continue; }
            if (user.Connection == held.Device) { Server = user.Process; }
            string roles = RolesOf(user);
            if (roles.Length == 0)
            {
                // A directory is free then, but its filesystem may still be held.
                if (target.Mount is not null && FormerRolesOf(user) is { Length: > 0 } had) { AddShutDown(user, had); }
                continue;
            }
            servers.Add(user.Process.Pid);
            found.Add((machine.Describe(user, roles), new HeldObject(user.Connection, "/", -1)));
        }
        if (target.Locked is { } locked && found.TrueForAll(one => one.Holder.Role is "lower" or "layer")) { AddUnseen(locked); }
        AddKernelOverlays();
    }

    private string RolesOf(UsingProcess user) =>
        string.Join(", ", user.Layers.Given
            .Where(layer => held.Has(layer.Device, layer.Inside))
            .Select(layer => layer.Role)
            .Distinct(StringComparer.Ordinal));

    private string FormerRolesOf(UsingProcess user) =>
        string.Join(", ", user.Layers.Former
            .Where(layer => held.Has(layer.Device, layer.Inside))
            .Select(layer => layer.Role)
            .Distinct(StringComparer.Ordinal));

    /// <summary>Adds an overlay that was shut down, if a process still uses passed-through files of it.</summary>
    private void AddShutDown(UsingProcess server, string roles)
    {
        bool isUsed = machine.Users.Exists(user => user.Files.All.Any(file =>
            file.Device == server.Connection && file.Use.Use is "exe" or "map" or "open"));
        if (isUsed)
        {
            found.Add((machine.Describe(server, roles) with { IsShutDown = true }, new HeldObject(server.Connection!, "/", -1)));
        }
    }

    /// <summary>Adds the holder of a locked directory that is not one of the servers seen.</summary>
    private void AddUnseen(Place locked)
    {
        int pid = Processes.HolderOfLock(locked.Device!, locked.Status.Ino);
        if (locked.Owner is { } owner && (pid == 0 || pid == owner.Pid))
        {
            found.Add((new OverlayHolder
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
            }, new HeldObject(owner.Device, "/", -1)));
            return;
        }
        var name = new ProcessName(pid, pid == 0 ? "" : Processes.NameOf($"{pid}"));
        ulong space = pid == 0 ? 0 : Processes.NamespaceOf($"{pid}", "mnt");
        held.Users.Add(new ProcessUse(name, space, [new FileUse("lock", -1, locked.Path)]));
    }

    private void AddKernelOverlays()
    {
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach (MountNamespace space in machine.Mounts.Spaces)
        {
            foreach (MountEntry entry in space.Mounts)
            {
                if (entry.Device == held.Device || seen.Contains(entry.Device) || KernelOverlay.Of(entry) is not { } overlay)
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
                found.Add((
                    new OverlayHolder
                    {
                        IsKernel = true,
                        Role = string.Join(", ", roles),
                        MountPoint = entry.MountPoint,
                        Device = entry.Device,
                        Uses = new Uses([], []),
                    },
                    new HeldObject(entry.Device, "/", -1)));
            }
        }

        bool IsIn(KernelMount mount, string path)
        {
            if (!path.StartsWith('/')) { return IsRelative(mount, path); }
            if (mount.Namespace.Covering(path) is not { } covering) { return false; }
            if (held.Has(covering.Device, Place.InsideOf(covering, path))) { return true; }
            return mount.Resolve(covering, path) is { } real && mount.Namespace.Covering(real) is { } other
                && held.Has(other.Device, Place.InsideOf(other, real));
        }

        bool IsRelative(KernelMount mount, string path)
        {
            string end = "/" + path.TrimStart('.', '/');
            if (!held.Inside.EndsWith(end, StringComparison.Ordinal)) { return false; }
            foreach (MountEntry way in machine.Mounts.Spaces[0].Mounts)
            {
                // Any mount of this namespace through which the held object can be reached.
                if (way.Device != held.Device || HostMounts.MayHang(way)
                    || !(way.Root == "/" || way.Root == held.Inside || Place.IsBelow(held.Inside, way.Root)))
                {
                    continue;
                }
                string here = (way.MountPoint == "/" ? "" : way.MountPoint)
                    + (way.Root == "/" ? held.Inside : held.Inside[way.Root.Length..]);
                if (Libc.OpenAt(Libc.AtCwd, PathText.Encode(here), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None,
                    out int opened).IsError)
                {
                    continue;
                }
                using var directory = new Fd(opened);
                if (Libc.StatAt(opened, Libc.Self, StatxMask.Basic, out Statx stat).IsError) { continue; }
                return mount.UsesOf([new Place("", here, opened, stat, held.Device, held.Inside)]).Count > 0;
            }
            return false;
        }
    }
}
