using System.Runtime.CompilerServices;
using Veneer.Linux;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Lookup;

/// <summary>What the look-ahead (Requests/LookAhead) has seen of some entries of a listing, all of them lower objects with nothing below.</summary>
/// <remarks>One thread adds, any number reads. True for as long as the directory is not in upper: lower layers do not change.</remarks>
internal sealed class Prefetched
{
    private Entry[] seen = [];
    private int first;
    private int count;
    private volatile int reader = -1;

    private struct Entry
    {
        public Statx Stat;
        public RealDirectory[] Lowers;
        public int Lower;
        public bool IsSet;
    }

    /// <summary>The first entry, as an index into the listing.</summary>
    public int First => first;

    /// <summary>The entry behind the last one.</summary>
    public int End => first + count;

    /// <summary>Bytes of memory that it takes.</summary>
    public long Size => seen.Length * (long)Unsafe.SizeOf<Entry>();

    /// <summary>The last entry that somebody asked for in vain, and so looks at himself.</summary>
    public int Reader => reader;

    /// <summary>With nothing seen yet. Nobody else knows it.</summary>
    public void Begin(int firstEntry, int entries)
    {
        first = firstEntry;
        count = entries;
        reader = -1;
        if (seen.Length < entries) { seen = new Entry[entries]; }
        else { seen.AsSpan(0, entries).Clear(); }
    }

    /// <summary>Remembers what was found, when it is simple enough: most objects are.</summary>
    public void Add(int index, in Found found, in Whole whole)
    {
        if (found.HasUpper || whole.Metacopy is not null || whole.LowerName is not null) { return; }
        ref Entry entry = ref seen[index - first];
        entry.Stat = found.Stat;
        entry.Lowers = whole.Lowers;
        entry.Lower = found.LowerPosition;
        Volatile.Write(ref entry.IsSet, true);
    }

    /// <summary>What lookup would find under an entry, and what is behind it.</summary>
    public bool TryGet(DirectoryStack directory, int index, out Found found, out Whole whole)
    {
        found = default;
        whole = default;
        if (index < first || index >= End || directory.Upper is not null) { return false; }
        ref Entry entry = ref seen[index - first];
        if (!Volatile.Read(ref entry.IsSet))
        {
            reader = index;
            return false;
        }
        found.Exists = true;
        found.Stat = whole.LowerStat = entry.Stat;
        found.LowerPosition = entry.Lower;
        found.LowerDirectory = directory.Lowers[entry.Lower];
        whole.Lowers = entry.Lowers;
        if (!entry.Stat.IsDirectory) { whole.LowerDirectory = found.LowerDirectory; }
        return true;
    }
}
