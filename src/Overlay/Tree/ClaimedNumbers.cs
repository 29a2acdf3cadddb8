using Veneer.Fuse.Locking;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>
/// The st_ino of inodes that show another number than that of their real object, so that no two inodes show one number. Protected by
/// <see cref="InodeTable"/>.
/// </summary>
internal sealed class ClaimedNumbers
{
    private readonly Dictionary<ulong, Inode> claimants = []; // by st_ino

    /// <summary>Chooses an st_ino that no inode shows now.</summary>
    /// <param name="ino">Which st_ino the inode should have.</param>
    /// <param name="isShownByOrigin">Whether the inode of the object's origin shows that number.</param>
    /// <remarks>
    /// Several objects may ask for one number: copies of a copy all name the same origin, and the lower object that a copy names
    /// may be visible as well. The first one gets the number. The kernel refuses the others with ESTALE: ovl_verify_inode().
    /// </remarks>
    public ulong Choose(in InoChoice ino, bool isShownByOrigin)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        if (!isShownByOrigin && !claimants.ContainsKey(ino.Ino)) { return ino.Ino; }
        ulong number = ino.Real;
        while (claimants.ContainsKey(number)) { number = InodeNumbers.AlternativeTo(number); }
        return number;
    }

    /// <summary>Gives a new inode the st_ino that <see cref="Choose"/> chooses.</summary>
    public void Assign(Inode inode, in InoChoice ino, bool isShownByOrigin)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        inode.Ino = Choose(ino, isShownByOrigin);
        if (inode.Ino != ino.Real) { claimants[inode.Ino] = inode; }
    }

    /// <summary>The inode has got another real object and keeps its number, which it claims unless another inode has.</summary>
    public void Keep(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        claimants.TryAdd(inode.Ino, inode);
    }

    /// <summary>Frees the number that a dead inode has claimed.</summary>
    public void Release(Inode inode)
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        if (claimants.Count > 0 && claimants.TryGetValue(inode.Ino, out Inode? claimant) && ReferenceEquals(claimant, inode))
        {
            claimants.Remove(inode.Ino);
        }
    }

    /// <summary>Frees all numbers.</summary>
    public void Clear()
    {
        LockOrder.AssertHeld(OverlayLocks.InodeTable);
        claimants.Clear();
    }
}
