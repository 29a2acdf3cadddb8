using Veneer.Linux;

namespace Veneer.Overlay.Tree;

/// <summary>What an fh of a regular file means.</summary>
internal sealed class OpenFile(Inode inode, BackingFile backing, OpenFlags flags, int descriptor, bool isLower)
{
    private volatile int descriptor = descriptor;

    /// <summary>The file.</summary>
    public Inode Inode { get; } = inode;

    /// <summary>The mode in which it was admitted; not the inode's current one after it was superseded.</summary>
    public BackingFile Backing { get; } = backing;

    /// <summary>As the caller opened it.</summary>
    public OpenFlags Flags { get; } = flags;

    /// <summary>
    /// The real file, or -1 as long as nobody has wanted anything of it. The number does not change any more, though it may
    /// come to mean the copy in upper. Set once, under a lock on this object.
    /// </summary>
    public int Descriptor { get => descriptor; set => descriptor = value; }

    /// <summary>Whether <see cref="Descriptor"/> is the lower file. Protected by a lock on this object.</summary>
    public bool IsLower { get; set; } = isLower;
}

/// <summary>Numbers for open things.</summary>
internal sealed class HandleTable<T> where T : class
{
    private readonly Lock gate = new();
    private readonly Stack<int> free = new();
    private T?[] items = new T?[64];
    private int used;

    /// <summary>How many are open.</summary>
    public int Count { get { lock (gate) { return used - free.Count; } } }

    /// <summary>Gives it a number.</summary>
    public ulong Add(T item)
    {
        lock (gate)
        {
            if (!free.TryPop(out int index))
            {
                index = used++;
                if (index == items.Length) { Array.Resize(ref items, items.Length * 2); }
            }
            items[index] = item;
            return (ulong)index + 1;
        }
    }

    /// <summary>What the number stands for.</summary>
    /// <returns><see cref="Errno.EBADF"/> when nothing has it.</returns>
    public Errno Find(ulong handle, out T item)
    {
        lock (gate)
        {
            item = (handle - 1 < (ulong)used ? items[handle - 1] : null)!;
            return item is null ? Errno.EBADF : Errno.None;
        }
    }

    /// <summary>Takes the number back.</summary>
    public T? Remove(ulong handle)
    {
        lock (gate)
        {
            if (handle - 1 >= (ulong)used || items[handle - 1] is not { } item) { return null; }
            items[handle - 1] = null;
            free.Push((int)(handle - 1));
            return item;
        }
    }

    /// <summary>Empties the table.</summary>
    public List<T> RemoveAll()
    {
        lock (gate)
        {
            List<T> rest = [.. items.OfType<T>()];
            items = new T?[64];
            free.Clear();
            used = 0;
            return rest;
        }
    }
}
