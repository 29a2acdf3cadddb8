using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Changes;

/// <summary>Which objects of upper had another name in the baseline: what a first walk finds out, for the second to say.</summary>
/// <remarks>
/// A directory says so in its redirect. Of anything else upper keeps the handle of the lower object that it was copied
/// from, and no name. So the handles of all that has lost its name are kept, which upper shows by a whiteout or by
/// another object in its place, and compared. An object that was moved out of a directory which is gone is not found
/// that way, for the whole lower directory would have to be searched; it counts as added.
/// </remarks>
internal sealed class Renames(LayerSet layers)
{
    private readonly Dictionary<string, Baseline?> displaced = new(StringComparer.Ordinal);
    private readonly HashSet<string> claimed = new(StringComparer.Ordinal);
    private readonly HashSet<string> sources = new(StringComparer.Ordinal);

    /// <summary>Takes in a step of the first walk.</summary>
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

    /// <summary>Between the walks: forgets what nobody claims.</summary>
    public void Settle()
    {
        foreach ((string handle, Baseline? was) in displaced)
        {
            if (was is null || !claimed.Contains(handle)) { displaced.Remove(handle); }
            else { sources.Add(Key(was.Path)); }
        }
        claimed.Clear();
    }

    /// <summary>Whether what the baseline has under a path has another name now.</summary>
    public bool IsSource(Baseline was) => sources.Contains(Key(was.Path));

    /// <summary>Where the baseline has an object of upper that is no directory; null when that is not known, or under the same name.</summary>
    public Baseline? SourceOf(Step step) =>
        step.Found.HasUpper && OriginOf(step) is { } origin && displaced.TryGetValue(origin, out Baseline? was) && was!.Found.Stat.Type == step.Found.Stat.Type ? was : null;

    /// <summary>Whether an object of upper that is no directory is the one that the baseline has under the name, as far as upper can tell.</summary>
    public bool IsSame(Step step)
    {
        if (step.Base is not { } was || was.Found.Stat.Type != step.Found.Stat.Type) { return false; }
        if (step.Whole.Metacopy is not null) { return step.Whole.LowerStat.Ino == was.Found.Stat.Ino && step.Whole.LowerStat.Dev == was.Found.Stat.Dev; }
        byte[]? origin = layers.ReadXattr(step.Real, layers.Layers.UpperXattr.Origin);
        if (origin is { Length: 0 }) { return true; } // copied up, and there was no handle to note
        if (origin is null)
        {
            // No origin is noted where none can be: of one of several names, and where a filesystem has no handles.
            return was.Found.Stat.Nlink > 1 || layers.ReadHandle(was.Real, out _).IsError;
        }
        return OriginHandle.TryDecode(origin, out FileHandle noted, out ReadOnlySpan<byte> uuid)
            && !layers.ReadHandle(was.Real, out FileHandle handle).IsError
            && noted.Type == handle.Type && noted.Content.SequenceEqual(handle.Content) && MayBe(uuid, was.Real.Directory.Layer);
    }

    /// <summary>Older kernels do not tell the UUID, and a mount may have been told to note none.</summary>
    private static bool MayBe(ReadOnlySpan<byte> uuid, Layer layer) =>
        uuid.SequenceEqual(layer.Uuid) || !uuid.ContainsAnyExcept((byte)0) || !layer.Uuid.AsSpan().ContainsAnyExcept((byte)0);

    private void Displace(Baseline was)
    {
        if (was.Found.Stat.IsDirectory || layers.ReadHandle(was.Real, out FileHandle handle).IsError) { return; }
        // Two filesystems may have the same handle: then it tells nothing.
        if (!displaced.TryAdd(Key(handle), was)) { displaced[Key(handle)] = null; }
    }

    private string? OriginOf(Step step) =>
        layers.ReadXattr(step.Real, layers.Layers.UpperXattr.Origin) is { } value && OriginHandle.TryDecode(value, out FileHandle handle, out _) ? Key(handle) : null;

    private static string Key(in FileHandle handle) => $"{handle.Type}:{Convert.ToHexString(handle.Content)}";

    private static string Key(byte[] path) => PathText.Decode(path);
}
