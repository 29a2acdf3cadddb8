using Veneer.Linux;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Durability;

/// <summary>Tells whether the kernel has failed to write anything back to upper's filesystem since this was made. Costs one short system call.</summary>
/// <remarks>
/// A volatile mount of kernel overlayfs, attached nowhere, over empty directories of upper's filesystem: it syncs nothing,
/// and its fsync(2) compares the filesystem's error sequence with the one at its mount. It misses nothing, also not what
/// somebody else has been told of. Kernel: ovl_sync_status().
/// See docs/adr/0011-finding-failed-writes.md.
/// <para>
/// The directories stay as long as it lives: the kernel refuses to make a filesystem read-only that has files without a
/// name, and upper's is to be made so as if the kernel's overlay were on it.
/// </para>
/// <para>
/// Crash safety. The directories are made where things are tried out (<see cref="ProbeDirectory"/>), and are removed by the
/// next mount there: in its own work directory the kernel marks that mount as a volatile one, deeper than it cleans up itself.
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

    /// <summary>Makes one.</summary>
    /// <param name="workdir">The directory that the user named, in a mount that is attached.</param>
    /// <param name="workRoot">The same directory, as long as this lives.</param>
    /// <param name="userXattr">Whether only <c>user.overlay.*</c> attributes can be written.</param>
    /// <param name="sentinel">What was made.</param>
    /// <returns><see cref="Errno.EIO"/> when writing something back has failed that nobody has been told of; any other error: it cannot be had here.</returns>
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

    /// <summary>The error of the last write that failed since the sentinel was made, or <see cref="Errno.None"/>. Always the same from the first one on, or that of a later one.</summary>
    public Errno Check() => Libc.Sync(directory.Value, dataOnly: false);

    /// <inheritdoc/>
    public void Dispose()
    {
        directory.Dispose();
        ProbeDirectory.Remove(workRoot);
    }
}
