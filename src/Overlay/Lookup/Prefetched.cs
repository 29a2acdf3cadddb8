using System.Runtime.CompilerServices;
using Veneer.Linux;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Lookup;

/// <summary>The results of the look-ahead (Requests/LookAhead) for some entries of a listing: lower objects with nothing below.</summary>
/// <remarks>
/// One thread adds results, and any number of threads read them. The results are true for as long as upper lacks the directory,
/// since lower layers do not change.
/// </remarks>
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

    /// <summary>The index of the first entry in the listing.</summary>
    public int First => first;

    /// <summary>The index after the last entry.</summary>
    public int End => first + count;

    /// <summary>The memory that this object takes, in bytes.</summary>
    public long Size => seen.Length * (long)Unsafe.SizeOf<Entry>();

    /// <summary>The last entry that a reader asked for in vain, and therefore looks up itself; -1 when there is none.</summary>
    public int Reader => reader;

    /// <summary>Begins anew with no entry looked up. No reader may know this object yet.</summary>
    public void Begin(int firstEntry, int entries)
    {
        first = firstEntry;
        count = entries;
        reader = -1;
        if (seen.Length < entries) { seen = new Entry[entries]; }
        else { seen.AsSpan(0, entries).Clear(); }
    }

    /// <summary>
    /// Remembers what was found under an entry if it is simple: no upper, no metacopy, no redirected name. Most objects are.
    /// </summary>
    public void Add(int index, in Found found, in Whole whole)
    {
        if (found.HasUpper || whole.Metacopy is not null || whole.LowerName is not null) { return; }
        ref Entry entry = ref seen[index - first];
        entry.Stat = found.Stat;
        entry.Lowers = whole.Lowers;
        entry.Lower = found.LowerPosition;
        Volatile.Write(ref entry.IsSet, true);
    }

    /// <summary>Gets what a lookup would find under an entry, and what is behind it.</summary>
    /// <returns>False when the entry was not looked up ahead.</returns>
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
