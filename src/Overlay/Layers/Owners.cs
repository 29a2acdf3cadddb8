using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Layers;

/// <summary>Recognises objects of the layers whose owner or group has no number in this user namespace.</summary>
/// <remarks>
/// In a user namespace, and through a mount with an id mapping, the owner of an object may not be mapped. stat(2) then shows
/// the overflow id, 65534, which belongs to a real user wherever it is mapped. If the kernel were told that id, that user
/// would be the owner. So the kernel is told <see cref="Unmapped"/>, which belongs to nobody: it refuses what it refuses for an
/// unmapped owner, and still shows the overflow id. See ADR 19.
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
    /// <param name="log">Receives the warning that an owner cannot be determined.</param>
    public Owners(LayerStack layers, Action<string> log)
    {
        this.log = log;
        mapsUid = IdMap.Read("/proc/self/uid_map\0"u8, overflowUid, out bool hasAllUids);
        mapsGid = IdMap.Read("/proc/self/gid_map\0"u8, overflowGid, out bool hasAllGids);
        isSure = hasAllUids && hasAllGids && !MayHideOwners(layers);
    }

    private static uint Overflow(string path) =>
        !Libc.ReadWhole(PathText.Encode(path), out byte[] content).IsError
            && uint.TryParse(PathText.Decode(content).TrimEnd(), out uint id)
            ? id
            : 65534;

    /// <summary>
    /// Whether a layer may show other ids than its filesystem stores: by an id mapping, or because the filesystem belongs to
    /// another user namespace.
    /// </summary>
    private static bool MayHideOwners(LayerStack layers)
    {
        if (MountTable.Read(out List<MountEntry> mounts).IsError) { return true; }
        foreach (Layer layer in layers.All)
        {
            if (Libc.StatAt(layer.NamedRoot, Libc.Self, StatxMask.Basic | StatxMask.MountId, out Statx stat).IsError) { return true; }
            // A mount that is attached nowhere is in no mount table.
            if (mounts.Find(mount => (ulong)mount.Id == stat.MountId) is not { } mount) { return true; }
            if (mount.Options.Split(',').Contains("idmapped", StringComparer.Ordinal)
                || mount.Type.StartsWith("fuse", StringComparison.Ordinal))
            {
                return true;
            }
        }
        return false;
    }

    /// <summary>Replaces an owner and a group that only look mapped by <see cref="Unmapped"/>.</summary>
    /// <param name="directory">A descriptor of the object's directory, or with an empty name of the object.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="stat">The object's attributes from stat(2), which are corrected.</param>
    public void Mark(int directory, ReadOnlySpan<byte> name, ref Statx stat)
    {
        if (isSure || (stat.Uid != overflowUid && stat.Gid != overflowGid)) { return; }
        bool doubtsUid = stat.Uid == overflowUid && mapsUid, doubtsGid = stat.Gid == overflowGid && mapsGid;
        KnownIds known = doubtsUid || doubtsGid ? Ask(directory, name) : KnownIds.None;
        if (stat.Uid == overflowUid && (known & KnownIds.Owner) == 0) { stat.Uid = Unmapped; }
        if (stat.Gid == overflowGid && (known & KnownIds.Group) == 0) { stat.Gid = Unmapped; }
    }

    /// <summary>
    /// Determines which ids of an object are really the overflow ids. None on failure: then nobody has the rights of an owner.
    /// </summary>
    private KnownIds Ask(int directory, ReadOnlySpan<byte> name)
    {
        int descriptor = directory;
        if (name.Length > 1 && Libc.OpenAt(directory, name, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.None,
            out descriptor).IsError)
        {
            return KnownIds.None;
        }
        KnownIds known = KnownIds.None;
        using (gate.Enter())
        {
            Errno error = Errno.EPERM;
            for (int attempt = 0; attempt < 2 && error.IsError && !hasFailed; attempt++)
            {
                error = witness is null
                    ? OwnerWitness.Start(
                        mapsUid ? overflowUid : Libc.EffectiveUid, mapsGid ? overflowGid : Libc.EffectiveGid, out witness)
                    : Errno.None;
                hasFailed = error.IsError;
                if (error.IsError)
                {
                    log($"veneer: whether what shows the owner {overflowUid} belongs to that user or to one who is not mapped here "
                        + $"cannot be found out ({error}): it counts as the latter, and cannot be changed");
                    break;
                }
                error = witness!.Ask(descriptor, out known);
                if (!error.IsError) { break; }
                witness.Abandon();
                witness = null;
                if (error == Errno.EAGAIN) { break; } // the layer does not answer: a second witness would hang as well
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

/// <summary>Reads the id maps of a user namespace. See user_namespaces(7).</summary>
internal static class IdMap
{
    /// <summary>Reads whether an id is mapped. Also true when the map cannot be read.</summary>
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
