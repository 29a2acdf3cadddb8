using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>A path on the command line that is, or may be, a mount point. Nothing here waits for the server of the mount.</summary>
internal static class Target
{
    /// <summary>Opens a directory, O_PATH, and says its full name. The caller closes it, or it keeps the mount busy.</summary>
    public static Errno Open(string path, out string resolved, out int descriptor)
    {
        resolved = path;
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.Path, 0, ResolveFlags.None, out descriptor);
        if (error.IsError) { return error; }
        Span<byte> name = stackalloc byte[4096];
        error = Libc.ReadLinkAt(Libc.AtCwd, PathText.Encode($"/proc/self/fd/{descriptor}"), name, out int length);
        if (error.IsError)
        {
            Libc.Close(descriptor);
            descriptor = -1;
            return error;
        }
        resolved = PathText.Decode(name[..length]);
        return Errno.None;
    }

    /// <summary>The mount whose root a path names, or null when it names something else.</summary>
    public static Errno Find(string path, out string resolved, out MountEntry? mount)
    {
        Errno error = FindAround(path, out resolved, out mount, out int descriptor);
        if (error.IsError) { return error; }
        Libc.Close(descriptor);
        if (mount?.MountPoint != resolved) { mount = null; }
        return Errno.None;
    }

    /// <summary>The mount that a path leads into, or null when the mount table does not have it, and what it leads to, O_PATH.</summary>
    public static Errno FindAround(string path, out string resolved, out MountEntry? mount, out int descriptor)
    {
        mount = null;
        Errno error = Open(path, out resolved, out descriptor);
        if (error.IsError) { return error; }
        // Not statx(2), which would ask the server.
        error = Libc.ReadWhole(PathText.Encode($"/proc/self/fdinfo/{descriptor}"), out byte[] content);
        List<MountEntry> table = [];
        if (!error.IsError) { error = MountTable.Read(out table); }
        if (error.IsError)
        {
            Libc.Close(descriptor);
            return error;
        }
        int id = MountId(content);
        mount = table.Find(entry => entry.Id == id);
        return Errno.None;
    }

    private static int MountId(ReadOnlySpan<byte> content)
    {
        ReadOnlySpan<byte> key = "mnt_id:\t"u8;
        int start = content.IndexOf(key);
        return start >= 0 && System.Buffers.Text.Utf8Parser.TryParse(content[(start + key.Length)..], out int id, out _) ? id : -1;
    }
}
