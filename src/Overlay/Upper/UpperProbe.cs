using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Upper;

/// <summary>Finds out how upper can hold an overlay's changes, before the first is made: what cannot work is refused with one sentence.</summary>
/// <remarks>
/// Crash safety. The probes work in a directory of their own in the work directory (<see cref="ProbeDirectory"/>).
/// </remarks>
internal static class UpperProbe
{
    /// <summary>Finds out how upper can hold an overlay's changes, by making some in work.</summary>
    /// <param name="options">For the names in the sentences, and whether the overlay's attributes are to be the user's.</param>
    /// <param name="work">The work directory.</param>
    /// <exception cref="OverlayMountException">It cannot.</exception>
    public static UpperFeatures Run(OverlayOptions options, int work)
    {
        string workPath = options.WorkDirectory!;
        Errno error = ProbeDirectory.Make(work);
        switch (error)
        {
            case Errno.None:
                break;
            case Errno.EROFS:
                throw new OverlayMountException(LayerChecks.ReadOnlyFileSystem(workPath, "work"));
            case Errno.ENOSPC or Errno.EDQUOT when !Libc.StatAt(work, "work\0"u8, StatxMask.Basic, out Statx left).IsError && left.IsDirectory:
                return Believed(options.UserXattr || HasUserRecord(work) ? AttributeSpace.User : AttributeSpace.Trusted, work); // as below: what the last mount left is all that is needed
            case Errno.ENOSPC or Errno.EDQUOT or Errno.EPERM:
                throw OverlayMountException.OfWork(error, $"Nothing can be created in the work directory {workPath} ({error}): see its permissions and its filesystem.");
            default:
                throw new OverlayMountException($"Nothing can be created in the work directory {workPath} ({error}): see its permissions and its filesystem.");
        }
        try
        {
            error = Libc.OpenAt(work, ProbeDirectory.Name, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int directory);
            if (error.IsError)
            {
                throw new OverlayMountException($"The work directory {workPath} cannot be used ({error}): see its permissions and its filesystem.");
            }
            using var probe = new Fd(directory);
            return Try(options, work, directory);
        }
        finally
        {
            ProbeDirectory.Remove(work);
        }
    }

