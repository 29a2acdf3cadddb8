using System.Diagnostics;
using System.Runtime.CompilerServices;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

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
/// <param name="directories">Descriptors of real directories.</param>
/// <param name="layers">The layers.</param>
/// <param name="followRedirects">Whether redirects are followed. If not, they give EPERM.</param>
/// <param name="followMetacopies">Whether metacopies are followed to their data. If not, they give EPERM.</param>
internal sealed class LayeredLookup(DirectoryCache directories, LayerStack layers, bool followRedirects, bool followMetacopies)
{
    [ThreadStatic]
    private static List<RealDirectory>? collected;

    private readonly OverlayXattr upperXattr = layers.UpperXattr;
    private readonly OverlayXattr xattr = layers.LowerXattr;

    /// <summary>The lock that is held, shared, while upper is read; null where nothing is renamed.</summary>
    public SharedLock? RenameLock { get; init; }

    private SharedLock.Scope ShareNames() => RenameLock is { } renames ? renames.Share() : default;

    [Conditional("LOCK_ORDER")]
    private void AssertNamesShared([CallerMemberName] string member = "")
    {
        if (RenameLock is not null) { LockOrder.AssertHeld(OverlayLocks.Rename, member: member); }
    }

    /// <summary>Checks that the rename lock is not held, since a lower may take any time to answer. See ADR 20.</summary>
    [Conditional("LOCK_ORDER")]
    private void AssertMayWait([CallerMemberName] string member = "")
    {
        if (RenameLock is not null) { LockOrder.AssertNotHeld(OverlayLocks.Rename, member); }
    }

    /// <summary>Whether many lookups will follow, so that reading all names of directories with many lowers is worthwhile.</summary>
    public bool RemembersLowers { get; init; }

    /// <summary>Finds the owners of objects; null for callers that do not need owners.</summary>
    public Owners? Owners { get; init; }

