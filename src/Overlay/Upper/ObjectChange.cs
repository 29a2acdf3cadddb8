using Veneer.Fuse;
using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>Changes attributes, extended attributes and flags of an object of upper, by its name.</summary>
/// <remarks>
/// Callers hold no lock, and have copied the object up. The name is held during the change, so that it leads to no other object.
/// <para>
/// Crash safety. Each attribute changes by one system call.
/// </para>
/// </remarks>
/// <param name="tree">The tree of the overlay.</param>
internal sealed class ObjectChange(ObjectTree tree)
{
    /// <summary>An object of upper that is reached by its name, and the locks that keep the name its own.</summary>
    private readonly ref struct Held
    {
        private readonly SharedLock.Scope names;
        private readonly HeldName name;

        public readonly RealReference Real;
        public readonly Errno Error;

        public Held(ObjectTree tree, Inode inode)
        {
            names = tree.RenameLock.Share();
            name = new HeldName(inode);
            Error = tree.Objects.ResolveLocked(inode, out Real);
        }

        public void Dispose()
        {
            Real.Dispose();
            name.Dispose();
            names.Dispose();
        }
    }

    /// <summary>Changes what SETATTR asks for, except the size.</summary>
    /// <param name="inode">The object.</param>
    /// <param name="request">The request.</param>
    /// <param name="input">The argument of the request.</param>
    public Errno SetAttributes(Inode inode, in Request request, in SetAttrIn input)
    {
        using var held = new Held(tree, inode);
        return held.Error.IsError ? held.Error : SetAttributes(request, held.Real, inode, input);
    }

    /// <summary>The flags of a SETATTR that changes an attribute.</summary>
    public const SetAttrValid Something =
        SetAttrValid.Mode | SetAttrValid.Uid | SetAttrValid.Gid | SetAttrValid.Size |
        SetAttrValid.AccessTime | SetAttrValid.ModifyTime | SetAttrValid.KillSuidGid;

    /// <summary>
    /// Changes the owner before the mode, since a chown clears set-id bits. Changes the times last, since any other change may
    /// set them.
    /// </summary>
    private static Errno SetAttributes(in Request request, in RealReference real, Inode inode, in SetAttrIn input)
    {
        SetAttrValid valid = input.Valid;
        Errno error = Errno.None;
        if ((valid & Something) == 0 && inode.Backing is { HasWriters: true })
        {
            error = DropPrivileges(request, real);
            if (error.IsError) { return error; }
        }
        // chown(-1, -1) comes as a request that sets nothing. It clears set-id bits all the same.
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
            TimeSpec access = Time(
                valid, SetAttrValid.AccessTime, SetAttrValid.AccessTimeNow, input.AccessTime, input.AccessTimeNanoseconds);
            TimeSpec modify = Time(
                valid, SetAttrValid.ModifyTime, SetAttrValid.ModifyTimeNow, input.ModifyTime, input.ModifyTimeNanoseconds);
            error = Libc.ChangeTimesAt(real.Directory, real.Name, access, modify);
        }
        return error;
    }

    /// <summary>
    /// Drops the privileges that the first write drops: capabilities always, and set-id bits unless root writes. Kernel:
    /// file_remove_privs().
    /// </summary>
    private static Errno DropPrivileges(in Request request, in RealReference real)
    {
        Errno error = Libc.RemoveXattrAt(real.Directory, real.Name, "security.capability\0"u8);
        if (error.IsError && !error.IsNoXattr) { return error; }
        return request.Header.Uid == 0 ? Errno.None : SetId.Clear(real.Directory, real.Name, request);
    }

    private static TimeSpec Time(SetAttrValid valid, SetAttrValid set, SetAttrValid now, ulong seconds, uint nanoseconds) =>
        (valid & set) == 0 ? TimeSpec.Omit
        : (valid & now) != 0 ? TimeSpec.Now
        : new TimeSpec { Seconds = (long)seconds, Nanoseconds = nanoseconds };

    /// <summary>Changes the size of a file.</summary>
    /// <param name="descriptor">A descriptor of the file of upper, open for writing.</param>
    /// <param name="size">The new size, in bytes.</param>
    /// <param name="isOpen">
    /// Whether the user called ftruncate(2), or open(2) with O_TRUNC. They set the times even if the size stays. Kernel:
    /// do_truncate().
    /// </param>
    /// <param name="dropsSetId">Whether the change clears the set-id bits.</param>
    /// <param name="request">The request that asks for the change.</param>
    public static Errno SetSize(int descriptor, long size, bool isOpen, bool dropsSetId, in Request request)
    {
        // The set-id bits go first: a crash in between must not leave them on changed data.
        Errno error = dropsSetId ? SetId.Clear(descriptor, Libc.Self, request) : Errno.None;
        if (error.IsError) { return error; }
        return isOpen ? Libc.Truncate(descriptor, size) : Libc.TruncateAsNamed(descriptor, size);
    }

    /// <summary>Sets an extended attribute.</summary>
    /// <param name="inode">The object.</param>
    /// <param name="stored">The name under which it is stored, with its NUL.</param>
    /// <param name="value">The value.</param>
    /// <param name="flags">As for setxattr(2).</param>
    /// <param name="dropsSetGid">
    /// Whether the change clears the set-group-id bit, as when somebody sets an ACL who is not in the group of the file.
    /// </param>
    public Errno SetXattr(Inode inode, ReadOnlySpan<byte> stored, ReadOnlySpan<byte> value, XattrFlags flags, bool dropsSetGid)
    {
        using var held = new Held(tree, inode);
        if (held.Error.IsError) { return held.Error; }
        Errno error = Libc.SetXattrAt(held.Real.Directory, held.Real.Name, stored, value, flags);
        if (error.IsError || !dropsSetGid) { return error; }
        error = Libc.StatAt(held.Real.Directory, held.Real.Name, StatxMask.Basic, out Statx stat);
        if (error.IsError || (stat.Mode & ModeBits.SetGid) == 0) { return error; }
        return Libc.ChangeModeAt(held.Real.Directory, held.Real.Name, stat.Mode & ModeBits.Mask & ~ModeBits.SetGid);
    }

    /// <summary>Removes an extended attribute.</summary>
    /// <param name="inode">The object.</param>
    /// <param name="stored">The name under which it is stored, with its NUL.</param>
    public Errno RemoveXattr(Inode inode, ReadOnlySpan<byte> stored)
    {
        using var held = new Held(tree, inode);
        return held.Error.IsError ? held.Error : Libc.RemoveXattrAt(held.Real.Directory, held.Real.Name, stored);
    }

    /// <summary>Sets the flags of chattr(1).</summary>
    /// <param name="inode">The object.</param>
    /// <param name="command">A request of <see cref="InodeFlags"/>.</param>
    /// <param name="argument">The argument of the request.</param>
    public Errno SetFlags(Inode inode, uint command, ReadOnlySpan<byte> argument)
    {
        using var held = new Held(tree, inode);
        if (held.Error.IsError) { return held.Error; }
        Errno error = FileFlags.Write(held.Real, command, tree.Xattr, argument, out Protection protection);
        if (!error.IsError) { inode.Protection = protection; }
        return error;
    }
}
