using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>An open regular file, for which an fh stands. The object is recycled, so that an open allocates nothing.</summary>
internal sealed class OpenFile
{
    private volatile int descriptor = -1;
    private volatile bool isDirect; // whether the descriptor has O_DIRECT; changed under a lock on this object

    /// <summary>The inode of the file.</summary>
    public Inode Inode { get; private set; } = null!;

    /// <summary>The nodeid by which the file was opened.</summary>
    public ulong NodeId { get; private set; }

    /// <summary>The mode in which the file was opened. It is not the inode's current mode if the nodeid was superseded.</summary>
    public BackingFile Backing { get; private set; } = null!;

    /// <summary>The user who opened the file.</summary>
    public uint Uid { get; private set; }

    /// <summary>The flags with which the caller opened the file.</summary>
    public OpenFlags Flags { get; private set; }

    /// <summary>
    /// The real file, or -1 until the server needs it. Set once, under a lock on this object. The descriptor may be changed to the copy
    /// in upper, but its number stays the same while the file is open.
    /// </summary>
    public int Descriptor => descriptor;

    /// <summary>Whether <see cref="Descriptor"/> is the lower file. Changed under a lock on this object.</summary>
    public bool IsLower { get; private set; }

    /// <summary>
    /// Whether <see cref="Descriptor"/> is the file that has the data. If not, it was not yet needed, or the file was copied up since:
    /// <see cref="OpenPolicy.OpenData"/> opens it.
    /// </summary>
    public bool HasData => descriptor >= 0 && !OpenPolicy.IsOutdated(Inode, IsLower);

    /// <summary>Whether the fh leads to the file. Protected by <see cref="OpenFiles"/>.</summary>
    public bool IsOpen { get; set; }

    /// <summary>Takes the lock on this open file until the result is disposed of.</summary>
    public ObjectLock.Scope Lock([CallerMemberName] string member = "") => ObjectLock.Enter(this, OverlayLocks.OpenFile, member);

    /// <summary>Takes over a descriptor of the real file, which was opened for this open file. Caller holds <see cref="Lock"/>.</summary>
    /// <param name="opened">The descriptor; closed if there is one already, which becomes the same file.</param>
    /// <param name="lower">Whether it is the lower file.</param>
    public Errno TakeLocked(int opened, bool lower)
    {
        LockOrder.AssertHeld(OverlayLocks.OpenFile, this);
        if (descriptor < 0)
        {
            IsLower = lower;
            isDirect = (Flags & OpenFlags.Direct) != 0;
            descriptor = opened;
            return Errno.None;
        }
        // The number stays the same: a read in progress on another thread ends on the lower file, the next one begins on the copy.
        Errno error = Libc.Duplicate(opened, descriptor);
        Libc.Close(opened);
        if (error.IsError) { return error; }
        IsLower = lower;
        isDirect = (Flags & OpenFlags.Direct) != 0;
        return error;
    }

    /// <summary>Sets O_DIRECT on the real file as the caller's descriptor has it now. Kernel: ovl_change_flags()</summary>
    public Errno SetDirect(bool direct)
    {
        if (isDirect == direct) { return Errno.None; }
        using (Lock())
        {
            Errno error = Libc.SetDirect(descriptor, direct);
            if (!error.IsError) { isDirect = direct; }
            return error;
        }
    }

    /// <summary>From now on the object stands for this file. Caller holds the lock of <see cref="OpenFiles"/>.</summary>
    public void BeginLocked(Inode inode, ulong nodeId, BackingFile backing, OpenFlags flags, int descriptor, bool isLower, uint uid)
    {
        LockOrder.AssertHeld(OverlayLocks.OpenFiles);
        Inode = inode;
        Uid = uid;
        NodeId = nodeId;
        Backing = backing;
        Flags = flags;
        this.descriptor = descriptor;
        IsLower = isLower;
        isDirect = (flags & OpenFlags.Direct) != 0;
        IsOpen = true;
    }

    /// <summary>From now on the object stands for no file. Caller holds the lock of <see cref="OpenFiles"/>.</summary>
    public void EndLocked()
    {
        LockOrder.AssertHeld(OverlayLocks.OpenFiles);
        Inode = null!;
        Backing = null!;
        descriptor = -1;
        IsOpen = false;
    }
}

