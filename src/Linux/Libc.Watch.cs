using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>The events of inotify(7), and flags for adding a watch.</summary>
[Flags]
public enum WatchEvents : uint
{
    /// <summary>Nothing.</summary>
    None = 0,
    /// <summary>IN_MOVED_TO: an object was moved to a name in the directory. It may have replaced another one.</summary>
    MovedTo = 0x80,
    /// <summary>IN_DELETE: a name in the directory was removed.</summary>
    Delete = 0x200,
    /// <summary>IN_MOVE_SELF: the watched object was moved.</summary>
    MoveSelf = 0x800,
    /// <summary>IN_Q_OVERFLOW: events were lost. This event belongs to no watch.</summary>
    Overflow = 0x4000,
    /// <summary>IN_ONLYDIR: refuse to watch anything but a directory.</summary>
    OnlyDirectory = 0x1000000,
    /// <summary>IN_MASK_ADD: keep the events that an existing watch of the object already has.</summary>
    AddToMask = 0x20000000,
}

public static unsafe partial class Libc
{
    [LibraryImport(Library, SetLastError = true)]
    private static partial int inotify_init1(int flags);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int inotify_add_watch(int descriptor, byte* path, uint mask);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int inotify_rm_watch(int descriptor, int watch);

    /// <summary>Opens an empty set of watches. See inotify_init(2).</summary>
    public static Errno OpenWatches(out int descriptor)
    {
        Errno error = Check(inotify_init1((int)OpenFlags.CloseOnExec), out descriptor);
        if (error.IsError) { descriptor = -1; }
        return error;
    }

    /// <summary>
    /// Adds a watch of an object. Watching the same object again returns the same number. See inotify_add_watch(2).
    /// </summary>
    public static Errno AddWatch(int descriptor, ReadOnlySpan<byte> path, WatchEvents events, out int watch)
    {
        fixed (byte* p = path) { return Check(inotify_add_watch(descriptor, p, (uint)events), out watch); }
    }

    /// <summary>Removes a watch; its reader gets one last event for it (IN_IGNORED). See inotify_rm_watch(2).</summary>
    public static Errno RemoveWatch(int descriptor, int watch) => Check(inotify_rm_watch(descriptor, watch));
}
