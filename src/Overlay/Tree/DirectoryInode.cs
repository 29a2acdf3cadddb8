using System.Diagnostics;
using System.Runtime.CompilerServices;
using Veneer.Fuse.Locking;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tree;

/// <summary>A directory of the overlay.</summary>
/// <param name="stack">The real directories behind it.</param>
internal sealed class DirectoryInode(DirectoryStack stack) : Inode(hasUpper: stack.Upper is not null)
{
    /// <summary>The real directories behind it.</summary>
    public DirectoryStack Stack => stack;

    /// <summary>The directory in upper, or null. Set once, under the copy-up lock.</summary>
    public RealDirectory? Upper => stack.Upper;

    /// <summary>From now on the directory is in upper. Caller holds the copy-up lock.</summary>
    public void BecomeUpperLocked(RealDirectory upper)
    {
        this.AssertMayBecomeUpper();
        stack.Upper = upper;
        BecomeUpperLocked();
    }

    /// <summary>The directories of the lower layers that show through, topmost first.</summary>
    public RealDirectory[] Lowers => stack.Lowers;

    /// <summary>How many known names of inodes are in this directory. Protected by the table.</summary>
    public int Children;

    /// <summary>The redirect attribute of the upper directory, without NUL; or null. Protected by the rename lock.</summary>
    public byte[]? Redirect;

    /// <summary>Whether the upper directory has the opaque attribute. Protected by the rename lock.</summary>
    public bool IsOpaque;

    /// <summary>
    /// Whether the upper directory has the impure attribute. Changed under the names lock of this directory, or under the rename lock
    /// held exclusively. Readers of the directory take no lock.
    /// </summary>
    public bool IsImpure;

    /// <summary>
    /// Grows with each change of a name, so that a lookup that ran at the same time is repeated. Protected by the table.
    /// </summary>
    public int Version;

    /// <summary>
    /// Takes the names lock until the result is disposed of. The thread may hold that of <see cref="Inode.Parent"/>, and no other. The
    /// stack is locked, to save an object.
    /// </summary>
    public ObjectLock.Scope LockNames([CallerMemberName] string member = "")
    {
        LockOrder.AssertOnlyOuter(OverlayLocks.Names, Parent?.Stack, member);
        return ObjectLock.Enter(stack, OverlayLocks.Names, member);
    }

    /// <summary>Checks that the caller holds the names lock.</summary>
    [Conditional("LOCK_ORDER")]
    public void AssertNamesLocked([CallerMemberName] string member = "") =>
        LockOrder.AssertHeld(OverlayLocks.Names, stack, member: member);

    /// <summary>
    /// Checks that no other thread changes a name in the directory: the caller holds the names lock, or the rename lock exclusively.
    /// </summary>
    [Conditional("LOCK_ORDER")]
    public void AssertNamesStay([CallerMemberName] string member = "") =>
        LockOrder.AssertHeldOr(OverlayLocks.Rename, OverlayLocks.Names, stack, member);

    /// <inheritdoc cref="DirectoryStack.IsMerged"/>
    public bool IsMerged => stack.IsMerged;

    /// <inheritdoc cref="DirectoryStack.IsPureUpper"/>
    public bool IsPureUpper => stack.IsPureUpper;

    /// <inheritdoc cref="DirectoryStack.Topmost"/>
    public RealDirectory Topmost => stack.Topmost;
}
