using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Requests;

/// <summary>What the kernel is told of an inode.</summary>
internal static class Replies
{
    /// <summary>How long the kernel may trust names and attributes: nobody else changes the layers while mounted.</summary>
    public const ulong CacheSeconds = 24 * 60 * 60;

    /// <summary>For how many seconds the kernel may trust an inode's attributes.</summary>
    public static ulong AttrValidOf(Inode inode) => inode.ChangesUnseen ? 0 : CacheSeconds;

    /// <summary>The answer to whoever looks up, or makes, an object.</summary>
    public static EntryOut EntryOf(Inode inode, ulong nodeId, in Statx stat) => new()
    {
        NodeId = nodeId,
        EntryValid = CacheSeconds,
        AttrValid = AttrValidOf(inode),
        Attr = Attr.From(stat, inode.Ino, NlinkOf(inode, stat)),
    };

    /// <summary>What users see as st_nlink. A merged directory has 1, as with kernel overlayfs: find(1) then does not count on it.</summary>
    public static uint NlinkOf(Inode inode, in Statx stat)
    {
        if (inode.IsUnlinked) { return 0; }
        if (inode is DirectoryInode { IsMerged: true }) { return 1; }
        if (inode.IsKnownByName && !inode.IsDirectory) { return 1; } // each name is an object of its own
        return inode.Links is { } links ? links.Count : inode.WorkName is null ? stat.Nlink : stat.Nlink - 1;
    }
}
