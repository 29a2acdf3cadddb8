using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Changes;

/// <summary>Finds which objects of upper had another name in the baseline. A first walk learns it, and a second walk asks.</summary>
/// <remarks>
/// The old name of a directory is in its redirect. For any other object, upper keeps only the handle of the lower object
/// that it was copied from. So the handles of lower objects that have lost their names are kept, which upper shows by a
/// whiteout or another object in their place, and compared. An object that was moved out of a directory that is gone is not
/// found in this way, since the whole lower directory would have to be searched; it counts as added.
/// </remarks>
internal sealed class Renames(LayerSet layers)
{
    private readonly Dictionary<string, Baseline?> displaced = new(StringComparer.Ordinal);
    private readonly HashSet<string> claimed = new(StringComparer.Ordinal);
    private readonly HashSet<string> sources = new(StringComparer.Ordinal);

    /// <summary>Learns from a step of the first walk.</summary>
    public void Learn(Step step)
    {
        if (step.Directory is not null)
        {
            if (step.IsRenamedDirectory) { sources.Add(Key(step.Source!)); }
            if (step.Base is { } covered) { Displace(covered); }
            return;
        }
        if (!step.Found.Exists || !step.Found.HasUpper)
        {
            if (step.Base is { } deleted) { Displace(deleted); }
            return;
        }
        if (IsSame(step)) { return; }
        if (OriginOf(step) is { } origin) { claimed.Add(origin); }
        if (step.Base is { } replaced) { Displace(replaced); }
    }

    /// <summary>Ends the first walk: forgets lower objects that no object of upper was copied from.</summary>
    public void EndFirstWalk()
    {
        foreach ((string handle, Baseline? was) in displaced)
        {
            if (was is null || !claimed.Contains(handle)) { displaced.Remove(handle); }
            else { sources.Add(Key(was.Path)); }
        }
        claimed.Clear();
    }

    /// <summary>Whether an object of the baseline has another name now.</summary>
    public bool IsSource(Baseline was) => sources.Contains(Key(was.Path));

    /// <summary>
    /// The place in the baseline of an object of upper that is no directory; null when it is not known, or has the same name.
    /// </summary>
    public Baseline? SourceOf(Step step) =>
        step.Found.HasUpper
            && OriginOf(step) is { } origin
            && displaced.TryGetValue(origin, out Baseline? was)
            && was!.Found.Stat.Type == step.Found.Stat.Type
            ? was
            : null;

    /// <summary>
    /// Whether an object of upper that is no directory is a copy of the one that the baseline has under the name, as far as
    /// upper tells.
    /// </summary>
    public bool IsSame(Step step)
    {
        if (step.Base is not { } was || was.Found.Stat.Type != step.Found.Stat.Type) { return false; }
        if (step.Whole.Metacopy is not null)
        {
            return step.Whole.LowerStat.Ino == was.Found.Stat.Ino && step.Whole.LowerStat.Dev == was.Found.Stat.Dev;
        }
        byte[]? origin = layers.ReadXattr(step.Real, layers.Layers.UpperXattr.Origin);
        if (origin is { Length: 0 }) { return true; } // it was copied up, and there was no handle to record
        if (origin is null)
        {
            // No origin is recorded for a file with several names, and on a filesystem without handles.
            return was.Found.Stat.Nlink > 1 || layers.ReadHandle(was.Real, out _).IsError;
        }
        return OriginHandle.TryDecode(origin, out FileHandle noted, out ReadOnlySpan<byte> uuid)
            && !layers.ReadHandle(was.Real, out FileHandle handle).IsError
            && noted.Type == handle.Type && noted.Content.SequenceEqual(handle.Content) && MayBe(uuid, was.Real.Directory.Layer);
    }

    /// <summary>
    /// Whether a UUID in an origin may be that of a layer. Older kernels do not tell the UUID, and a mount may have been told
    /// to record none.
    /// </summary>
    private static bool MayBe(ReadOnlySpan<byte> uuid, Layer layer) =>
        uuid.SequenceEqual(layer.Uuid) || !uuid.ContainsAnyExcept((byte)0) || !layer.Uuid.AsSpan().ContainsAnyExcept((byte)0);

    private void Displace(Baseline was)
    {
        if (was.Found.Stat.IsDirectory || layers.ReadHandle(was.Real, out FileHandle handle).IsError) { return; }
        // Objects on two filesystems may have the same handle: then it identifies neither.
        if (!displaced.TryAdd(Key(handle), was)) { displaced[Key(handle)] = null; }
    }

    private string? OriginOf(Step step) =>
        layers.ReadXattr(step.Real, layers.Layers.UpperXattr.Origin) is { } value
            && OriginHandle.TryDecode(value, out FileHandle handle, out _)
            ? Key(handle)
            : null;

    private static string Key(in FileHandle handle) => $"{handle.Type}:{Convert.ToHexString(handle.Content)}";

    private static string Key(byte[] path) => PathText.Decode(path);
}
