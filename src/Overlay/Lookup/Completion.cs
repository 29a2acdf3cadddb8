using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Lookup;

/// <summary>The second step of a lookup: finds everything behind an object whose topmost real object is known.</summary>
/// <remarks>
/// Mirrors the kernel's ovl_lookup() below the topmost layer. Upper is read under the rename lock, shared; no lock is held while
/// lowers are read, so callers hold none.
/// </remarks>
/// <param name="reader">Reads the real directories.</param>
/// <param name="directories">Descriptors of real directories.</param>
/// <param name="layers">The layers.</param>
/// <param name="followRedirects">Whether redirects are followed. If not, they give EPERM.</param>
/// <param name="followMetacopies">Whether metacopies are followed to their data. If not, they give EPERM.</param>
internal sealed class Completion(
    LayerReader reader, DirectoryCache directories, LayerStack layers, bool followRedirects, bool followMetacopies)
{
    [ThreadStatic]
    private static List<RealDirectory>? collected;

    private readonly OverlayXattr upperXattr = layers.UpperXattr;
    private readonly OverlayXattr xattr = layers.LowerXattr;

    /// <summary>Finds everything behind an object whose topmost real object was found.</summary>
    /// <returns>
    /// <see cref="Errno.EPERM"/> for a redirect or a metacopy that may not be followed; <see cref="Errno.EIO"/> for a metacopy
    /// without data: only a regular file is data.
    /// </returns>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="found">What <see cref="LayeredLookup"/> has found, which exists.</param>
    /// <param name="whole">What is behind the object.</param>
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
            using (reader.ShareNames()) { error = ReadUpperLocked(parent.Upper!, name, found, ref whole, ref search, origin, out originLength); }
            if (error.IsError) { return error; }
            if (originLength > 0) { FindOrigin(origin[..originLength], found.Stat.Type, ref whole); }
            if (search.Path is [(byte)'/', ..]) { lowers = layers.LowerRoots; }
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
                error = Weigh(lower, name, default, default, true, stat, ref search, out bool counts);
                directory = counts ? lower : null;
            }
            else
            {
                error = FindInLayer(lower, name, ref search, out directory, out realName, out stat);
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
            if (search.Path is [(byte)'/', ..] && !ReferenceEquals(lowers, layers.LowerRoots))
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

    /// <summary>
    /// Whether any owner of a file can write the overlay's attributes in upper, but not those in the lowers. Redirects and
    /// metacopies of upper are then not followed, as with userxattr.
    /// </summary>
    private bool IsUpperForeign => upperXattr.IsUser && !xattr.IsUser;

    /// <summary>Whether the search must end with EPERM.</summary>
    /// <remarks>
    /// Metacopy and redirect both lead into the layers below, like a symbolic link, but without its permission checks.
    /// Kernel: ovl_lookup().
    /// </remarks>
    private bool MayNotFollow(bool metacopy, bool redirect) => (metacopy && !followMetacopies) || (redirect && !followRedirects);

    /// <summary>Reads what upper's attributes say about the object and about the layers below.</summary>
    /// <param name="parent">The directory in upper.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="found">The topmost real object.</param>
    /// <param name="whole">What is behind the object.</param>
    /// <param name="search">What the search has learned.</param>
    /// <param name="origin">Room for the origin handle, which names the object that this one was copied from.</param>
    /// <param name="originLength">The length of the origin handle in bytes; 0 when there is none.</param>
    private Errno ReadUpperLocked(RealDirectory parent, ReadOnlySpan<byte> name, in Found found, ref Whole whole, ref Search search,
        scoped Span<byte> origin, out int originLength)
    {
        reader.AssertNamesShared();
        originLength = 0;
        Errno error = directories.Borrow(parent, out BorrowedDirectory borrowed);
        if (error.IsError) { return error; }
        using (borrowed) { return ReadUpper(borrowed.Descriptor, name, found, ref whole, ref search, origin, out originLength); }
    }

    /// <inheritdoc cref="ReadUpperLocked" path="/param"/>
    private Errno ReadUpper(int directory, ReadOnlySpan<byte> name, in Found found, ref Whole whole, ref Search search,
        scoped Span<byte> origin, out int originLength)
    {
        originLength = 0;
        // Most objects have none of the attributes, which one call tells.
        var present = new XattrNames(directory, name, stackalloc byte[XattrNames.Room]);
        if (present.MayHave(upperXattr.ProtAttr)) { whole.Protection = ProtectionAttribute.Read(directory, name, upperXattr); }
        if (found.Stat.IsDirectory)
        {
            whole.IsImpure = present.MayHave(upperXattr.Impure) && OverlayAttributes.ReadFlag(directory, name, upperXattr.Impure) == 'y';
            if (search.IsLast) { return Errno.None; }
            if (present.MayHave(upperXattr.Opaque) && OverlayAttributes.ReadFlag(directory, name, upperXattr.Opaque) == 'y')
            {
                whole.IsOpaque = search.Stop = true;
                return Errno.None;
            }
            if (!present.MayHave(upperXattr.Redirect)) { return Errno.None; }
            Errno error = FollowRedirect(directory, name, name, default, ref search, upperXattr);
            if (error.IsError) { return error; }
            if (search.Path is not { } path) { return Errno.None; }
            if (IsUpperForeign) { return Errno.EPERM; }
            whole.Redirect = path[..^1];
            return Errno.None;
        }
        if (present.MayHave(upperXattr.Origin)
            && Libc.GetXattrAt(directory, name, upperXattr.Origin, origin, out originLength).IsError)
        {
            originLength = 0;
        }
        if (found.Stat.IsRegular && present.MayHave(upperXattr.Metacopy))
        {
            Errno error = OverlayAttributes.ReadMetacopy(directory, name, upperXattr, out search.IsMetacopy);
            if (error.IsError) { return error; }
        }
        search.Stop = !search.IsMetacopy;
        if (search.IsMetacopy && IsUpperForeign) { return Errno.EPERM; }
        return search.IsMetacopy && !search.IsLast ? FollowRedirect(directory, name, name, default, ref search, upperXattr) : Errno.None;
    }

    /// <summary>What a search through the layers has learned so far. Kernel: struct ovl_lookup_data.</summary>
    private ref struct Search(bool isDirectory)
    {
        /// <summary>Whether the search is for a directory.</summary>
        public bool IsDirectory = isDirectory;
        /// <summary>Whether the search has ended: nothing in the layers below counts.</summary>
        public bool Stop;
        /// <summary>Whether this is the lowest layer, so that attributes which lead further down are not read.</summary>
        public bool IsLast;
        /// <summary>Whether the last file that was found is a metacopy.</summary>
        public bool IsMetacopy;
        /// <summary>
        /// The redirect to look for instead of the name: a name, or a path from the root; with its NUL. Null without a
        /// redirect.
        /// </summary>
        public byte[]? Path;
    }

    /// <summary>Looks in one layer for the name, or for the target of the redirect that was followed.</summary>
    private Errno FindInLayer(RealDirectory lower, ReadOnlySpan<byte> name, ref Search search, out RealDirectory? directory,
        out byte[]? realName, out Statx stat)
    {
        directory = null;
        stat = default;
        realName = search.Path;
        if (realName is not [(byte)'/', ..])
        {
            Errno error = FindOne(lower, realName ?? name, default, default, true, ref search, out bool exists, out stat);
            if (exists) { directory = lower; }
            return error;
        }

        // An absolute path is walked component by component. A redirect on the way changes the path only for the layers
        // below, so the position is counted from the end of the path.
        RealDirectory current = lower.Layer.Root;
        int left = realName.Length - 1;
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
    /// <param name="before">The part of the path before the name.</param>
    /// <param name="after">The part of the path after the name, with its NUL.</param>
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

    /// <summary>Judges what a real object that exists, and is no whiteout, means for the search.</summary>
    /// <inheritdoc cref="FindOne" path="/param"/>
    private Errno Weigh(RealDirectory directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> before, ReadOnlySpan<byte> after,
        bool isEnd, in Statx stat, ref Search search, out bool exists)
    {
        exists = true;
        Errno error = directories.Borrow(directory, out BorrowedDirectory borrowed);
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
            return FollowRedirect(borrowed.Descriptor, name, before, after, ref search, xattr, isEnd && before.IsEmpty);
        }
    }

    /// <summary>Reads the redirect of an object. The layers below are searched for what it says.</summary>
    private static Errno FollowRedirect(int directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> before, ReadOnlySpan<byte> after,
        ref Search search, OverlayXattr xattr, bool relative = true)
    {
        Errno error = OverlayAttributes.ReadRedirect(directory, name, xattr, stackalloc byte[1024], out ReadOnlySpan<byte> redirect);
        if (error.IsNoXattr) { return Errno.None; }
        if (error.IsError) { return error; }
        bool isAbsolute = redirect is [(byte)'/', ..];
        if (relative)
        {
            search.Path = [.. redirect, 0];
        }
        else
        {
            search.Path = isAbsolute ? [.. redirect, .. after] : [.. before, .. redirect, .. after];
        }
        // An opaque ancestor stops the search, but an absolute redirect leads elsewhere.
        if (isAbsolute) { search.Stop = false; }
        return Errno.None;
    }

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
