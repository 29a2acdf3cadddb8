using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>What an fh of a regular file means. The object serves one open file after another, so that opening allocates nothing.</summary>
internal sealed class OpenFile
{
    private volatile int descriptor = -1;
    private volatile bool isDirect;

    /// <summary>The file.</summary>
    public Inode Inode { get; private set; } = null!;

    /// <summary>What the kernel called the inode when it was opened.</summary>
    public ulong NodeId { get; private set; }

    /// <summary>The mode in which it was admitted; not the inode's current one after it was superseded.</summary>
    public BackingFile Backing { get; private set; } = null!;

    /// <summary>The user who opened it.</summary>
    public uint Uid { get; private set; }

    /// <summary>As the caller opened it.</summary>
    public OpenFlags Flags { get; private set; }

    /// <summary>
    /// The real file, or -1 as long as nobody has wanted anything of it. While the file is open the number does not change any more,
    /// though it may come to mean the copy in upper. Set once, under a lock on this object.
    /// </summary>
    public int Descriptor { get => descriptor; set => descriptor = value; }

    /// <summary>Whether <see cref="Descriptor"/> is the lower file. Protected by a lock on this object.</summary>
    public bool IsLower { get; set; }

    /// <summary>Whether <see cref="Descriptor"/> has O_DIRECT. Protected by a lock on this object.</summary>
    public bool IsDirect { get => isDirect; set => isDirect = value; }

    /// <summary>Whether it is found by its number. Protected by the table.</summary>
    public bool IsOpen { get; set; }

    /// <summary>Takes the lock on this open file until the result is disposed of.</summary>
    public ObjectLock.Scope Lock([CallerMemberName] string member = "") => ObjectLock.Enter(this, OverlayLocks.OpenFile, member);

    /// <summary>It means this file from now on. Caller holds the lock of the table.</summary>
    public void BeginLocked(Inode inode, ulong nodeId, BackingFile backing, OpenFlags flags, int descriptor, bool isLower, uint uid)
    {
        LockOrder.AssertHeld(OverlayLocks.OpenFiles);
        Inode = inode;
        Uid = uid;
        NodeId = nodeId;
        Backing = backing;
        Flags = flags;
        Descriptor = descriptor;
        IsLower = isLower;
        IsDirect = (flags & OpenFlags.Direct) != 0;
        IsOpen = true;
    }

    /// <summary>It means nothing, and holds on to nothing. Caller holds the lock of the table.</summary>
    public void EndLocked()
    {
        LockOrder.AssertHeld(OverlayLocks.OpenFiles);
        Inode = null!;
        Backing = null!;
        Descriptor = -1;
        IsOpen = false;
    }
}

/// <summary>The open files by their numbers.</summary>
/// <remarks>
/// The kernel releases a file when nobody uses it any more, not even a request under way. That is what makes its number,
/// its descriptor and its object free for the next one.
/// <para>
/// The server has so many descriptors, and all users share them. One alone gets half of them at most, and an eighth is kept
/// for root and for whoever runs the server, so that nobody can leave others without any.
/// </para>
/// </remarks>
/// <param name="most">So many files may be open.</param>
/// <param name="owner">Who runs the server.</param>
internal sealed class OpenFiles(int most, uint owner)
{
    private readonly OrderedLock gate = new(OverlayLocks.OpenFiles);
    private readonly Stack<int> free = new();
    private readonly Dictionary<uint, int> users = [];
    private OpenFile?[] items = new OpenFile?[64];
    private int used;

    /// <summary>How many are open.</summary>
    public int Count { get { using (gate.Enter()) { return used - free.Count; } } }

    /// <summary>Whether one more open file of a user would leave too few descriptors for others, and for what all other requests need.</summary>
    /// <remarks>ENFILE, as where the system has no more: EMFILE would be the caller's own limit.</remarks>
    public bool AreTooMany(uint uid)
    {
        using (gate.Enter())
        {
            int open = used - free.Count;
            if (uid == 0 || uid == owner) { return open >= most; }
            return open >= most - (most / 8) || users.GetValueOrDefault(uid) >= most / 2;
        }
    }

    /// <summary>Gives an open file a number.</summary>
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

    /// <summary>What the number stands for.</summary>
    /// <returns><see cref="Errno.EBADF"/> when nothing has it.</returns>
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

    /// <summary>Has nobody find the file any more. When it is closed, <see cref="Return"/> follows.</summary>
    public OpenFile? Take(ulong handle)
    {
        using (gate.Enter())
        {
            OpenFile? file = FindLocked(handle);
            if (file is not null) { file.IsOpen = false; }
            return file;
        }
    }

    /// <summary>Number and object of a file that was taken are free.</summary>
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

    /// <summary>What is open at the moment.</summary>
    public List<OpenFile> ToList()
    {
        using (gate.Enter()) { return ToListLocked(); }
    }

    private List<OpenFile> ToListLocked()
    {
        LockOrder.AssertHeld(OverlayLocks.OpenFiles);
        return [.. items.OfType<OpenFile>().Where(file => file.IsOpen)];
    }

    /// <summary>Empties the table.</summary>
    /// <returns>What was open, for the caller to close.</returns>
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
