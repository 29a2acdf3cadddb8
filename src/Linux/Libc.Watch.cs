using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>What inotify(7) tells of a watched object.</summary>
[Flags]
public enum WatchEvents : uint
{
    /// <summary>Nothing.</summary>
    None = 0,
    /// <summary>IN_MOVED_TO: something was moved to a name in it, over what had that name perhaps.</summary>
    MovedTo = 0x80,
    /// <summary>IN_DELETE: a name in it was removed.</summary>
    Delete = 0x200,
    /// <summary>IN_MOVE_SELF: it was moved.</summary>
    MoveSelf = 0x800,
    /// <summary>IN_Q_OVERFLOW: there was more than could be told. It has no watch.</summary>
    Overflow = 0x4000,
    /// <summary>IN_ONLYDIR: to ask for; refuse what is no directory.</summary>
    OnlyDirectory = 0x1000000,
    /// <summary>IN_MASK_ADD: to ask for; keep what else is watched of it.</summary>
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

    /// <summary>A new, empty set of watches. See inotify_init(2).</summary>
    public static Errno OpenWatches(out int descriptor)
    {
        Errno error = Check(inotify_init1((int)OpenFlags.CloseOnExec), out descriptor);
        if (error.IsError) { descriptor = -1; }
        return error;
    }

    /// <summary>Watches an object. The same object gets the same number again. See inotify_add_watch(2).</summary>
    public static Errno AddWatch(int descriptor, ReadOnlySpan<byte> path, WatchEvents events, out int watch)
    {
        fixed (byte* p = path) { return Check(inotify_add_watch(descriptor, p, (uint)events), out watch); }
    }

    /// <summary>Ends a watch; its reader gets one more event of it. See inotify_rm_watch(2).</summary>
    public static Errno RemoveWatch(int descriptor, int watch) => Check(inotify_rm_watch(descriptor, watch));
}
