using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Requests;

/// <summary>Fills replies about inodes.</summary>
internal static class Replies
{
    /// <summary>How long the kernel may trust names and attributes, in seconds: nobody else changes the layers of a mount.</summary>
    public const ulong CacheSeconds = 24 * 60 * 60;

    /// <summary>How long the kernel may trust an inode's attributes, in seconds.</summary>
    public static ulong AttrValidOf(Inode inode) => inode.ChangesUnseen ? 0 : CacheSeconds;

    /// <summary>The entry that answers a request which looks up or makes an object.</summary>
    public static EntryOut EntryOf(Inode inode, ulong nodeId, in Statx stat) => new()
    {
        NodeId = nodeId,
        EntryValid = CacheSeconds,
        AttrValid = AttrValidOf(inode),
        Attr = Attr.From(stat, inode.Ino, NlinkOf(inode, stat)),
    };

    /// <summary>
    /// The st_nlink that users see. A merged directory has 1, as with kernel overlayfs, so that find(1) does not rely on it.
    /// </summary>
    public static uint NlinkOf(Inode inode, in Statx stat)
    {
        if (inode.IsUnlinked) { return 0; }
        if (inode is DirectoryInode { IsMerged: true }) { return 1; }
        if (inode.IsKnownByName && !inode.IsDirectory) { return 1; } // each name is an object of its own
        return inode.Links is { } links ? links.Count : inode.WorkName is null ? stat.Nlink : stat.Nlink - 1;
    }
}
