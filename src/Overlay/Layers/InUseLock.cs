using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Host;

namespace Veneer.Overlay.Layers;

/// <summary>The locks on upper and work, which only one overlay can hold, and the records there that say which one it is.</summary>
/// <remarks>
/// The lock is an exclusive flock(2) on the directory itself. It is valid across all mounts, mount namespaces, pid
/// namespaces and users, and the kernel releases it when the process that holds it ends, however it ends. The record beside
/// it (<see cref="OwnerRecord"/>) is for people: see docs/adr/0010. Kernel overlayfs has a lock of its own, which nobody can
/// see. Its mounts are found in the mount tables instead, at the time of mounting. A kernel mount that is made between that
/// check and the appearance of our mount is missed.
/// </remarks>
internal sealed class InUseLock : IDisposable
{
    /// <summary>How long to wait for an overlay that is being unmounted, in milliseconds.</summary>
    private const int Patience = 3000;

    /// <summary>The longest record, in bytes.</summary>
    private const int MaxRecord = 4096;

    private static ReadOnlySpan<byte> Trusted => "trusted.overlay.veneer.owner\0"u8;
    private static ReadOnlySpan<byte> User => "user.overlay.veneer.owner\0"u8;

    private readonly List<(Fd Lock, OwnerRecord Owner)> held = [];
    private readonly bool userXattr;

    private InUseLock(bool userXattr) => this.userXattr = userXattr;

    /// <summary>Whether this overlay holds the lock on work. If not, another overlay uses work, and its content must stay.</summary>
    public bool HasWork { get; private set; }

    /// <summary>Locks upper and work, and checks that no layer is one that another overlay changes.</summary>
    /// <param name="options">The options; they tell whether to refuse a layer in use or to warn.</param>
    /// <param name="places">The layers.</param>
    /// <param name="log">Receives the warning when a layer in use is mounted nevertheless.</param>
    /// <exception cref="OverlayMountException">A layer is in use; the message names the overlay or process.</exception>
    public static InUseLock Take(OverlayOptions options, IReadOnlyList<Place> places, Action<string> log)
    {
        var taken = new InUseLock(options.UserXattr);
        try
        {
            Action<string> complain = options.InUse == InUse.Refuse
                ? sentence => throw new OverlayMountException(options.Identities.Count > 0
                    ? $"{sentence}: unmount that first." // veneer restore, which has no other directories and no -o
                    : $"{sentence}: unmount that, use another directory, or mount anyway with -o inuse=warn.")
                : sentence => log($"veneer: {sentence}: mounted all the same, as inuse=warn asks; what both do to it is undefined");
            taken.LockAll(options, places, complain, log);
            CheckKernelMounts(places, complain);
        }
        catch
        {
            taken.Dispose();
            throw;
        }
        return taken;
    }

    private void LockAll(OverlayOptions options, IReadOnlyList<Place> places, Action<string> complain, Action<string> log)
    {
        long deadline = Environment.TickCount64 + Patience;
        var seen = new HashSet<(ulong Dev, ulong Ino)>();
        foreach (Place place in places)
        {
            CheckAncestors(place, seen, complain);
            bool isLower = place.Role == "lower";
            Errno error = Libc.Reopen(place.Descriptor, OpenFlags.ReadOnly | OpenFlags.Directory, out int descriptor);
            if (error.IsError)
            {
                if (isLower) { continue; } // opening the layer reports the error
                throw new OverlayMountException(error.Explain($"The {place} cannot be read ({error}): {(error is Errno.EACCES or Errno.EPERM
                    ? "give this user permission to list it"
                    : "see the limits of this process, and its filesystem")}."));
            }
            var directory = new Fd(descriptor);
            if (!TryLock(descriptor, isLower, place, deadline))
            {
                LockHolder holder = HolderOf(place);
                if (isLower || !holder.IsStranger)
                {
                    directory.Dispose();
                    if (!isLower || holder.IsOverlay) { complain($"The {place} {DescribeHolder(holder)}"); }
                    continue;
                }
                // Any process that may read a directory can lock it. Such a lock must not keep from mounting whoever may write the
                // directory. Our record tells the next overlay about this mount.
                log($"veneer: the {place} {DescribeHolder(holder)}, which may not write it and so is no overlay: mounted all the "
                    + "same, without the lock");
            }
            if (isLower)
            {
                directory.Dispose();
                continue;
            }
            var owner = OfThisProcess(place.Role, options.MountPoint);
            held.Add((directory, owner));
            HasWork |= place.Role == "work";
            Write(descriptor, owner);
        }
    }

    /// <summary>
    /// Locks a directory. The lock on a lower is shared: it only shows that no overlay holds the directory as upper or work.
    /// </summary>
    /// <returns>False when the lock was not free until the deadline, or its holder will not let go of it.</returns>
    private static bool TryLock(int descriptor, bool shared, Place place, long deadline)
    {
        while ((shared ? Libc.TryLockShared(descriptor) : Libc.TryLockExclusive(descriptor)).IsError)
        {
            // After umount(8) the last server may still be ending, so it gets a moment. A server whose overlay is mounted gets none.
            if (Environment.TickCount64 >= deadline || IsMountedHere(ReadOwner(descriptor)) || HolderOf(place) is { IsOverlay: false })
            {
                return false;
            }
            Thread.Sleep(5);
        }
        return true;
    }

