using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Lookup;

/// <summary>
/// The listing of an overlay directory: the entries of its real directories. The first of each name wins, and whiteouts are
/// left out.
/// </summary>
/// <remarks>
/// Entries are sorted by a hash of their names, and the hash is the offset on the wire, as with ext4. So an entry keeps its
/// offset in this snapshot and in every later one, even if others come and go. A reader may go on anywhere, and the kernel
/// may keep what it has read. Offset 0 is before ".", 1 before "..", 2 before the entries.
/// </remarks>
/// <param name="hash">Gives names their offsets.</param>
internal sealed class MergedDirectory(NameHash hash)
{
    private readonly EntryTable entries = new(hash);
    private ulong[] offsets = [];
    private Prefetched? ahead;
    private Prefetched? recycledPrefetched;

    /// <summary>How many entries there are, without "." and "..".</summary>
    public int Count => entries.Count;

    /// <summary>The number of users of this listing. Protected by <see cref="Listings"/>.</summary>
    public int Users { get; set; }

    /// <summary>The memory that this listing takes, in bytes.</summary>
    public long Size => entries.Size + (offsets.Length * sizeof(ulong)) + (recycledPrefetched?.Size ?? 0);

    /// <summary>Empties the listing, so that it can serve another directory. It must have no users.</summary>
    public void Clear()
    {
        entries.Clear();
        Version = UpperWhiteouts = 0;
        HasVisible = false;
        recycledPrefetched = ahead ?? recycledPrefetched;
        ahead = null;
    }

    /// <summary>The offset after an entry, at which a reader goes on.</summary>
    public ulong OffsetOf(int index) => offsets[index];

    /// <summary>The index of the first entry after an offset; <see cref="Count"/> when there is none.</summary>
    public int IndexAfter(ulong offset)
    {
        int index = Array.BinarySearch(offsets, 0, Count, offset);
        return index < 0 ? ~index : index + 1;
    }

    /// <summary>The directory's version when the snapshot was taken.</summary>
    public int Version { get; private set; }

    /// <summary>The number of whiteouts in upper's directory.</summary>
    public int UpperWhiteouts { get; private set; }

    /// <summary>An entry's name with its NUL.</summary>
    public ReadOnlySpan<byte> NameOf(int index) => entries.NameOf(index);

    /// <summary>An entry's type (DT_).</summary>
    public byte TypeOf(int index) => entries[index].Type;

    /// <summary>Whether the entry comes from upper, so that its inode number may be that of an origin.</summary>
    public bool IsUpper(int index) => entries[index].Lower == EntryTable.InUpper;

    /// <summary>
    /// The position of the first of the directory's lowers that can have the entry. The lowers above were read and lack it;
    /// they do not change.
    /// </summary>
    public int FirstLower(int index) => Math.Max((int)entries[index].Lower, 0);

    /// <summary>The entries that were looked up ahead of the reader; null when none were.</summary>
    public Prefetched? Ahead => Volatile.Read(ref ahead);

    /// <summary>Makes room for entries that are looked up ahead. Only the look-ahead thread may call it.</summary>
    /// <param name="first">The index of the first entry.</param>
    /// <param name="most">The most entries to make room for.</param>
    public Prefetched LookAhead(int first, int most)
    {
        // A recycled object comes from another directory, which has no readers any more. The previous object of this directory
        // is not recycled, since a reader may still use it.
        Prefetched prefetched = Interlocked.Exchange(ref recycledPrefetched, null) ?? new Prefetched();
        prefetched.Begin(first, Math.Min(most, Count - first));
        Volatile.Write(ref ahead, prefetched);
        return prefetched;
    }

    /// <summary>The index of the entry with a name, or -1.</summary>
    /// <param name="name">With its NUL.</param>
    public int IndexOf(ReadOnlySpan<byte> name)
    {
        int index = IndexAfter(Offset(name) - 1);
        // Entries whose names have the same hash follow each other.
        for (int i = index; i < Count && offsets[i] - offsets[index] <= (ulong)(i - index); i++)
        {
            if (name.SequenceEqual(NameOf(i))) { return i; }
        }
        return -1;
    }

    /// <summary>The real object's filesystem (st_dev) and number (st_ino).</summary>
    public (ulong Device, ulong Ino) RealNumber(int index) => (entries[index].Device, entries[index].Ino);

    /// <summary>
    /// Reads the real directories into a listing that is new or cleared. <see cref="Sort"/> must follow, unless only emptiness
    /// is asked.
    /// </summary>
    /// <inheritdoc cref="Listings.Read" path="/param"/>
    /// <param name="layers">Opens real directories, and recognises whiteouts.</param>
    public Errno Read(LayerReader layers, DirectoryStack directory, int version, bool onlyWhetherEmpty)
    {
        Version = version;
        RealDirectory? upper = directory.Upper; // a copy-up may set it meanwhile
        bool isMerge = directory.Lowers.Length + (upper is null ? 0 : 1) > 1;
        // The set is emptied before the read and not after it, since a read that fails leaves names in it.
        if (isMerge) { entries.ForgetNames(); }
        if (upper is not null)
        {
            Errno error = ReadReal(layers, upper, EntryTable.InUpper, isMerge, onlyWhetherEmpty);
            if (error.IsError) { return error; }
        }
        for (short i = 0; i < directory.Lowers.Length; i++)
        {
            if (onlyWhetherEmpty && HasVisible) { break; }
            Errno error = ReadReal(layers, directory.Lowers[i], i, isMerge, onlyWhetherEmpty);
            if (error.IsError) { return error; }
        }
        entries.RemoveWhiteouts();
        return Errno.None;
    }

