using System.Globalization;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Durability;

/// <summary>
/// The mark on disk of an upper that may lack what was written to it, with the records by which it can be judged.
/// </summary>
/// <remarks>
/// The mark has four parts: <c>work/incompat/volatile/dirty</c> in the work directory, which the kernel knows, and three
/// copies of a <see cref="VolatileRecord"/>. One copy is an attribute of that <c>volatile</c>, which some callers remove
/// before they mount; one is a file of the work directory; one is an attribute of upper itself, and names the work
/// directory.
/// <para>
/// Crash safety. All parts exist before the first change of a volatile mount. If upper had files that can be changed in
/// place, the parts are also on the disk by then; otherwise the filesystem's journal keeps the order. They are removed
/// after a sync of the whole upper, the kernel's part first. Killed in between, the remaining parts still ask for a sync.
/// </para>
/// </remarks>
internal sealed class VolatileMark
{
    private static ReadOnlySpan<byte> FileName => "veneer-volatile\0"u8;

    private static ReadOnlySpan<byte> NewFileName => "veneer-volatile.new\0"u8;

    private readonly int upper;
    private readonly int work;
    private readonly OverlayXattr xattr;
    private readonly OrderedLock gate = new(OverlayLocks.VolatileMark);
    private readonly bool isLaid;
    private readonly int recordsOnUpper;
    private VolatileState notUnderstood;
    private Errno unread;
    private VolatileRecord? current;

    /// <summary>Looks for a mark, and changes nothing.</summary>
    /// <param name="named">
    /// The upper directory as the user named it, not opened with O_PATH. Its mount tells more than a private copy.
    /// </param>
    /// <param name="upper">The upper directory; valid as long as this object.</param>
    /// <param name="work">The work directory, or -1; valid as long as this object.</param>
    /// <param name="xattr">Names of attributes.</param>
    /// <param name="path">The path of work from upper, without NUL; empty where it is unknown.</param>
    public VolatileMark(int named, int upper, int work, OverlayXattr xattr, ReadOnlySpan<byte> path)
    {
        this.upper = upper;
        this.work = work;
        this.xattr = xattr;
        Now = Describe(named, path);
        IsKernels = work >= 0 && Has(work, "work/incompat/volatile\0"u8);
        Span<byte> value = stackalloc byte[VolatileRecord.MaxLength];
        Errno error = Libc.GetXattrAt(upper, Libc.Self, xattr.Volatile, value, out int size);
        isLaid = !error.IsNoXattr;
        if (isLaid) { Add(error, value, size); }
        recordsOnUpper = Records.Count;
        if (work < 0) { return; }
        error = Libc.OpenAt(work, FileName, OpenFlags.ReadOnly | OpenFlags.NoFollow | OpenFlags.NonBlock, 0, ResolveFlags.Confined,
            out int file);
        if (!error.IsError)
        {
            using var opened = new Fd(file);
            error = Libc.ReadAt(file, value, 0, out size);
            Add(error, value, size);
        }
        // a link or a socket has the name
        else if (error != Errno.ENOENT) { Add(error is Errno.ELOOP or Errno.ENXIO ? Errno.EINVAL : error, value, 0); }
        error = Libc.OpenAt(work, "work/incompat/volatile\0"u8, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0,
            ResolveFlags.Confined, out int directory);
        if (!error.IsError)
        {
            using var opened = new Fd(directory);
            error = Libc.GetXattrAt(directory, Libc.Self, xattr.Volatile, value, out size);
            if (!error.IsNoXattr) { Add(error, value, size); }
        }
        else if (!IsAbsent(error)) { unread = error; }
    }

    /// <summary>Names of attributes.</summary>
    public OverlayXattr Xattr => xattr;

    /// <summary>Whether a mount may have changed upper under this mark.</summary>
    public bool IsServed { get; set; }

    /// <summary>The copies that were found; null for a copy that is not understood.</summary>
    public List<VolatileRecord?> Records { get; } = [];

    /// <summary>The record of the current state.</summary>
    public VolatileRecord Now { get; }

    /// <summary>Whether the kernel's part of the mark exists.</summary>
    public bool IsKernels { get; }

    /// <summary>Whether a mark exists, so that upper may lack what was written to it.</summary>
    public bool Exists => IsKernels || Records.Count > 0 || unread.IsError;

    /// <summary>The error sequence at the first of consecutive volatile mounts; null where it is unknown.</summary>
    public uint? FirstErrors => Records.FirstOrDefault(record => record is not null)?.Errors ?? Now.Errors;

