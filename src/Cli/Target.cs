using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>Examines a path on the command line that may be a mount point. Nothing here waits for a FUSE server.</summary>
internal static class Target
{
    /// <summary>
    /// Opens a path with O_PATH and gets its full name. The caller closes the descriptor, which keeps the mount busy until
    /// then.
    /// </summary>
    public static Errno Open(string path, out string resolved, out int descriptor) =>
        MountTable.OpenPlace(path, out resolved, out descriptor);

    /// <summary>Finds the mount whose root a path names. The mount is null when the path names something else.</summary>
    public static Errno Find(string path, out string resolved, out MountEntry? mount)
    {
        Errno error = FindAround(path, out resolved, out mount, out int descriptor);
        if (error.IsError) { return error; }
        Libc.Close(descriptor);
        if (mount?.MountPoint == resolved) { return Errno.None; }
        mount = null;
        // A mount over the caller's working directory is not seen through ".", but through its name.
        if (path.StartsWith('/') || FindAround(resolved, out string named, out MountEntry? over, out descriptor).IsError)
        {
            return Errno.None;
        }
        Libc.Close(descriptor);
        if (over?.MountPoint == named) { (resolved, mount) = (named, over); }
        return Errno.None;
    }

    /// <summary>
    /// Finds the mount that a path leads into, and opens the path with O_PATH. The mount is null when the mount table does
    /// not have it.
    /// </summary>
    public static Errno FindAround(string path, out string resolved, out MountEntry? mount, out int descriptor) =>
        MountTable.FindAround(path, out resolved, out mount, out descriptor);
}
