using Veneer.Fuse.Locking;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tree;

/// <summary>One name of a file that has several.</summary>
internal sealed class Alias(DirectoryInode parent, byte[] name)
{
    /// <summary>The directory of the name.</summary>
    public DirectoryInode Parent { get; } = parent;

    /// <summary>The name with its NUL.</summary>
    public byte[] Name { get; } = name;

    /// <summary>
    /// Whether upper has the file under this name. Changed under the directory's names lock, or the rename lock exclusively.
    /// </summary>
    public volatile bool IsUpper;

    /// <summary>Whether the name has been removed. Changed under the directory's names lock, or the rename lock exclusively.</summary>
    public volatile bool IsRemoved;
}

/// <summary>The known names of a file that has several: an image may have a file with tens of thousands.</summary>
/// <remarks>Protected by <see cref="InodeTable"/>. Readers of <see cref="All"/> take no lock.</remarks>
internal sealed class AliasList
{
    /// <summary>The most names that are searched one by one. For more there is an index.</summary>
    private const int Few = 16;

    private Dictionary<(DirectoryInode Parent, ulong Hash), Alias>? index;
    private volatile Snapshot current = new([], 0);
    private int removed;

    /// <summary>The names at one time. Later names fill the rest of the array, behind those that are counted.</summary>
    private sealed record Snapshot(Alias[] Items, int Count);

    /// <summary>All names, among them some that have been removed: see <see cref="Alias.IsRemoved"/>.</summary>
    public ReadOnlySpan<Alias> All => current is var all ? all.Items.AsSpan(0, all.Count) : default;

    /// <summary>How many names there are that have not been removed.</summary>
    public int Count
    {
        get
        {
            LockOrder.AssertHeld(OverlayLocks.InodeTable);
            return current.Count - removed;
        }
    }

    /// <summary>Finds a name that has not been removed.</summary>
    /// <returns>Null when the name is not known.</returns>
    public Alias? Find(DirectoryInode parent, ReadOnlySpan<byte> name)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        if (index is not null)
        {
            index.TryGetValue((parent, NameHash.Secret.Of(name)), out Alias? found);
            return found is not null && name.SequenceEqual(found.Name) ? found : null;
        }
        foreach (Alias known in All)
        {
            if (!known.IsRemoved && ReferenceEquals(known.Parent, parent) && name.SequenceEqual(known.Name)) { return known; }
        }
        return null;
    }

    /// <summary>Adds a name that is not known yet.</summary>
    public void Add(Alias alias)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        (Alias[] items, int count) = current;
        if (count == items.Length) { Array.Resize(ref items, Math.Max(2, 2 * count)); }
        items[count] = alias;
        current = new Snapshot(items, count + 1);
        if (index is not null) { index[KeyOf(alias)] = alias; }
        else if (Count > Few) { index = All.ToArray().Where(known => !known.IsRemoved).ToDictionary(KeyOf); }
    }

    /// <summary>Removes a name.</summary>
    public void Remove(Alias alias)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
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
