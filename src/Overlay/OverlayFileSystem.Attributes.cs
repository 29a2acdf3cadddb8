using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Topology;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay;

internal sealed partial class OverlayFileSystem
{
    private const int MaxXattrList = 64 * 1024;

    private const SetAttrValid Something = SetAttrValid.Mode | SetAttrValid.Uid | SetAttrValid.Gid | SetAttrValid.Size | SetAttrValid.AccessTime | SetAttrValid.ModifyTime | SetAttrValid.KillSuidGid;

    [ThreadStatic]
    private static byte[]? xattrList;

    /// <summary>On the root, for our own commands: which process serves the mount, and whether it can be written; in no list.</summary>
    private static ReadOnlySpan<byte> ServerAttribute => "user.veneer.server\0"u8;

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

    /// <summary>The attributes as users see them, but for the inode number.</summary>
    private Errno Attributes(ulong nodeId, StatxMask mask, out Inode inode, out Statx stat, out ulong valid)
    {
        stat = default;
        valid = 0;
        Errno error = volume.Inodes.Find(nodeId, out inode, out bool isSuperseded);
        if (error.IsError) { return error; }
        error = ReadAttributes(inode, mask, out stat);
        if (error.IsError) { return error; }
        stat.Nlink = NlinkOf(inode, stat);
        // Changes are made under the new nodeid: under the old one the kernel must ask each time.
        valid = isSuperseded ? 0 : AttrValidOf(inode);
        return Errno.None;
    }

    public Errno SetAttr(in Request request, in SetAttrIn input, out AttrOut result)
    {
        result = default;
        Errno error = volume.Inodes.Find(request.NodeId, out Inode inode, out bool isSuperseded);
        if (error.IsError) { return error; }
        errors.Touch();
        bool sizes = (input.Valid & SetAttrValid.Size) != 0;
        error = CheckChange(inode, input);
        if (error.IsError) { return error; }
        if ((input.Valid & Something) == 0)
        {
            error = CheckOwner(request, inode);
            if (error.IsError) { return error; }
        }
        error = copyUp.Ensure(inode, request, needsData: sizes || !volume.WritesMetacopies, truncation: sizes ? new Truncation((long)input.Size, (input.Valid & SetAttrValid.KillSuidGid) != 0) : null);
        if (error.IsError) { return error; }
        if (sizes)
        {
            error = SetSize(inode, request, input);
            if (error.IsError) { return error; }
        }
        using (volume.RenameLock.Share())
        {
            using var held = new HeldName(inode);
            error = volume.Objects.ResolveLocked(inode, out RealReference real);
            if (error.IsError) { return error; }
            using (real) { error = Change(request, real, inode, input); }
            if (error.IsError) { return error; }
        }
        TellSuccessor(inode, isSuperseded);
        error = Attributes(request.NodeId, StatxMask.Basic, out _, out Statx stat, out ulong valid);
        if (error.IsError) { return error; }
        result.AttrValid = valid;
        result.Attr = Attr.From(stat, inode.Ino, stat.Nlink);
        return Errno.None;
    }

    /// <summary>Something was changed under an old nodeid: what the kernel knows under the new one is no longer true.</summary>
    private void TellSuccessor(Inode inode, bool isSuperseded)
    {
        if (isSuperseded) { notifier?.InvalidateAttributes(inode.NodeId); }
    }

    private Errno SetSize(Inode inode, in Request request, in SetAttrIn input)
    {
        // With an open file it is ftruncate(2), which sets the times also when the length stays. Kernel: do_truncate().
        bool isOpen = (input.Valid & SetAttrValid.Fh) != 0;
        int descriptor;
        Errno error = isOpen
            ? DescriptorOf(input.Fh, out descriptor, out _)
            : OpenReal(inode, OpenFlags.WriteOnly | OpenFlags.LargeFile | OpenFlags.NonBlock, out descriptor, out _, out _);
        if (error.IsError) { return error; }
        // Privileges go first: a crash in between must not leave them on changed data.
        if ((input.Valid & SetAttrValid.KillSuidGid) != 0) { error = SetId.Clear(descriptor, Libc.Self, request); }
        if (!error.IsError) { error = isOpen ? Libc.Truncate(descriptor, (long)input.Size) : Libc.TruncateAsNamed(descriptor, (long)input.Size); }
        if (!isOpen) { Libc.Close(descriptor); }
        return error;
    }

