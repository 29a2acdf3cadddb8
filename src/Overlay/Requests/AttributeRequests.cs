using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Requests;

/// <summary>Serves requests about attributes: GETATTR, STATX, SETATTR and STATFS.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="copyUp">Brings objects to upper.</param>
/// <param name="change">Changes attributes of upper.</param>
/// <param name="contents">Reads and writes open files.</param>
/// <param name="errors">Errors of writing to upper.</param>
internal sealed class AttributeRequests(
    ObjectTree tree, UpperLayer upper, KernelSession session, CopyUp copyUp, ObjectChange change,
    FileRequests contents, WritebackErrors errors)
{
    public Errno GetAttr(in Request request, in GetAttrIn input, out AttrOut result)
    {
        result = default;
        Errno error = Attributes(request.NodeId, StatxMask.Basic, out Inode inode, out Statx stat, out ulong valid);
        if (error.IsError) { return error; }
        result.AttrValid = valid;
        result.Attr = Attr.From(stat, inode.Ino, stat.Nlink);
        return Errno.None;
    }

    public Errno StatX(in Request request, in StatXIn input, out StatXOut result)
    {
        result = default;
        Errno error = Attributes(request.NodeId, StatxMask.Basic | StatxMask.BirthTime, out Inode inode, out Statx stat, out ulong valid);
        if (error.IsError) { return error; }
        stat.Ino = inode.Ino;
        stat.Attributes = stat.AttributesMask = 0;
        result.AttrValid = valid;
        result.Stat = stat;
        return Errno.None;
    }

    /// <summary>Reads an object's attributes as users see them, except for the inode number.</summary>
    /// <param name="nodeId">The object.</param>
    /// <param name="mask">The attributes to read.</param>
    /// <param name="inode">The object's inode.</param>
    /// <param name="stat">The attributes.</param>
    /// <param name="valid">How long the kernel may trust the attributes, in seconds.</param>
    private Errno Attributes(ulong nodeId, StatxMask mask, out Inode inode, out Statx stat, out ulong valid)
    {
        stat = default;
        valid = 0;
        Errno error = tree.Inodes.Find(nodeId, out inode, out bool isSuperseded);
        if (error.IsError) { return error; }
        error = tree.ReadAttributes(inode, mask, out stat);
        if (error.IsError) { return error; }
        stat.Nlink = Replies.NlinkOf(inode, stat);
        // An object that has a new nodeid is changed under that one: under the old nodeid the kernel must ask each time.
        valid = isSuperseded ? 0 : Replies.AttrValidOf(inode);
        return Errno.None;
    }

    public Errno SetAttr(in Request request, in SetAttrIn input, out AttrOut result)
    {
        result = default;
        Errno error = tree.Inodes.Find(request.NodeId, out Inode inode, out bool isSuperseded);
        if (error.IsError) { return error; }
        errors.NoteWrite();
        bool sizes = (input.Valid & SetAttrValid.Size) != 0;
        error = CheckRefused(inode, input);
        if (error.IsError) { return error; }
        if ((input.Valid & ObjectChange.Something) == 0)
        {
            error = CheckOwner(request, inode);
            if (error.IsError) { return error; }
        }
        error = copyUp.Ensure(inode, request, needsData: sizes || !upper.WritesMetacopies,
            truncation: sizes ? new Truncation((long)input.Size, (input.Valid & SetAttrValid.KillSuidGid) != 0) : null);
        if (error.IsError) { return error; }
        if (sizes)
        {
            error = SetSize(inode, request, input);
            if (error.IsError) { return error; }
        }
        error = change.SetAttributes(inode, request, input);
        if (error.IsError) { return error; }
        session.DropCachedAttributes(inode, isSuperseded);
        error = Attributes(request.NodeId, StatxMask.Basic, out _, out Statx stat, out ulong valid);
        if (error.IsError) { return error; }
        result.AttrValid = valid;
        result.Attr = Attr.From(stat, inode.Ino, stat.Nlink);
        return Errno.None;
    }

    /// <summary>
    /// Refuses what append-only and immutable forbid. They still allow chown(-1, -1), ftruncate(2) of an immutable file that
    /// was open before, and utimes(2) of an append-only file to the present time. Kernel: may_setattr(), do_sys_ftruncate(),
    /// vfs_utimes()
    /// </summary>
    private static Errno CheckRefused(Inode inode, in SetAttrIn input)
    {
        SetAttrValid what = input.Valid & ObjectChange.Something & ~SetAttrValid.KillSuidGid;
        if (what == SetAttrValid.None) { return Errno.None; }
        if (what == SetAttrValid.Size && (input.Valid & SetAttrValid.Fh) != 0)
        {
            return (inode.Protection & Protection.AppendOnly) != 0 ? Errno.EPERM : Errno.None;
        }
        return inode.CheckChange(
            onlyAdds: (what & ~(SetAttrValid.AccessTime | SetAttrValid.ModifyTime)) == 0 && SetsTimesToNow(input.Valid));
    }

    /// <summary>
    /// Whether all times that are set are set to the present, which an append-only file allows. Kernel: vfs_utimes(),
    /// may_setattr().
    /// </summary>
    private static bool SetsTimesToNow(SetAttrValid valid) =>
        ((valid & SetAttrValid.AccessTime) == 0 || (valid & SetAttrValid.AccessTimeNow) != 0)
        && ((valid & SetAttrValid.ModifyTime) == 0 || (valid & SetAttrValid.ModifyTimeNow) != 0);

    /// <summary>Checks that a caller may clear the set-id bits, which is all that a request without fields does.</summary>
    /// <remarks>
    /// Such a request comes from chown(-1, -1), which only the owner may call (setattr_prepare()), and from the first write of
    /// an unprivileged process, which only needs to be allowed to write. The two look the same; but a writer has the file open.
    /// The bits of a directory are not cleared (chown_common()).
    /// </remarks>
    private Errno CheckOwner(in Request request, Inode inode)
    {
        if (request.Header.Uid == 0 || inode.IsDirectory || inode.Backing is { HasWriters: true }) { return Errno.None; }
        Errno error = tree.ReadAttributes(inode, StatxMask.Basic, out Statx stat);
        if (error.IsError || request.Header.Uid == stat.Uid) { return error; }
        bool clears = (stat.Mode & ModeBits.SetUid) != 0
            || (stat.Mode & (ModeBits.SetGid | ModeBits.GroupExecute)) == (ModeBits.SetGid | ModeBits.GroupExecute);
        return clears ? Errno.EPERM : Errno.None;
    }

    public Errno StatFs(in Request request, out StatFsOut result)
    {
        result = default;
        Layer layer = tree.Layers.Topmost;
        Errno error = Libc.StatFileSystem(layer.Root.Descriptor, out StatFs real);
        if (error.IsError) { return error; }
        result = new StatFsOut
        {
            Blocks = real.Blocks,
            BlocksFree = real.BlocksFree,
            BlocksAvailable = real.BlocksAvailable,
            Files = real.Files,
            FilesFree = real.FilesFree,
            BlockSize = (uint)real.BlockSize,
            NameLength = (uint)tree.Layers.NameLength,
            FragmentSize = (uint)real.FragmentSize,
        };
        return Errno.None;
    }

    private Errno SetSize(Inode inode, in Request request, in SetAttrIn input)
    {
        bool isOpen = (input.Valid & SetAttrValid.Fh) != 0;
        int descriptor;
        Errno error = isOpen
            ? contents.DescriptorOf(input.Fh, out descriptor, out _)
            : tree.OpenReal(inode, OpenFlags.WriteOnly | OpenFlags.LargeFile | OpenFlags.NonBlock, out descriptor, out _, out _);
        if (error.IsError) { return error; }
        error = ObjectChange.SetSize(descriptor, (long)input.Size, isOpen, (input.Valid & SetAttrValid.KillSuidGid) != 0, request);
        if (!isOpen) { Libc.Close(descriptor); }
        return error;
    }
}