    /// <summary>Upper and work as they appear if they lie inside a lower layer: st_dev and st_ino.</summary>
    /// <remarks>To enter them through a lower gives ELOOP. Kernel: ovl_lookup_trap_inode().</remarks>
    public (ulong Device, ulong Ino)[] Traps { get; init; } = [];

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
        AssertNamesShared();
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
            using (ShareNames()) { return FindUpperLocked(parent, name, out found, out isDecided); }
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
        AssertNamesShared();
        found = default;
        isDecided = false;
        Errno error = CheckLength(name);
        if (error.IsError || parent.Upper is not { } upper) { return error; }
        error = StatIn(upper, name, out found.Stat, out isDecided);
        if (error.IsError || !isDecided) { return error; }
        if (IsWhiteout(upper, name, found.Stat)) { found.IsWhiteout = true; }
        else { found.Exists = found.HasUpper = true; }
        return Errno.None;
    }

    private Errno CheckLength(ReadOnlySpan<byte> name) => name.Length - 1 > layers.NameLength ? Errno.ENAMETOOLONG : Errno.None;

    private Errno FindLower(DirectoryStack parent, ReadOnlySpan<byte> name, int first, ref Found found)
    {
        AssertMayWait();
        RealDirectory[] lowers = parent.Lowers;
        if (NamesOf(parent) is { } names)
        {
            int topmost = names.FirstOf(name);
            if (topmost < 0) { return Errno.None; }
            first = Math.Max(first, topmost);
        }
        for (int i = first; i < lowers.Length; i++)
        {
            Errno error = StatIn(lowers[i], name, out Statx stat, out bool exists);
            if (error.IsError) { return error; }
            if (!exists)
            {
                parent.Misses++;
                continue;
            }
            if (IsWhiteout(lowers[i], name, stat)) { return Errno.None; }
            if (IsTrap(stat)) { return Errno.ELOOP; }
            found.Exists = true;
            found.Stat = stat;
            found.LowerDirectory = lowers[i];
            found.LowerPosition = i;
            return Errno.None;
        }
        return Errno.None;
    }

    /// <summary>
    /// Which of the parent's lowers have which names. They are read once so many lowers were asked in vain that reading them
    /// all costs no more. Null before that, and when they cannot be read.
    /// </summary>
    private LowerNames? NamesOf(DirectoryStack parent)
    {
        const int worthwhile = 4, missesPerLower = 8;
        if (!RemembersLowers || parent.LowerNames is not null || parent.Lowers.Length < worthwhile
            || parent.Misses < parent.Lowers.Length * missesPerLower)
        {
            return parent.LowerNames;
        }
        parent.LowerNames = LowerNames.Read(directories, parent.Lowers);
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
    public Errno Complete(DirectoryStack parent, ReadOnlySpan<byte> name, in Found found, out Whole whole)
    {
        AssertMayWait();
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
            using (ShareNames()) { error = ReadUpperLocked(parent.Upper!, name, found, ref whole, ref search, origin, out originLength); }
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
        AssertNamesShared();
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
            whole.IsImpure = present.MayHave(upperXattr.Impure) && ReadFlag(directory, name, upperXattr.Impure) == 'y';
            if (search.IsLast) { return Errno.None; }
            if (present.MayHave(upperXattr.Opaque) && ReadFlag(directory, name, upperXattr.Opaque) == 'y')
            {
                whole.IsOpaque = search.Stop = true;
                return Errno.None;
            }
            if (!present.MayHave(upperXattr.Redirect)) { return Errno.None; }
            Errno error = ReadRedirect(directory, name, name, default, ref search, upperXattr);
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
            Errno error = ReadMetacopy(directory, name, upperXattr, out search.IsMetacopy);
            if (error.IsError) { return error; }
        }
        search.Stop = !search.IsMetacopy;
        if (search.IsMetacopy && IsUpperForeign) { return Errno.EPERM; }
        return search.IsMetacopy && !search.IsLast ? ReadRedirect(directory, name, name, default, ref search, upperXattr) : Errno.None;
    }

    /// <summary>The names of an object's extended attributes, read by one call.</summary>
    private readonly ref struct XattrNames
    {
        /// <summary>Room for the names, in bytes. When they need more, every attribute is read.</summary>
        public const int Room = 1024;

        private readonly ReadOnlySpan<byte> list;
        private readonly bool isUnknown;

        public XattrNames(int directory, ReadOnlySpan<byte> name, Span<byte> space)
        {
            Errno error = Libc.ListXattrAt(directory, name, space, out int length);
            isUnknown = error.IsError && error != Errno.EOPNOTSUPP;
            list = error.IsError ? default : space[..length];
        }

        /// <summary>Whether the object may have an attribute, so that reading it is worthwhile.</summary>
        /// <param name="attribute">The attribute's name. Its NUL keeps a longer name from matching.</param>
        public bool MayHave(ReadOnlySpan<byte> attribute) => isUnknown || list.IndexOf(attribute) >= 0;
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
        Errno error = StatIn(directory, name, out stat, out exists);
        if (error.IsError || !exists) { return error; }
        if (IsWhiteout(directory, name, stat))
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
                    error = ReadMetacopy(borrowed.Descriptor, name, xattr, out search.IsMetacopy);
                    if (error.IsError) { return error; }
                }
                search.Stop = !search.IsMetacopy;
                if (search.Stop || search.IsLast) { return Errno.None; }
            }
            else
            {
                if (IsTrap(stat)) { return Errno.ELOOP; }
                if (search.IsLast) { return Errno.None; }
                if (ReadFlag(borrowed.Descriptor, name, xattr.Opaque) == 'y')
                {
                    search.Stop = true;
                    return Errno.None;
                }
            }
            return ReadRedirect(borrowed.Descriptor, name, before, after, ref search, xattr, isEnd && before.IsEmpty);
        }
    }

    private static Errno ReadRedirect(int directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> before, ReadOnlySpan<byte> after,
        ref Search search, OverlayXattr xattr, bool relative = true)
    {
        Span<byte> value = stackalloc byte[1024];
        Errno error = Libc.GetXattrAt(directory, name, xattr.Redirect, value, out int length);
        if (error.IsNoXattr) { return Errno.None; }
        if (error == Errno.ERANGE)
        {
            value = new byte[Redirect.MaxStored];
            error = Libc.GetXattrAt(directory, name, xattr.Redirect, value, out length);
        }
        if (error.IsError) { return error; }
        if (!Redirect.TryRead(value[..length], out ReadOnlySpan<byte> redirect)) { return Errno.EINVAL; }
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

    /// <summary>Whether a regular file is a metacopy. Kernel: ovl_check_metacopy_xattr().</summary>
    /// <returns><see cref="Errno.EIO"/> when the attribute's value is too short for any version of the format.</returns>
    private static Errno ReadMetacopy(int directory, ReadOnlySpan<byte> name, OverlayXattr xattr, out bool isMetacopy)
    {
        const int shortest = 4;
        isMetacopy = false;
        Errno error = Libc.GetXattrAt(directory, name, xattr.Metacopy, default, out int length);
        // A server that may not read the file may not read its user.* attributes either.
        if (error.IsNoXattr || (error == Errno.EACCES && xattr.IsUser)) { return Errno.None; }
        if (error.IsError) { return error; }
        if (length is > 0 and < shortest) { return Errno.EIO; }
        isMetacopy = true;
        return Errno.None;
    }

    /// <summary>Reads an attribute whose value is one byte.</summary>
    /// <returns>The byte, or 0 when there is no such attribute or its value is longer.</returns>
    private static byte ReadFlag(int directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> attribute)
    {
        Span<byte> value = stackalloc byte[1];
        Errno error = Libc.GetXattrAt(directory, name, attribute, value, out int length);
        return error.IsError || length != 1 ? (byte)0 : value[0];
    }

    /// <summary>Whether a real object is a whiteout: a device 0:0, or an empty file with the whiteout attribute.</summary>
    public bool IsWhiteout(RealDirectory directory, ReadOnlySpan<byte> name, in Statx stat)
    {
        if (stat.IsWhiteoutDevice) { return true; }
        if (!stat.IsRegular || stat.Size != 0) { return false; }
        if (directories.Borrow(directory, out BorrowedDirectory borrowed).IsError) { return false; }
        using (borrowed) { return IsWhiteout(borrowed.Descriptor, name, stat, directory.Layer.IsUpper); }
    }

    /// <summary>Whether a real object in an open directory is a whiteout.</summary>
    public bool IsWhiteout(int directory, ReadOnlySpan<byte> name, in Statx stat, bool isUpper) =>
        stat.IsWhiteoutDevice || (stat.IsRegular && stat.Size == 0
            && !Libc.GetXattrAt(directory, name, (isUpper ? upperXattr : xattr).Whiteout, default, out _).IsError);

    /// <summary>Opens a real directory for listing. Caller holds no lock.</summary>
    /// <param name="directory">The real directory.</param>
    /// <param name="descriptor">Its descriptor, which the caller closes; -1 after an error.</param>
    public Errno OpenDirectory(RealDirectory directory, out int descriptor)
    {
        using SharedLock.Scope names = directory.Layer.IsUpper ? ShareNames() : default;
        descriptor = -1;
        Errno error = directories.Borrow(directory, out BorrowedDirectory borrowed);
        if (error.IsError) { return error; }
        using var real = new RealReference(borrowed, ".\0"u8);
        return real.Open(OpenFlags.ReadOnly | OpenFlags.Directory, out descriptor);
    }

    private bool IsTrap(in Statx stat)
    {
        if (!stat.IsDirectory) { return false; }
        foreach ((ulong device, ulong ino) in Traps)
        {
            if (stat.Ino == ino && stat.Dev == device) { return true; }
        }
        return false;
    }

    private Errno StatIn(RealDirectory directory, ReadOnlySpan<byte> name, out Statx stat, out bool exists)
    {
        Errno error = directories.Borrow(directory, out BorrowedDirectory borrowed);
        if (error.IsError)
        {
            stat = default;
            exists = false;
            return error;
        }
        using (borrowed)
        {
            error = Libc.StatAt(borrowed.Descriptor, name, StatxMask.Basic, out stat);
            if (!error.IsError) { Owners?.Mark(borrowed.Descriptor, name, ref stat); }
        }
        exists = !error.IsError;
        // The name limit of a lower may be shorter than upper's: a longer name cannot exist there. Kernel: ovl_lookup_single()
        return error is Errno.ENOENT or Errno.ENAMETOOLONG ? Errno.None : error;
    }
}
