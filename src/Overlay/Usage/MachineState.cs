using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Host;

namespace Veneer.Overlay.Usage;

/// <summary>What can be seen of the machine: its mounts, and what its processes use.</summary>
internal sealed class MachineState
{
    private readonly List<UsedFile> unowned = [];

    /// <summary>Examines all processes.</summary>
    /// <param name="mounts">The mounts of the machine.</param>
    public MachineState(HostMounts mounts)
    {
        Mounts = mounts;
        if (Processes.AreOthersHidden())
        {
            Gaps.Add("Processes of other users may be left out, since /proc is mounted with hidepid: become root.");
        }
        Users = ProcessScan.Run(mounts, Gaps);
        mounts.AddEmpty(Users.SelectMany(user => user.Keeps), Gaps);
    }

    /// <summary>The mounts of the machine.</summary>
    public HostMounts Mounts { get; }

    /// <summary>The processes of the machine, except this one, and what they use.</summary>
    public List<UsingProcess> Users { get; }

    /// <summary>What could not be examined, one sentence each.</summary>
    public List<string> Gaps { get; } = [];

    /// <summary>The files of sockets that no process has a descriptor of. Known after <see cref="AddHidden"/>.</summary>
    public IReadOnlyList<UsedFile> Unowned => unowned;

    /// <summary>The number of network namespaces whose sockets may not be looked at. Known after <see cref="AddHidden"/>.</summary>
    public int MissedNetworks { get; private set; }

    /// <summary>
    /// Adds what the processes and paths that were examined do not show by themselves: further mount namespaces, the files of
    /// sockets, and those of overlays that were shut down.
    /// </summary>
    public void AddHidden()
    {
        Mounts.AddUnseen();
        AddSockets();
        Dictionary<int, string> former = FormerLayer.MountsOf(Users.SelectMany(user => user.Layers.Former));
        foreach (UsingProcess user in Users) { user.Files.AddRevoked(former); }
    }

    /// <summary>Adds the files of sockets to what the processes use. A socket without a process is reported on its own.</summary>
    private void AddSockets()
    {
        var networks = new Dictionary<ulong, string>(Mounts.Networks);
        foreach ((ulong id, string path) in Users.SelectMany(user => user.Networks)) { networks.TryAdd(id, path); }
        Dictionary<uint, BoundSocket> bound = Sockets.In(networks, out int missed);
        MissedNetworks = missed;
        foreach (UsingProcess user in Users)
        {
            user.AddSockets(bound);
            foreach (UsedSocket socket in user.Sockets) { bound.Remove(socket.Number); }
        }
        foreach (BoundSocket socket in bound.Values)
        {
            unowned.Add(new UsedFile(new FileUse("socket", -1, socket.Path),
                string.Create(CultureInfo.InvariantCulture, $"{socket.DeviceMajor}:{socket.DeviceMinor}"), null));
        }
    }

    /// <summary>Whether a process that serves a mount over /dev/fuse is a server of Veneer.</summary>
    public bool IsServer(UsingProcess user) =>
        user.Process.Name.StartsWith("veneer", StringComparison.Ordinal) || user.Layers.Former.Count > 0
            || Mounts.Of(user.Connection!).Any(one => one.Mount.Type == "fuse.veneer");

    /// <summary>Describes a server, without the holders of its overlay.</summary>
    /// <param name="user">The server.</param>
    /// <param name="roles">The roles of the held object in its overlay.</param>
    public OverlayHolder Describe(UsingProcess user, string roles)
    {
        string process = user.Process.Pid.ToString(CultureInfo.InvariantCulture);
        // The mount point in the server's namespace if there is one, otherwise anywhere.
        MountEntry? mount = Mounts.Of(user.Connection!)
            .OrderByDescending(one => one.Space.Id == user.Space)
            .Select(one => one.Mount)
            .FirstOrDefault();
        return new OverlayHolder
        {
            IsKernel = false,
            Role = roles,
            Pid = user.Process.Pid,
            Command = user.Layers.Owner?.Command ?? Processes.CommandLineOf(process),
            Since = user.Layers.Owner?.Since ?? Processes.StartOf(process),
            MountPoint = user.Layers.Owner?.MountPoint ?? mount?.MountPoint,
            Device = user.Connection!,
            Uses = new Uses([], []),
        };
    }
}
