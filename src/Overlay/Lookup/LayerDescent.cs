using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Lookup;

/// <summary>
/// Goes down the layers from the topmost real object to everything behind it: from <see cref="Found"/> to <see cref="Whole"/>.
/// </summary>
/// <param name="reader">Reads names in the layers.</param>
/// <param name="layers">The layers.</param>
/// <param name="followRedirects">Whether redirects are followed. If not, they give EPERM.</param>
/// <param name="followMetacopies">Whether metacopies are followed to their data. If not, they give EPERM.</param>
internal sealed class LayerDescent(LayerReader reader, LayerStack layers, bool followRedirects, bool followMetacopies)
{
    [ThreadStatic]
    private static List<RealDirectory>? collected;

    private readonly UpperAttributes upperAttributes = new(reader, layers);
    private readonly LayerSearch layerSearch = new(reader, layers.LowerXattr);

    /// <inheritdoc cref="LayeredLookup.Complete"/>
    public Errno Complete(DirectoryStack parent, ReadOnlySpan<byte> name, in Found found, out Whole whole)
    {
        reader.AssertMayWait();
        whole = new Whole { Lowers = [] };
        List<RealDirectory> below = collected ??= [];
        below.Clear();
        var search = new Search(found.Stat.IsDirectory);
        RealDirectory[] lowers = parent.Lowers;
        int start = 0;
        Errno error;

        if (found.HasUpper)
        {
            search.IsLast = !followRedirects && lowers.Length == 0;
            Span<byte> origin = stackalloc byte[OriginHandle.MaxLength];
            int originLength;
            using (reader.ShareNames())
            {
                error = upperAttributes.ReadLocked(parent.Upper!, name, found, ref whole, ref search, origin, out originLength);
            }
            if (error.IsError) { return error; }
            if (originLength > 0) { FindOrigin(origin[..originLength], found.Stat.Type, ref whole); }
            if (search.IsFromRoot) { lowers = layers.LowerRoots; }
        }
        else
        {
            // The topmost lower object was found already: start there.
            start = found.LowerPosition;
        }

        bool needsData = search.IsMetacopy;
        bool uppermostIsMetacopy = search.IsMetacopy;
        bool followsMetacopy = search.IsMetacopy;
        bool followsRedirect = search.Path is not null;
        bool first = true;
        for (int i = start; !search.Stop && i < lowers.Length; i++)
        {
            if (MayNotFollow(followsMetacopy, followsRedirect)) { return Errno.EPERM; }
            RealDirectory lower = lowers[i];
            search.IsLast = followRedirects ? lower.Layer.Index == layers.LowestIndex : i == lowers.Length - 1;
            RealDirectory? directory;
            byte[]? realName = null;
            Statx stat;
            if (!found.HasUpper && i == found.LowerPosition)
            {
                stat = found.Stat;
                error = layerSearch.Weigh(lower, name, stat, ref search, out bool counts);
                directory = counts ? lower : null;
            }
            else
            {
                error = layerSearch.Find(lower, name, ref search, out directory, out realName, out stat);
            }
            if (error.IsError) { return error; }
            if (directory is null) { continue; }
            followsMetacopy |= search.IsMetacopy;
            followsRedirect |= search.Path is not null;

            if (search.IsDirectory)
            {
                below.Add(new RealDirectory(directory, realName ?? name.ToArray()));
                if (first) { whole.LowerStat = stat; }
            }
            else
            {
                if (first)
                {
                    whole.LowerDirectory = directory;
                    whole.LowerName = realName;
                    whole.LowerStat = stat;
                    if (!found.HasUpper && search.IsMetacopy) { uppermostIsMetacopy = needsData = true; }
                }
                if (!search.IsMetacopy)
                {
                    needsData = false;
                    if (uppermostIsMetacopy) { whole.Metacopy = new RealName(directory, realName ?? name.ToArray()); }
                }
            }
            first = false;

            if (search.Stop) { break; }
            if (search.IsFromRoot && !ReferenceEquals(lowers, layers.LowerRoots))
            {
                lowers = layers.LowerRoots;
                i = lower.Layer.Index - 1; // the root has every layer: go on below this one
            }
        }

        if (MayNotFollow(followsMetacopy, followsRedirect)) { return Errno.EPERM; }
        if (needsData) { return Errno.EIO; }
        if (below.Count > 0) { whole.Lowers = [.. below]; }
        return Errno.None;
    }

    /// <summary>Whether the search must end with EPERM.</summary>
    /// <remarks>
    /// Metacopy and redirect both lead into the layers below, like a symbolic link, but without its permission checks.
    /// Kernel: ovl_lookup().
    /// </remarks>
    private bool MayNotFollow(bool metacopy, bool redirect) => (metacopy && !followMetacopies) || (redirect && !followRedirects);

    /// <summary>Finds the lower object that an object in upper was copied from.</summary>
    private void FindOrigin(ReadOnlySpan<byte> value, uint type, ref Whole whole)
    {
        if (!OriginHandle.TryDecode(value, out FileHandle handle, out ReadOnlySpan<byte> uuid)) { return; }
        foreach (Layer layer in layers.Lowers)
        {
            if (!layer.FindsOrigins || !uuid.SequenceEqual(layer.Uuid)) { continue; }
            if (Libc.OpenByHandle(layer.MountDescriptor, ref handle, OpenFlags.Path, out int descriptor).IsError) { continue; }
            Errno error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx origin);
            Libc.Close(descriptor);
            if (error.IsError || origin.Type != type) { return; }
            whole.HasOrigin = true;
            whole.OriginDevice = origin.Dev;
            whole.OriginIno = origin.Ino;
            return;
        }
    }
}
