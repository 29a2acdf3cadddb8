using System.Diagnostics;
using System.Runtime.CompilerServices;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Lookup;

/// <summary>Tells what one real directory has under a name: attributes, a whiteout, a directory that may not be entered.</summary>
/// <remarks>
/// Upper is read under the rename lock, shared. No lock is held while a lower is read: that may take any time, and lowers do
/// not change.
/// </remarks>
/// <param name="directories">Descriptors of real directories.</param>
/// <param name="layers">The layers.</param>
internal sealed class LayerReader(DirectoryCache directories, LayerStack layers)
{
    /// <summary>The lock that is held, shared, while upper is read; null where nothing is renamed.</summary>
    public SharedLock? RenameLock { get; init; }

    /// <summary>Finds the owners of objects; null for callers that do not need owners.</summary>
    public Owners? Owners { get; init; }

    /// <summary>Upper and work as they appear if they lie inside a lower layer: st_dev and st_ino.</summary>
    /// <remarks>To enter them through a lower gives ELOOP. Kernel: ovl_lookup_trap_inode().</remarks>
    public (ulong Device, ulong Ino)[] Traps { get; init; } = [];

    /// <summary>Holds the rename lock, shared, for as long as names in upper are used.</summary>
    public SharedLock.Scope ShareNames() => RenameLock is { } renames ? renames.Share() : default;

    /// <summary>Checks that the rename lock is held, since a name in upper is used.</summary>
    [Conditional("LOCK_ORDER")]
    public void AssertNamesShared([CallerMemberName] string member = "")
    {
        if (RenameLock is not null) { LockOrder.AssertHeld(OverlayLocks.Rename, member: member); }
    }

    /// <summary>Checks that the rename lock is not held, since a lower may take any time to answer. See ADR 20.</summary>
    [Conditional("LOCK_ORDER")]
    public void AssertMayWait([CallerMemberName] string member = "")
    {
        if (RenameLock is not null) { LockOrder.AssertNotHeld(OverlayLocks.Rename, member); }
    }

    /// <summary>Reads the attributes of what a real directory has under a name.</summary>
    /// <param name="directory">The real directory.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="stat">The attributes, with the owner as the overlay shows it.</param>
    /// <param name="exists">Whether there is anything under the name, be it a whiteout.</param>
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
            && !Libc.GetXattrAt(directory, name, (isUpper ? layers.UpperXattr : layers.LowerXattr).Whiteout, default, out _).IsError);

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

    /// <summary>Whether a real object is one of <see cref="Traps"/>.</summary>
    public bool IsTrap(in Statx stat)
    {
        if (!stat.IsDirectory) { return false; }
        foreach ((ulong device, ulong ino) in Traps)
        {
            if (stat.Ino == ino && stat.Dev == device) { return true; }
        }
        return false;
    }
}
