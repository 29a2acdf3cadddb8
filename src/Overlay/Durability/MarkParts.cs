using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Durability;

/// <summary>The parts of a <see cref="VolatileMark"/> on the disk: makes them, replaces the record in them, and removes them.</summary>
/// <param name="upper">The upper directory; valid as long as this object.</param>
/// <param name="work">The work directory, or -1; valid as long as this object.</param>
/// <param name="xattr">Names of attributes.</param>
internal sealed class MarkParts(int upper, int work, OverlayXattr xattr)
{
    /// <summary>The name of the file in the work directory that is a copy of the record, with its NUL.</summary>
    public static ReadOnlySpan<byte> FileName => "veneer-volatile\0"u8;

    private static ReadOnlySpan<byte> NewFileName => "veneer-volatile.new\0"u8;

    /// <summary>Names of attributes.</summary>
    public OverlayXattr Xattr => xattr;

    /// <summary>Makes the parts, or renews the records in them.</summary>
    /// <param name="workDirectory">A descriptor of <c>work</c> in the work directory.</param>
    /// <param name="record">The record.</param>
    /// <param name="isNew">Whether upper has no record yet.</param>
    public Errno Write(int workDirectory, byte[] record, bool isNew)
    {
        Errno error = WriteFile(record); // first: killed after it, the upper is a usable one
        if (!error.IsError) { error = Ensure(Libc.MakeDirectoryAt(workDirectory, "incompat\0"u8, 0x1C0)); }
        if (!error.IsError) { error = Ensure(Libc.MakeDirectoryAt(workDirectory, "incompat/volatile\0"u8, 0x1C0)); }
        if (!error.IsError) { error = Ensure(Libc.MakeNodeAt(workDirectory, "incompat/volatile/dirty\0"u8, FileType.Regular | 0x180, 0)); }
        // A change in place needs no change of the filesystem's structure, and so may reach the disk before the mark. Where
        // upper has its attribute, which is written last, the mark was synced before.
        if (!error.IsError && isNew && !IsEmpty(upper)) { error = SyncMark(workDirectory); }
        if (!error.IsError) { error = WriteAttributes(record); }
        return error;
    }

    private static Errno Ensure(Errno error) => error == Errno.EEXIST ? Errno.None : error;

    private static bool IsEmpty(int directory)
    {
        if (Libc.Reopen(directory, OpenFlags.ReadOnly | OpenFlags.Directory, out int descriptor).IsError) { return false; }
        var reader = new DirectoryReader(descriptor);
        bool found = reader.MoveNext();
        reader.Dispose();
        Libc.Close(descriptor);
        return !found;
    }

    private Errno SyncMark(int workDirectory)
    {
        Errno error = SyncDirectory(workDirectory, "incompat/volatile\0"u8);
        if (!error.IsError) { error = SyncDirectory(workDirectory, "incompat\0"u8); }
        if (!error.IsError) { error = SyncDirectory(workDirectory, Libc.Self); }
        if (!error.IsError) { error = SyncDirectory(work, Libc.Self); }
        return error;
    }

    private static Errno SyncDirectory(int from, ReadOnlySpan<byte> name)
    {
        Errno error = name.SequenceEqual(Libc.Self)
            ? Libc.Reopen(from, OpenFlags.ReadOnly | OpenFlags.Directory, out int descriptor)
            : Libc.OpenAt(from, name, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.Confined, out descriptor);
        if (error.IsError) { return error; }
        error = Libc.Sync(descriptor, dataOnly: false);
        Libc.Close(descriptor);
        return error;
    }

    /// <summary>Replaces the record in each copy.</summary>
    /// <remarks>
    /// Each copy is replaced as a whole. Killed in between, some copies still hold the old record: a reader must be content
    /// with all of them. So one new copy is enough, if callers do not remove it. All are tried, the attributes first, since
    /// there may be no room for another file.
    /// </remarks>
    public Errno Replace(byte[] record)
    {
        Errno onUpper = Libc.SetXattrAt(upper, Libc.Self, xattr.Volatile, record, XattrFlags.None);
        _ = WriteWorkAttribute(record); // best effort: the other copies count
        Errno inFile = WriteFile(record);
        if (inFile.IsError) { inFile = WriteOver(record); }
        return onUpper.IsError && inFile.IsError ? onUpper : Errno.None;
    }

