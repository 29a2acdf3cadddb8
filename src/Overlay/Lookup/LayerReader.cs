using System.Diagnostics;
using System.Runtime.CompilerServices;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Lookup;

/// <summary>Reads single names in real directories: what is there, and whether it is a whiteout.</summary>
/// <remarks>
/// Upper is read under the rename lock, shared. No lock is held while lowers are read, since that may take any time.
/// </remarks>
/// <param name="directories">Descriptors of real directories.</param>
/// <param name="layers">The layers.</param>
internal sealed class LayerReader(DirectoryCache directories, LayerStack layers)
{
    private readonly OverlayXattr upperXattr = layers.UpperXattr;
    private readonly OverlayXattr lowerXattr = layers.LowerXattr;

    /// <summary>The lock that is held, shared, while upper is read; null where nothing is renamed.</summary>
    public SharedLock? RenameLock { get; init; }

    /// <summary>Finds the owners of objects; null for callers that do not need owners.</summary>
    public Owners? Owners { get; init; }

    /// <summary>
    /// The kernel's word for upper and work as they appear if they lie inside a lower layer; their st_dev and st_ino.
    /// </summary>
    /// <remarks>To enter them through a lower gives ELOOP. Kernel: ovl_lookup_trap_inode().</remarks>
    public (ulong Device, ulong Ino)[] Traps { get; init; } = [];

    /// <summary>Takes the rename lock, shared, until the result is disposed of.</summary>
    public SharedLock.Scope ShareNames() => RenameLock is { } renames ? renames.Share() : default;

    /// <summary>Checks that the rename lock is held, as the calling method needs.</summary>
    [Conditional("LOCK_ORDER")]
    public void AssertNamesLocked([CallerMemberName] string member = "")
    {
        if (RenameLock is not null) { LockOrder.AssertHeld(OverlayLocks.Rename, member: member); }
    }

    /// <summary>Checks that the rename lock is not held, since a lower may take any time to answer. See ADR 20.</summary>
    [Conditional("LOCK_ORDER")]
    public void AssertMayWait([CallerMemberName] string member = "")
    {
        if (RenameLock is not null) { LockOrder.AssertNotHeld(OverlayLocks.Rename, member); }
    }

    /// <summary>Borrows the descriptor of a real directory: see <see cref="DirectoryCache.Borrow"/>.</summary>
    public Errno Borrow(RealDirectory directory, out BorrowedDirectory borrowed) => directories.Borrow(directory, out borrowed);

    /// <summary>Reads the attributes of what is under a name in a real directory.</summary>
    /// <param name="directory">The real directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="stat">The object's attributes.</param>
    /// <param name="exists">Whether there is an object or a whiteout. If not, that is no error.</param>
    public Errno Stat(RealDirectory directory, ReadOnlySpan<byte> name, out Statx stat, out bool exists)
    {
        Errno error = directories.Borrow(directory, out BorrowedDirectory borrowed);
        if (error.IsError)
        {
            stat = default;
            exists = false;
            return error;
        }
        using (borrowed)
        {
            error = Libc.StatAt(borrowed.Descriptor, name, StatxMask.Basic, out stat);
            if (!error.IsError) { Owners?.Mark(borrowed.Descriptor, name, ref stat); }
        }
        exists = !error.IsError;
        // The name limit of a lower may be shorter than upper's: a longer name cannot exist there. Kernel: ovl_lookup_single()
        return error is Errno.ENOENT or Errno.ENAMETOOLONG ? Errno.None : error;
    }

    /// <summary>Whether a real object is a whiteout: a device 0:0, or an empty file with the whiteout attribute.</summary>
    public bool IsWhiteout(RealDirectory directory, ReadOnlySpan<byte> name, in Statx stat)
    {
        if (stat.IsWhiteoutDevice) { return true; }
        if (!stat.IsRegular || stat.Size != 0) { return false; }
        if (directories.Borrow(directory, out BorrowedDirectory borrowed).IsError) { return false; }
        using (borrowed) { return IsWhiteout(borrowed.Descriptor, name, stat, directory.Layer.IsUpper); }
    }

    /// <summary>Whether a real object in an open directory is a whiteout.</summary>
    public bool IsWhiteout(int directory, ReadOnlySpan<byte> name, in Statx stat, bool isUpper) =>
        stat.IsWhiteoutDevice || (stat.IsRegular && stat.Size == 0
            && !Libc.GetXattrAt(directory, name, XattrOf(isUpper).Whiteout, default, out _).IsError);

    /// <summary>Whether an open directory is marked as one that may hold whiteouts that are empty files.</summary>
    public bool MayHaveFileWhiteouts(int directory, bool isUpper) =>
        OverlayAttributes.ReadFlag(directory, Libc.Self, XattrOf(isUpper).Opaque) == 'x';

    private OverlayXattr XattrOf(bool isUpper) => isUpper ? upperXattr : lowerXattr;

    /// <summary>Whether a real object in a lower is upper or work: see <see cref="Traps"/>.</summary>
    public bool IsTrap(in Statx stat)
    {
        if (!stat.IsDirectory) { return false; }
        foreach ((ulong device, ulong ino) in Traps)
        {
            if (stat.Ino == ino && stat.Dev == device) { return true; }
        }
        return false;
    }

    /// <summary>Opens a real directory for listing. Caller holds no lock.</summary>
    /// <param name="directory">The real directory.</param>
    /// <param name="descriptor">Its descriptor, which the caller closes; -1 after an error.</param>
    public Errno OpenDirectory(RealDirectory directory, out int descriptor)
    {
        using SharedLock.Scope names = directory.Layer.IsUpper ? ShareNames() : default;
        descriptor = -1;
        Errno error = directories.Borrow(directory, out BorrowedDirectory borrowed);
        if (error.IsError) { return error; }
        using var real = new RealReference(borrowed, ".\0"u8);
        return real.Open(OpenFlags.ReadOnly | OpenFlags.Directory, out descriptor);
    }
}
