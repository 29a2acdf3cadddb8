using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Lookup;

/// <summary>Searches one lower layer, and reads there what the search needs to know for the layers below.</summary>
/// <param name="reader">Reads names in the layers.</param>
/// <param name="xattr">The names of the overlay's attributes in the lowers.</param>
internal sealed class LayerSearch(LayerReader reader, OverlayXattr xattr)
{
    /// <summary>Looks in one layer for the name, or for the target of the redirect that was followed.</summary>
    /// <param name="lower">The layer's part of the directory. An absolute redirect leads from the layer's root instead.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="search">What the search has learned.</param>
    /// <param name="directory">The real directory that holds the object; null when the layer has nothing that counts.</param>
    /// <param name="realName">The object's name there, with its NUL; null means the name that was looked up.</param>
    /// <param name="stat">The object's attributes.</param>
    public Errno Find(RealDirectory lower, ReadOnlySpan<byte> name, ref Search search, out RealDirectory? directory,
        out byte[]? realName, out Statx stat)
    {
        directory = null;
        stat = default;
        realName = search.Path;
        if (!search.IsFromRoot)
        {
            Errno error = FindOne(lower, realName ?? name, default, default, true, ref search, out bool exists, out stat);
            if (exists) { directory = lower; }
            return error;
        }

        // An absolute path is walked component by component. A redirect on the way changes the path only for the layers
        // below, so the position is counted from the end of the path.
        RealDirectory current = lower.Layer.Root;
        int left = realName!.Length - 1;
        while (true)
        {
            byte[] path = search.Path!;
            ReadOnlySpan<byte> rest = path.AsSpan(path.Length - left);
            int length = rest.IndexOfAny((byte)'/', (byte)0);
            bool isEnd = rest[length] == 0;
            byte[] component = [.. rest[..length], 0];
            Errno error = FindOne(current, component, path.AsSpan(0, path.Length - left), rest[length..], isEnd, ref search,
                out bool exists, out stat);
            if (error.IsError || !exists) { return error; }
            if (isEnd)
            {
                directory = current;
                realName = component;
                return Errno.None;
            }
            current = new RealDirectory(current, component);
            left -= length + 1;
        }
    }

    /// <summary>Looks for one name in one real directory. Kernel: ovl_lookup_single().</summary>
    /// <param name="directory">The real directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="before">The part of the path before the name; empty without an absolute path.</param>
    /// <param name="after">The part of the path after the name, with its NUL; empty without an absolute path.</param>
    /// <param name="isEnd">Whether the name is the last component.</param>
    /// <param name="search">What the search has learned.</param>
    /// <param name="exists">Whether there is an object that counts.</param>
    /// <param name="stat">The object's attributes.</param>
    private Errno FindOne(RealDirectory directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> before, ReadOnlySpan<byte> after,
        bool isEnd, ref Search search, out bool exists, out Statx stat)
    {
        exists = false;
        stat = default;
        if (name is [0] or [(byte)'.', 0] or [(byte)'.', (byte)'.', 0]) { return Errno.EACCES; } // Kernel: lookup_noperm_common()
        Errno error = reader.Stat(directory, name, out stat, out exists);
        if (error.IsError || !exists) { return error; }
        if (reader.IsWhiteout(directory, name, stat))
        {
            search.Stop = true;
            exists = false;
            return Errno.None;
        }
        return Weigh(directory, name, before, after, isEnd, stat, ref search, out exists);
    }

    /// <summary>Judges what an object under the name that was looked up, which is no whiteout, means for the search.</summary>
    /// <inheritdoc cref="FindOne" path="/param"/>
    public Errno Weigh(RealDirectory directory, ReadOnlySpan<byte> name, in Statx stat, ref Search search, out bool exists) =>
        Weigh(directory, name, default, default, true, stat, ref search, out exists);

    /// <summary>Judges what a real object that exists, and is no whiteout, means for the search.</summary>
    /// <inheritdoc cref="FindOne" path="/param"/>
    private Errno Weigh(RealDirectory directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> before, ReadOnlySpan<byte> after,
        bool isEnd, in Statx stat, ref Search search, out bool exists)
    {
        exists = true;
        Errno error = reader.Borrow(directory, out BorrowedDirectory borrowed);
        if (error.IsError) { return error; }
        using (borrowed)
        {
            if (isEnd && search.IsMetacopy && !stat.IsRegular)
            {
                search.Stop = true;
                exists = false;
                return Errno.None;
            }
            if (!stat.IsDirectory)
            {
                if (search.IsDirectory || !isEnd)
                {
                    search.Stop = true;
                    exists = false;
                    return Errno.None;
                }
                search.IsMetacopy = false;
                if (stat.IsRegular)
                {
                    error = OverlayAttributes.ReadMetacopy(borrowed.Descriptor, name, xattr, out search.IsMetacopy);
                    if (error.IsError) { return error; }
                }
                search.Stop = !search.IsMetacopy;
                if (search.Stop || search.IsLast) { return Errno.None; }
            }
            else
            {
                if (reader.IsTrap(stat)) { return Errno.ELOOP; }
                if (search.IsLast) { return Errno.None; }
                if (OverlayAttributes.ReadFlag(borrowed.Descriptor, name, xattr.Opaque) == 'y')
                {
                    search.Stop = true;
                    return Errno.None;
                }
            }
            return search.FollowRedirect(borrowed.Descriptor, name, xattr, before, after);
        }
    }
}
