using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tree;

/// <summary>Chooses what identifies a real object: its number, or its place where numbers are not reliable. See ADR 18.</summary>
/// <param name="numbers">The numbers of filesystems.</param>
/// <param name="layers">The layers.</param>
internal sealed class ObjectKeys(InodeNumbers numbers, LayerStack layers)
{
    /// <summary>
    /// Whether two files of upper may have one number. Then a directory is identified by its place: see <see cref="InUpper"/>.
    /// </summary>
    public bool DoubtsUpper => layers.UpperIdentity == RealIdentity.Names;

    /// <summary>The key of an object of upper.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="stat">The object's attributes.</param>
    /// <remarks>
    /// A directory has one name, so its place identifies it, and <see cref="InodeTable.MoveLocked"/> changes the key. A file may have
    /// several names, so its number identifies it. Where another file may have the same number, a link tells them apart
    /// (Upper/SameFile).
    /// </remarks>
    public RealKey InUpper(DirectoryInode? parent, ReadOnlySpan<byte> name, in Statx stat) =>
        stat.IsDirectory && layers.UpperIdentity.IsByName(isDirectory: true)
            ? InodeNumbers.KeyOfName(parent!.NodeId, name)
            : numbers.Key(stat.Dev, stat.Ino);

    /// <summary>The key of an object that was looked up.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="found">The topmost real object.</param>
    public RealKey Of(DirectoryInode parent, ReadOnlySpan<byte> name, in Found found) =>
        found.HasUpper ? InUpper(parent, name, found.Stat)
            : found.LowerDirectory!.Layer.Identity.IsByName(found.Stat) ? InodeNumbers.KeyOfName(parent.NodeId, name)
            : numbers.Key(found.Stat.Dev, found.Stat.Ino);

    /// <summary>The key of the object of an entry in a listing.</summary>
    public RealKey Of(DirectoryInode directory, MergedDirectory listing, int index)
    {
        bool isDirectory = listing.TypeOf(index) == FileType.Directory >> 12;
        bool isByName = listing.IsUpper(index)
            ? isDirectory && layers.UpperIdentity.IsByName(isDirectory)
            : directory.Lowers[listing.FirstLower(index)].Layer.Identity.IsByName(isDirectory);
        if (isByName) { return InodeNumbers.KeyOfName(directory.NodeId, listing.NameOf(index)); }
        (ulong device, ulong ino) = listing.RealNumber(index);
        return numbers.Key(device, ino);
    }
}
