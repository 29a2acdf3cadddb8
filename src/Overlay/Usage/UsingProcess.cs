using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Host;

namespace Veneer.Overlay.Usage;

/// <summary>A socket of a process.</summary>
/// <param name="Descriptor">The descriptor of the socket.</param>
/// <param name="Number">The inode number of the socket.</param>
/// <param name="Description">The path of the descriptor's file in <c>fdinfo</c>.</param>
internal readonly record struct UsedSocket(int Descriptor, uint Number, string Description);

/// <summary>A process, with the files, sockets and namespaces that it uses.</summary>
/// <param name="pid">Its process id.</param>
/// <param name="name">Its name.</param>
/// <param name="space">The inode number of its mount namespace; 0 when it may not be known.</param>
/// <param name="mounts">The mounts of the machine.</param>
internal sealed class UsingProcess(int pid, string name, ulong space, HostMounts mounts)
{
    /// <summary>The pid and name of the process.</summary>
    public ProcessName Process { get; } = new(pid, name);

    /// <summary>The inode number of its mount namespace; 0 when it may not be known.</summary>
    public ulong Space { get; set; } = space;

    /// <summary>The mount namespaces that its threads are in.</summary>
    public HashSet<ulong> Spaces { get; } = [];

    /// <summary>The files that it uses.</summary>
    public UsedFiles Files { get; } = new(mounts);

    /// <summary>The mount namespaces that its descriptors keep.</summary>
    public List<NamespaceReference> Keeps { get; } = [];

    /// <summary>The sockets that it has descriptors of.</summary>
    public List<UsedSocket> Sockets { get; } = [];

    /// <summary>
    /// The network namespaces that it is in or has descriptors of, by their inode numbers, with paths that lead there.
    /// </summary>
    public Dictionary<ulong, string> Networks { get; } = [];

    /// <summary>Whether it has an io_uring whose registered files /proc does not show.</summary>
    public bool HasHiddenRing { get; set; }

    /// <summary>Whether it has a group of fanotify(7), whose events hold files until they are read.</summary>
    public bool HasEvents { get; set; }

    /// <summary>The device of the mount that it serves over /dev/fuse, or null.</summary>
    public string? Connection { get; set; }

    /// <summary>The layers that it has or had as a server of Veneer; none if it is another process.</summary>
    public ServerLayers Layers { get; } = new(pid.ToString(CultureInfo.InvariantCulture));

    /// <summary>Adds the files that its sockets are bound to.</summary>
    /// <param name="bound">All bound sockets, by their inode numbers.</param>
    public void AddSockets(IReadOnlyDictionary<uint, BoundSocket> bound)
    {
        foreach (UsedSocket socket in Sockets)
        {
            if (!bound.TryGetValue(socket.Number, out BoundSocket file)) { continue; }
            // where the socket was most likely bound
            string path = file.Path.StartsWith('/') ? file.Path : $"{Processes.Link($"/proc/{Process.Pid}/cwd")}/{file.Path}";
            string device = string.Create(CultureInfo.InvariantCulture, $"{file.DeviceMajor}:{file.DeviceMinor}");
            Files.AddOnDevice(new FileUse("socket", socket.Descriptor, file.Path), path, device, Space);
        }
    }
}
