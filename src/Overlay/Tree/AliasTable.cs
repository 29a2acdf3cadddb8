using Veneer.Fuse.Locking;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>The files with several names: which names of each are known, and which inodes are retained for their lower names.</summary>
/// <remarks>
/// An <see cref="Alias"/> keeps its directory alive. <see cref="HardLinks"/> says why all names of a lower file stay one inode.
/// </remarks>
/// <param name="gate">The lock of <see cref="InodeTable"/>.</param>
/// <param name="references">Counts the names of each directory.</param>
/// <param name="keepsAllNames">
/// Whether all names of a file with several names in upper are remembered, since a number in upper may be that of several files.
/// </param>
internal sealed class AliasTable(OrderedLock gate, InodeReferences references, bool keepsAllNames)
{
    /// <summary>How many names are remembered of a file with several names in upper.</summary>
    private const int EnoughAliases = 8;

    private readonly Dictionary<RealKey, Inode> retained = []; // by the key of the lower object

    /// <summary>Finds the inode that is retained for a lower object.</summary>
    /// <returns>Null when there is none.</returns>
    public Inode? FindLocked(RealKey lowerKey)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        return retained.GetValueOrDefault(lowerKey);
    }

    /// <summary>Keeps an inode, and what is known of its lower names, until <see cref="Release"/> or the end of the mount.</summary>
    public void Retain(Inode inode, RealKey lowerKey)
    {
        using (gate.Enter()) { RetainLocked(inode, lowerKey); }
    }

    /// <inheritdoc cref="Retain"/>
    public void RetainLocked(Inode inode, RealKey lowerKey)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        retained[lowerKey] = inode;
        inode.Links!.RetainedUnder = lowerKey;
    }

    /// <summary>The last name of a file with several lower names is gone: the kernel may forget the inode like any other.</summary>
    public void Release(Inode inode)
    {
        using (gate.Enter())
        {
            if (inode.Links!.RetainedUnder is { } key) { retained.Remove(key); }
            inode.Links.RetainedUnder = null;
            references.DropIfUnusedLocked(inode);
        }
    }

    /// <summary>Remembers one more name of a file.</summary>
    /// <remarks>
    /// All names of a file with several lower names are remembered, since copy-up needs them. Of other files a few names are
    /// enough: when one goes, another one leads to the file, which saves a descriptor.
    /// </remarks>
    public void Add(Inode inode, DirectoryInode parent, ReadOnlySpan<byte> name, bool isUpper)
    {
        using (gate.Enter()) { AddLocked(inode, parent, name, isUpper); }
    }

    /// <summary>Remembers a name that was looked up.</summary>
    /// <returns>
    /// False when a name in <paramref name="parent"/> has changed since <paramref name="version"/>: it may be this name, so look it
    /// up again.
    /// </returns>
    public bool TryAdd(Inode inode, DirectoryInode parent, int version, ReadOnlySpan<byte> name, bool isUpper)
    {
        using (gate.Enter())
        {
            if (parent.Version != version) { return false; }
            AddLocked(inode, parent, name, isUpper);
            return true;
        }
    }

    private void AddLocked(Inode inode, DirectoryInode parent, ReadOnlySpan<byte> name, bool isUpper)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        AliasList aliases = inode.MakeAliasListLocked();
        if (inode.Links is null && !keepsAllNames && aliases.Count >= EnoughAliases) { return; }
        if (aliases.Find(parent, name) is not null) { return; }
        aliases.Add(new Alias(parent, name.ToArray()) { IsUpper = isUpper });
        InodeReferences.AddNameLocked(parent);
    }

    /// <summary>Forgets a name of a file.</summary>
    public void Remove(Inode inode, Alias alias)
    {
        using (gate.Enter())
        {
            inode.AliasList!.Remove(alias);
            references.RemoveNameLocked(alias.Parent);
        }
    }

    /// <summary>Finds what is known of a name of a file.</summary>
    /// <returns>Null when nothing is known.</returns>
    public Alias? Find(Inode inode, DirectoryInode parent, ReadOnlySpan<byte> name)
    {
        if (inode.AliasList is null) { return null; }
        using (gate.Enter()) { return inode.AliasList.Find(parent, name); }
    }

    /// <summary>Whether an object of upper is known to have a name.</summary>
    public bool HasName(Inode inode, DirectoryInode parent, ReadOnlySpan<byte> name)
    {
        using (gate.Enter())
        {
            if (!inode.IsNameless && ReferenceEquals(inode.Parent, parent) && name.SequenceEqual(inode.Name)) { return true; }
            return inode.AliasList?.Find(parent, name) is { IsUpper: true };
        }
    }

    /// <summary>Retains no inode any more. The mount is over.</summary>
    public void ClearLocked()
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        retained.Clear();
    }
}