    /// <summary>
    /// What append-only and immutable leave: chown(-1, -1), ftruncate(2) of an immutable file that was open before, utimes(2)
    /// to the present of one that is append-only. Kernel: may_setattr(), do_sys_ftruncate(), vfs_utimes()
    /// </summary>
    private static Errno CheckChange(Inode inode, in SetAttrIn input)
    {
        SetAttrValid what = input.Valid & Something & ~SetAttrValid.KillSuidGid;
        if (what == SetAttrValid.None) { return Errno.None; }
        if (what == SetAttrValid.Size && (input.Valid & SetAttrValid.Fh) != 0) { return (inode.Protection & Protection.AppendOnly) != 0 ? Errno.EPERM : Errno.None; }
        return CheckProtection(inode, onlyAdds: (what & ~(SetAttrValid.AccessTime | SetAttrValid.ModifyTime)) == 0 && SetsTimesToNow(input.Valid));
    }

    /// <summary>An append-only file may be touched. Kernel: vfs_utimes(), may_setattr().</summary>
    private static bool SetsTimesToNow(SetAttrValid valid) =>
        ((valid & SetAttrValid.AccessTime) == 0 || (valid & SetAttrValid.AccessTimeNow) != 0) && ((valid & SetAttrValid.ModifyTime) == 0 || (valid & SetAttrValid.ModifyTimeNow) != 0);

    /// <summary>Owner before mode: a chown clears set-id bits. Times last: everything else changes them.</summary>
    private static Errno Change(in Request request, in RealReference real, Inode inode, in SetAttrIn input)
    {
        SetAttrValid valid = input.Valid;
        Errno error = Errno.None;
        if ((valid & Something) == 0 && inode.Backing is { HasWriters: true })
        {
            error = DropPrivileges(request, real);
            if (error.IsError) { return error; }
        }
        // chown(-1, -1) comes as a request that sets nothing: it still clears set-id bits.
        else if ((valid & (SetAttrValid.Uid | SetAttrValid.Gid)) != 0 || (valid & Something) == 0)
        {
            uint uid = (valid & SetAttrValid.Uid) != 0 ? input.Uid : uint.MaxValue;
            uint gid = (valid & SetAttrValid.Gid) != 0 ? input.Gid : uint.MaxValue;
            error = Libc.ChangeOwnerAt(real.Directory, real.Name, uid, gid);
            if (error.IsError) { return error; }
        }
        else if ((valid & SetAttrValid.KillSuidGid) != 0 && (valid & SetAttrValid.Size) == 0 && inode.IsRegular)
        {
            error = SetId.Clear(real.Directory, real.Name, request);
            if (error.IsError) { return error; }
        }
        if ((valid & SetAttrValid.Mode) != 0)
        {
            error = Libc.ChangeModeAt(real.Directory, real.Name, input.Mode & ModeBits.Mask);
            if (error.IsError) { return error; }
        }
        if ((valid & (SetAttrValid.AccessTime | SetAttrValid.ModifyTime)) != 0)
        {
            TimeSpec access = Time(valid, SetAttrValid.AccessTime, SetAttrValid.AccessTimeNow, input.AccessTime, input.AccessTimeNanoseconds);
            TimeSpec modify = Time(valid, SetAttrValid.ModifyTime, SetAttrValid.ModifyTimeNow, input.ModifyTime, input.ModifyTimeNanoseconds);
            error = Libc.ChangeTimesAt(real.Directory, real.Name, access, modify);
        }
        return error;
    }

