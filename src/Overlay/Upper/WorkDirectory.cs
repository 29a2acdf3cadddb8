using System.Buffers.Text;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Upper;

/// <summary>
/// A directory in work that contains nothing but whiteouts. It is discarded later, when the caller holds no lock.
/// </summary>
/// <param name="Name">The name in work, with its NUL.</param>
/// <param name="Entries">The number of whiteouts in the directory.</param>
internal sealed record Leftover(byte[] Name, int Entries);

/// <summary>The directory in which objects are built before they get their name in upper, by one rename or link.</summary>
/// <remarks>
/// It is <c>WORKDIR/work</c>, as in kernel overlayfs. The next mount, by Veneer or by the kernel, removes what a killed server
/// has left there. None of it is ever needed.
/// </remarks>
internal sealed class WorkDirectory : IDisposable
{
    /// <summary>The most directories that are entered, one in another, to remove a tree.</summary>
    private const int MaxDepth = 4096;

    private readonly Fd directory;
    private readonly OrderedLock gate = new(OverlayLocks.WorkDirectory);
    private long lastName;
    private bool hasWhiteout;
    private bool cannotLinkWhiteouts;

    /// <summary>The space for a name, in bytes.</summary>
    public const int NameLength = 24;

    /// <summary>The name of the whiteout that others are linked to, with its NUL.</summary>
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
        // The numbers begin far from those of the other overlay, which began at zero or at random too.
        if (isShared) { lastName = Random.Shared.NextInt64(1L << 32, 1L << 62); }
    }

    /// <summary>An O_PATH descriptor of the directory.</summary>
    public int Descriptor => directory.Value;

    /// <summary>What upper's filesystem can do.</summary>
    public UpperFeatures Features { get; }

    /// <summary>Changes names in several steps, for a filesystem that cannot do it in one.</summary>
    public Steps Steps { get; }

    /// <summary>Whether new objects here belong to root and its group.</summary>
    public bool GivesRoot { get; private init; }

    /// <summary>
    /// Makes the directory, or empties it. The mark of a volatile upper stays in it, for <c>VolatileMark</c> to judge. A
    /// change of upper that a killed server has begun is finished.
    /// </summary>
    /// <param name="workdir">A descriptor of the directory that the user named.</param>
    /// <param name="path">The path of that directory, for messages.</param>
    /// <param name="upper">A descriptor of the root of upper.</param>
    /// <param name="features">What upper's filesystem can do.</param>
    /// <param name="xattr">The names of the overlay's attributes in upper.</param>
    /// <param name="isShared">Whether another overlay uses the directory too. Then everything in it stays.</param>
    public static WorkDirectory Open(int workdir, string path, int upper, UpperFeatures features, OverlayXattr xattr, bool isShared)
    {
        ReadOnlySpan<byte> name = "work\0"u8;
        RefuseIncompatible(workdir, path);
        Errno error = isShared ? Errno.None : Steps.Finish(workdir, upper, features.Whiteouts, xattr);
        if (error.IsError)
        {
            throw new OverlayMountException(error.Explain(
                $"What a killed server has begun in the upper of the work directory {path} cannot be finished ({error}): "
                + $"see its filesystem, and {path}/work/incompat."));
        }
        error = isShared ? Errno.None : RemoveContents(workdir, name);
        if (error.IsError && error != Errno.ENOENT)
        {
            throw Unwritable(error,
                $"The work directory {path} cannot be emptied ({error}): remove {path}/work by hand, nothing in it is needed.");
        }
        // As in the kernel, nobody has permission for it. But if the server is not root, its owner needs the permission.
        uint mode = Libc.EffectiveUid == 0 ? 0 : 0x1C0u;
        error = Libc.MakeDirectoryAt(workdir, name, mode);
        if (error.IsError && error != Errno.EEXIST)
        {
            throw Unwritable(error,
                $"Nothing can be created in the work directory {path} ({error}): see its permissions and its filesystem.");
        }
        error = Libc.OpenAt(workdir, name, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0,
            ResolveFlags.Confined, out int descriptor);
        if (error.IsError)
        {
            throw new OverlayMountException(error.Explain(
                $"The work directory {path} cannot be used ({error}): see its permissions and its filesystem."));
        }
        // New objects here must not inherit an ACL that the directory itself has inherited. Kernel: ovl_workdir_create().
        error = Libc.RemoveXattrAt(descriptor, Libc.Self, PosixAcl.DefaultName);
        if (!error.IsError || error.IsNoXattr) { error = Libc.RemoveXattrAt(descriptor, Libc.Self, PosixAcl.AccessName); }
        if (error.IsError && !error.IsNoXattr)
        {
            throw Unwritable(error, $"The work directory {path} has an ACL that cannot be removed ({error}): use another one.");
        }
        error = Libc.ChangeModeAt(descriptor, Libc.Self, mode);
        if (error.IsError)
        {
            throw Unwritable(error, $"The mode of the work directory {path} cannot be changed ({error}): see its filesystem.");
        }
        // New objects have the group of the directory if the filesystem is mounted with grpid, even without a set-group-id bit.
        bool isOfRoot = !Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat).IsError && stat.Gid == 0;
        bool givesRoot = Libc.EffectiveUid == 0 && Libc.EffectiveGid == 0 && isOfRoot;
        return new WorkDirectory(new Fd(descriptor), features, xattr, isShared) { GivesRoot = givesRoot };
    }

    /// <summary>
    /// The exception for a work directory that cannot be written. For some errors the kernel mounts read-only, and the exception
    /// says so. Other errors, such as a missing permission, are for the user to mend. Kernel: ovl_workdir_create().
    /// </summary>
    private static OverlayMountException Unwritable(Errno error, string sentence) =>
        error is Errno.EPERM or Errno.ENOSPC or Errno.EDQUOT or Errno.EBUSY or Errno.ENOTEMPTY
            ? OverlayMountException.OfWork(error, sentence)
            : new OverlayMountException(sentence);

    /// <summary>
    /// Refuses an upper that needs a feature which Veneer does not know: an entry of <c>work/incompat</c> names the feature. Kernel:
    /// ovl_workdir_cleanup_recurse().
    /// </summary>
    private static void RefuseIncompatible(int workdir, string path)
    {
        Errno error = Libc.OpenAt(workdir, "work/incompat\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0,
            ResolveFlags.Confined, out int descriptor);
        if (error.IsError) { return; }
        var reader = new DirectoryReader(descriptor);
        string feature = "";
        while (reader.MoveNext())
        {
            if (reader.Name.SequenceEqual("volatile"u8) || Steps.IsKnown(reader.Name)) { continue; }
            feature = PathText.PrintableAscii(reader.Name);
        }
        reader.Dispose();
        Libc.Close(descriptor);
        if (feature.Length > 0)
        {
            throw new OverlayMountException(
                $"The upper of the work directory {path} was last mounted with a feature {feature}, which Veneer does not know: "
                + "mount it with what has written it, or discard both.");
        }
    }

    /// <summary>Empties the directory, except the mark of a volatile upper, which must never be missing, not even for a moment.</summary>
    private static Errno RemoveContents(int parent, ReadOnlySpan<byte> name)
    {
        Errno error = Libc.OpenAt(parent, name, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0,
            ResolveFlags.Confined, out int descriptor);
        if (error == Errno.ENOTDIR) { return Libc.UnlinkAt(parent, name); }
        if (error.IsError) { return error; }
        var reader = new DirectoryReader(descriptor);
        while (reader.MoveNext())
        {
            if (reader.Name.SequenceEqual("incompat"u8))
            {
                // best effort: it stays if it contains the mark of a volatile upper
                _ = Libc.RemoveDirectoryAt(descriptor, reader.TerminatedName);
                continue;
            }
            Errno inner = RemoveTree(descriptor, reader.TerminatedName, 1);
            if (inner.IsError) { error = inner; }
        }
        reader.Dispose();
        Libc.Close(descriptor);
        return error;
    }

    /// <summary>Chooses a name that does not exist in work.</summary>
    /// <param name="space">Space for <see cref="NameLength"/> bytes.</param>
    /// <returns>The name, with its NUL.</returns>
    public ReadOnlySpan<byte> NewName(Span<byte> space)
    {
        space[0] = (byte)'#';
        // cannot fail: there is space for 16 digits
        _ = Utf8Formatter.TryFormat(Interlocked.Increment(ref lastName), space[1..], out int digits, 'x');
        space[digits + 1] = 0;
        return space[..(digits + 2)];
    }

    /// <summary>Makes a whiteout under a name that does not exist. In upper, <see cref="AnnounceWhiteout"/> must come first.</summary>
    /// <remarks>
    /// Whiteouts are links to one inode, as in the kernel, until it has the most links that the filesystem allows.
    /// <para>
    /// Crash safety. The name gets the whiteout by one system call.
    /// </para>
    /// </remarks>
    /// <param name="target">A descriptor of the directory.</param>
    /// <param name="name">The name, with its NUL.</param>
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
                // The whiteout has the most links, or there is no space for a link: use the whiteout itself. Kernel: ovl_whiteout().
                using (gate.Enter())
                {
                    error = PublishLocked(SharedWhiteout, target, name);
                    hasWhiteout = false;
                }
                if (!error.IsError) { return Errno.None; }
            }
            else if (error != Errno.ENOENT) // ENOENT: another thread has just used the whiteout itself
            {
                cannotLinkWhiteouts = true;
            }
        }
        if (Features.Whiteouts == WhiteoutForm.Device) { return Whiteout.Make(target, name, WhiteoutForm.Device, xattr); }
        using var temporary = new Temporary(this, stackalloc byte[NameLength]);
        Errno made = Whiteout.MakeFile(directory.Value, temporary.Name, xattr);
        return made.IsError ? made : temporary.PublishLocked(target, name);
    }

    /// <summary>Marks a directory of upper that is about to get a whiteout.</summary>
    /// <param name="target">A descriptor of the directory.</param>
    public Errno AnnounceWhiteout(int target) => Whiteout.Announce(target, Features.Whiteouts, xattr);

    /// <summary>
    /// Moves an object of work to a name in upper that does not exist. Caller holds the names lock of the directory, or the rename lock
    /// exclusively, so that nobody makes the name.
    /// </summary>
    /// <param name="temporary">The name in work, with its NUL.</param>
    /// <param name="target">A descriptor of the directory in upper.</param>
    /// <param name="name">The name there, with its NUL.</param>
    /// <returns><see cref="Errno.EEXIST"/> when the name exists.</returns>
    public Errno PublishLocked(ReadOnlySpan<byte> temporary, int target, ReadOnlySpan<byte> name)
    {
        LockOrder.AssertHeldOr(OverlayLocks.Rename, OverlayLocks.Names);
        if (Features.NoReplace) { return Libc.RenameAt(directory.Value, temporary, target, name, RenameFlags.NoReplace); }
        Errno error = Libc.StatAt(target, name, StatxMask.Basic, out _);
        if (error != Errno.ENOENT) { return error.IsError ? error : Errno.EEXIST; }
        return Libc.RenameAt(directory.Value, temporary, target, name, RenameFlags.None);
    }

    /// <summary>Moves an object of upper, which may be a directory with entries, to work.</summary>
    /// <param name="source">A descriptor of the directory in upper.</param>
    /// <param name="name">The name there, with its NUL.</param>
    /// <param name="temporary">A name that does not exist in work, with its NUL.</param>
    public Errno Withdraw(int source, ReadOnlySpan<byte> name, ReadOnlySpan<byte> temporary) =>
        Libc.RenameAt(source, name, directory.Value, temporary, RenameFlags.None);

    /// <summary>Removes an object of work, and all that is in it if it is a directory.</summary>
    /// <param name="name">The name in work, with its NUL.</param>
    public void Discard(ReadOnlySpan<byte> name) => _ = RemoveTree(directory.Value, name, 0); // best effort: the next mount empties work

    /// <summary>Removes an object, and all that is in it if it is a directory. After an error, the rest is removed all the same.</summary>
    /// <param name="parent">A descriptor of the directory that has the object.</param>
    /// <param name="name">The name there, with its NUL.</param>
    /// <param name="depth">The number of directories above that are being removed.</param>
    internal static Errno RemoveTree(int parent, ReadOnlySpan<byte> name, int depth)
    {
        Errno error = Libc.UnlinkAt(parent, name);
        if (error is not (Errno.EISDIR or Errno.EPERM)) { return error; }
        error = Libc.RemoveDirectoryAt(parent, name);
        // EPERM: the directory above is append-only. What is in this one is removed all the same.
        if (error is not (Errno.ENOTEMPTY or Errno.EEXIST or Errno.EPERM)) { return error; }
        if (depth > MaxDepth) { return Errno.ELOOP; }

        Errno opened = Libc.OpenAt(parent, name, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0,
            ResolveFlags.Confined, out int descriptor);
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

    /// <summary>
    /// Removes what the mount has left here: the whiteout that others are linked to, the names of hard-linked copies, and objects
    /// without another name.
    /// </summary>
    private void Clear()
    {
        Errno error = Libc.OpenAt(
            directory.Value, ".\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.Confined, out int descriptor);
        if (error.IsError) { return; }
        var reader = new DirectoryReader(descriptor);
        while (reader.MoveNext())
        {
            if (reader.Name[0] == '#') { Discard(reader.TerminatedName); }
        }
        reader.Dispose();
        _ = Libc.RemoveDirectoryAt(directory.Value, "incompat\0"u8); // best effort: it stays if it contains the mark of a volatile upper
        Libc.Close(descriptor);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (directory.Value >= 0 && !isShared) { Clear(); }
        directory.Dispose();
    }
}
