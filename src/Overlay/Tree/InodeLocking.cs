using System.Diagnostics;
using System.Runtime.CompilerServices;
using Veneer.Fuse.Locking;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>Checks that a thread holds the locks under which an inode changes: see <see cref="LockOrder"/>.</summary>
/// <remarks>An inode that has no nodeid yet is being made. Nobody else knows it, so it needs no lock.</remarks>
internal static class InodeLocking
{
    /// <summary>Checks that the caller holds the copy-up lock.</summary>
    [Conditional("LOCK_ORDER")]
    public static void AssertCopyUpLocked(this Inode inode, [CallerMemberName] string member = "") =>
        LockOrder.AssertHeld(OverlayLocks.CopyUp, inode, member: member);

    /// <summary>
    /// Checks that no other thread may change <see cref="Inode.Place"/> or <see cref="Inode.Name"/>: the caller holds the names lock of
    /// <see cref="Inode.Parent"/>, or the rename lock exclusively.
    /// </summary>
    [Conditional("LOCK_ORDER")]
    public static void AssertPlaceLocked(this Inode inode, [CallerMemberName] string member = "")
    {
        if (inode.NodeId == 0) { return; }
        if (inode.Parent is { } parent) { parent.AssertNamesStay(member); }
        else { LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: true, member: member); }
    }

    /// <summary>
    /// Checks the same for a name that may be in another directory than <see cref="Inode.Parent"/>: the caller holds a names lock, or
    /// the rename lock exclusively.
    /// </summary>
    [Conditional("LOCK_ORDER")]
    public static void AssertNameLocked(this Inode inode, [CallerMemberName] string member = "")
    {
        if (inode.NodeId != 0) { LockOrder.AssertHeldOr(OverlayLocks.Rename, OverlayLocks.Names, member: member); }
    }

    /// <summary>Checks that no other thread copies the object up: the caller holds the copy-up lock.</summary>
    [Conditional("LOCK_ORDER")]
    public static void AssertMayBecomeUpper(this Inode inode, [CallerMemberName] string member = "")
    {
        if (inode.NodeId != 0) { inode.AssertCopyUpLocked(member); }
    }

    /// <summary>Checks that no other thread uses a name: the caller holds the rename lock exclusively.</summary>
    [Conditional("LOCK_ORDER")]
    public static void AssertRenameExcluded(this Inode inode, [CallerMemberName] string member = "")
    {
        if (inode.NodeId != 0) { LockOrder.AssertHeld(OverlayLocks.Rename, exclusively: true, member: member); }
    }
}
