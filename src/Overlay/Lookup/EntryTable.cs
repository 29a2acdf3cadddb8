using System.Runtime.CompilerServices;

namespace Veneer.Overlay.Lookup;

/// <summary>An entry of a listing.</summary>
internal struct ListedEntry
{
    /// <summary>Where the name begins in the memory of all names.</summary>
    public int Name;

    /// <summary>The length of the name with its NUL.</summary>
    public int NameLength;

    /// <summary>The real object's filesystem (st_dev).</summary>
    public ulong Device;

    /// <summary>The real object's number (st_ino).</summary>
    public ulong Ino;

    /// <summary>The entry's type (DT_).</summary>
    public byte Type;

    /// <summary>The position of the entry's lower among the directory's lowers, or <see cref="EntryTable.InUpper"/>.</summary>
    public short Lower;
}

/// <summary>The entries of a listing: the names of several real directories become one set, in which the first of each name wins.</summary>
/// <param name="hash">Gives names their places in the set.</param>
internal sealed class EntryTable(NameHash hash)
{
    /// <summary>The type of a whiteout (DT_WHT). It hides the name in all directories that are read later.</summary>
    public const byte WhiteoutType = 14;

    /// <summary>The position of an entry that comes from upper.</summary>
    public const short InUpper = -1;

    private byte[] names = new byte[4096];
    private int namesLength;
    private ListedEntry[] entries = new ListedEntry[64];
    private int[] slots = [];

    /// <summary>How many entries there are.</summary>
    public int Count { get; private set; }

    /// <summary>For how many entries there is room before the table grows.</summary>
    public int Capacity => entries.Length;

    /// <summary>The memory that the table takes, in bytes.</summary>
    public long Size => names.Length + (entries.Length * (long)Unsafe.SizeOf<ListedEntry>()) + (slots.Length * sizeof(int));

    /// <summary>An entry.</summary>
    public ref readonly ListedEntry this[int index] => ref entries[index];

    /// <summary>An entry's name with its NUL.</summary>
    public ReadOnlySpan<byte> NameOf(int index) => names.AsSpan(entries[index].Name, entries[index].NameLength);

    /// <summary>Removes all entries. <see cref="ForgetNames"/> must follow before several directories are merged.</summary>
    public void Clear() => Count = namesLength = 0;

    /// <summary>Empties the set of names. There must be no entries.</summary>
    public void ForgetNames() => Array.Clear(slots);

    /// <summary>Adds an entry.</summary>
    /// <param name="name">With its NUL.</param>
    /// <param name="device">The real object's filesystem (st_dev).</param>
    /// <param name="ino">The real object's number (st_ino).</param>
    /// <param name="type">The entry's type (DT_).</param>
    /// <param name="lower">The position of the entry's lower, or <see cref="InUpper"/>.</param>
    /// <param name="isMerge">Whether several directories are merged, so that there may be an entry with this name already.</param>
    /// <returns>False when there is an entry with this name already.</returns>
    public bool Add(ReadOnlySpan<byte> name, ulong device, ulong ino, byte type, short lower, bool isMerge)
    {
        if (isMerge && !TryEnterName(name)) { return false; }
        if (namesLength + name.Length > names.Length) { Array.Resize(ref names, Math.Max(names.Length * 2, namesLength + name.Length)); }
        if (Count == entries.Length) { Array.Resize(ref entries, entries.Length * 2); }
        name.CopyTo(names.AsSpan(namesLength));
        entries[Count++] = new ListedEntry
        {
            Name = namesLength,
            NameLength = name.Length,
            Device = device,
            Ino = ino,
            Type = type,
            Lower = lower,
        };
        namesLength += name.Length;
        return true;
    }

    /// <summary>Puts the next entry's name into the set of names. False when the name is in the set already.</summary>
    private bool TryEnterName(ReadOnlySpan<byte> name)
    {
        if (Count * 2 >= slots.Length) { GrowSlots(); }
        for (uint slot = Hash(name) & (uint)(slots.Length - 1); ; slot = (slot + 1) & (uint)(slots.Length - 1))
        {
            if (slots[slot] == 0)
            {
                slots[slot] = Count + 1;
                return true;
            }
            if (name.SequenceEqual(NameOf(slots[slot] - 1))) { return false; }
        }
    }

    private void GrowSlots()
    {
        int[] grown = new int[Math.Max(256, slots.Length * 4)];
        for (int i = 0; i < Count; i++)
        {
            uint slot = Hash(NameOf(i)) & (uint)(grown.Length - 1);
            while (grown[slot] != 0) { slot = (slot + 1) & (uint)(grown.Length - 1); }
            grown[slot] = i + 1;
        }
        slots = grown;
    }

    private uint Hash(ReadOnlySpan<byte> name) => (uint)hash.Of(name);

    /// <summary>Removes the whiteouts. Nothing can be added afterwards, since the set of names does not follow.</summary>
    public void RemoveWhiteouts()
    {
        int kept = 0;
        for (int i = 0; i < Count; i++)
        {
            if (entries[i].Type != WhiteoutType) { entries[kept++] = entries[i]; }
        }
        Count = kept;
    }

    /// <summary>Sorts the offsets of the entries, and the entries with them.</summary>
    public void SortBy(ulong[] offsets) => Array.Sort(offsets, entries, 0, Count);

    /// <summary>Swaps an entry with the one before it.</summary>
    public void SwapWithPrevious(int index) => (entries[index], entries[index - 1]) = (entries[index - 1], entries[index]);
}
