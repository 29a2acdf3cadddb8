using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tree;

/// <summary>Makes inodes for objects that were found in the layers.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="isWritable">Whether there is an upper.</param>
internal sealed class InodeMaker(ObjectTree tree, bool isWritable)
{
    /// <summary>The size below which a lower file is not checked for being a program or a library: those are larger.</summary>
    public const ulong SmallestImage = 8 << 10;

    /// <summary>Makes the inode of an object that was found. The caller enters it in the table.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="found">The topmost real object.</param>
    /// <param name="whole">What is behind it.</param>
    /// <param name="key">The object's key.</param>
    /// <param name="ino">Which st_ino the inode should have.</param>
    public Inode NewInode(DirectoryInode parent, ReadOnlySpan<byte> name, in Found found, in Whole whole, RealKey key, out InoChoice ino)
    {
        Inode inode;
        if (found.Stat.IsDirectory)
        {
            byte[] ownName = name.ToArray();
            var directory = new DirectoryInode(parent.Stack.Child(ownName, found.HasUpper, whole))
            {
                Redirect = whole.Redirect,
                Type = found.Stat.Type,
                IsOpaque = whole.IsOpaque,
                IsImpure = whole.IsImpure,
            };
            directory.SetNameLocked(ownName);
            inode = directory;
        }
        else
        {
            inode = tree.Inodes.Make(name);
            inode.LowerDirectory = whole.LowerDirectory;
            inode.Type = found.Stat.Type;
            inode.Metacopy = whole.Metacopy;
            if (found.HasUpper) { inode.BecomeUpperLocked(); }
            inode.IsSmall = !found.HasUpper && found.Stat.Size < SmallestImage;
            inode.HasOrigin = whole.HasOrigin || (found.HasUpper && tree.Numbers.TryGetRemembered(key, out _));
            if (whole.LowerName is { } lowerName) { inode.SetLowerName(lowerName); }
            if (isWritable && !found.HasUpper && found.Stat.Nlink > 1 && !key.IsByName) { inode.BeginLinks(found.Stat.Nlink); }
        }
        inode.Parent = parent;
        Layer layer = (found.HasUpper ? parent.Upper! : found.LowerDirectory!).Layer;
        inode.Protection = whole.Protection | (layer.FileSystem.HasFileFlags ? Protections.Of(found.Stat) : Protection.None);
        inode.Key = key;
        ino = InoOf(name, found, whole, key);
        inode.Ino = ino.Ino;
        return inode;
    }

    /// <summary>Which st_ino an object should have: the number of the lower object that it was copied up from, or its own.</summary>
    public InoChoice InoOf(ReadOnlySpan<byte> name, in Found found, in Whole whole, RealKey key)
    {
        if (!found.HasUpper && key.IsByName) { return InoChoice.OfReal(InodeNumbers.NumberOfName(found.LowerDirectory!, name)); }
        ulong own = tree.Numbers.Number(tree.Numbers.Key(found.Stat.Dev, found.Stat.Ino));
        if (found.Stat.IsDirectory && whole.Lowers is [var lower, ..])
        {
            if (lower.Layer.Identity.IsByName(whole.LowerStat))
            {
                return new InoChoice(InodeNumbers.NumberOfName(lower.Parent!, lower.Name), own, null);
            }
            RealKey merged = tree.Numbers.Key(whole.LowerStat.Dev, whole.LowerStat.Ino);
            return new InoChoice(tree.Numbers.Number(merged), own, merged);
        }
        if (whole.HasOrigin)
        {
            RealKey origin = tree.Numbers.Key(whole.OriginDevice, whole.OriginIno);
            return new InoChoice(tree.Numbers.Number(origin), own, origin);
        }
        return found.HasUpper && tree.Numbers.TryGetRemembered(key, out ulong kept)
            ? new InoChoice(kept, own, null)
            : InoChoice.OfReal(own);
    }

    /// <summary>Makes the inode of an object that was just created in upper, with nothing below it.</summary>
    /// <param name="parent">The directory; null when the object has no name.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="stat">The attributes of the real object.</param>
    public Inode NewUpperInode(DirectoryInode? parent, ReadOnlySpan<byte> name, in Statx stat)
    {
        RealKey key = tree.Keys.InUpper(parent, name, stat);
        Inode inode;
        if (stat.IsDirectory)
        {
            byte[] ownName = name.ToArray();
            inode = new DirectoryInode(new DirectoryStack(new RealDirectory(parent!.Upper!, ownName), []));
            inode.SetNameLocked(ownName);
        }
        else
        {
            inode = tree.Inodes.Make(name);
            inode.BecomeUpperLocked();
        }
        inode.Type = stat.Type;
        inode.Parent = parent;
        inode.Key = key;
        inode.Ino = tree.Numbers.Number(tree.Numbers.Key(stat.Dev, stat.Ino));
        return inode;
    }
}