    /// <summary>
    /// Overwrites the file in place, for a full filesystem: the old file has a block already. A reader in between sees a
    /// damaged record, which is as bad as the new one.
    /// </summary>
    private Errno WriteOver(byte[] record)
    {
        Errno error = Libc.OpenAt(work, FileName, OpenFlags.WriteOnly | OpenFlags.NoFollow | OpenFlags.NonBlock, 0,
            ResolveFlags.Confined, out int file);
        if (error.IsError) { return error; }
        error = Libc.WriteAt(file, record, 0, out int count);
        Libc.Close(file);
        return !error.IsError && count < record.Length ? Errno.ENOSPC : error;
    }

    private Errno WriteFile(byte[] record)
    {
        // best effort: a killed server may have left it; opening another object of that name, such as a pipe, would wait
        _ = Libc.UnlinkAt(work, NewFileName);
        Errno error = Libc.OpenAt(work, NewFileName,
            OpenFlags.WriteOnly | OpenFlags.Create | OpenFlags.Exclusive | OpenFlags.NoFollow, 0x180, ResolveFlags.Confined,
            out int file);
        if (error.IsError) { return error; }
        error = Libc.WriteAt(file, record, 0, out int count);
        Libc.Close(file);
        if (!error.IsError && count < record.Length) { error = Errno.ENOSPC; }
        return error.IsError ? error : Libc.RenameAt(work, NewFileName, work, FileName, RenameFlags.None);
    }

    private Errno WriteAttributes(byte[] record)
    {
        Errno error = WriteWorkAttribute(record);
        return error.IsError ? error : Libc.SetXattrAt(upper, Libc.Self, xattr.Volatile, record, XattrFlags.None);
    }

    private Errno WriteWorkAttribute(byte[] record)
    {
        Errno error = Libc.OpenAt(work, "work/incompat/volatile\0"u8, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0,
            ResolveFlags.Confined, out int directory);
        if (error.IsError) { return error; }
        error = Libc.SetXattrAt(directory, Libc.Self, xattr.Volatile, record, XattrFlags.None);
        Libc.Close(directory);
        return error;
    }

    /// <summary>Removes the mark, on the disk as well, after everything was synced.</summary>
    /// <remarks>
    /// This also brings to the disk what no fsync(2) covers, such as the owner of a symbolic link: a journal keeps changes
    /// in order, and btrfs is asked to commit all of its structure (not data).
    /// </remarks>
    public Errno Clear()
    {
        Errno error = CommitBtrfs();
        if (work >= 0)
        {
            if (!error.IsError) { error = Gone(Libc.UnlinkAt(work, "work/incompat/volatile/dirty\0"u8)); }
            if (!error.IsError) { error = Gone(Libc.RemoveDirectoryAt(work, "work/incompat/volatile\0"u8)); }
            if (!error.IsError) { _ = Libc.RemoveDirectoryAt(work, "work/incompat\0"u8); } // best effort: empty, it means nothing
            if (!error.IsError) { error = Gone(Libc.UnlinkAt(work, FileName)); }
            _ = Libc.UnlinkAt(work, NewFileName); // best effort: a killed server may have left it
        }
        if (!error.IsError)
        {
            error = Libc.RemoveXattrAt(upper, Libc.Self, xattr.Volatile);
            if (error.IsNoXattr) { error = Errno.None; }
        }
        if (work >= 0)
        {
            if (!error.IsError) { error = Gone(SyncDirectory(work, "work\0"u8)); }
            if (!error.IsError) { error = SyncDirectory(work, Libc.Self); }
        }
        return error.IsError ? error : SyncDirectory(upper, Libc.Self);
    }

    /// <summary>
    /// Commits btrfs. There, the fsync(2) of a directory writes a symbolic link to the disk, but not later changes of the
    /// link.
    /// </summary>
    private Errno CommitBtrfs()
    {
        const ulong startSync = 0x80089418, waitSync = 0x40089416; // BTRFS_IOC_START_SYNC, BTRFS_IOC_WAIT_SYNC
        if (Libc.StatFileSystem(upper, out StatFs status).IsError || status.Type != StatFs.BtrfsMagic) { return Errno.None; }
        Errno error = Libc.Reopen(upper, OpenFlags.ReadOnly | OpenFlags.Directory, out int descriptor);
        if (error.IsError) { return error; }
        using var opened = new Fd(descriptor);
        ulong transaction = 0;
        error = Libc.Ioctl(descriptor, startSync, ref transaction, out _);
        if (!error.IsError) { error = Libc.Ioctl(descriptor, waitSync, ref transaction, out _); }
        // Nothing to write, or a kernel or user without these calls.
        return error is Errno.ENOENT or Errno.ENOTTY or Errno.EPERM ? Errno.None : error;
    }

    private static Errno Gone(Errno error) => error == Errno.ENOENT ? Errno.None : error;
}