    /// <summary>Does in an empty directory what an overlay does in upper. Each try has names of its own.</summary>
    private static UpperFeatures Try(OverlayOptions options, int work, int directory)
    {
        string path = options.UpperDirectory!;
        AttributeSpace space = TryAttributes(options, work, directory);

        // Full: what it can do is not to be seen, and so is believed. Kernel: ovl_make_workdir(), which mounts all the same.
        UpperFeatures believed = Believed(space, directory);
        Errno noDevice = TryDevice(directory, "device\0"u8);
        WhiteoutForm form = WhiteoutForm.Device;
        if (IsFull(noDevice)) { return believed; }
        if (noDevice.IsError)
        {
            Errno noFile = space == AttributeSpace.None ? Errno.EOPNOTSUPP : Whiteout.MakeFile(directory, "whiteout\0"u8, new OverlayXattr(space == AttributeSpace.User));
            if (IsFull(noFile)) { return believed; }
            if (noFile.IsError)
            {
                throw new OverlayMountException($"The filesystem of the upper directory {path} takes no whiteouts, neither as character devices 0:0 ({noDevice}) nor as files with an attribute ({noFile}): use one that does, such as ext4, xfs, btrfs or tmpfs.");
            }
            form = WhiteoutForm.Attribute;
        }

        Errno error = Libc.MakeDirectoryAt(directory, "one\0"u8, 0x1C0);
        if (!error.IsError) { error = Libc.MakeDirectoryAt(directory, "other\0"u8, 0x1C0); }
        bool noReplace = !error.IsError && !Libc.RenameAt(directory, "one\0"u8, directory, "two\0"u8, RenameFlags.NoReplace).IsError;
        if (!error.IsError && !noReplace) { error = Libc.RenameAt(directory, "one\0"u8, directory, "two\0"u8, RenameFlags.None); }
        if (!error.IsError) { error = MakeFile(directory, "file\0"u8); }
        if (!error.IsError) { error = MakeFile(directory, "name\0"u8); }
        if (!error.IsError) { error = Libc.MakeDirectoryAt(directory, "names\0"u8, 0x1C0); }
        if (IsFull(error)) { return believed; }
        if (error.IsError)
        {
            throw new OverlayMountException($"The filesystem of the upper directory {path} cannot hold and rename files and directories ({error}): use another one.");
        }
        Errno noExchange = Libc.RenameAt(directory, "file\0"u8, directory, "two\0"u8, RenameFlags.Exchange);
        // "two" is a file by then; else, the other way round.
        ReadOnlySpan<byte> file = noExchange.IsError ? "file\0"u8 : "two\0"u8;
        bool renameWhiteout = form == WhiteoutForm.Device && !Libc.RenameAt(directory, file, directory, "moved\0"u8, RenameFlags.Whiteout).IsError && IsDevice(directory, file);
        if (noExchange.IsError || !renameWhiteout)
        {
            error = Libc.SymbolicLinkAt("note\0"u8, directory, "note\0"u8);
            if (IsFull(error)) { return believed; }
            if (error.IsError)
            {
                throw new OverlayMountException($"The filesystem of the upper directory {path} cannot exchange two names at once ({noExchange}), nor take symbolic links ({error}), which note down how far it is otherwise: use one that can, such as ext4, xfs, btrfs or tmpfs.");
            }
        }

        error = Libc.LinkAt(directory, "name\0"u8, directory, "name2\0"u8);
        if (IsFull(error)) { return believed; }
        bool links = !error.IsError;
        if ((links && NumberOf(directory, "name\0"u8) != NumberOf(directory, "name2\0"u8)) || !KeepsNumber(directory, "name\0"u8, "name3\0"u8))
        {
            throw new OverlayMountException($"The filesystem of the upper directory {path} gives one file several inode numbers: mount that with its option use_ino, if it has one, or use another filesystem.");
        }
        bool temporaryFiles = links && believed.TemporaryFiles;
        if (temporaryFiles && !Libc.OpenAt(directory, ".\0"u8, OpenFlags.TemporaryFile | OpenFlags.ReadWrite, 0x180, ResolveFlags.None, out int temporary).IsError)
        {
            temporaryFiles = !Libc.LinkDescriptor(temporary, directory, "linked\0"u8).IsError;
            Libc.Close(temporary);
        }
        return new UpperFeatures
        {
            Attributes = space,
            Whiteouts = form,
            NoReplace = noReplace,
            Exchange = !noExchange.IsError,
            RenameWhiteout = renameWhiteout,
            Links = links,
            TemporaryFiles = temporaryFiles,
            ForgetsNames = ForgetsNames(directory),
        };
    }

    /// <summary>Which attributes a directory takes, as an opaque one has them.</summary>
    private static AttributeSpace TryAttributes(OverlayOptions options, int work, int directory)
    {
        string path = options.UpperDirectory!;
        // What an earlier mount has written stays readable, wherever the directories are by now.
        bool onlyUser = options.UserXattr || HasUserRecord(work);
        Errno error = Errno.EPERM;
        Span<byte> value = stackalloc byte[1];
        foreach (AttributeSpace space in (ReadOnlySpan<AttributeSpace>)[AttributeSpace.Trusted, AttributeSpace.User])
        {
            if (onlyUser && space == AttributeSpace.Trusted) { continue; }
            ReadOnlySpan<byte> attribute = space == AttributeSpace.User ? "user.overlay.opaque\0"u8 : "trusted.overlay.opaque\0"u8;
            error = Libc.SetXattrAt(directory, Libc.Self, attribute, "n"u8, XattrFlags.None);
            if (!error.IsError)
            {
                error = Libc.GetXattrAt(directory, Libc.Self, attribute, value, out int length);
                _ = Libc.RemoveXattrAt(directory, Libc.Self, attribute); // best effort: the directory goes as well
                if (!error.IsError && length == 1 && value[0] == 'n') { return space; }
            }
            if (error is not (Errno.EPERM or Errno.EACCES or Errno.EOPNOTSUPP or Errno.ENOSYS or Errno.ENODATA or Errno.None))
            {
                throw new OverlayMountException($"The attributes {(space == AttributeSpace.User ? "user" : "trusted")}.overlay.* cannot be written in the filesystem of the upper directory {path} ({error}): use one where they can, such as ext4, xfs, btrfs or tmpfs.");
            }
        }
        if (onlyUser && !options.UserXattr)
        {
            throw new OverlayMountException($"The upper directory {path} was last mounted with user.overlay.* attributes, which cannot be written there ({error}): put it back where it was.");
        }
        return AttributeSpace.None;
    }