    private bool HasVisible { get; set; }

    private Errno ReadReal(LayerReader layers, RealDirectory real, short lower, bool isMerge, bool onlyWhetherEmpty)
    {
        Errno error = layers.OpenDirectory(real, out int descriptor);
        if (error.IsError) { return error; }
        var reader = new DirectoryReader(descriptor);
        try
        {
            error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat);
            if (error.IsError) { return error; }
            bool mayHaveFileWhiteouts = layers.MayHaveFileWhiteouts(descriptor, real.Layer.IsUpper);
            while (reader.MoveNext())
            {
                byte type = reader.Type;
                bool isWhiteout = false;
                // Only a device can be a whiteout, or, where the directory says so, an empty file.
                if (type == 2 || type == 0 || (type == 8 && mayHaveFileWhiteouts))
                {
                    error = Libc.StatAt(descriptor, reader.TerminatedName, StatxMask.Basic, out Statx entry);
                    if (error == Errno.ENOENT && lower == EntryTable.InUpper) { continue; } // gone meanwhile
                    if (!error.IsError)
                    {
                        type = (byte)(entry.Type >> 12);
                        isWhiteout = layers.IsWhiteout(descriptor, reader.TerminatedName, entry, lower == EntryTable.InUpper);
                    }
                    // An entry that a layer lists but does not find hides nothing, and is listed. Kernel: ovl_check_whiteouts().
                }
                if (isWhiteout)
                {
                    if (lower == EntryTable.InUpper) { UpperWhiteouts++; }
                    if (!isMerge) { continue; }
                    type = EntryTable.WhiteoutType;
                }
                bool isAdded = entries.Add(reader.TerminatedName, stat.Dev, reader.Ino, type, lower, isMerge);
                HasVisible |= isAdded && type != EntryTable.WhiteoutType;
                if (!isWhiteout && onlyWhetherEmpty && HasVisible) { return Errno.None; }
            }
            return reader.Error;
        }
        finally
        {
            reader.Dispose();
            Libc.Close(descriptor);
        }
    }

    /// <summary>
    /// The offset after a name's entry, unless another name has the same hash, which is rare. User space reads offsets as signed
    /// numbers, and the lowest offsets are taken.
    /// </summary>
    private ulong Offset(ReadOnlySpan<byte> name) => Math.Max(hash.Of(name) >> 1, FirstOffset + 1);

    /// <summary>Gives the entries their offsets.</summary>
    /// <returns>Whether <see cref="SeparateLocked"/> must follow, since several names have the same hash, or once had it.</returns>
    public bool Sort(DirectoryStack directory)
    {
        if (offsets.Length < Count) { offsets = new ulong[entries.Capacity]; }
        for (int i = 0; i < Count; i++) { offsets[i] = Offset(NameOf(i)); }
        entries.SortBy(offsets);
        bool areSeparate = directory.OwnOffsets is null;
        for (int i = 1; i < Count && areSeparate; i++) { areSeparate = offsets[i] != offsets[i - 1]; }
        return !areSeparate;
    }

    /// <summary>
    /// Gives names with the same hash neighbouring offsets; otherwise a reader would miss all but the first. Caller holds the
    /// gate of <see cref="Listings"/>.
    /// </summary>
    /// <remarks>
    /// An entry keeps the offset that it was given for as long as the directory is known, even after the other names with its
    /// hash are gone: a reader that has read one of these goes on at the next offset.
    /// </remarks>
    public void SeparateLocked(DirectoryStack directory)
    {
        LockOrder.AssertHeld(OverlayLocks.Listings);
        for (int i = 0; i < Count; i++)
        {
            offsets[i] = Offset(NameOf(i));
            foreach (OwnOffset kept in directory.OwnOffsets ?? [])
            {
                if (NameOf(i).SequenceEqual(kept.Name)) { offsets[i] = kept.Offset; }
            }
        }
        entries.SortBy(offsets);
        for (int i = 1; i < Count; i++)
        {
            // Equal offsets are put in the order of the names, which is the same in every listing.
            for (int j = i; j > 0 && offsets[j] == offsets[j - 1] && NameOf(j).SequenceCompareTo(NameOf(j - 1)) < 0; j--)
            {
                entries.SwapWithPrevious(j);
            }
        }
        for (int i = 1; i < Count; i++)
        {
            if (offsets[i] > offsets[i - 1]) { continue; }
            offsets[i] = offsets[i - 1] + 1;
            directory.AddOwnOffsetLocked(NameOf(i), offsets[i]);
        }
    }

    /// <summary>The offset before the first entry that is neither "." nor "..".</summary>
    public const ulong FirstOffset = 2;
}
