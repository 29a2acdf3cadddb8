using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Requests;

/// <summary>Serves requests that open files, create open files, and close them.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="policy">How open files reach their data.</param>
/// <param name="files">The open files.</param>
/// <param name="errors">Errors of writing to upper.</param>
/// <param name="copyUp">Brings objects to upper.</param>
/// <param name="create">Makes objects in upper.</param>
/// <param name="names">Makes objects with a name.</param>
internal sealed class OpenRequests(
    ObjectTree tree, UpperLayer upper, KernelSession session, OpenPolicy policy, OpenFiles files,
    WritebackErrors errors, CopyUp copyUp, Create create, NameRequests names)
{
    public Errno Open(in Request request, in OpenIn input, out OpenOut result)
    {
        result = default;
        Errno error = tree.Inodes.Find(request.NodeId, out Inode inode, out bool isSuperseded);
        if (error.IsError) { return error; }
        // The kernel looks the name up again, and finds the inode's new nodeid.
        if (isSuperseded) { return Errno.ESTALE; }
        if (files.AreTooMany(request.Header.Uid)) { return Errno.ENFILE; }
        bool truncates = (input.Flags & OpenFlags.Truncate) != 0;
        bool writes = (input.Flags & OpenFlags.AccessMode) != OpenFlags.ReadOnly || truncates;
        if (writes)
        {
            error = inode.CheckChange(onlyAdds: !truncates && (input.Flags & OpenFlags.Append) != 0);
            if (error.IsError) { return error; }
            // A copy-up for truncation does not copy the data. A descriptor is reserved, so that the open cannot fail afterwards for
            // want of one.
            int reserve = -1;
            if (truncates && !inode.HasUpper)
            {
                error = Libc.Duplicate(tree.Layers.Topmost.Root.Descriptor, out reserve);
                if (error.IsError) { return error; }
            }
            bool wasUpper = inode.HasUpperData;
            error = copyUp.Ensure(inode, request, truncation: truncates ? new Truncation(0, input.KillSuidGid) : null);
            if (reserve >= 0) { Libc.Close(reserve); }
            if (error.IsError) { return error; }
            // The copy has another st_ctime, and the answer to OPEN has no room for attributes.
            if (!wasUpper) { session.Notifier?.InvalidateAttributes(request.NodeId); }
        }
        else { policy.FillPages(inode, request.NodeId, input.Flags); }
        while (true)
        {
            int descriptor = -1;
            bool isLower = true, isPrivate = false;
            if (writes || policy.OpensAtOnce(inode, input.Flags))
            {
                error = tree.OpenReal(inode, policy.RealFlags(input.Flags), out descriptor, out isLower, out isPrivate);
                if (error.IsError) { return error; }
            }
            if (truncates)
            {
                error = ObjectChange.SetSize(descriptor, 0, isOpen: true, input.KillSuidGid, request);
                if (error.IsError)
                {
                    Libc.Close(descriptor);
                    return error;
                }
            }
            bool wasTrusted = !inode.ChangesUnseen;
            error = Admit(inode, request.NodeId, request.Header.Uid, input.Flags, descriptor, isLower, isPrivate, out result);
            if (error.IsError)
            {
                if (descriptor >= 0) { Libc.Close(descriptor); }
                return error;
            }
            if (wasTrusted && inode.ChangesUnseen) { session.Notifier?.InvalidateAttributes(request.NodeId); }
            if (!OpenPolicy.IsOutdated(inode, isLower)) { return Errno.None; } // it may have been copied up before the admission
            Release(result.Fh);
        }
    }

    public Errno Create(in Request request, ReadOnlySpan<byte> name, in CreateIn input, out CreateOut result)
    {
        result = default;
        if (files.AreTooMany(request.Header.Uid)) { return Errno.ENFILE; }
        var what = new NewObject(FileType.Regular | (input.Mode & ModeBits.Mask))
        {
            Uid = request.Header.Uid, Gid = request.Header.Gid, Umask = input.Umask,
            Open = policy.RealFlags(input.Flags & ~OpenFlags.Truncate)
        };
        Errno error = names.MakeObject(request, name, what, out result.Entry, out Inode inode, out int descriptor);
        if (error.IsError) { return error; }
        return AdmitNew(inode, request.Header.Uid, input.Flags, descriptor, ref result);
    }

    private Errno AdmitNew(Inode inode, uint uid, OpenFlags flags, int descriptor, ref CreateOut result)
    {
        Errno error = Admit(inode, result.Entry.NodeId, uid, flags, descriptor, isLower: false, isPrivate: true, out result.Open);
        if (error.IsError)
        {
            Libc.Close(descriptor);
            tree.Inodes.Forget(result.Entry.NodeId, 1);
            return error;
        }
        result.Entry.AttrValid = Replies.AttrValidOf(inode);
        return error;
    }

    public Errno TmpFile(in Request request, in CreateIn input, out CreateOut result)
    {
        result = default;
        if (!upper.IsWritable) { return Errno.EROFS; }
        if (!upper.Features.TemporaryFiles) { return Errno.EOPNOTSUPP; }
        if (files.AreTooMany(request.Header.Uid)) { return Errno.ENFILE; }
        Errno error = tree.Inodes.FindDirectory(request.NodeId, out DirectoryInode parent);
        if (error.IsError) { return error; }
        error = parent.CheckChange(onlyAdds: true);
        if (error.IsError) { return error; }
        error = copyUp.Ensure(parent, request);
        if (error.IsError) { return error; }
        var what = new NewObject(FileType.Regular | (input.Mode & ModeBits.Mask))
        {
            Uid = request.Header.Uid, Gid = request.Header.Gid, Umask = input.Umask,
            Open = policy.RealFlags(input.Flags & ~OpenFlags.Truncate) | (input.Flags & OpenFlags.Exclusive)
        };
        bool staysInWork = upper.HasManyOrphans;
        Inode inode;
        int descriptor;
        using (tree.RenameLock.Share())
        {
            using (parent.LockNames())
            {
                error = create.TemporaryLocked(parent, what, staysInWork, out inode, out Statx stat, out descriptor);
                if (error.IsError) { return error; }
                tree.Inodes.AddAndLendLocked(inode);
                result.Entry = Replies.EntryOf(inode, inode.NodeId, stat);
            }
        }
        return AdmitNew(inode, request.Header.Uid, input.Flags, descriptor, ref result);
    }

    public void Release(ulong fh)
    {
        if (files.Take(fh) is not { } file) { return; }
        if (file.Flags.Writes)
        {
            if (!errors.IsExact) { _ = errors.Check(file.Descriptor); } // an error is kept for the next fsync
            errors.NoteWrite();
        }
        file.Backing.Leave(file.Flags.Writes, session.Backings);
        if (file.Descriptor >= 0)
        {
            if (file.Inode.IsUnlinked) { session.CloseLast(file.Descriptor); }
            else { Libc.Close(file.Descriptor); }
        }
        files.Return(fh);
    }

    private Errno Admit(Inode inode, ulong nodeId, uint uid, OpenFlags flags, int descriptor, bool isLower, bool isPrivate,
        out OpenOut result)
    {
        Errno error = policy.Admit(inode, nodeId, uid, flags, descriptor, isLower, isPrivate, out result);
        if (!error.IsError && flags.Writes) { errors.NoteWrite(); }
        return error;
    }
}