    /// <summary>Whether a caller may clear the set-id bits, which is all that a request without fields does.</summary>
    /// <remarks>
    /// It comes from chown(-1, -1), which is for the owner (setattr_prepare()), and from the first write of somebody
    /// without privilege, which is for whoever may write. They look the same; but a write has the file open. The bits of a
    /// directory are not cleared (chown_common()).
    /// </remarks>
    private Errno CheckOwner(in Request request, Inode inode)
    {
        if (request.Header.Uid == 0 || inode.IsDirectory || inode.Backing is { HasWriters: true }) { return Errno.None; }
        Errno error = ReadAttributes(inode, StatxMask.Basic, out Statx stat);
        if (error.IsError || request.Header.Uid == stat.Uid) { return error; }
        bool clears = (stat.Mode & ModeBits.SetUid) != 0 || (stat.Mode & (ModeBits.SetGid | ModeBits.GroupExecute)) == (ModeBits.SetGid | ModeBits.GroupExecute);
        return clears ? Errno.EPERM : Errno.None;
    }

    /// <summary>What the first write takes away: capabilities from anybody, set-id bits from the unprivileged. Kernel: file_remove_privs()</summary>
    private static Errno DropPrivileges(in Request request, in RealReference real)
    {
        Errno error = Libc.RemoveXattrAt(real.Directory, real.Name, "security.capability\0"u8);
        if (error.IsError && !error.IsNoXattr) { return error; }
        if (request.Header.Uid == 0) { return Errno.None; }
        error = Libc.StatAt(real.Directory, real.Name, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error; }
        uint mode = stat.Mode & ModeBits.Mask & ~ModeBits.SetUid;
        // Without group execution the bit goes only when a stranger writes. Kernel: setattr_should_drop_sgid()
        if ((mode & ModeBits.GroupExecute) != 0 || request.Header.Gid != stat.Gid) { mode &= ~ModeBits.SetGid; }
        return mode == (stat.Mode & ModeBits.Mask) ? Errno.None : Libc.ChangeModeAt(real.Directory, real.Name, mode);
    }

    private static TimeSpec Time(SetAttrValid valid, SetAttrValid set, SetAttrValid now, ulong seconds, uint nanoseconds) =>
        (valid & set) == 0 ? TimeSpec.Omit
        : (valid & now) != 0 ? TimeSpec.Now
        : new TimeSpec { Seconds = (long)seconds, Nanoseconds = nanoseconds };

    public Errno Access(in Request request, uint mask) => Errno.ENOSYS; // the kernel checks permissions itself (default_permissions)