    private static bool IsMountedHere(OwnerRecord? owner)
    {
        if (owner is null || owner.Device.Length == 0) { return false; }
        _ = MountTable.Read(out List<MountEntry> table); // best effort: without the mount table we wait longer
        return table.Exists(entry => entry.Device == owner.Device && entry.Id == owner.MountId);
    }

    /// <summary>
    /// Complains when a directory above a layer is an upper or a work: changes there change the layer. Kernel:
    /// ovl_check_layer().
    /// </summary>
    private static void CheckAncestors(Place place, HashSet<(ulong Dev, ulong Ino)> seen, Action<string> complain)
    {
        if (Libc.Duplicate(place.Descriptor, out int current).IsError) { return; }
        Statx below = place.Status;
        while (true)
        {
            // The search ends at the root of the mount: what is above belongs to another tree.
            if ((below.Attributes & Statx.AttributeMountRoot) != 0) { break; }
            Errno error = Libc.OpenAt(current, "..\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int parent);
            bool canLock = !error.IsError;
            if (error == Errno.EACCES)
            {
                error = Libc.OpenAt(current, "..\0"u8, OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out parent);
            }
            Libc.Close(current);
            current = parent;
            if (error.IsError || Libc.StatAt(current, Libc.Self, StatxMask.Basic | StatxMask.MountId, out Statx above).IsError) { break; }
            if (above.Dev != below.Dev || above.MountId != below.MountId || above.Ino == below.Ino || !seen.Add((above.Dev, above.Ino)))
            {
                break;
            }
            // Other programs lock directories, too, since systemd-tmpfiles(8) respects such locks. So there must be a record as well.
            if (canLock && Libc.TryLockShared(current).IsError && ReadOwner(current) is { } owner)
            {
                complain($"The {place} lies in the {Describe(owner)}");
                break;
            }
            below = above;
        }
        if (current >= 0) { Libc.Close(current); }
    }

    /// <summary>Complains of kernel overlays that use a layer.</summary>
    /// <remarks>Every mount namespace is examined, which takes some 50 microseconds each.</remarks>
    private static void CheckKernelMounts(IReadOnlyList<Place> places, Action<string> complain)
    {
        foreach (KernelMount overlay in KernelMount.All())
        {
            foreach ((Place place, string relation) in overlay.UsesOf(places))
            {
                string process = overlay.Namespace.Process;
                string where = process == "self" ? ""
                    : process.Length == 0 ? $" in mount namespace {overlay.Namespace.Id}"
                    : $" in the mount namespace of process {process} ({Processes.NameOf(process)})";
                complain($"The {place} {relation} of the kernel overlay that is mounted on {overlay.Mount.MountPoint}{where}");
            }
        }
    }

    /// <summary>The holder of a lock, as far as it can be known.</summary>
    /// <param name="Owner">The record that an overlay has left there; null when there is none that can be believed.</param>
    /// <param name="Pid">The process that holds the lock; 0 when it cannot be seen from here.</param>
    /// <param name="MayWrite">Whether that process may write the directory, as the server of an overlay must.</param>
    private sealed record LockHolder(OwnerRecord? Owner, int Pid, bool MayWrite)
    {
        /// <summary>
        /// Whether the holder counts as an overlay. A process chooses its own name, so the name counts only if the process could
        /// serve an overlay.
        /// </summary>
        public bool IsOverlay =>
            Owner is not null || Pid == 0 || (MayWrite && Processes.NameOf($"{Pid}").StartsWith("veneer", StringComparison.Ordinal));

        /// <summary>Whether the holder cannot be an overlay.</summary>
        public bool IsStranger => Owner is null && Pid != 0 && !MayWrite;
    }

    private static LockHolder HolderOf(Place place)
    {
        // If several processes share the lock, take one that could serve an overlay.
        List<int> all = place.Device is null
            ? []
            : [.. Processes.HoldersOfLock(place.Device, place.Status.Ino).Select(holder => holder.Pid)];
        int pid = all.Find(one => Processes.MayWrite($"{one}", place.Status));
        if (pid == 0) { pid = all.FirstOrDefault(); }
        OwnerRecord? owner = ReadOwner(place.Descriptor);
        if (owner is not null && pid != 0 && !IsOf(owner, pid) && !IsAlive(owner)) { owner = null; }
        return new LockHolder(owner, pid, pid == 0 || Processes.MayWrite($"{pid}", place.Status));
    }

    /// <summary>
    /// Whether a process wrote a record. The record of a process that was killed says nothing about the process that took the
    /// lock after it.
    /// </summary>
    private static bool IsOf(OwnerRecord owner, int pid)
    {
        ulong space = Processes.NamespaceOf($"{pid}", "pid");
        return space == 0 || space == Processes.NamespaceOf("self", "pid")
            ? owner.Pid == pid || (space == 0 && owner.PidNamespace != Processes.NamespaceOf("self", "pid"))
            : owner.PidNamespace == space;
    }

    /// <summary>
    /// Whether the process that wrote a record still runs. It may have mounted without the lock, which another process held.
    /// </summary>
    private static bool IsAlive(OwnerRecord owner)
    {
        if (owner.PidNamespace != Processes.NamespaceOf("self", "pid"))
        {
            return Processes.All().Exists(pid => Processes.NamespaceOf($"{pid}", "pid") == owner.PidNamespace);
        }
        // A process that has this number but was started later is another process.
        return Processes.StartOf($"{owner.Pid}") is { } started && started <= owner.Since.AddSeconds(2);
    }

    private static string DescribeHolder(LockHolder holder) => holder switch
    {
        { Owner: { } owner } => $"is the {Describe(owner)}",
        { Pid: 0 } => "is locked by a process that cannot be seen from here and has left no record that can be read",
        _ => $"is locked by process {holder.Pid} ({Processes.CommandLineOf($"{holder.Pid}")})",
    };

    private static string Describe(OwnerRecord owner)
    {
        string process = owner.PidNamespace == Processes.NamespaceOf("self", "pid") ? "" : $" of pid namespace {owner.PidNamespace}";
        string mount = owner.MountNamespace == Processes.NamespaceOf("self", "mnt") ? "" : $" in mount namespace {owner.MountNamespace}";
        return string.Create(
            CultureInfo.InvariantCulture,
            $"{owner.Role} of the overlay on {owner.MountPoint}{mount}, which process {owner.Pid}{process} ({owner.Command}) has "
                + $"served since {owner.Since.ToLocalTime():yyyy-MM-dd HH:mm:ss zzz}");
    }

    /// <summary>Makes the record of this process.</summary>
    /// <param name="role">The directory's role: <c>upper</c> or <c>work</c>.</param>
    /// <param name="mountPoint">The path where the overlay will be mounted.</param>
    internal static OwnerRecord OfThisProcess(string role, string mountPoint) => new()
    {
        Role = role,
        Boot = BootId.Read(),
        Pid = Libc.ProcessId,
        PidNamespace = Processes.NamespaceOf("self", "pid"),
        MountNamespace = Processes.NamespaceOf("self", "mnt"),
        Since = DateTimeOffset.FromUnixTimeSeconds(DateTimeOffset.UtcNow.ToUnixTimeSeconds()),
        Command = Processes.CommandLineOf("self"),
        MountPoint = mountPoint,
    };

    /// <summary>
    /// Reads the newest record of this boot on a directory; null when there is none. It may be believed only while somebody
    /// holds the lock.
    /// </summary>
    internal static OwnerRecord? ReadOwner(int directory)
    {
        Span<byte> record = stackalloc byte[MaxRecord];
        OwnerRecord? best = null;
        foreach (bool user in (ReadOnlySpan<bool>)[false, true])
        {
            if (Libc.GetXattrAt(directory, Libc.Self, user ? User : Trusted, record, out int length).IsError) { continue; }
            OwnerRecord? owner = OwnerRecord.Parse(record[..length]);
            if (owner is not null && owner.Boot == BootId.Read() && (best is null || owner.Since > best.Since)) { best = owner; }
        }
        return best;
    }

    private void Write(int directory, OwnerRecord owner)
    {
        byte[] record = owner.ToBytes();
        if (!userXattr && !Libc.SetXattrAt(directory, Libc.Self, Trusted, record, XattrFlags.None).IsError) { return; }
        // best effort: without the record, whoever finds the directory locked learns less
        _ = Libc.SetXattrAt(directory, Libc.Self, User, record, XattrFlags.None);
    }

    /// <summary>Adds to the records where the overlay is mounted.</summary>
    /// <param name="mountPoint">The full path of the mount point.</param>
    /// <param name="mountId">The mount's id.</param>
    /// <param name="device">The number of the mount's device, as mountinfo has it.</param>
    public void Announce(string mountPoint, int mountId, string device)
    {
        for (int i = 0; i < held.Count; i++)
        {
            (Fd directory, OwnerRecord owner) = held[i];
            held[i] = (directory, owner with { MountPoint = mountPoint, MountId = mountId, Device = device });
            Write(directory.Value, held[i].Owner);
        }
    }

    /// <summary>Releases upper and work for other overlays.</summary>
    public void Dispose()
    {
        foreach ((Fd directory, _) in held)
        {
            // While the lock is held: afterwards, the record might be that of the next overlay.
            if (directory.Value >= 0 && (userXattr || Libc.RemoveXattrAt(directory.Value, Libc.Self, Trusted).IsError))
            {
                _ = Libc.RemoveXattrAt(directory.Value, Libc.Self, User); // best effort: nobody believes a record without the lock
            }
            directory.Dispose();
        }
        held.Clear();
    }
}