/// <summary>The open files by their fh.</summary>
/// <remarks>
/// The kernel releases a file when nobody uses it any more, not even a request that is being served. So its fh, its descriptor and its
/// object are then free for another file.
/// <para>
/// All users share the descriptors of the server. One user gets at most half of them, and an eighth is reserved for root and for the
/// user who runs the server. So no user can leave the others without descriptors.
/// </para>
/// </remarks>
/// <param name="most">The most files that may be open.</param>
/// <param name="owner">The user who runs the server.</param>
internal sealed class OpenFiles(int most, uint owner)
{
    private readonly OrderedLock gate = new(OverlayLocks.OpenFiles);
    private readonly Stack<int> free = new();
    private readonly Dictionary<uint, int> users = [];
    private OpenFile?[] items = new OpenFile?[64];
    private int used;

    /// <summary>How many files are open.</summary>
    public int Count { get { using (gate.Enter()) { return used - free.Count; } } }

    /// <summary>Whether one more open file of a user would leave too few descriptors for other users and other requests.</summary>
    /// <remarks>The answer is ENFILE, as when the system has no more descriptors. EMFILE would mean the caller's own limit.</remarks>
    public bool AreTooMany(uint uid)
    {
        using (gate.Enter())
        {
            int open = used - free.Count;
            if (uid == 0 || uid == owner) { return open >= most; }
            return open >= most - (most / 8) || users.GetValueOrDefault(uid) >= most / 2;
        }
    }

    /// <summary>Adds an open file.</summary>
    /// <returns>The fh of the file.</returns>
    public ulong Add(Inode inode, ulong nodeId, BackingFile backing, OpenFlags flags, int descriptor, bool isLower, uint uid)
    {
        using (gate.Enter())
        {
            if (!free.TryPop(out int index))
            {
                index = used++;
                if (index == items.Length) { Array.Resize(ref items, items.Length * 2); }
            }
            (items[index] ??= new OpenFile()).BeginLocked(inode, nodeId, backing, flags, descriptor, isLower, uid);
            CollectionsMarshal.GetValueRefOrAddDefault(users, uid, out _)++;
            return (ulong)index + 1;
        }
    }

    /// <summary>Finds the open file of an fh.</summary>
    /// <returns><see cref="Errno.EBADF"/> when there is none.</returns>
    public Errno Find(ulong handle, out OpenFile file)
    {
        using (gate.Enter())
        {
            file = FindLocked(handle)!;
            return file is null ? Errno.EBADF : Errno.None;
        }
    }

    private OpenFile? FindLocked(ulong handle)
    {
        LockOrder.AssertHeld(OverlayLocks.OpenFiles);
        return handle - 1 < (ulong)used && items[handle - 1] is { IsOpen: true } file ? file : null;
    }

    /// <summary>Takes a file, to which its fh does not lead any more. The caller closes it and then calls <see cref="Return"/>.</summary>
    /// <returns>Null when the fh stands for no open file.</returns>
    public OpenFile? Take(ulong handle)
    {
        using (gate.Enter())
        {
            OpenFile? file = FindLocked(handle);
            if (file is not null) { file.IsOpen = false; }
            return file;
        }
    }

    /// <summary>Recycles the fh and the object of a file that was taken.</summary>
    public void Return(ulong handle)
    {
        using (gate.Enter())
        {
            OpenFile file = items[handle - 1]!;
            if (--CollectionsMarshal.GetValueRefOrAddDefault(users, file.Uid, out _) == 0) { users.Remove(file.Uid); }
            file.EndLocked();
            free.Push((int)(handle - 1));
        }
    }

    /// <summary>The files that are open now.</summary>
    public List<OpenFile> ToList()
    {
        using (gate.Enter()) { return ToListLocked(); }
    }

    private List<OpenFile> ToListLocked()
    {
        LockOrder.AssertHeld(OverlayLocks.OpenFiles);
        return [.. items.OfType<OpenFile>().Where(file => file.IsOpen)];
    }

    /// <summary>Removes all files.</summary>
    /// <returns>The files that were open, which the caller closes.</returns>
    public List<OpenFile> RemoveAll()
    {
        using (gate.Enter())
        {
            List<OpenFile> open = ToListLocked();
            items = new OpenFile?[64];
            free.Clear();
            users.Clear();
            used = 0;
            return open;
        }
    }
}
