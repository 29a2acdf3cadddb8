using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay.Host;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Live;

/// <summary>
/// Revokes passed-through files: the kernel reads and writes them without us, so it must be told that they are gone.
/// </summary>
/// <param name="session">The connection to the kernel.</param>
/// <param name="files">The open files.</param>
/// <param name="log">Receives messages for which there is no caller.</param>
internal sealed class PassthroughRevocation(KernelSession session, OpenFiles files, Action<string> log)
{
    /// <summary>
    /// Makes another process look up so many names in a directory, and tells whether it could. Set by the wiring of the mount.
    /// See <see cref="Gate.Revoke"/>.
    /// </summary>
    public Func<string, int, bool>? LookUp { get; set; }

    /// <summary>The number of the mount's device, as in mount tables; set when the overlay is mounted.</summary>
    public string Device { get; set; } = "";

    /// <summary>Whether any open file is passed through.</summary>
    public bool AreAnyOpen => files.ToList().Exists(file => file.Backing is { IsPassthrough: true });

    /// <summary>Revokes them.</summary>
    /// <param name="entrance">Where requests are let in.</param>
    /// <returns>False when the kernel could not be told.</returns>
    public bool Run(Gate entrance)
    {
        if (session.Backings is null || LookUp is null) { return true; }
        ulong[] nodes = [.. files.ToList().Where(file => file.Backing is { IsPassthrough: true }).Select(file => file.NodeId).Distinct()];
        if (nodes.Length == 0) { return true; }
        entrance.Revoke(nodes);
        // The mount may remain only in a mount namespace other than ours.
        bool isFound = false;
        foreach (MountNamespace space in MountNamespace.Visible())
        {
            foreach (MountEntry mount in space.Mounts.Where(mount => mount.Device == Device && mount.Root == "/"))
            {
                if (LookUp(space.Process == "self" ? mount.MountPoint : $"/proc/{space.Process}/root{mount.MountPoint}", nodes.Length))
                {
                    return true;
                }
                isFound = true;
            }
        }
        log($"veneer: {nodes.Length} files that the kernel reads and writes by itself stay open to who has them, since {(isFound
            ? "the process that tells it so could not do its work"
            : "the mount is found nowhere any more")}: end who has them, see veneer holders");
        return false;
    }
}
