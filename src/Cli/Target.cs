using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>A path on the command line that is, or may be, a mount point. Nothing here waits for the server of the mount.</summary>
internal static class Target
{
    /// <summary>Opens a directory, O_PATH, and says its full name. The caller closes it, or it keeps the mount busy.</summary>
    public static Errno Open(string path, out string resolved, out int descriptor) => MountTable.OpenPlace(path, out resolved, out descriptor);

    /// <summary>The mount whose root a path names, or null when it names something else.</summary>
    public static Errno Find(string path, out string resolved, out MountEntry? mount)
    {
        Errno error = FindAround(path, out resolved, out mount, out int descriptor);
        if (error.IsError) { return error; }
        Libc.Close(descriptor);
        if (mount?.MountPoint == resolved) { return Errno.None; }
        mount = null;
        // What is mounted over the caller's directory is not seen through ".", but by the name.
        if (path.StartsWith('/') || FindAround(resolved, out string named, out MountEntry? over, out descriptor).IsError) { return Errno.None; }
        Libc.Close(descriptor);
        if (over?.MountPoint == named) { (resolved, mount) = (named, over); }
        return Errno.None;
    }

    /// <summary>The mount that a path leads into, or null when the mount table does not have it, and what it leads to, O_PATH.</summary>
    public static Errno FindAround(string path, out string resolved, out MountEntry? mount, out int descriptor) => MountTable.FindAround(path, out resolved, out mount, out descriptor);
}
