using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Requests;

/// <summary>The flags of chattr(1), which come as ioctls.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="copyUp">Brings objects to upper.</param>
/// <param name="change">Changes attributes of upper.</param>
internal sealed class FlagRequests(ObjectTree tree, KernelSession session, CopyUp copyUp, ObjectChange change)
{
    /// <summary>Carries out an ioctl about flags.</summary>
    /// <returns><see cref="Errno.ENOTTY"/> for any other.</returns>
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
                // Of what an ioctl changes the kernel does not know that it is another now, such as st_ctime.
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
