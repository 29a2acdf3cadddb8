using Veneer.Fuse.Locking;

namespace Veneer.Overlay.Locking;

/// <summary>The locks of an overlay. They are taken in the order of their ranks. ARCHITECTURE.md says what each lock is for.</summary>
internal static class OverlayLocks
{
    /// <summary>The lock of an inode for one copy-up at a time. The long part of a copy-up runs under this lock alone.</summary>
    public static readonly LockClass CopyUp = new("copy-up lock", 1, isLeaf: false);

    /// <summary>The lock of an open file while it moves from the lower file to the copy, or its O_DIRECT changes.</summary>
    public static readonly LockClass OpenFile = new("lock of an open file", 2, isLeaf: false);

    /// <summary>The rename lock: held shared while a name in upper is used, and never while a lower is read (ADR 20).</summary>
    public static readonly LockClass Rename = new("rename lock", 3, isLeaf: false);

    /// <summary>The lock of a directory while names in it change. While one is held, only that of a child may be taken.</summary>
    public static readonly LockClass Names = new("names lock", 4, isLeaf: false) { IsNested = true };

    /// <summary>Protects the descriptors of real directories.</summary>
    public static readonly LockClass DirectoryCache = new("DirectoryCache", 30);

    /// <summary>Protects the table of inodes: references, versions, aliases.</summary>
    public static readonly LockClass InodeTable = new("InodeTable", 20, isLeaf: true, DirectoryCache);

    /// <summary>Protects the listings of directories.</summary>
    public static readonly LockClass Listings = new("Listings", 21);

    /// <summary>Protects the numbers that users see as st_ino.</summary>
    public static readonly LockClass InodeNumbers = new("InodeNumbers", 22);

    /// <summary>Protects what the look-ahead does next.</summary>
    public static readonly LockClass LookAhead = new("LookAhead", 10, isLeaf: true, Listings, InodeTable, InodeNumbers, DirectoryCache);

    /// <summary>
    /// Protects how open files reach their data. Held over the backing ioctl, and while the content of a small file is sent to
    /// the kernel.
    /// </summary>
    public static readonly LockClass BackingFile = new("BackingFile", 23);

    /// <summary>Protects the numbers of open files.</summary>
    public static readonly LockClass OpenFiles = new("OpenFiles", 24);

    /// <summary>Protects the search for the owners of objects. Held while the child process is asked that sees the numbers.</summary>
    public static readonly LockClass Owners = new("Owners", 25);

    /// <summary>Protects the whiteout to which other whiteouts are linked.</summary>
    public static readonly LockClass WorkDirectory = new("WorkDirectory", 26);

    /// <summary>Protects the record of renames during a sync of upper.</summary>
    public static readonly LockClass Moves = new("Moves", 27);

    /// <summary>Protects the sync of upper that a tool asked for.</summary>
    public static readonly LockClass LiveSync = new("LiveSync", 28);

    /// <summary>Protects the list of what a sync could not do.</summary>
    public static readonly LockClass UpperSync = new("UpperSync", 29);

    /// <summary>Protects the mark of a volatile upper.</summary>
    public static readonly LockClass VolatileMark = new("VolatileMark", 31);

    /// <summary>Protects the times at which upper's filesystem is asked for errors.</summary>
    public static readonly LockClass WritebackErrors = new("WritebackErrors", 32);

    /// <summary>Protects the answers that tools read in parts.</summary>
    public static readonly LockClass ControlChannel = new("ControlChannel", 33);

    /// <summary>Protects whether the overlay is shut down.</summary>
    public static readonly LockClass Shutdown = new("Shutdown", 34);
}
