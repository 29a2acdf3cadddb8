using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>Gives a copy everything of the lower object but its data.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
internal sealed class AttributeCopy(ObjectTree tree, UpperLayer upper)
{
    /// <summary>Copies the owner. This comes first: it may be refused, and then no data should have been copied in vain.</summary>
    /// <param name="stat">The attributes of the lower object.</param>
    /// <param name="directory">A descriptor of the directory that has the copy, or of the copy itself.</param>
    /// <param name="name">The name of the copy, with its NUL; empty but for the NUL if <paramref name="directory"/> is the copy.</param>
    /// <returns><see cref="Errno.EPERM"/> when this process may not give files to the owner.</returns>
    public Errno SetOwner(in Statx stat, int directory, ReadOnlySpan<byte> name) =>
        // A new object has our owner. No chown is needed if the copy is to have the same.
        stat.Uid == 0 && stat.Gid == 0 && upper.Work!.GivesRoot
            ? Errno.None
            : Libc.ChangeOwnerAt(directory, name, stat.Uid, stat.Gid);

    /// <summary>Copies extended attributes, mode and times, in the order in which no step undoes an earlier one.</summary>
    /// <remarks>
    /// A write drops security.capability. So does chown, which also clears set-user-id. chmod and utimens leave both alone. So
    /// <see cref="SetOwner"/> and the data come before.
    /// </remarks>
    /// <param name="inode">The object.</param>
    /// <param name="source">The lower object that has the attributes.</param>
    /// <param name="stat">The attributes of <paramref name="source"/>.</param>
    /// <param name="directory">A descriptor of the directory that has the copy, or of the copy itself.</param>
    /// <param name="name">The name of the copy, with its NUL; empty but for the NUL if <paramref name="directory"/> is the copy.</param>
    public Errno Run(Inode inode, in RealReference source, in Statx stat, int directory, ReadOnlySpan<byte> name)
    {
        Errno error = XattrCopy.Run(source.Directory, source.Name, tree.LowerXattr, directory, name, tree.Xattr);
        if (error.IsError) { return error; }
        if (stat.IsRegular || stat.IsDirectory)
        {
            error = FileFlags.CopyUp(source, stat, directory, name, tree.Xattr);
            if (error.IsError) { return error; }
        }
        if (stat.IsDirectory || stat.Nlink == 1)
        {
            error = SetOrigin(source, directory, name, out inode.FindsOrigin);
            if (error.IsError) { return error; }
        }
        if (!stat.IsSymbolicLink)
        {
            error = Libc.ChangeModeAt(directory, name, stat.Mode & ModeBits.Mask);
            if (error.IsError) { return error; }
        }
        return Libc.ChangeTimesAt(directory, name, TimeSpec.From(stat.AccessTime), TimeSpec.From(stat.ModifyTime));
    }

    /// <summary>Notes the lower object in the copy, so that the object keeps its inode number. Kernel: ovl_set_origin_fh().</summary>
    private Errno SetOrigin(in RealReference source, int directory, ReadOnlySpan<byte> name, out bool isFound)
    {
        Span<byte> value = stackalloc byte[OriginHandle.MaxLength];
        int length = 0;
        // An empty attribute means: copied up, origin unknown. An object that has no number of its own has no lasting handle.
        if (source.Layer!.Identity != RealIdentity.Names
            && !FileHandle.Of(source.Directory, source.Name, out FileHandle handle).IsError)
        {
            length = OriginHandle.Encode(handle, source.Layer.Uuid, value);
        }
        Errno error = Libc.SetXattrAt(directory, name, tree.Xattr.Origin, value[..length], XattrFlags.None);
        isFound = !error.IsError && length > 0 && source.Layer.FindsOrigins;
        // Symbolic links and special files take no user.* attributes.
        return error is Errno.EPERM or Errno.EOPNOTSUPP ? Errno.None : error;
    }
}
