using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Lookup;

/// <summary>Reads what the attributes of an object in upper say about it and about the layers below.</summary>
/// <param name="reader">Reads names in the layers.</param>
/// <param name="layers">The layers.</param>
internal sealed class UpperAttributes(LayerReader reader, LayerStack layers)
{
    private readonly OverlayXattr xattr = layers.UpperXattr;

    /// <summary>
    /// Whether any owner of a file can write the overlay's attributes in upper, but not those in the lowers. Redirects and
    /// metacopies of upper are then not followed, as with userxattr.
    /// </summary>
    private readonly bool isForeign = layers.UpperXattr.IsUser && !layers.LowerXattr.IsUser;

    /// <summary>Reads the attributes. Caller holds the rename lock, shared.</summary>
    /// <param name="parent">The directory in upper.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="found">The object in upper.</param>
    /// <param name="whole">What is behind the object.</param>
    /// <param name="search">What the search has learned.</param>
    /// <param name="origin">Room for the origin handle, which names the object that this one was copied from.</param>
    /// <param name="originLength">The length of the origin handle in bytes; 0 when there is none.</param>
    /// <returns><see cref="Errno.EPERM"/> when a redirect or a metacopy would be followed that any user can have made.</returns>
    public Errno ReadLocked(RealDirectory parent, ReadOnlySpan<byte> name, in Found found, ref Whole whole, ref Search search,
        scoped Span<byte> origin, out int originLength)
    {
        reader.AssertNamesLocked();
        originLength = 0;
        Errno error = reader.Borrow(parent, out BorrowedDirectory borrowed);
        if (error.IsError) { return error; }
        using (borrowed)
        {
            int directory = borrowed.Descriptor;
            // Most objects have none of the attributes, which one call tells.
            var present = new XattrNames(directory, name, stackalloc byte[XattrNames.Room]);
            if (present.MayHave(xattr.ProtAttr)) { whole.Protection = ProtectionAttribute.Read(directory, name, xattr); }
            return found.Stat.IsDirectory
                ? ReadDirectory(directory, name, present, ref whole, ref search)
                : ReadFile(directory, name, present, found.Stat.IsRegular, ref search, origin, out originLength);
        }
    }

    private Errno ReadDirectory(int directory, ReadOnlySpan<byte> name, scoped XattrNames present, ref Whole whole, ref Search search)
    {
        whole.IsImpure = present.MayHave(xattr.Impure) && OverlayAttributes.ReadFlag(directory, name, xattr.Impure) == 'y';
        if (search.IsLast) { return Errno.None; }
        if (present.MayHave(xattr.Opaque) && OverlayAttributes.ReadFlag(directory, name, xattr.Opaque) == 'y')
        {
            whole.IsOpaque = search.Stop = true;
            return Errno.None;
        }
        if (!present.MayHave(xattr.Redirect)) { return Errno.None; }
        Errno error = search.FollowRedirect(directory, name, xattr);
        if (error.IsError) { return error; }
        if (search.Path is not { } path) { return Errno.None; }
        if (isForeign) { return Errno.EPERM; }
        whole.Redirect = path[..^1];
        return Errno.None;
    }

    /// <summary>Reads the attributes of what is no directory.</summary>
    private Errno ReadFile(int directory, ReadOnlySpan<byte> name, scoped XattrNames present, bool isRegular, ref Search search,
        scoped Span<byte> origin, out int originLength)
    {
        originLength = 0;
        if (present.MayHave(xattr.Origin) && Libc.GetXattrAt(directory, name, xattr.Origin, origin, out originLength).IsError)
        {
            originLength = 0;
        }
        if (isRegular && present.MayHave(xattr.Metacopy))
        {
            Errno error = OverlayAttributes.ReadMetacopy(directory, name, xattr, out search.IsMetacopy);
            if (error.IsError) { return error; }
        }
        search.Stop = !search.IsMetacopy;
        if (search.IsMetacopy && isForeign) { return Errno.EPERM; }
        return search.IsMetacopy && !search.IsLast ? search.FollowRedirect(directory, name, xattr) : Errno.None;
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
}
