using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>The mark of an upper directory some of whose entries say where they came from.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="session">The connection to the kernel.</param>
internal sealed class ImpureMark(ObjectTree tree, UpperLayer upper, KernelSession session)
{
    /// <summary>Marks an upper directory: some of its entries have an origin. Kernel: ovl_set_impure().</summary>
    public Errno Set(DirectoryInode directory)
    {
        if (directory.IsImpure) { return Errno.None; }
        if (!upper.Work!.Features.HasOpaque) { return Errno.None; } // there are no origins either. Kernel: ovl_set_impure()
        Errno error = tree.Objects.Of(directory.Upper!, Libc.Self, out RealReference real);
        if (error.IsError) { return error; }
        using (real) { error = Libc.SetXattrAt(real.Directory, real.Name, tree.Xattr.Impure, "y"u8, XattrFlags.None); }
        if (!error.IsError) { directory.IsImpure = true; }
        return error;
    }

    /// <summary>A directory of upper that was read, and in which nothing came from below any more, is not impure. Kernel: ovl_cache_get_impure().</summary>
    /// <remarks>A crash leaves the attribute there or not; it only makes listing slower where there is no need for it.</remarks>
    public void RemoveIfPure(DirectoryInode directory, MergedDirectory content)
    {
        if (directory.IsMerged || !upper.IsWritable || upper.IsReadOnly || HasOrigins(directory, content)) { return; }
        using (tree.RenameLock.Share())
        {
            using (directory.LockNames())
            {
                // What comes into it marks it first, and is in the directory when the lock is free.
                if (directory.IsUnlinked || !directory.IsImpure || content.Version != tree.Inodes.VersionOf(directory)) { return; }
                if (tree.Objects.Of(directory.Upper!, Libc.Self, out RealReference real).IsError) { return; }
                using (real)
                {
                    if (Libc.RemoveXattrAt(real.Directory, real.Name, tree.Xattr.Impure).IsError) { return; } // best effort, as in the kernel
                }
                directory.IsImpure = false;
            }
        }
        session.Notifier?.InvalidateAttributes(directory.NodeId); // st_ctime is another now
    }

    /// <summary>Whether something in a directory of upper says where it came from, or cannot be asked.</summary>
    private bool HasOrigins(DirectoryInode directory, MergedDirectory content)
    {
        if (tree.Lookup.Reader.OpenDirectory(directory.Upper!, out int descriptor).IsError) { return true; }
        bool isFound = false;
        for (int i = 0; i < content.Count && !isFound; i++)
        {
            ReadOnlySpan<byte> name = content.NameOf(i);
            isFound = Has(name, tree.Xattr.Origin) || (content.TypeOf(i) == FileType.Directory >> 12 && Has(name, tree.Xattr.Redirect));
        }
        Libc.Close(descriptor);
        return isFound;

        bool Has(ReadOnlySpan<byte> name, byte[] attribute)
        {
            Errno error = Libc.GetXattrAt(descriptor, name, attribute, [], out _);
            return !error.IsNoXattr && error != Errno.ENOENT; // who is gone has made a new version
        }
    }
}