    /// <summary>Judges upper by the records. The worst of them counts.</summary>
    public VolatileState Judge()
    {
        if (Records.Count == 0 && !unread.IsError)
        {
            return new VolatileState(VolatileStateKind.Unknown,
                "there is no record by which that could be told, as after kernel overlayfs");
        }
        VolatileState worst = unread.IsError
            ? VolatileState.Unreadable($"its record cannot be read ({unread})", "see whether /proc is mounted, and its filesystem answers")
            : VolatileState.Whole;
        foreach (VolatileRecord? record in Records)
        {
            VolatileState state = record?.Judge(Now) ?? notUnderstood;
            if (state.Kind > worst.Kind) { worst = state; }
        }
        return worst;
    }

    /// <summary>
    /// Adds what was read, or why reading failed. A record that cannot be read is not damaged: nobody must discard an upper
    /// for that.
    /// </summary>
    private void Add(Errno error, ReadOnlySpan<byte> value, int size)
    {
        // An object of another kind, or one that is too long, is no record of ours.
        bool isNone = error is Errno.EINVAL or Errno.ERANGE or Errno.EAGAIN or Errno.ESPIPE or Errno.EISDIR;
        if (error.IsError && !isNone)
        {
            unread = error;
            return;
        }
        ReadOnlySpan<byte> bytes = isNone ? default : value[..size];
        VolatileRecord? record = VolatileRecord.Parse(bytes);
        if (record is null) { notUnderstood = VolatileRecord.NotUnderstood(bytes); }
        Records.Add(record);
    }

    /// <summary>
    /// Whether an error means that a name is absent, or that a user cannot reach it, for whom the other copies count: the
    /// kernel makes <c>work</c> without permissions.
    /// </summary>
    private static bool IsAbsent(Errno error) => error is Errno.ENOENT or Errno.ENOTDIR or Errno.ELOOP or Errno.EACCES or Errno.EXDEV;

    private static bool Has(int directory, ReadOnlySpan<byte> path)
    {
        if (Libc.OpenAt(directory, path, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int descriptor).IsError)
        {
            return false;
        }
        Libc.Close(descriptor);
        return true;
    }

