using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Lookup;

/// <summary>What a directory of the overlay lists: the entries of its real directories, the first of each name wins, whiteouts gone.</summary>
/// <remarks>
/// A snapshot: while a directory is open, an entry keeps its position, whatever comes and goes. Position 0 is ".", 1 is
/// "..", the entries follow; the offset on the wire is the position of the next entry.
/// </remarks>
internal sealed class MergedDirectory
{
    private const byte WhiteoutType = 14; // DT_WHT

    private byte[] names = new byte[4096];
    private int namesLength;
    private Entry[] entries = new Entry[64];
    private int count;
    private int[]? table;

    private struct Entry
    {
        public int Name;
        public int NameLength;
        public ulong Device;
        public ulong Ino;
        public byte Type;
        public bool IsUpper;
    }

    /// <summary>How many entries there are, without "." and "..".</summary>
    public int Count => count;

    /// <summary>Whether upper has whiteouts in the directory.</summary>
    public bool HasUpperWhiteouts { get; private set; }

    /// <summary>An entry's name with its NUL.</summary>
    public ReadOnlySpan<byte> NameOf(int index) => names.AsSpan(entries[index].Name, entries[index].NameLength);

    /// <summary>An entry's type (DT_).</summary>
    public byte TypeOf(int index) => entries[index].Type;

    /// <summary>Whether the entry comes from upper, so that its inode number may be that of an origin.</summary>
    public bool IsUpper(int index) => entries[index].IsUpper;

    /// <summary>The real object's filesystem and number.</summary>
    public (ulong Device, ulong Ino) RealNumber(int index) => (entries[index].Device, entries[index].Ino);

    /// <summary>Reads a directory. The caller holds the rename lock shared.</summary>
    /// <param name="volume">The overlay.</param>
    /// <param name="directory">The directory.</param>
    /// <param name="merged">What it lists.</param>
    /// <param name="onlyWhetherEmpty">Stop at the first entry that users see.</param>
    public static Errno Read(Volume volume, DirectoryInode directory, out MergedDirectory merged, bool onlyWhetherEmpty = false)
    {
        merged = new MergedDirectory();
        int layers = directory.Lowers.Length + (directory.Upper is null ? 0 : 1);
        bool isMerge = layers > 1;
        if (directory.Upper is { } upper)
        {
            Errno error = merged.ReadReal(volume, upper, true, isMerge, onlyWhetherEmpty);
            if (error.IsError) { return error; }
        }
        foreach (RealDirectory lower in directory.Lowers)
        {
            if (onlyWhetherEmpty && merged.HasVisible) { break; }
            Errno error = merged.ReadReal(volume, lower, false, isMerge, onlyWhetherEmpty);
            if (error.IsError) { return error; }
        }
        merged.table = null;
        merged.RemoveWhiteouts();
        return Errno.None;
    }

    private bool HasVisible { get; set; }

    private Errno ReadReal(Volume volume, RealDirectory real, bool isUpper, bool isMerge, bool onlyWhetherEmpty)
    {
        Errno error = volume.Directories.Pin(real, out PinnedDirectory pinned);
        if (error.IsError) { return error; }
        using (pinned)
        {
            error = Libc.OpenAt(pinned.Descriptor, ".\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.Confined, out int descriptor);
            if (error.IsError) { return error; }
            var reader = new RealDirectoryReader(descriptor);
            try
            {
                error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat);
                if (error.IsError) { return error; }
                bool hasXattrWhiteouts = HasXattrWhiteouts(volume, descriptor);
                while (reader.MoveNext())
                {
                    byte type = reader.Type;
                    bool isWhiteout = false;
                    // Only a device can be a whiteout, or, where the directory says so, an empty file.
                    if (type == 2 || type == 0 || (type == 8 && hasXattrWhiteouts))
                    {
                        if (Libc.StatAt(descriptor, reader.TerminatedName, StatxMask.Basic, out Statx entry).IsError) { continue; }
                        type = (byte)(entry.Type >> 12);
                        isWhiteout = volume.Lookup.IsWhiteout(real, reader.TerminatedName, entry);
                    }
                    if (isWhiteout)
                    {
                        HasUpperWhiteouts |= isUpper;
                        if (!isMerge) { continue; }
                        type = WhiteoutType;
                    }
                    Add(reader.TerminatedName, stat.Dev, reader.Ino, type, isUpper, isMerge);
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
    }

    private static bool HasXattrWhiteouts(Volume volume, int descriptor)
    {
        Span<byte> value = stackalloc byte[1];
        return !Libc.GetXattrAt(descriptor, Libc.Self, volume.Xattr.Opaque, value, out int length).IsError && length == 1 && value[0] == 'x';
    }

    private void Add(ReadOnlySpan<byte> name, ulong device, ulong ino, byte type, bool isUpper, bool isMerge)
    {
        if (isMerge && !TryClaim(name)) { return; }
        if (namesLength + name.Length > names.Length) { Array.Resize(ref names, Math.Max(names.Length * 2, namesLength + name.Length)); }
        if (count == entries.Length) { Array.Resize(ref entries, entries.Length * 2); }
        name.CopyTo(names.AsSpan(namesLength));
        entries[count++] = new Entry { Name = namesLength, NameLength = name.Length, Device = device, Ino = ino, Type = type, IsUpper = isUpper };
        namesLength += name.Length;
        if (type != WhiteoutType) { HasVisible = true; }
    }

    /// <summary>Puts the next entry's name into the set of names; false when it is there.</summary>
    private bool TryClaim(ReadOnlySpan<byte> name)
    {
        if (table is null || count * 2 >= table.Length) { GrowTable(); }
        for (uint slot = Hash(name) & (uint)(table!.Length - 1); ; slot = (slot + 1) & (uint)(table.Length - 1))
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
        int[] grown = new int[table is null ? 256 : table.Length * 4];
        for (int i = 0; i < count; i++)
        {
            uint slot = Hash(NameOf(i)) & (uint)(grown.Length - 1);
            while (grown[slot] != 0) { slot = (slot + 1) & (uint)(grown.Length - 1); }
            grown[slot] = i + 1;
        }
        table = grown;
    }

    private static uint Hash(ReadOnlySpan<byte> name)
    {
        uint hash = 2166136261;
        foreach (byte b in name) { hash = (hash ^ b) * 16777619; }
        return hash ^ (hash >> 15);
    }

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
