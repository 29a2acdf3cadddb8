using System.Buffers.Text;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Upper;

/// <summary>A directory with nothing but whiteouts in it that was moved to work, to be discarded when the caller holds no lock.</summary>
/// <param name="Name">In work, with its NUL.</param>
/// <param name="Entries">How many whiteouts it has.</param>
internal sealed record Leftover(byte[] Name, int Entries);

/// <summary>Where new objects are built before they get their name in upper by one rename or link.</summary>
/// <remarks>
/// <c>WORKDIR/work</c>, as kernel overlayfs has it: what a killed server left there is removed at the next mount, by
/// whichever of the two mounts. Nothing in it is ever needed.
/// </remarks>
internal sealed class WorkDirectory : IDisposable
{
    private const int MaxDepth = 4096;

    private readonly Fd directory;
    private readonly OrderedLock gate = new(OverlayLocks.WorkDirectory);
    private long lastName;
    private bool hasWhiteout;
    private bool cannotLinkWhiteouts;

    /// <summary>Room for a name, in bytes.</summary>
    public const int NameLength = 24;

    private static ReadOnlySpan<byte> SharedWhiteout => "#whiteout\0"u8;

    private readonly bool isShared;

    private readonly OverlayXattr xattr;

    private WorkDirectory(Fd directory, UpperFeatures features, OverlayXattr xattr, bool isShared)
    {
        this.directory = directory;
        this.isShared = isShared;
        this.xattr = xattr;
        Features = features;
        cannotLinkWhiteouts = !features.Links;
        Steps = new Steps(this);
        // Far from those of the other one, which began at zero or also at random.
        if (isShared) { lastName = Random.Shared.NextInt64(1L << 32, 1L << 62); }
    }

    /// <summary>An O_PATH descriptor of the directory.</summary>
    public int Descriptor => directory.Value;

    /// <summary>What the filesystem can do.</summary>
    public UpperFeatures Features { get; }

    /// <summary>How names change where the filesystem cannot change them at once.</summary>
    public Steps Steps { get; }

    /// <summary>Whether what is made here belongs to root and its group.</summary>
    public bool GivesRoot { get; private init; }

