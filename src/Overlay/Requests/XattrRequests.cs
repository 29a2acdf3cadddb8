using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Requests;

/// <summary>Serves requests about extended attributes.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="copyUp">Brings objects to upper.</param>
/// <param name="change">Changes attributes of upper.</param>
internal sealed class XattrRequests(ObjectTree tree, UpperLayer upper, KernelSession session, CopyUp copyUp, ObjectChange change)
{
    private const int MaxXattrList = 64 * 1024;

    [ThreadStatic]
    private static byte[]? xattrList;

    public Errno GetXattr(in Request request, ReadOnlySpan<byte> attribute, Span<byte> value, out int size)
    {
        size = 0;
        Errno error = tree.Inodes.Find(request.NodeId, out Inode inode);
        if (error.IsError) { return error; }
        error = GetReal(inode, attribute, value, out size);
        // A layer without ACLs has no ACL on any object: any other error would be the answer to callers who are not the owner.
        // Kernel: ovl_get_acl()
        if (!PosixAcl.IsOne(attribute)) { return error; }
        if (!error.IsError && size <= value.Length) { size = PosixAcl.WithoutUnmapped(value[..size]); }
        return error == Errno.EOPNOTSUPP ? Errno.ENODATA : error;
    }

    /// <summary>Reads an attribute of the real object.</summary>
    /// <param name="inode">The object.</param>
    /// <param name="attribute">The attribute's name as users see it, with its NUL.</param>
    /// <param name="value">Room for the value.</param>
    /// <param name="size">The value's size in bytes.</param>
    private Errno GetReal(Inode inode, ReadOnlySpan<byte> attribute, Span<byte> value, out int size)
    {
        size = 0;
        Errno error = tree.Objects.Resolve(inode, out RealReference real);
        if (error.IsError) { return error; }
        using (real)
        {
            error = XattrOf(real).Escape(attribute, stackalloc byte[256], out ReadOnlySpan<byte> stored);
            return error.IsError ? error : Libc.GetXattrAt(real.Directory, real.Name, stored, value, out size);
        }
    }

    /// <summary>The names of the overlay's attributes in the layer of a real object.</summary>
    private OverlayXattr XattrOf(in RealReference real) => real.Layer is { } layer ? tree.Layers.XattrOf(layer) : tree.Xattr;

    public Errno ListXattr(in Request request, Span<byte> list, out int size)
    {
        size = 0;
        Errno error = tree.Inodes.Find(request.NodeId, out Inode inode);
        if (error.IsError) { return error; }
        Span<byte> all = xattrList ??= new byte[MaxXattrList];
        error = tree.Objects.Resolve(inode, out RealReference real);
        if (error.IsError) { return error; }
        OverlayXattr names = XattrOf(real);
        using (real) { error = Libc.ListXattrAt(real.Directory, real.Name, all, out size); }
        if (error.IsError) { return error; }
        size = names.Filter(all[..size]);
        // trusted.* is for privileged callers. A request tells the caller's id, not its capabilities.
        size = Visible(all[..size], seesTrusted: request.Header.Uid == 0, isRoot: request.NodeId == InodeTable.RootId);
        if (list.IsEmpty) { return Errno.None; }
        return all[..size].TryCopyTo(list) ? Errno.None : Errno.ERANGE;
    }

    /// <summary>Removes names that the caller must not see from a list, in place.</summary>
    /// <returns>The new length in bytes.</returns>
    private static int Visible(Span<byte> list, bool seesTrusted, bool isRoot)
    {
        int written = 0;
        for (int read = 0; read < list.Length;)
        {
            ReadOnlySpan<byte> name = list.Slice(read, list[read..].IndexOf((byte)0) + 1);
            read += name.Length;
            if (AnsweredXattr.Matches(name, isRoot) || (!seesTrusted && name.StartsWith("trusted."u8))) { continue; }
            name.CopyTo(list[written..]);
            written += name.Length;
        }
        return written;
    }

    /// <summary>
    /// Whether an attribute is an ACL that upper cannot store, so that nothing is copied up for it. Kernel: ovl_set_acl()
    /// </summary>
    private bool LacksAcls(Inode inode, ReadOnlySpan<byte> attribute) =>
        !inode.HasUpper && PosixAcl.IsOne(attribute) && tree.Layers.Upper is { FileSystem.HasAcls: false };

    public Errno SetXattr(in Request request, ReadOnlySpan<byte> attribute, ReadOnlySpan<byte> value, in SetXattrIn input)
    {
        Errno error = tree.Xattr.Escape(attribute, stackalloc byte[256], out ReadOnlySpan<byte> stored);
        if (error.IsError) { return error; }
        error = tree.Inodes.Find(request.NodeId, out Inode inode, out bool isSuperseded);
        if (error.IsError) { return error; }
        error = inode.CheckChange();
        if (error.IsError) { return error; }
        if (LacksAcls(inode, attribute)) { return Errno.EOPNOTSUPP; }
        error = copyUp.Ensure(inode, request, needsData: !upper.WritesMetacopies);
        if (error.IsError) { return error; }
        error = change.SetXattr(inode, stored, value, input.Flags, input.KillSgid && attribute.SequenceEqual(PosixAcl.AccessName));
        session.DropCachedAttributes(inode, isSuperseded);
        return error;
    }

    public Errno RemoveXattr(in Request request, ReadOnlySpan<byte> attribute)
    {
        Errno error = tree.Xattr.Escape(attribute, stackalloc byte[256], out ReadOnlySpan<byte> stored);
        if (error.IsError) { return error; }
        error = tree.Inodes.Find(request.NodeId, out Inode inode, out bool isSuperseded);
        if (error.IsError) { return error; }
        if (!upper.IsWritable) { return Errno.EROFS; }
        error = inode.CheckChange();
        if (error.IsError) { return error; }
        if (LacksAcls(inode, attribute)) { return Errno.EOPNOTSUPP; }
        if (!inode.HasUpper)
        {
            // An attribute that does not exist needs no copy-up to be removed. Kernel: ovl_xattr_set()
            error = GetReal(inode, attribute, default, out _);
            if (error.IsError) { return error; }
        }
        error = copyUp.Ensure(inode, request, needsData: !upper.WritesMetacopies);
        if (error.IsError) { return error; }
        error = change.RemoveXattr(inode, stored);
        session.DropCachedAttributes(inode, isSuperseded);
        return error;
    }
}