    /// <summary>
    /// Writes the mark, or renews its records. <paramref name="workDirectory"/> is empty but for an earlier mark.
    /// </summary>
    /// <param name="workDirectory">A descriptor of <c>work</c> in the work directory.</param>
    public Errno Lay(int workDirectory)
    {
        byte[] record = (Now with { Errors = FirstErrors }).ToBytes();
        Errno error = WriteFile(record); // first: killed after it, the upper is a usable one
        if (!error.IsError) { error = Ensure(Libc.MakeDirectoryAt(workDirectory, "incompat\0"u8, 0x1C0)); }
        if (!error.IsError) { error = Ensure(Libc.MakeDirectoryAt(workDirectory, "incompat/volatile\0"u8, 0x1C0)); }
        if (!error.IsError) { error = Ensure(Libc.MakeNodeAt(workDirectory, "incompat/volatile/dirty\0"u8, FileType.Regular | 0x180, 0)); }
        // A change in place needs no change of the filesystem's structure, and so may reach the disk before the mark. Where
        // upper has its attribute, which is written last, the mark was synced before.
        if (!error.IsError && !isLaid && !IsEmpty(upper)) { error = SyncMark(workDirectory); }
        if (!error.IsError) { error = WriteAttributes(record); }
        if (!error.IsError) { current = Now with { Errors = FirstErrors }; }
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

    /// <summary>Records that a write has failed, so that nobody trusts the upper again.</summary>
    public Errno NoteFailure(Errno failure)
    {
        using (gate.Enter()) { return current is { Failure: "-" } record ? Write(record with { Failure = failure.ToString() }) : Errno.None; }
    }

    /// <remarks>
    /// Each copy is replaced as a whole. Killed in between, some copies still hold the old record: a reader must be content
    /// with all of them. So one new copy is enough, if callers do not remove it. All are tried, the attributes first, since
    /// there may be no room for another file.
    /// </remarks>
    private Errno Write(VolatileRecord record)
    {
        current = record; // also after an error: the descriptors may be closed when this is called again
        byte[] bytes = record.ToBytes();
        Errno onUpper = Libc.SetXattrAt(upper, Libc.Self, xattr.Volatile, bytes, XattrFlags.None);
        _ = WriteWorkAttribute(bytes); // best effort: the other copies count
        Errno inFile = WriteFile(bytes);
        if (inFile.IsError) { inFile = WriteOver(bytes); }
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

    /// <summary>
    /// Whether a write to the filesystem has failed since the first of consecutive volatile mounts; false where that is
    /// unknown.
    /// </summary>
    public bool HasFailed()
    {
        if (FirstErrors is not { } then || Libc.Reopen(upper, OpenFlags.ReadOnly | OpenFlags.Directory, out int descriptor).IsError)
        {
            return false;
        }
        using var opened = new Fd(descriptor);
        return !ErrorSequence.Read(descriptor, out uint errors).IsError && errors != then;
    }

    /// <summary>
    /// Whether the mark in the work directory may be that of another upper: none of the records there names this one. False
    /// without a mark.
    /// </summary>
    public bool IsOfAnother =>
        work >= 0 && (IsKernels || Records.Count > recordsOnUpper)
        && !Records.Skip(recordsOnUpper)
            .Any(record => record is not null && record.Upper == Now.Upper && record.FileSystemId == Now.FileSystemId);

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

    /// <summary>The path of the work directory in the records, from upper, without NUL; empty when no record has one.</summary>
    public byte[] WorkPath =>
        Records.FirstOrDefault(record => record is { Work.Length: > 0 }) is { } record ? Convert.FromHexString(record.Work) : [];

    private static VolatileRecord Describe(int upper, ReadOnlySpan<byte> workPath)
    {
        // cannot fail: the directory is open
        _ = Libc.StatAt(upper, Libc.Self, StatxMask.Basic | StatxMask.UniqueMountId, out Statx stat);
        _ = Libc.StatFileSystem(upper, out StatFs status); // cannot fail, as above
        bool isInMemory = status.Type is StatFs.TmpfsMagic or StatFs.RamfsMagic;
        uint errors = 0;
        Errno error = isInMemory ? Errno.None : ErrorSequence.Read(upper, out errors);
        return new VolatileRecord
        {
            Boot = ReadBoot(),
            Device = string.Create(CultureInfo.InvariantCulture, $"{stat.DevMajor}:{stat.DevMinor}"),
            FileSystemId = status.FsId.ToString("x", CultureInfo.InvariantCulture),
            Instance = FindInstance(upper, status, stat),
            Mount = (stat.Mask & StatxMask.UniqueMountId) != 0 ? stat.MountId : 0,
            Upper = stat.Ino,
            Errors = isInMemory || error.IsError ? null : errors,
            NoErrors = error.IsError ? VolatileRecord.ReasonOf(error) : null,
            IsInMemory = isInMemory,
            Failure = "-",
            Work = Convert.ToHexString(workPath),
        };
    }

    /// <summary>The id of the current boot, or <see cref="VolatileRecord.UnknownBoot"/>.</summary>
    private static string ReadBoot()
    {
        string text = BootId.Read();
        return text.Length is > 0 and <= 64 && text.All(c => char.IsAsciiLetterOrDigit(c) || c == '-') ? text : VolatileRecord.UnknownBoot;
    }

    /// <summary>
    /// The inode number of the filesystem's directory in sysfs, or 0. The directory is made when the filesystem is mounted,
    /// and its number is not recycled before the next boot.
    /// </summary>
    private static ulong FindInstance(int upper, in StatFs status, in Statx stat)
    {
        string type = status.Type switch
        {
            StatFs.Ext4Magic => "ext4",
            StatFs.XfsMagic => "xfs",
            StatFs.BtrfsMagic => "btrfs",
            StatFs.F2fsMagic => "f2fs",
            _ => "",
        };
        if (type.Length == 0) { return 0; }
        string name;
        if (type == "btrfs")
        {
            name = new Guid(FileSystemUuid.Of(upper), bigEndian: true).ToString();
        }
        else
        {
            Span<byte> link = stackalloc byte[1024];
            if (Libc.ReadLinkAt(Libc.AtCwd,
                PathText.Encode(string.Create(CultureInfo.InvariantCulture, $"/sys/dev/block/{stat.DevMajor}:{stat.DevMinor}")),
                link, out int length).IsError)
            {
                return 0;
            }
            name = PathText.Decode(link[..length]);
            name = name[(name.LastIndexOf('/') + 1)..];
        }
        return Libc.StatAt(Libc.AtCwd, PathText.Encode($"/sys/fs/{type}/{name}"), StatxMask.Basic, out Statx directory).IsError
            ? 0
            : directory.Ino;
    }
}

/// <summary>Removes the mark of a mount that never served, so that the upper can be mounted in any way.</summary>
/// <param name="mark">The mark, written where there was none before.</param>
internal sealed class MarkRemoval(VolatileMark mark) : IDisposable
{
    /// <inheritdoc/>
    public void Dispose()
    {
        if (!mark.IsServed) { _ = mark.Clear(); } // best effort: remaining parts ask for a sync
    }
}