    /// <summary>Makes the directory ready: creates it, or empties it but for the mark of a volatile upper, which somebody else judges.</summary>
    /// <param name="workdir">A descriptor of the directory that the user named.</param>
    /// <param name="path">For messages.</param>
    /// <param name="upper">The root of upper: what a killed server had begun there is finished.</param>
    /// <param name="features">What the filesystem can do.</param>
    /// <param name="xattr">Names of upper's attributes.</param>
    /// <param name="isShared">Whether another overlay uses it at this time: what is there is its, and stays.</param>
    public static WorkDirectory Open(int workdir, string path, int upper, UpperFeatures features, OverlayXattr xattr, bool isShared)
    {
        ReadOnlySpan<byte> name = "work\0"u8;
        RefuseIncompatible(workdir, path);
        Errno error = isShared ? Errno.None : Steps.Finish(workdir, upper, features.Whiteouts, xattr);
        if (error.IsError) { throw new OverlayMountException($"What a killed server has begun in the upper of the work directory {path} cannot be finished ({error}): see its filesystem, and {path}/work/incompat."); }
        error = isShared ? Errno.None : RemoveContents(workdir, name);
        if (error.IsError && error != Errno.ENOENT) { throw Unwritable(error, $"The work directory {path} cannot be emptied ({error}): remove {path}/work by hand, nothing in it is needed."); }
        // Nobody's business, as the kernel has it; but without privilege its owner must get in.
        uint mode = Libc.EffectiveUid == 0 ? 0 : 0x1C0u;
        error = Libc.MakeDirectoryAt(workdir, name, mode);
        if (error.IsError && error != Errno.EEXIST) { throw Unwritable(error, $"Nothing can be created in the work directory {path} ({error}): see its permissions and its filesystem."); }
        error = Libc.OpenAt(workdir, name, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int descriptor);
        if (error.IsError) { throw new OverlayMountException($"The work directory {path} cannot be used ({error}): see its permissions and its filesystem."); }
        // What it has from its directory it would hand on to all that is made here. Kernel: ovl_workdir_create()
        error = Libc.RemoveXattrAt(descriptor, Libc.Self, PosixAcl.DefaultName);
        if (!error.IsError || error.IsNoXattr) { error = Libc.RemoveXattrAt(descriptor, Libc.Self, PosixAcl.AccessName); }
        if (error.IsError && !error.IsNoXattr) { throw Unwritable(error, $"The work directory {path} has an ACL that cannot be removed ({error}): use another one."); }
        error = Libc.ChangeModeAt(descriptor, Libc.Self, mode);
        if (error.IsError) { throw Unwritable(error, $"The mode of the work directory {path} cannot be changed ({error}): see its filesystem."); }
        // Without the bit, the group goes on all the same where the filesystem is mounted with grpid.
        bool isOfRoot = !Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat).IsError && stat.Gid == 0;
        return new WorkDirectory(new Fd(descriptor), features, xattr, isShared) { GivesRoot = Libc.EffectiveUid == 0 && Libc.EffectiveGid == 0 && isOfRoot };
    }

    /// <summary>Where the kernel mounts read-only. Others may be mended by whoever mounts, such as want of permission. Kernel: ovl_workdir_create().</summary>
    private static OverlayMountException Unwritable(Errno error, string sentence) =>
        error is Errno.EPERM or Errno.ENOSPC or Errno.EDQUOT or Errno.EBUSY or Errno.ENOTEMPTY ? OverlayMountException.OfWork(error, sentence) : new OverlayMountException(sentence);

    /// <summary>A directory below <c>work/incompat</c> says that upper needs something that its reader may not know. Kernel: ovl_workdir_cleanup_recurse().</summary>
    private static void RefuseIncompatible(int workdir, string path)
    {
        Errno error = Libc.OpenAt(workdir, "work/incompat\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int descriptor);
        if (error.IsError) { return; }
        var reader = new DirectoryReader(descriptor);
        string feature = "";
        while (reader.MoveNext())
        {
            if (!reader.Name.SequenceEqual("volatile"u8) && !Steps.IsKnown(reader.Name)) { feature = Text.Printable(reader.Name); }
        }
        reader.Dispose();
        Libc.Close(descriptor);
        if (feature.Length > 0)
        {
            throw new OverlayMountException($"The upper of the work directory {path} was last mounted with a feature {feature}, which Veneer does not know: mount it with what has written it, or discard both.");
        }
    }

    /// <summary>The mark of a volatile upper is never gone, not even for a moment: it stays where it is.</summary>
    private static Errno RemoveContents(int parent, ReadOnlySpan<byte> name)
    {
        Errno error = Libc.OpenAt(parent, name, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int descriptor);
        if (error == Errno.ENOTDIR) { return Libc.UnlinkAt(parent, name); }
        if (error.IsError) { return error; }
        var reader = new DirectoryReader(descriptor);
        while (reader.MoveNext())
        {
            // With the mark of a volatile upper in it, it stays.
            if (reader.Name.SequenceEqual("incompat"u8))
            {
                _ = Libc.RemoveDirectoryAt(descriptor, reader.TerminatedName); // best effort: it is empty only where names changed in steps
                continue;
            }
            Errno inner = RemoveTree(descriptor, reader.TerminatedName, 1);
            if (inner.IsError) { error = inner; }
        }
        reader.Dispose();
        Libc.Close(descriptor);
        return error;
    }

    /// <summary>A name that nothing in work has.</summary>
    /// <param name="space">Room for <see cref="NameLength"/> bytes.</param>
    /// <returns>With its NUL.</returns>
    public ReadOnlySpan<byte> NewName(Span<byte> space)
    {
        space[0] = (byte)'#';
        _ = Utf8Formatter.TryFormat(Interlocked.Increment(ref lastName), space[1..], out int digits, 'x'); // cannot fail: 16 digits fit
        space[digits + 1] = 0;
        return space[..(digits + 2)];
    }

    /// <summary>Makes a whiteout under a name that does not exist. Atomic: it is there whole or not at all.</summary>
    /// <remarks>
    /// Whiteouts are links to one inode, as the kernel makes them, until the filesystem has no more links for it.
    /// In a directory of upper, <see cref="AnnounceWhiteout"/> comes first.
    /// </remarks>
    public Errno MakeWhiteout(int target, ReadOnlySpan<byte> name)
    {
        if (!cannotLinkWhiteouts)
        {
            using (gate.Enter())
            {
                if (!hasWhiteout) { hasWhiteout = !Whiteout.Make(directory.Value, SharedWhiteout, Features.Whiteouts, xattr).IsError; }
            }
            Errno error = Libc.LinkAt(directory.Value, SharedWhiteout, target, name);
            if (error is Errno.None or Errno.EEXIST or Errno.EROFS) { return error; }
            if (error is Errno.EMLINK or Errno.ENOSPC or Errno.EDQUOT)
            {
                // No more links, or no room for one: the shared whiteout itself will do. Kernel: ovl_whiteout()
                using (gate.Enter())
                {
                    error = Publish(SharedWhiteout, target, name);
                    hasWhiteout = false;
                }
                if (!error.IsError) { return Errno.None; }
            }
            else if (error != Errno.ENOENT) // another thread has just taken the shared one
            {
                cannotLinkWhiteouts = true;
            }
        }
        if (Features.Whiteouts == WhiteoutForm.Device) { return Whiteout.Make(target, name, WhiteoutForm.Device, xattr); }
        using var temporary = new Temporary(this, stackalloc byte[NameLength]);
        Errno made = Whiteout.MakeFile(directory.Value, temporary.Name, xattr);
        return made.IsError ? made : temporary.Publish(target, name);
    }

    /// <summary>Says on a directory of upper that it is about to get a whiteout.</summary>
    public Errno AnnounceWhiteout(int target) => Whiteout.Announce(target, Features.Whiteouts, xattr);

    /// <summary>Gives an object of work a name in upper that nothing has; the caller holds the lock that keeps it so.</summary>
    /// <returns><see cref="Errno.EEXIST"/> when something has.</returns>
    public Errno Publish(ReadOnlySpan<byte> temporary, int target, ReadOnlySpan<byte> name)
    {
        if (Features.NoReplace) { return Libc.RenameAt(directory.Value, temporary, target, name, RenameFlags.NoReplace); }
        Errno error = Libc.StatAt(target, name, StatxMask.Basic, out _);
        if (error != Errno.ENOENT) { return error.IsError ? error : Errno.EEXIST; }
        return Libc.RenameAt(directory.Value, temporary, target, name, RenameFlags.None);
    }

    /// <summary>Takes a name of upper away, together with what has it, which may be a directory that is not empty.</summary>
    /// <param name="source">Where it is.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="temporary">A name that nothing in work has.</param>
    public Errno Withdraw(int source, ReadOnlySpan<byte> name, ReadOnlySpan<byte> temporary) =>
        Libc.RenameAt(source, name, directory.Value, temporary, RenameFlags.None);

    /// <summary>Removes an object of work, a directory with all that is in it. What fails is left for the next mount.</summary>
    public void Discard(ReadOnlySpan<byte> name) => _ = RemoveTree(directory.Value, name, 0); // best effort: the next mount empties work

    /// <summary>Removes a name, a directory with all that is in it, as far as that goes.</summary>
    internal static Errno RemoveTree(int parent, ReadOnlySpan<byte> name, int depth)
    {
        Errno error = Libc.UnlinkAt(parent, name);
        if (error is not (Errno.EISDIR or Errno.EPERM)) { return error; }
        error = Libc.RemoveDirectoryAt(parent, name);
        // Where the directory above can only be added to, what is in this one goes all the same.
        if (error is not (Errno.ENOTEMPTY or Errno.EEXIST or Errno.EPERM)) { return error; }
        if (depth > MaxDepth) { return Errno.ELOOP; }

        Errno opened = Libc.OpenAt(parent, name, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int descriptor);
        if (opened.IsError) { return opened == Errno.ENOTDIR ? error : opened; }
        error = Errno.None;
        var reader = new DirectoryReader(descriptor);
        while (reader.MoveNext())
        {
            Errno inner = RemoveTree(descriptor, reader.TerminatedName, depth + 1);
            if (inner.IsError) { error = inner; }
        }
        reader.Dispose();
        Libc.Close(descriptor);
        return error.IsError ? error : Libc.RemoveDirectoryAt(parent, name);
    }

    /// <summary>Removes what is left of this mount: the shared whiteout, and what kept hard-linked copies linkable.</summary>
    private void Clear()
    {
        if (Libc.OpenAt(directory.Value, ".\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.Confined, out int descriptor).IsError) { return; }
        var reader = new DirectoryReader(descriptor);
        while (reader.MoveNext())
        {
            if (reader.Name[0] == '#') { Discard(reader.TerminatedName); }
        }
        reader.Dispose();
        _ = Libc.RemoveDirectoryAt(directory.Value, "incompat\0"u8); // best effort: it is empty where names changed in steps, and holds the mark of a volatile upper
        Libc.Close(descriptor);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (directory.Value >= 0 && !isShared) { Clear(); }
        directory.Dispose();
    }
}
