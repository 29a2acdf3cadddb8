using Veneer.Fuse.Locking;

namespace Veneer.Overlay.Locking;

/// <summary>The locks of an overlay, in the order in which they are taken. ARCHITECTURE.md says what each of them is for.</summary>
internal static class OverlayLocks
{
    /// <summary>Of an inode: one copy-up at a time. The long part of it runs under this lock alone.</summary>
    public static readonly LockClass CopyUp = new("copy-up lock", 1, isLeaf: false);

    /// <summary>Of an open file, while it changes from the lower file to its copy, or its O_DIRECT.</summary>
    public static readonly LockClass OpenFile = new("lock of an open file", 2, isLeaf: false);

    /// <summary>Shared while a name in upper is used; never held while a lower is asked (ADR 20).</summary>
    public static readonly LockClass Rename = new("rename lock", 3, isLeaf: false);

    /// <summary>Of a directory: names in it change. Parent before child.</summary>
    public static readonly LockClass Names = new("names lock", 4, isLeaf: false) { IsNested = true };

    /// <summary>Descriptors of real directories.</summary>
    public static readonly LockClass DirectoryCache = new("DirectoryCache", 30);

    /// <summary>Tables, references, versions, aliases.</summary>
    public static readonly LockClass InodeTable = new("InodeTable", 20, isLeaf: true, DirectoryCache);

    /// <summary>Listings of directories.</summary>
    public static readonly LockClass Listings = new("Listings", 21);

    /// <summary>The st_ino policy.</summary>
    public static readonly LockClass InodeNumbers = new("InodeNumbers", 22);

    /// <summary>What is looked at next.</summary>
    public static readonly LockClass LookAhead = new("LookAhead", 10, isLeaf: true, Listings, InodeTable, InodeNumbers, DirectoryCache);

    /// <summary>How open files reach their data; held over the backing ioctl, and while the content of a small file is given to the kernel.</summary>
    public static readonly LockClass BackingFile = new("BackingFile", 23);

    /// <summary>Numbers of open files.</summary>
    public static readonly LockClass OpenFiles = new("OpenFiles", 24);

    /// <summary>Whose objects are.</summary>
    public static readonly LockClass Owners = new("Owners", 25);

    /// <summary>The whiteout that others are linked to.</summary>
    public static readonly LockClass WorkDirectory = new("WorkDirectory", 26);

    /// <summary>What gets another name while upper is synced.</summary>
    public static readonly LockClass Moves = new("Moves", 27);

    /// <summary>The sync of upper that was asked for.</summary>
    public static readonly LockClass LiveSync = new("LiveSync", 28);

    /// <summary>What a sync could not do.</summary>
    public static readonly LockClass UpperSync = new("UpperSync", 29);

    /// <summary>The record of a volatile upper.</summary>
    public static readonly LockClass VolatileMark = new("VolatileMark", 31);

    /// <summary>When upper's filesystem is asked for errors.</summary>
    public static readonly LockClass WritebackErrors = new("WritebackErrors", 32);

    /// <summary>Answers that are fetched in parts.</summary>
    public static readonly LockClass ControlChannel = new("ControlChannel", 33);

    /// <summary>Whether the overlay is down.</summary>
    public static readonly LockClass Shutdown = new("Shutdown", 34);
}
