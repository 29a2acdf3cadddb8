using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Layers;

/// <summary>Tells which objects of the layers belong to somebody who has no number here.</summary>
/// <remarks>
/// In a user namespace, and through a mount with an id mapping, the owner of an object may not be mapped. stat(2) shows
/// the overflow id then, 65534, which is somebody's own number wherever that is mapped: told to the kernel, it would make
/// him the owner. <see cref="Unmapped"/> in its place is nobody's, so that the kernel itself refuses what it refuses of
/// such inodes, and shows the overflow id all the same. See ADR 19.
/// </remarks>
internal sealed class Owners : IDisposable
{
    /// <summary>INVALID_UID and INVALID_GID.</summary>
    public const uint Unmapped = uint.MaxValue;

    private readonly OrderedLock gate = new(OverlayLocks.Owners);
    private readonly uint overflowUid = Overflow("/proc/sys/kernel/overflowuid");
    private readonly uint overflowGid = Overflow("/proc/sys/kernel/overflowgid");
    private readonly bool mapsUid;
    private readonly bool mapsGid;
    private readonly bool isSure;
    private readonly Action<string> log;
    private OwnerWitness? witness;
    private bool hasFailed;

    /// <param name="layers">The layers.</param>
    /// <param name="log">For when it cannot be found out.</param>
    public Owners(LayerStack layers, Action<string> log)
    {
        this.log = log;
        mapsUid = IdMap.Read("/proc/self/uid_map\0"u8, overflowUid, out bool hasAllUids);
        mapsGid = IdMap.Read("/proc/self/gid_map\0"u8, overflowGid, out bool hasAllGids);
        isSure = hasAllUids && hasAllGids && !MayHideOwners(layers);
    }

    private static uint Overflow(string path) =>
        !Libc.ReadWhole(PathText.Encode(path), out byte[] content).IsError && uint.TryParse(PathText.Decode(content).TrimEnd(), out uint id) ? id : 65534;

    /// <summary>Whether a layer shows ids otherwise than its filesystem has them, or is of one that belongs to another user namespace.</summary>
    private static bool MayHideOwners(LayerStack layers)
    {
        if (MountTable.Read(out List<MountEntry> mounts).IsError) { return true; }
        foreach (Layer layer in layers.All)
        {
            if (Libc.StatAt(layer.Named, Libc.Self, StatxMask.Basic | StatxMask.MountId, out Statx stat).IsError) { return true; }
            // A mount that is attached nowhere is in no table.
            if (mounts.Find(mount => (ulong)mount.Id == stat.MountId) is not { } mount) { return true; }
            if (mount.Options.Split(',').Contains("idmapped", StringComparer.Ordinal) || mount.Type.StartsWith("fuse", StringComparison.Ordinal)) { return true; }
        }
        return false;
    }

    /// <summary>Puts <see cref="Unmapped"/> in the place of an owner and a group that only look mapped.</summary>
    /// <param name="directory">Where the object is, or with an empty name the object.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="stat">What stat(2) said of it.</param>
    public void Mark(int directory, ReadOnlySpan<byte> name, ref Statx stat)
    {
        if (isSure || (stat.Uid != overflowUid && stat.Gid != overflowGid)) { return; }
        bool doubtsUid = stat.Uid == overflowUid && mapsUid, doubtsGid = stat.Gid == overflowGid && mapsGid;
        KnownIds known = doubtsUid || doubtsGid ? Ask(directory, name) : KnownIds.None;
        if (stat.Uid == overflowUid && (known & KnownIds.Owner) == 0) { stat.Uid = Unmapped; }
        if (stat.Gid == overflowGid && (known & KnownIds.Group) == 0) { stat.Gid = Unmapped; }
    }

    /// <summary>Which ids of an object are really the overflow ids. None when that cannot be found out: then nobody has the rights of an owner.</summary>
    private KnownIds Ask(int directory, ReadOnlySpan<byte> name)
    {
        int descriptor = directory;
        if (name.Length > 1 && Libc.OpenAt(directory, name, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.None, out descriptor).IsError) { return KnownIds.None; }
        KnownIds known = KnownIds.None;
        using (gate.Enter())
        {
            Errno error = Errno.EPERM;
            for (int attempt = 0; attempt < 2 && error.IsError && !hasFailed; attempt++)
            {
                error = witness is null ? OwnerWitness.Start(mapsUid ? overflowUid : Libc.EffectiveUid, mapsGid ? overflowGid : Libc.EffectiveGid, out witness) : Errno.None;
                hasFailed = error.IsError;
                if (error.IsError)
                {
                    log($"veneer: whether what shows the owner {overflowUid} belongs to that user or to one who is not mapped here cannot be found out ({error}): it counts as the latter, and cannot be changed");
                    break;
                }
                error = witness!.Ask(descriptor, out known);
                if (!error.IsError) { break; }
                witness.Abandon();
                witness = null;
                if (error == Errno.EAGAIN) { break; } // the layer does not answer, which a second one would not change
            }
        }
        if (name.Length > 1) { Libc.Close(descriptor); }
        return known;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        using (gate.Enter())
        {
            hasFailed = true;
            witness?.Dispose();
            witness = null;
        }
    }
}

/// <summary>The ids of a user namespace. See user_namespaces(7).</summary>
internal static class IdMap
{
    /// <summary>Reads whether an id is mapped; true as well where the map cannot be read.</summary>
    /// <param name="path"><c>/proc/self/uid_map</c> or <c>gid_map</c>, with its NUL.</param>
    /// <param name="id">The id, as this process sees it.</param>
    /// <param name="isWhole">Whether every id is mapped, so that none can be hidden.</param>
    public static bool Read(ReadOnlySpan<byte> path, uint id, out bool isWhole)
    {
        isWhole = false;
        if (Libc.ReadWhole(path, out byte[] content).IsError) { return true; }
        bool isMapped = false;
        foreach (string line in PathText.Decode(content).Split('\n'))
        {
            if (line.Split(' ', StringSplitOptions.RemoveEmptyEntries) is not [string first, string outside, string count]) { continue; }
            ulong start = ulong.Parse(first), length = ulong.Parse(count);
            isMapped |= id >= start && id - start < length;
            isWhole |= start == 0 && outside == "0" && length >= uint.MaxValue;
        }
        return isMapped;
    }
}
