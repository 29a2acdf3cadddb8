using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tree;

/// <summary>The names of a file that has several: an image may have a file with tens of thousands.</summary>
/// <remarks>Who reads them takes no lock. All else is protected by the table.</remarks>
internal sealed class AliasList
{
    /// <summary>So many are looked through one by one.</summary>
    private const int Few = 16;

    private Dictionary<(DirectoryInode Parent, ulong Hash), Alias>? index;
    private volatile Snapshot current = new([], 0);
    private int removed;

    /// <summary>The array is filled further, but not what is counted.</summary>
    private sealed record Snapshot(Alias[] Items, int Count);

    /// <summary>All that were seen; some of them may be removed by now.</summary>
    public ReadOnlySpan<Alias> All => current is var all ? all.Items.AsSpan(0, all.Count) : default;

    /// <summary>How many there are.</summary>
    public int Count => current.Count - removed;

    /// <summary>What is known of a name, or null.</summary>
    public Alias? Find(DirectoryInode parent, ReadOnlySpan<byte> name)
    {
        if (index is not null) { return index.TryGetValue((parent, NameHash.Secret.Of(name)), out Alias? found) && name.SequenceEqual(found.Name) ? found : null; }
        foreach (Alias known in All)
        {
            if (!known.IsRemoved && ReferenceEquals(known.Parent, parent) && name.SequenceEqual(known.Name)) { return known; }
        }
        return null;
    }

    /// <summary>Adds one that is not known.</summary>
    public void Add(Alias alias)
    {
        (Alias[] items, int count) = current;
        if (count == items.Length) { Array.Resize(ref items, Math.Max(2, 2 * count)); }
        items[count] = alias;
        current = new Snapshot(items, count + 1);
        if (index is not null) { index[KeyOf(alias)] = alias; }
        else if (Count > Few) { index = All.ToArray().Where(known => !known.IsRemoved).ToDictionary(KeyOf); }
    }

    /// <summary>One is gone.</summary>
    public void Remove(Alias alias)
    {
        if (alias.IsRemoved) { return; }
        alias.IsRemoved = true;
        removed++;
        index?.Remove(KeyOf(alias));
        if (2 * removed <= current.Count) { return; }
        Alias[] left = [.. All.ToArray().Where(known => !known.IsRemoved)];
        removed = 0;
        current = new Snapshot(left, left.Length);
    }

    private static (DirectoryInode Parent, ulong Hash) KeyOf(Alias alias) => (alias.Parent, NameHash.Secret.Of(alias.Name));
}
