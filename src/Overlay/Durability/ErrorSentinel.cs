using Veneer.Linux;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Durability;

/// <summary>
/// Tells whether any write to upper's filesystem has failed since the sentinel was made. A check costs one short system
/// call.
/// </summary>
/// <remarks>
/// The sentinel is a detached, volatile mount of kernel overlayfs over empty directories of upper's filesystem. It syncs
/// nothing: its fsync(2) compares the filesystem's error sequence with that at the mount. So it misses no error, even one
/// that has been reported to somebody else. Kernel: ovl_sync_status(). See docs/adr/0011-finding-failed-writes.md.
/// <para>
/// The directories stay while the sentinel lives, rather than being unlinked: the kernel refuses to make a filesystem
/// read-only that has unlinked open files, and that must work as it does under kernel overlayfs.
/// </para>
/// <para>
/// Crash safety. The directories are in <see cref="ProbeDirectory"/>, which the next mount there removes. The kernel marks
/// the sentinel's work directory as volatile, deeper in the tree than the kernel itself cleans up.
/// </para>
/// </remarks>
internal sealed class ErrorSentinel : IDisposable
{
    private readonly Fd directory;
    private readonly int workRoot;

    private ErrorSentinel(int descriptor, int workRoot)
    {
        directory = new Fd(descriptor);
        this.workRoot = workRoot;
    }

    /// <summary>Makes a sentinel.</summary>
    /// <param name="workdir">The work directory that the user named, in a mount that is attached.</param>
    /// <param name="workRoot">The same directory; valid as long as the sentinel.</param>
    /// <param name="userXattr">Whether only <c>user.overlay.*</c> attributes can be written.</param>
    /// <param name="sentinel">The sentinel, or null on an error.</param>
    /// <returns>
    /// <see cref="Errno.EIO"/> when a write has failed and nobody has been told yet; any other error when a sentinel cannot
    /// be made here.
    /// </returns>
    public static Errno Create(int workdir, int workRoot, bool userXattr, out ErrorSentinel? sentinel)
    {
        sentinel = null;
        Errno error = ProbeDirectory.Make(workdir);
        if (error.IsError) { return error; }
        try
        {
            string place = $"/proc/self/fd/{workdir}/{PathText.Decode(ProbeDirectory.Name[..^1])}";
            foreach (string part in (ReadOnlySpan<string>)["/l", "/u", "/w"])
            {
                error = Libc.MakeDirectoryAt(Libc.AtCwd, PathText.Encode(place + part), 0x1C0);
                if (error.IsError) { return error; }
            }
            error = Libc.OpenFileSystem("overlay\0"u8, out int context);
            if (error.IsError) { return error; }
            using var setUp = new Fd(context);
            if (!error.IsError) { error = Libc.ConfigureFileSystem(context, "lowerdir\0"u8, PathText.Encode(place + "/l")); }
            if (!error.IsError) { error = Libc.ConfigureFileSystem(context, "upperdir\0"u8, PathText.Encode(place + "/u")); }
            if (!error.IsError) { error = Libc.ConfigureFileSystem(context, "workdir\0"u8, PathText.Encode(place + "/w")); }
            if (!error.IsError) { error = Libc.ConfigureFileSystem(context, "volatile\0"u8, default); }
            if (!error.IsError && userXattr) { error = Libc.ConfigureFileSystem(context, "userxattr\0"u8, default); }
            if (error.IsError) { return error; }
            error = Libc.MountFileSystem(context, out int mount);
            if (error.IsError) { return error; }
            using var attached = new Fd(mount);
            error = Libc.OpenAt(mount, ".\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int root);
            if (!error.IsError) { sentinel = new ErrorSentinel(root, workRoot); }
            return error;
        }
        finally
        {
            if (sentinel is null) { ProbeDirectory.Remove(workdir); }
        }
    }

    /// <summary>
    /// Gets the error of a failed write since the sentinel was made, or <see cref="Errno.None"/>. After the first failure
    /// it always returns an error: that one, or a later one.
    /// </summary>
    public Errno Check() => Libc.Sync(directory.Value, dataOnly: false);

    /// <inheritdoc/>
    public void Dispose()
    {
        directory.Dispose();
        ProbeDirectory.Remove(workRoot);
    }
}
