using System.Globalization;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Durability;

/// <summary>What says on disk that an upper may lack what was written to it, and all that is needed to tell whether it does.</summary>
/// <remarks>
/// Four things: <c>work/incompat/volatile/dirty</c> in the work directory, which the kernel knows, and three copies of a
/// <see cref="VolatileRecord"/>: an attribute of that <c>volatile</c>, which some callers remove before they mount; a file
/// of the work directory; and an attribute of upper itself, which leads to the work directory.
/// <para>
/// Crash safety. All are there before the first change of a volatile mount. Where upper had files that can be changed in
/// place, they are also on the disk by then; else the filesystem's journal keeps their order. They are removed after a
/// sync of the whole upper, the kernel's first. Killed in between, what is left still asks for a sync.
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

    /// <summary>Looks for a mark; nothing changes.</summary>
    /// <param name="named">The upper directory as the user named it, whose mount tells more than a private copy; not an O_PATH descriptor.</param>
    /// <param name="upper">The upper directory, as long as this lives.</param>
    /// <param name="work">The work directory, as long as this lives, or -1.</param>
    /// <param name="xattr">Names of attributes.</param>
    /// <param name="path">Where work is, from upper, without NUL; empty where that cannot be said.</param>
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
        error = Libc.OpenAt(work, FileName, OpenFlags.ReadOnly | OpenFlags.NoFollow | OpenFlags.NonBlock, 0, ResolveFlags.Confined, out int file);
        if (!error.IsError)
        {
            using var opened = new Fd(file);
            error = Libc.ReadAt(file, value, 0, out size);
            Add(error, value, size);
        }
        else if (error != Errno.ENOENT) { Add(error is Errno.ELOOP or Errno.ENXIO ? Errno.EINVAL : error, value, 0); } // a link or a socket has the name
        error = Libc.OpenAt(work, "work/incompat/volatile\0"u8, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int directory);
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

    /// <summary>Whether a mount may have changed upper under it.</summary>
    public bool IsServed { get; set; }

    /// <summary>The copies that were found; null for one that is not understood.</summary>
    public List<VolatileRecord?> Records { get; } = [];

    /// <summary>What a record would say now.</summary>
    public VolatileRecord Now { get; }

    /// <summary>Whether the kernel's part of the mark is there.</summary>
    public bool IsKernels { get; }

    /// <summary>Whether upper may lack what was written to it.</summary>
    public bool Exists => IsKernels || Records.Count > 0 || unread.IsError;

    /// <summary>The error sequence of the first of a row of volatile mounts; null where it is not known.</summary>
    public uint? FirstErrors => Records.FirstOrDefault(record => record is not null)?.Errors ?? Now.Errors;

    /// <summary>What the records say: the worst of them counts.</summary>
    public VolatileState Judge()
    {
        if (Records.Count == 0 && !unread.IsError) { return new VolatileState(VolatileStateKind.Unknown, "there is no record by which that could be told, as after kernel overlayfs"); }
        VolatileState worst = unread.IsError ? VolatileState.Unreadable($"its record cannot be read ({unread})", "see whether /proc is mounted, and its filesystem answers") : VolatileState.Whole;
        foreach (VolatileRecord? record in Records)
        {
            VolatileState state = record?.Judge(Now) ?? notUnderstood;
            if (state.Kind > worst.Kind) { worst = state; }
        }
        return worst;
    }

    /// <summary>Adds what was read, or why it could not be. What could not be read is not damaged by that: nobody is to discard an upper for it.</summary>
    private void Add(Errno error, ReadOnlySpan<byte> value, int size)
    {
        // Another kind of object, or one that is too long, is no record of ours.
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

    /// <summary>Whether a name is not there, or not to be reached by a user for whom the others count: the kernel makes <c>work</c> with no permissions.</summary>
    private static bool IsAbsent(Errno error) => error is Errno.ENOENT or Errno.ENOTDIR or Errno.ELOOP or Errno.EACCES or Errno.EXDEV;

    private static bool Has(int directory, ReadOnlySpan<byte> path)
    {
        if (Libc.OpenAt(directory, path, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int descriptor).IsError) { return false; }
        Libc.Close(descriptor);
        return true;
    }

    /// <summary>Lays the mark down, or renews what it says. <paramref name="workDirectory"/> is empty but for an earlier mark.</summary>
    /// <param name="workDirectory">A descriptor of <c>work</c> in the work directory.</param>
    public Errno Lay(int workDirectory)
    {
        byte[] record = (Now with { Errors = FirstErrors }).ToBytes();
        Errno error = WriteFile(record); // first: killed after it, the upper is one that can be used
        if (!error.IsError) { error = Ensure(Libc.MakeDirectoryAt(workDirectory, "incompat\0"u8, 0x1C0)); }
        if (!error.IsError) { error = Ensure(Libc.MakeDirectoryAt(workDirectory, "incompat/volatile\0"u8, 0x1C0)); }
        if (!error.IsError) { error = Ensure(Libc.MakeNodeAt(workDirectory, "incompat/volatile/dirty\0"u8, FileType.Regular | 0x180, 0)); }
        // What can be changed in place needs no change of the filesystem's structure, and so does not come after the mark.
        // Where upper has its attribute, which comes last, this was done before.
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

    /// <summary>Notes that writing back has failed, so that nobody trusts the upper again.</summary>
    public Errno NoteFailure(Errno failure)
    {
        using (gate.Enter()) { return current is { Failure: "-" } record ? Write(record with { Failure = failure.ToString() }) : Errno.None; }
    }

    /// <remarks>
    /// Each copy is replaced as a whole. Killed in between, some say what they said before: a reader must be content with all.
    /// So one is enough, of those that callers do not remove; and each is tried, the attributes first, since there may be no
    /// room for another file.
    /// </remarks>
    private Errno Write(VolatileRecord record)
    {
        current = record; // whatever comes of it: the descriptors may be gone when this is called again
        byte[] bytes = record.ToBytes();
        Errno onUpper = Libc.SetXattrAt(upper, Libc.Self, xattr.Volatile, bytes, XattrFlags.None);
        _ = WriteWorkAttribute(bytes); // best effort: the others count
        Errno inFile = WriteFile(bytes);
        if (inFile.IsError) { inFile = WriteOver(bytes); }
        return onUpper.IsError && inFile.IsError ? onUpper : Errno.None;
    }

    /// <summary>Without room for another file, in place: the old one has a block already. A reader in between sees a damaged record, which is as bad.</summary>
    private Errno WriteOver(byte[] record)
    {
        Errno error = Libc.OpenAt(work, FileName, OpenFlags.WriteOnly | OpenFlags.NoFollow | OpenFlags.NonBlock, 0, ResolveFlags.Confined, out int file);
        if (error.IsError) { return error; }
        error = Libc.WriteAt(file, record, 0, out int count);
        Libc.Close(file);
        return !error.IsError && count < record.Length ? Errno.ENOSPC : error;
    }

    private Errno WriteFile(byte[] record)
    {
        _ = Libc.UnlinkAt(work, NewFileName); // what a killed server left, or whatever else has the name: opening a pipe would wait
        Errno error = Libc.OpenAt(work, NewFileName, OpenFlags.WriteOnly | OpenFlags.Create | OpenFlags.Exclusive | OpenFlags.NoFollow, 0x180, ResolveFlags.Confined, out int file);
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
        Errno error = Libc.OpenAt(work, "work/incompat/volatile\0"u8, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int directory);
        if (error.IsError) { return error; }
        error = Libc.SetXattrAt(directory, Libc.Self, xattr.Volatile, record, XattrFlags.None);
        Libc.Close(directory);
        return error;
    }

    /// <summary>Whether writing to the filesystem has failed since the first of a row of volatile mounts; false where that cannot be told.</summary>
    public bool HasFailed()
    {
        if (FirstErrors is not { } then || Libc.Reopen(upper, OpenFlags.ReadOnly | OpenFlags.Directory, out int descriptor).IsError) { return false; }
        using var opened = new Fd(descriptor);
        return !ErrorSequence.Read(descriptor, out uint errors).IsError && errors != then;
    }

    /// <summary>Whether a mark in the work directory is not known to be that of this upper: no record there says so. One that nothing marks is.</summary>
    public bool IsOfAnother => work >= 0 && (IsKernels || Records.Count > recordsOnUpper) && !Records.Skip(recordsOnUpper).Any(record => record is not null && record.Upper == Now.Upper && record.FileSystemId == Now.FileSystemId);

    /// <summary>Takes the mark away, on the disk as well: all that was written is there.</summary>
    /// <remarks>
    /// What no fsync(2) names, such as the owner of a symbolic link, comes to the disk with it: a journal keeps the order in
    /// which things were done, and btrfs is asked for all of its structure (not for data).
    /// </remarks>
    public Errno Clear()
    {
        Errno error = CommitBtrfs();
        if (work >= 0)
        {
            if (!error.IsError) { error = Gone(Libc.UnlinkAt(work, "work/incompat/volatile/dirty\0"u8)); }
            if (!error.IsError) { error = Gone(Libc.RemoveDirectoryAt(work, "work/incompat/volatile\0"u8)); }
            if (!error.IsError) { _ = Libc.RemoveDirectoryAt(work, "work/incompat\0"u8); } // best effort: empty, it says nothing
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

    /// <summary>fsync(2) of a directory brings a symbolic link to the disk, but not what was changed of it later.</summary>
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
        // Nothing to write; or a kernel or a user that may not.
        return error is Errno.ENOENT or Errno.ENOTTY or Errno.EPERM ? Errno.None : error;
    }

    private static Errno Gone(Errno error) => error == Errno.ENOENT ? Errno.None : error;

    /// <summary>The work directory that a record names, from upper, without NUL; empty when none does.</summary>
    public byte[] WorkPath => Records.FirstOrDefault(record => record is { Work.Length: > 0 }) is { } record ? Convert.FromHexString(record.Work) : [];

    private static VolatileRecord Describe(int upper, ReadOnlySpan<byte> workPath)
    {
        _ = Libc.StatAt(upper, Libc.Self, StatxMask.Basic | StatxMask.UniqueMountId, out Statx stat); // cannot fail: it is open
        _ = Libc.StatFileSystem(upper, out StatFs status); // as above
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

    /// <summary>The number that the kernel gives itself when it starts, or <see cref="VolatileRecord.UnknownBoot"/>.</summary>
    private static string ReadBoot()
    {
        string text = BootId.Read();
        return text.Length is > 0 and <= 64 && text.All(c => char.IsAsciiLetterOrDigit(c) || c == '-') ? text : VolatileRecord.UnknownBoot;
    }

    /// <summary>A filesystem's directory in sysfs is made when it is mounted, and no other gets its number until the machine is started anew.</summary>
    private static ulong FindInstance(int upper, in StatFs status, in Statx stat)
    {
        string type = status.Type switch { StatFs.Ext4Magic => "ext4", StatFs.XfsMagic => "xfs", StatFs.BtrfsMagic => "btrfs", StatFs.F2fsMagic => "f2fs", _ => "" };
        if (type.Length == 0) { return 0; }
        string name;
        if (type == "btrfs")
        {
            name = new Guid(FileSystemUuid.Of(upper), bigEndian: true).ToString();
        }
        else
        {
            Span<byte> link = stackalloc byte[1024];
            if (Libc.ReadLinkAt(Libc.AtCwd, PathText.Encode(string.Create(CultureInfo.InvariantCulture, $"/sys/dev/block/{stat.DevMajor}:{stat.DevMinor}")), link, out int length).IsError) { return 0; }
            name = PathText.Decode(link[..length]);
            name = name[(name.LastIndexOf('/') + 1)..];
        }
        return Libc.StatAt(Libc.AtCwd, PathText.Encode($"/sys/fs/{type}/{name}"), StatxMask.Basic, out Statx directory).IsError ? 0 : directory.Ino;
    }
}

/// <summary>Takes the mark of a mount that never was away again, so that the upper can be mounted in any way.</summary>
/// <param name="mark">Laid down where there was none before.</param>
internal sealed class MarkRemoval(VolatileMark mark) : IDisposable
{
    /// <inheritdoc/>
    public void Dispose()
    {
        if (!mark.IsServed) { _ = mark.Clear(); } // best effort: what is left asks for a sync
    }
}
