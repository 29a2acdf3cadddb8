using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Requests;

/// <summary>Serves the ioctls that read and set the flags of chattr(1).</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="copyUp">Brings objects to upper.</param>
/// <param name="change">Changes attributes of upper.</param>
internal sealed class FlagRequests(ObjectTree tree, KernelSession session, CopyUp copyUp, ObjectChange change)
{
    /// <summary>Carries out an ioctl about flags.</summary>
    /// <returns>
    /// <see cref="Errno.ENOTTY"/> for any other ioctl, for a 32-bit caller, and for an object that is neither file nor
    /// directory.
    /// </returns>
    public Errno Run(in Request request, in IoctlIn input, ReadOnlySpan<byte> argument, Span<byte> output, out int outputLength)
    {
        outputLength = 0;
        if ((input.Flags & IoctlFlags.Compat) != 0) { return Errno.ENOTTY; }
        Errno error = tree.Inodes.Find(request.NodeId, out Inode inode);
        if (error.IsError) { return error; }
        if (!inode.IsRegular && !inode.IsDirectory) { return Errno.ENOTTY; }
        switch (input.Command)
        {
            case InodeFlags.Get:
            case InodeFlags.GetExtended:
                return GetFileFlags(inode, input.Command, output, out outputLength);
            case InodeFlags.Set:
            case InodeFlags.SetExtended:
                error = copyUp.Ensure(inode, request);
                if (!error.IsError) { error = change.SetFlags(inode, input.Command, argument); }
                // The kernel does not know which attributes an ioctl changes, such as st_ctime.
                session.Notifier?.InvalidateAttributes(inode.NodeId);
                return error;
            default:
                return Errno.ENOTTY;
        }
    }

    private Errno GetFileFlags(Inode inode, uint command, Span<byte> output, out int outputLength)
    {
        outputLength = 0;
        Errno error = tree.Objects.Resolve(inode, out RealReference real);
        if (error.IsError) { return error; }
        using (real) { return FileFlags.Read(real, command, inode.HasUpper, tree.Xattr, output, out outputLength); }
    }
}
