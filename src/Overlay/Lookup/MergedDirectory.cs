using System.Runtime.CompilerServices;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
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
    private const byte WhiteoutType = 14; // DT_WHT

    private byte[] names = new byte[4096];
    private int namesLength;
    private Entry[] entries = new Entry[64];
    private ulong[] offsets = [];
    private int count;
    private int[] table = [];
    private Prefetched? ahead;
    private Prefetched? recycledPrefetched;

    private struct Entry
    {
        public int Name;
        public int NameLength;
        public ulong Device;
        public ulong Ino;
        public byte Type;
        /// <summary>The position of the entry's lower among the directory's lowers, or <see cref="InUpper"/>.</summary>
        public short Lower;
    }

    private const short InUpper = -1;

    /// <summary>How many entries there are, without "." and "..".</summary>
    public int Count => count;

    /// <summary>The number of users of this listing. Protected by <see cref="Listings"/>.</summary>
    public int Users { get; set; }

    /// <summary>The memory that this listing takes, in bytes.</summary>
    public long Size => names.Length + (entries.Length * (long)Unsafe.SizeOf<Entry>()) + (offsets.Length * sizeof(ulong))
        + (table.Length * sizeof(int)) + (recycledPrefetched?.Size ?? 0);

    /// <summary>Empties the listing, so that it can serve another directory. It must have no users.</summary>
    public void Clear()
    {
        count = namesLength = Version = UpperWhiteouts = 0;
        HasVisible = false;
        recycledPrefetched = ahead ?? recycledPrefetched;
        ahead = null;
    }

    /// <summary>The offset after an entry, at which a reader goes on.</summary>
    public ulong OffsetOf(int index) => offsets[index];

    /// <summary>The index of the first entry after an offset; <see cref="Count"/> when there is none.</summary>
    public int FirstBehind(ulong offset)
    {
        int index = Array.BinarySearch(offsets, 0, count, offset);
        return index < 0 ? ~index : index + 1;
    }

    /// <summary>The directory's version when the snapshot was taken.</summary>
    public int Version { get; private set; }

    /// <summary>The number of whiteouts in upper's directory.</summary>
    public int UpperWhiteouts { get; private set; }

    /// <summary>An entry's name with its NUL.</summary>
    public ReadOnlySpan<byte> NameOf(int index) => names.AsSpan(entries[index].Name, entries[index].NameLength);

    /// <summary>An entry's type (DT_).</summary>
    public byte TypeOf(int index) => entries[index].Type;

    /// <summary>Whether the entry comes from upper, so that its inode number may be that of an origin.</summary>
    public bool IsUpper(int index) => entries[index].Lower == InUpper;

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
        // A recycled one stems from another directory, which has no reader any more. The last one of this directory is not
        // reused, since a reader may still use it.
        Prefetched prefetched = Interlocked.Exchange(ref recycledPrefetched, null) ?? new Prefetched();
        prefetched.Begin(first, Math.Min(most, count - first));
        Volatile.Write(ref ahead, prefetched);
        return prefetched;
    }

    /// <summary>The index of the entry with a name, or -1.</summary>
    /// <param name="name">With its NUL.</param>
    public int IndexOf(ReadOnlySpan<byte> name)
    {
        int index = FirstBehind(Offset(name) - 1);
        // Entries whose names have the same hash follow each other.
        for (int i = index; i < count && offsets[i] - offsets[index] <= (ulong)(i - index); i++)
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
    /// <param name="layers">The layers.</param>
    /// <param name="lookup">Opens directories, and recognises whiteouts.</param>
    public Errno Read(LayerStack layers, LayeredLookup lookup, DirectoryStack directory, int version, bool onlyWhetherEmpty)
    {
        Version = version;
        RealDirectory? upper = directory.Upper; // a copy-up may set it meanwhile
        bool isMerge = directory.Lowers.Length + (upper is null ? 0 : 1) > 1;
        // Cleared before reading: a read that failed has left names in the table.
        if (isMerge) { Array.Clear(table); }
        if (upper is not null)
        {
            Errno error = ReadReal(layers, lookup, upper, InUpper, isMerge, onlyWhetherEmpty);
            if (error.IsError) { return error; }
        }
        for (short i = 0; i < directory.Lowers.Length; i++)
        {
            if (onlyWhetherEmpty && HasVisible) { break; }
            Errno error = ReadReal(layers, lookup, directory.Lowers[i], i, isMerge, onlyWhetherEmpty);
            if (error.IsError) { return error; }
        }
        RemoveWhiteouts();
        return Errno.None;
    }

    private bool HasVisible { get; set; }

    private Errno ReadReal(LayerStack layers, LayeredLookup lookup, RealDirectory real, short lower, bool isMerge, bool onlyWhetherEmpty)
    {
        Errno error = lookup.Reader.OpenDirectory(real, out int descriptor);
        if (error.IsError) { return error; }
        var reader = new DirectoryReader(descriptor);
        try
        {
            error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat);
            if (error.IsError) { return error; }
            bool hasXattrWhiteouts = HasXattrWhiteouts(descriptor, layers.XattrOf(real.Layer));
            while (reader.MoveNext())
            {
                byte type = reader.Type;
                bool isWhiteout = false;
                // Only a device can be a whiteout, or, where the directory says so, an empty file.
                if (type == 2 || type == 0 || (type == 8 && hasXattrWhiteouts))
                {
                    error = Libc.StatAt(descriptor, reader.TerminatedName, StatxMask.Basic, out Statx entry);
                    if (error == Errno.ENOENT && lower == InUpper) { continue; } // gone meanwhile
                    if (!error.IsError)
                    {
                        type = (byte)(entry.Type >> 12);
                        isWhiteout = lookup.Reader.IsWhiteout(descriptor, reader.TerminatedName, entry, lower == InUpper);
                    }
                    // An entry that a layer lists but does not find hides nothing, and is listed. Kernel: ovl_check_whiteouts().
                }
                if (isWhiteout)
                {
                    if (lower == InUpper) { UpperWhiteouts++; }
                    if (!isMerge) { continue; }
                    type = WhiteoutType;
                }
                Add(reader.TerminatedName, stat.Dev, reader.Ino, type, lower, isMerge);
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

    private static bool HasXattrWhiteouts(int descriptor, OverlayXattr xattr)
    {
        Span<byte> value = stackalloc byte[1];
        return !Libc.GetXattrAt(descriptor, Libc.Self, xattr.Opaque, value, out int length).IsError && length == 1 && value[0] == 'x';
    }

    private void Add(ReadOnlySpan<byte> name, ulong device, ulong ino, byte type, short lower, bool isMerge)
    {
        if (isMerge && !TryEnterName(name)) { return; }
        if (namesLength + name.Length > names.Length) { Array.Resize(ref names, Math.Max(names.Length * 2, namesLength + name.Length)); }
        if (count == entries.Length) { Array.Resize(ref entries, entries.Length * 2); }
        name.CopyTo(names.AsSpan(namesLength));
        entries[count++] = new Entry { Name = namesLength, NameLength = name.Length, Device = device, Ino = ino, Type = type,
            Lower = lower };
        namesLength += name.Length;
        if (type != WhiteoutType) { HasVisible = true; }
    }

    /// <summary>Puts the next entry's name into the set of names. False when the name is in the set already.</summary>
    private bool TryEnterName(ReadOnlySpan<byte> name)
    {
        if (count * 2 >= table.Length) { GrowTable(); }
        for (uint slot = Hash(name) & (uint)(table.Length - 1); ; slot = (slot + 1) & (uint)(table.Length - 1))
        {
            if (table[slot] == 0)
            {
                table[slot] = count + 1;
                return true;
            }
            if (name.SequenceEqual(NameOf(table[slot] - 1))) { return false; }
        }
    }

    private void GrowTable()
    {
        int[] grown = new int[Math.Max(256, table.Length * 4)];
        for (int i = 0; i < count; i++)
        {
            uint slot = Hash(NameOf(i)) & (uint)(grown.Length - 1);
            while (grown[slot] != 0) { slot = (slot + 1) & (uint)(grown.Length - 1); }
            grown[slot] = i + 1;
        }
        table = grown;
    }

    private uint Hash(ReadOnlySpan<byte> name) => (uint)hash.Of(name);

    /// <summary>
    /// The offset before a name's entry, except for the rare name whose hash another one has, too. Offsets are signed for user
    /// space, and the lowest ones are taken.
    /// </summary>
    private ulong Offset(ReadOnlySpan<byte> name) => Math.Max(hash.Of(name) >> 1, FirstOffset + 1);

    /// <summary>Gives the entries their offsets.</summary>
    /// <returns>Whether <see cref="SeparateLocked"/> must follow, since several names have one hash, or once had.</returns>
    public bool Sort(DirectoryStack directory)
    {
        if (offsets.Length < count) { offsets = new ulong[entries.Length]; }
        for (int i = 0; i < count; i++) { offsets[i] = Offset(NameOf(i)); }
        Array.Sort(offsets, entries, 0, count);
        bool areSeparate = directory.OwnOffsets is null;
        for (int i = 1; i < count && areSeparate; i++) { areSeparate = offsets[i] != offsets[i - 1]; }
        return !areSeparate;
    }

    /// <summary>
    /// Gives names with the same hash neighbouring offsets; otherwise a reader would miss all but the first. Caller holds the
    /// gate of <see cref="Listings"/>.
    /// </summary>
    /// <remarks>
    /// Each entry keeps its own offset for as long as the directory is known, also after the others have gone: a reader of
    /// those goes on after them.
    /// </remarks>
    public void SeparateLocked(DirectoryStack directory)
    {
        LockOrder.AssertHeld(OverlayLocks.Listings);
        for (int i = 0; i < count; i++)
        {
            offsets[i] = Offset(NameOf(i));
            foreach (OwnOffset kept in directory.OwnOffsets ?? [])
            {
                if (NameOf(i).SequenceEqual(kept.Name)) { offsets[i] = kept.Offset; }
            }
        }
        Array.Sort(offsets, entries, 0, count);
        for (int i = 1; i < count; i++)
        {
            // Equal offsets are put in the order of the names, which is the same in every listing.
            for (int j = i; j > 0 && offsets[j] == offsets[j - 1] && NameOf(j).SequenceCompareTo(NameOf(j - 1)) < 0; j--)
            {
                (entries[j], entries[j - 1]) = (entries[j - 1], entries[j]);
            }
        }
        for (int i = 1; i < count; i++)
        {
            if (offsets[i] > offsets[i - 1]) { continue; }
            offsets[i] = offsets[i - 1] + 1;
            directory.AddOwnOffsetLocked(NameOf(i), offsets[i]);
        }
    }

    /// <summary>The offset before the first entry that is neither "." nor "..".</summary>
    public const ulong FirstOffset = 2;

    private void RemoveWhiteouts()
    {
        int kept = 0;
        for (int i = 0; i < count; i++)
        {
            if (entries[i].Type != WhiteoutType) { entries[kept++] = entries[i]; }
        }
        count = kept;
    }
}