    private static ReadOnlySpan<byte> UserRecord => "veneer-userxattr\0"u8;

    private static bool HasUserRecord(int work) => !Libc.StatAt(work, UserRecord, StatxMask.Basic, out _).IsError;

    /// <summary>Notes down that upper's attributes are the user's although nobody said so, before the first is written: each later mount of this work must choose the same.</summary>
    /// <remarks>In work, where no user of the mount reaches: who could write it could have upper's marks not be seen.</remarks>
    public static Errno RecordUser(int work)
    {
        Errno error = Libc.MakeNodeAt(work, UserRecord, FileType.Regular | 0x180, 0);
        return error == Errno.EEXIST ? Errno.None : error;
    }

    /// <summary>What an ordinary filesystem can do.</summary>
    private static UpperFeatures Believed(AttributeSpace space, int directory) =>
        new() { Attributes = space, Exchange = true, NoReplace = true, RenameWhiteout = true, Links = true, ForgetsNames = true, TemporaryFiles = HasTemporaryFiles(directory) };

    private static bool IsFull(Errno error) => error is Errno.ENOSPC or Errno.EDQUOT;

    private static bool HasTemporaryFiles(int directory)
    {
        Errno error = Libc.OpenAt(directory, ".\0"u8, OpenFlags.TemporaryFile | OpenFlags.ReadWrite, 0x180, ResolveFlags.None, out int temporary);
        if (!error.IsError) { Libc.Close(temporary); }
        return !error.IsError || IsFull(error);
    }

    private static Errno TryDevice(int directory, ReadOnlySpan<byte> name)
    {
        Errno error = Libc.MakeNodeAt(directory, name, FileType.CharacterDevice, 0);
        return error.IsError ? error : IsDevice(directory, name) ? Errno.None : Errno.EINVAL;
    }

    private static bool IsDevice(int directory, ReadOnlySpan<byte> name) =>
        !Libc.StatAt(directory, name, StatxMask.Basic, out Statx whiteout).IsError && whiteout.IsWhiteoutDevice;

    private static ulong NumberOf(int directory, ReadOnlySpan<byte> name) => Libc.StatAt(directory, name, StatxMask.Basic, out Statx stat).IsError ? 0 : stat.Ino;

    /// <summary>Whether a file is the same one under another name.</summary>
    private static bool KeepsNumber(int directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> newName)
    {
        ulong number = NumberOf(directory, name);
        return Libc.RenameAt(directory, name, directory, newName, RenameFlags.None).IsError || NumberOf(directory, newName) == number;
    }

    private static Errno MakeFile(int directory, ReadOnlySpan<byte> name)
    {
        Errno error = Libc.OpenAt(directory, name, OpenFlags.Create | OpenFlags.Exclusive | OpenFlags.WriteOnly, 0x180, ResolveFlags.Confined, out int descriptor);
        if (!error.IsError) { Libc.Close(descriptor); }
        return error;
    }

    /// <summary>Whether a file that is unlinked while it is open has no name in the directory any more.</summary>
    private static bool ForgetsNames(int directory)
    {
        if (Libc.OpenAt(directory, "names\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined, out int descriptor).IsError) { return false; }
        using var names = new Fd(descriptor);
        if (Libc.OpenAt(descriptor, "open\0"u8, OpenFlags.Create | OpenFlags.Exclusive | OpenFlags.ReadWrite, 0x180, ResolveFlags.Confined, out int file).IsError) { return true; } // full, as it seems: as usual
        using var opened = new Fd(file);
        if (Libc.UnlinkAt(descriptor, "open\0"u8).IsError) { return false; }
        var reader = new DirectoryReader(descriptor);
        bool isEmpty = !reader.MoveNext() && !reader.Error.IsError;
        reader.Dispose();
        return isEmpty;
    }
}