    public Errno StatFs(in Request request, out StatFsOut result)
    {
        result = default;
        Layer layer = volume.Layers.Topmost;
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
            NameLength = (uint)volume.Layers.NameLength,
            FragmentSize = (uint)real.FragmentSize,
        };
        return Errno.None;
    }

    public Errno GetXattr(in Request request, ReadOnlySpan<byte> attribute, Span<byte> value, out int size)
    {
        size = 0;
        if (request.NodeId == InodeTable.RootId && attribute.SequenceEqual(ServerAttribute)) { return SharesProcesses(request.Header.Pid) ? ServerIdentity(value, out size) : Errno.ENODATA; }
        Errno error = volume.Inodes.Find(request.NodeId, out Inode inode);
        if (error.IsError) { return error; }
        if (LayerAttributes.IsOne(attribute)) { return LayerAttribute(inode, attribute, value, out size); }
        error = GetReal(inode, attribute, value, out size);
        // A layer without ACLs has none: everything else becomes the answer to whoever is not the owner. Kernel: ovl_get_acl()
        if (!PosixAcl.IsOne(attribute)) { return error; }
        if (!error.IsError && size <= value.Length) { size = PosixAcl.WithoutUnmapped(value[..size]); }
        return error == Errno.EOPNOTSUPP ? Errno.ENODATA : error;
    }

    /// <summary>An attribute of the real object.</summary>
    /// <param name="inode">The object.</param>
    /// <param name="attribute">As the user says it.</param>
    /// <param name="value">Room for the value.</param>
    /// <param name="size">Its size.</param>
    private Errno GetReal(Inode inode, ReadOnlySpan<byte> attribute, Span<byte> value, out int size)
    {
        size = 0;
        Errno error = volume.Objects.Resolve(inode, out RealReference real);
        if (error.IsError) { return error; }
        using (real)
        {
            error = XattrOf(real).Escape(attribute, stackalloc byte[256], out ReadOnlySpan<byte> stored);
            return error.IsError ? error : Libc.GetXattrAt(real.Directory, real.Name, stored, value, out size);
        }
    }

    /// <summary>Whether the caller is in the server's pid namespace, where he sees its process anyhow. To others its number means nothing, or tells of the host.</summary>
    /// <param name="caller">0: he is in none below that of the mount.</param>
    private static bool SharesProcesses(uint caller) =>
        caller != 0 && Host.Processes.NamespaceOf(caller.ToString(System.Globalization.CultureInfo.InvariantCulture), "pid") is var his and > 0 && his == Host.Processes.NamespaceOf("self", "pid");

    /// <summary>The names that a real object's attributes have.</summary>
    private OverlayXattr XattrOf(in RealReference real) => real.Layer is { } layer ? volume.Layers.XattrOf(layer) : volume.Xattr;

    private Errno ServerIdentity(Span<byte> value, out int size)
    {
        size = serverIdentity.Length;
        if (value.IsEmpty) { return Errno.None; }
        return serverIdentity.AsSpan().TryCopyTo(value) ? Errno.None : Errno.ERANGE;
    }

    /// <summary>"PID STARTTIME", the latter as field 22 of /proc/PID/stat has it; " lower" follows when there is no upper.</summary>
    private static byte[] ReadServerIdentity(bool hasUpper)
    {
        Span<byte> text = stackalloc byte[1024];
        int count = 0;
        if (!Libc.OpenAt(Libc.AtCwd, "/proc/self/stat\0"u8, OpenFlags.ReadOnly, 0, ResolveFlags.None, out int descriptor).IsError)
        {
            if (Libc.Read(descriptor, text, out count).IsError) { count = 0; }
            Libc.Close(descriptor);
        }
        ReadOnlySpan<byte> rest = text[..count];
        rest = rest[(rest.LastIndexOf((byte)')') + 1)..];
        for (int field = 2; field < 22 && rest.Length > 0; field++) { rest = rest[(rest.IndexOf((byte)' ') + 1)..]; }
        int end = rest.IndexOf((byte)' ');
        ReadOnlySpan<byte> start = end < 0 ? "0"u8 : rest[..end];
        Span<byte> pid = stackalloc byte[11];
        _ = System.Buffers.Text.Utf8Formatter.TryFormat(Libc.ProcessId, pid, out int digits); // cannot fail: 11 digits fit
        return [.. pid[..digits], (byte)' ', .. start, .. hasUpper ? ""u8 : " lower"u8];
    }

    public Errno ListXattr(in Request request, Span<byte> list, out int size)
    {
        size = 0;
        Errno error = volume.Inodes.Find(request.NodeId, out Inode inode);
        if (error.IsError) { return error; }
        Span<byte> all = xattrList ??= new byte[MaxXattrList];
        error = volume.Objects.Resolve(inode, out RealReference real);
        if (error.IsError) { return error; }
        OverlayXattr names = XattrOf(real);
        using (real) { error = Libc.ListXattrAt(real.Directory, real.Name, all, out size); }
        if (error.IsError) { return error; }
        size = names.Filter(all[..size]);
        // trusted.* is for the privileged; the request tells the caller's id, not its capabilities.
        if (request.Header.Uid != 0) { size = WithoutTrusted(all[..size]); }
        if (list.IsEmpty) { return Errno.None; }
        return all[..size].TryCopyTo(list) ? Errno.None : Errno.ERANGE;
    }

    private static int WithoutTrusted(Span<byte> list)
    {
        int written = 0;
        for (int read = 0; read < list.Length;)
        {
            Span<byte> name = list.Slice(read, list[read..].IndexOf((byte)0) + 1);
            read += name.Length;
            if (((ReadOnlySpan<byte>)name).StartsWith("trusted."u8)) { continue; }
            name.CopyTo(list[written..]);
            written += name.Length;
        }
        return written;
    }

    public Errno SetXattr(in Request request, ReadOnlySpan<byte> attribute, ReadOnlySpan<byte> value, in SetXattrIn input)
    {
        Errno error = volume.Xattr.Escape(attribute, stackalloc byte[256], out ReadOnlySpan<byte> stored);
        if (error.IsError) { return error; }
        error = volume.Inodes.Find(request.NodeId, out Inode inode, out bool isSuperseded);
        if (error.IsError) { return error; }
        error = CheckProtection(inode);
        if (error.IsError) { return error; }
        if (LacksAcls(inode, attribute)) { return Errno.EOPNOTSUPP; }
        error = copyUp.Ensure(inode, request, needsData: !volume.WritesMetacopies);
        if (error.IsError) { return error; }
        try
        {
            using (volume.RenameLock.Share())
            {
                using var held = new HeldName(inode);
                error = volume.Objects.ResolveLocked(inode, out RealReference real);
                if (error.IsError) { return error; }
                using (real)
                {
                    error = Libc.SetXattrAt(real.Directory, real.Name, stored, value, input.Flags);
                    if (error.IsError || !input.KillSgid || !attribute.SequenceEqual(PosixAcl.AccessName)) { return error; }
                    error = Libc.StatAt(real.Directory, real.Name, StatxMask.Basic, out Statx stat);
                    if (error.IsError || (stat.Mode & ModeBits.SetGid) == 0) { return error; }
                    return Libc.ChangeModeAt(real.Directory, real.Name, stat.Mode & ModeBits.Mask & ~ModeBits.SetGid);
                }
            }
        }
        finally
        {
            TellSuccessor(inode, isSuperseded);
        }
    }

    /// <summary>Whether an attribute is an ACL that a copy could not have, so that nothing is copied up for it. Kernel: ovl_set_acl()</summary>
    private bool LacksAcls(Inode inode, ReadOnlySpan<byte> attribute) =>
        !inode.HasUpper && PosixAcl.IsOne(attribute) && volume.Layers.Upper is { HasAcls: false };

    public Errno RemoveXattr(in Request request, ReadOnlySpan<byte> attribute)
    {
        Errno error = volume.Xattr.Escape(attribute, stackalloc byte[256], out ReadOnlySpan<byte> stored);
        if (error.IsError) { return error; }
        error = volume.Inodes.Find(request.NodeId, out Inode inode, out bool isSuperseded);
        if (error.IsError) { return error; }
        if (!volume.IsWritable) { return Errno.EROFS; }
        error = CheckProtection(inode);
        if (error.IsError) { return error; }
        if (LacksAcls(inode, attribute)) { return Errno.EOPNOTSUPP; }
        if (!inode.HasUpper)
        {
            // What is not there need not be copied up to be removed. Kernel: ovl_xattr_set()
            error = GetReal(inode, attribute, default, out _);
            if (error.IsError) { return error; }
        }
        error = copyUp.Ensure(inode, request, needsData: !volume.WritesMetacopies);
        if (error.IsError) { return error; }
        try
        {
            using (volume.RenameLock.Share())
            {
                using var held = new HeldName(inode);
                error = volume.Objects.ResolveLocked(inode, out RealReference real);
                if (error.IsError) { return error; }
                using (real) { return Libc.RemoveXattrAt(real.Directory, real.Name, stored); }
            }
        }
        finally
        {
            TellSuccessor(inode, isSuperseded);
        }
    }
}
