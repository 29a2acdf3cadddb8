using Veneer.Linux;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Lookup;

/// <summary>Finds a name in the layers: upper first; a whiteout, an opaque directory or a non-directory ends the search.</summary>
/// <remarks>
/// Mirrors the kernel's ovl_lookup(), but in two steps, since most lookups lead to an inode that is known already:
/// <see cref="Find(DirectoryStack, ReadOnlySpan{byte}, out Found, int)"/> finds the topmost real object, and
/// <see cref="Complete"/> finds everything below it.
/// <para>
/// Upper is read under the rename lock, shared. No lock is held while lowers are read: that may take any time, and lowers
/// do not change. So callers hold no lock. Methods that end in Locked are the exception; they read upper only.
/// </para>
/// </remarks>
/// <param name="reader">Reads names in the layers.</param>
/// <param name="layers">The layers.</param>
/// <param name="followRedirects">Whether redirects are followed. If not, they give EPERM.</param>
/// <param name="followMetacopies">Whether metacopies are followed to their data. If not, they give EPERM.</param>
internal sealed class LayeredLookup(LayerReader reader, LayerStack layers, bool followRedirects, bool followMetacopies)
{
    private readonly LayerDescent descent = new(reader, layers, followRedirects, followMetacopies);
    private readonly int nameLength = layers.NameLength;

    /// <summary>Whether many lookups will follow, so that reading all names of directories with many lowers is worthwhile.</summary>
    public bool RemembersLowers { get; init; }

    /// <summary>Finds the topmost real object under a name.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="found">What was found; <see cref="Found.Exists"/> is false when users see nothing.</param>
    /// <param name="firstLower">The first of the parent's lowers that can have the name.</param>
    public Errno Find(DirectoryStack parent, ReadOnlySpan<byte> name, out Found found, int firstLower = 0)
    {
        Errno error = FindUpper(parent, name, out found, out bool isDecided);
        return error.IsError || isDecided ? error : FindLower(parent, name, firstLower, ref found);
    }

    /// <summary>Finds the topmost real object under a name, and keeps what the lowers have for the caller's next call.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="below">What the lowers have under the name. It is filled in if upper has nothing and it is not yet known.</param>
    /// <param name="found">What was found; <see cref="Found.Exists"/> is false when users see nothing.</param>
    public Errno Find(DirectoryStack parent, ReadOnlySpan<byte> name, ref Below below, out Found found)
    {
        Errno error = FindUpper(parent, name, out found, out bool isDecided);
        if (error.IsError || isDecided) { return error; }
        if (!below.IsKnown) { below = FindBelow(parent, name); }
        found = below.Found;
        return below.Error;
    }

    /// <summary>Finds the topmost real object under a name without reading the lowers. Caller holds the rename lock.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="below">What the lowers have under the name, if that is known.</param>
    /// <param name="found">What was found; <see cref="Found.Exists"/> is false when users see nothing.</param>
    /// <returns><see cref="Errno.EAGAIN"/> when the answer depends on the lowers, and <paramref name="below"/> is not known.</returns>
    public Errno FindLocked(DirectoryStack parent, ReadOnlySpan<byte> name, in Below below, out Found found)
    {
        reader.AssertNamesLocked();
        Errno error = FindUpperLocked(parent, name, out found, out bool isDecided);
        if (error.IsError || isDecided) { return error; }
        if (!below.IsKnown && parent.Lowers.Length > 0) { return Errno.EAGAIN; }
        found = below.Found;
        return below.Error;
    }

    /// <summary>Finds what the lowers have under a name, regardless of upper. The answer does not change.</summary>
    public Below FindBelow(DirectoryStack parent, ReadOnlySpan<byte> name)
    {
        var below = new Below { IsKnown = true };
        below.Error = FindLower(parent, name, 0, ref below.Found);
        return below;
    }

    private Errno FindUpper(DirectoryStack parent, ReadOnlySpan<byte> name, out Found found, out bool isDecided)
    {
        if (parent.Upper is not null)
        {
            using (reader.ShareNames()) { return FindUpperLocked(parent, name, out found, out isDecided); }
        }
        found = default;
        isDecided = false;
        return CheckLength(name);
    }

    /// <summary>Looks for a name in upper.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="found">What upper has under the name.</param>
    /// <param name="isDecided">Whether upper has something under the name, an object or a whiteout.</param>
    private Errno FindUpperLocked(DirectoryStack parent, ReadOnlySpan<byte> name, out Found found, out bool isDecided)
    {
        reader.AssertNamesLocked();
        found = default;
        isDecided = false;
        Errno error = CheckLength(name);
        if (error.IsError || parent.Upper is not { } upper) { return error; }
        error = reader.Stat(upper, name, out found.Stat, out isDecided);
        if (error.IsError || !isDecided) { return error; }
        if (reader.IsWhiteout(upper, name, found.Stat)) { found.IsWhiteout = true; }
        else { found.Exists = found.HasUpper = true; }
        return Errno.None;
    }

    private Errno CheckLength(ReadOnlySpan<byte> name) => name.Length - 1 > nameLength ? Errno.ENAMETOOLONG : Errno.None;

    private Errno FindLower(DirectoryStack parent, ReadOnlySpan<byte> name, int first, ref Found found)
    {
        reader.AssertMayWait();
        RealDirectory[] lowers = parent.Lowers;
        if (NamesOf(parent) is { } names)
        {
            int topmost = names.FirstOf(name);
            if (topmost < 0) { return Errno.None; }
            first = Math.Max(first, topmost);
        }
        for (int i = first; i < lowers.Length; i++)
        {
            Errno error = reader.Stat(lowers[i], name, out Statx stat, out bool exists);
            if (error.IsError) { return error; }
            if (!exists)
            {
                parent.Misses++;
                continue;
            }
            if (reader.IsWhiteout(lowers[i], name, stat)) { return Errno.None; }
            if (reader.IsTrap(stat)) { return Errno.ELOOP; }
            found.Exists = true;
            found.Stat = stat;
            found.LowerDirectory = lowers[i];
            found.LowerPosition = i;
            return Errno.None;
        }
        return Errno.None;
    }

    /// <summary>
    /// Which of the parent's lowers have which names. The names are read as soon as so many lowers were asked in vain that
    /// reading all names costs no more. Null before that, and when the lowers cannot be read.
    /// </summary>
    private LowerNames? NamesOf(DirectoryStack parent)
    {
        const int worthwhile = 4, missesPerLower = 8;
        if (!RemembersLowers || parent.LowerNames is not null || parent.Lowers.Length < worthwhile
            || parent.Misses < parent.Lowers.Length * missesPerLower)
        {
            return parent.LowerNames;
        }
        parent.LowerNames = LowerNames.Read(reader, parent.Lowers);
        if (parent.LowerNames is null) { parent.Misses = int.MinValue; } // not again soon
        return parent.LowerNames;
    }

    /// <summary>Finds everything behind an object whose topmost real object was found.</summary>
    /// <returns>
    /// <see cref="Errno.EPERM"/> for a redirect or a metacopy that may not be followed; <see cref="Errno.EIO"/> for a metacopy
    /// without data: only a regular file is data.
    /// </returns>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="found">What <see cref="Find(DirectoryStack, ReadOnlySpan{byte}, out Found, int)"/> has found, which exists.</param>
    /// <param name="whole">What is behind the object.</param>
    public Errno Complete(DirectoryStack parent, ReadOnlySpan<byte> name, in Found found, out Whole whole) =>
        descent.Complete(parent, name, found, out whole);
}
