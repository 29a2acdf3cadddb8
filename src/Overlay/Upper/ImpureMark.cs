using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>The impure mark: an attribute of a directory of upper in which some entries have an origin or a redirect.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="session">The connection to the kernel.</param>
internal sealed class ImpureMark(ObjectTree tree, UpperLayer upper, KernelSession session)
{
    /// <summary>
    /// Marks a directory that is about to get an entry with an origin or a redirect. Caller holds the names lock of the directory, or
    /// the rename lock exclusively. Kernel: ovl_set_impure().
    /// </summary>
    /// <param name="directory">The directory, which is in upper.</param>
    public Errno SetLocked(DirectoryInode directory)
    {
        directory.AssertNamesStay();
        if (directory.IsImpure) { return Errno.None; }
        if (upper.Work!.Features.Attributes == AttributeSpace.None) { return Errno.None; } // and so there are no origins either
        Errno error = tree.Objects.Of(directory.Upper!, Libc.Self, out RealReference real);
        if (error.IsError) { return error; }
        using (real) { error = Libc.SetXattrAt(real.Directory, real.Name, tree.Xattr.Impure, "y"u8, XattrFlags.None); }
        if (!error.IsError) { directory.IsImpure = true; }
        return error;
    }

    /// <summary>
    /// Removes the mark from a directory in which no entry has an origin or a redirect any more. Kernel: ovl_cache_get_impure().
    /// </summary>
    /// <remarks>
    /// Crash safety. Killed before the mark is removed: it stays. A mark that is not needed only makes listing slower.
    /// </remarks>
    /// <param name="directory">The directory, which is in upper.</param>
    /// <param name="content">A listing of the directory.</param>
    public void RemoveIfPure(DirectoryInode directory, MergedDirectory content)
    {
        if (directory.IsMerged || !upper.IsWritable || upper.IsReadOnly || HasOrigins(directory, content)) { return; }
        using (tree.RenameLock.Share())
        {
            using (directory.LockNames())
            {
                // Whoever moves an object into the directory sets the mark first, and holds the names lock, or the rename lock
                // exclusively, until the object has its name there.
                if (directory.IsUnlinked || !directory.IsImpure || content.Version != tree.Inodes.VersionOf(directory)) { return; }
                if (tree.Objects.Of(directory.Upper!, Libc.Self, out RealReference real).IsError) { return; }
                using (real)
                {
                    // best effort, as in the kernel
                    if (Libc.RemoveXattrAt(real.Directory, real.Name, tree.Xattr.Impure).IsError) { return; }
                }
                directory.IsImpure = false;
            }
        }
        session.Notifier?.InvalidateAttributes(directory.NodeId); // st_ctime has changed
    }

    /// <summary>Whether an entry of a directory of upper has an origin or a redirect, or cannot be asked.</summary>
    private bool HasOrigins(DirectoryInode directory, MergedDirectory content)
    {
        if (tree.Reader.OpenDirectory(directory.Upper!, out int descriptor).IsError) { return true; }
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
            return !error.IsNoXattr && error != Errno.ENOENT; // a removal has given the directory a new version
        }
    }
}
