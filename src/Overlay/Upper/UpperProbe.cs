using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Upper;

/// <summary>
/// Finds out what upper's filesystem can do, before the first change is made. An upper that cannot work is refused with a sentence.
/// See ADR 22.
/// </summary>
/// <remarks>
/// Crash safety. All attempts are made in a directory of their own: see <see cref="ProbeDirectory"/>.
/// </remarks>
internal static class UpperProbe
{
    /// <summary>Tries, in the work directory, all that an overlay does in upper.</summary>
    /// <param name="options">The options: the paths are for messages, and userxattr chooses the attributes.</param>
    /// <param name="work">A descriptor of the work directory that the user named.</param>
    /// <exception cref="OverlayMountException">Upper's filesystem cannot hold the changes of an overlay.</exception>
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
            case Errno.ENOSPC or Errno.EDQUOT
                when !Libc.StatAt(work, "work\0"u8, StatxMask.Basic, out Statx left).IsError && left.IsDirectory:
                // As for a full filesystem in Try. All else that a mount needs is there since the last one.
                return Believed(options.UserXattr || HasUserRecord(work) ? AttributeSpace.User : AttributeSpace.Trusted, work);
            case Errno.ENOSPC or Errno.EDQUOT or Errno.EPERM:
                throw OverlayMountException.OfWork(error,
                    $"Nothing can be created in the work directory {workPath} ({error}): see its permissions and its filesystem.");
            default:
                throw new OverlayMountException(
                    $"Nothing can be created in the work directory {workPath} ({error}): see its permissions and its filesystem.");
        }
        try
        {
            error = Libc.OpenAt(work, ProbeDirectory.Name, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0,
                ResolveFlags.Confined, out int directory);
            if (error.IsError)
            {
                throw new OverlayMountException(error.Explain(
                    $"The work directory {workPath} cannot be used ({error}): see its permissions and its filesystem."));
            }
            using var probe = new Fd(directory);
            return Try(options, work, directory);
        }
        finally
        {
            ProbeDirectory.Remove(work);
        }
    }

    /// <summary>Tries everything in an empty directory. Each attempt uses names of its own.</summary>
    private static UpperFeatures Try(OverlayOptions options, int work, int directory)
    {
        string path = options.UpperDirectory!;
        AttributeSpace space = TryAttributes(options, work, directory);

        // If the filesystem is full, nothing can be tried, and it is believed to be an ordinary one. Kernel: ovl_make_workdir(),
        // which mounts a full filesystem, too.
        UpperFeatures believed = Believed(space, directory);
        Errno noDevice = TryDevice(directory, "device\0"u8);
        WhiteoutForm form = WhiteoutForm.Device;
        if (IsFull(noDevice)) { return believed; }
        if (noDevice.IsError)
        {
            Errno noFile = space == AttributeSpace.None
                ? Errno.EOPNOTSUPP
                : Whiteout.MakeFile(directory, "whiteout\0"u8, new OverlayXattr(space == AttributeSpace.User));
            if (IsFull(noFile)) { return believed; }
            if (noFile.IsError)
            {
                throw new OverlayMountException(
                    $"The filesystem of the upper directory {path} takes no whiteouts, neither as character devices 0:0 "
                    + $"({noDevice}) nor as files with an attribute ({noFile}): "
                    + "use one that does, such as ext4, xfs, btrfs or tmpfs.");
            }
            form = WhiteoutForm.Attribute;
        }

        Errno error = Libc.MakeDirectoryAt(directory, "one\0"u8, 0x1C0);
        if (!error.IsError) { error = Libc.MakeDirectoryAt(directory, "other\0"u8, 0x1C0); }
        bool noReplace = !error.IsError && !Libc.RenameAt(directory, "one\0"u8, directory, "two\0"u8, RenameFlags.NoReplace).IsError;
        if (!error.IsError && !noReplace)
        {
            error = Libc.RenameAt(directory, "one\0"u8, directory, "two\0"u8, RenameFlags.None);
        }
        if (!error.IsError) { error = MakeFile(directory, "file\0"u8); }
        if (!error.IsError) { error = MakeFile(directory, "name\0"u8); }
        if (!error.IsError) { error = Libc.MakeDirectoryAt(directory, "names\0"u8, 0x1C0); }
        if (IsFull(error)) { return believed; }
        if (error.IsError)
        {
            throw new OverlayMountException(error.Explain(
                $"The filesystem of the upper directory {path} cannot hold and rename files and directories ({error}): "
                + "use another one."));
        }
        Errno noExchange = Libc.RenameAt(directory, "file\0"u8, directory, "two\0"u8, RenameFlags.Exchange);
        // After an exchange, "two" is the file and "file" the directory.
        ReadOnlySpan<byte> file = noExchange.IsError ? "file\0"u8 : "two\0"u8;
        bool renameWhiteout = form == WhiteoutForm.Device
            && !Libc.RenameAt(directory, file, directory, "moved\0"u8, RenameFlags.Whiteout).IsError
            && IsDevice(directory, file);
        if (noExchange.IsError || !renameWhiteout)
        {
            error = Libc.SymbolicLinkAt("note\0"u8, directory, "note\0"u8);
            if (IsFull(error)) { return believed; }
            if (error.IsError)
            {
                throw new OverlayMountException(
                    $"The filesystem of the upper directory {path} cannot exchange two names at once ({noExchange}), "
                    + $"nor take symbolic links ({error}), which note down how far it is otherwise: "
                    + "use one that can, such as ext4, xfs, btrfs or tmpfs.");
            }
        }

        error = Libc.LinkAt(directory, "name\0"u8, directory, "name2\0"u8);
        if (IsFull(error)) { return believed; }
        bool links = !error.IsError;
        if ((links && NumberOf(directory, "name\0"u8) != NumberOf(directory, "name2\0"u8))
            || !KeepsNumber(directory, "name\0"u8, "name3\0"u8))
        {
            throw new OverlayMountException(
                $"The filesystem of the upper directory {path} gives one file several inode numbers: "
                + "mount that with its option use_ino, if it has one, or use another filesystem.");
        }
        bool temporaryFiles = links && believed.TemporaryFiles;
        if (temporaryFiles && !OpenTemporary(directory, out int temporary).IsError)
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
            UnlinksOpenFilesAtOnce = UnlinksOpenFilesAtOnce(directory),
        };
    }

    /// <summary>Which of the overlay's attributes a directory takes. The attribute of opaque directories is tried.</summary>
    private static AttributeSpace TryAttributes(OverlayOptions options, int work, int directory)
    {
        string path = options.UpperDirectory!;
        // If an earlier mount has chosen user.*, so must this one, although the directories may have moved to another filesystem.
        bool onlyUser = options.UserXattr || HasUserRecord(work);
        Errno error = Errno.EPERM;
        Span<byte> value = stackalloc byte[1];
        foreach (AttributeSpace space in (ReadOnlySpan<AttributeSpace>)[AttributeSpace.Trusted, AttributeSpace.User])
        {
            if (onlyUser && space == AttributeSpace.Trusted) { continue; }
            ReadOnlySpan<byte> attribute =
                space == AttributeSpace.User ? "user.overlay.opaque\0"u8 : "trusted.overlay.opaque\0"u8;
            error = Libc.SetXattrAt(directory, Libc.Self, attribute, "n"u8, XattrFlags.None);
            if (!error.IsError)
            {
                error = Libc.GetXattrAt(directory, Libc.Self, attribute, value, out int length);
                _ = Libc.RemoveXattrAt(directory, Libc.Self, attribute); // best effort: the directory is removed as well
                if (!error.IsError && length == 1 && value[0] == 'n') { return space; }
            }
            if (error is not (Errno.EPERM or Errno.EACCES or Errno.EOPNOTSUPP or Errno.ENOSYS or Errno.ENODATA or Errno.None))
            {
                throw new OverlayMountException(
                    $"The attributes {(space == AttributeSpace.User ? "user" : "trusted")}.overlay.* cannot be written in the "
                    + $"filesystem of the upper directory {path} ({error}): "
                    + "use one where they can, such as ext4, xfs, btrfs or tmpfs.");
            }
        }
        if (onlyUser && !options.UserXattr)
        {
            throw new OverlayMountException(
                $"The upper directory {path} was last mounted with user.overlay.* attributes, which cannot be written there "
                + $"({error}): put it back where it was.");
        }
        return AttributeSpace.None;
    }

    /// <summary>The name of the record of <see cref="RecordUser"/> in the work directory, with its NUL.</summary>
    private static ReadOnlySpan<byte> UserRecord => "veneer-userxattr\0"u8;

    private static bool HasUserRecord(int work) => !Libc.StatAt(work, UserRecord, StatxMask.Basic, out _).IsError;

    /// <summary>
    /// Records that user.* attributes were chosen for upper although no option asked for them, before the first is written. Each later
    /// mount of the work directory must choose the same.
    /// </summary>
    /// <remarks>
    /// The record is in the work directory, which users of the mount cannot reach. A user who could write it could make a later mount
    /// overlook the marks in upper.
    /// </remarks>
    /// <param name="work">A descriptor of the work directory that the user named.</param>
    public static Errno RecordUser(int work)
    {
        Errno error = Libc.MakeNodeAt(work, UserRecord, FileType.Regular | 0x180, 0);
        return error == Errno.EEXIST ? Errno.None : error;
    }

    /// <summary>The features of an ordinary filesystem.</summary>
    private static UpperFeatures Believed(AttributeSpace space, int directory) => new()
    {
        Attributes = space,
        Exchange = true,
        NoReplace = true,
        RenameWhiteout = true,
        Links = true,
        UnlinksOpenFilesAtOnce = true,
        TemporaryFiles = HasTemporaryFiles(directory),
    };

    private static bool IsFull(Errno error) => error is Errno.ENOSPC or Errno.EDQUOT;

    private static bool HasTemporaryFiles(int directory)
    {
        Errno error = OpenTemporary(directory, out int temporary);
        if (!error.IsError) { Libc.Close(temporary); }
        return !error.IsError || IsFull(error);
    }

    private static Errno OpenTemporary(int directory, out int descriptor) =>
        Libc.OpenAt(directory, ".\0"u8, OpenFlags.TemporaryFile | OpenFlags.ReadWrite, 0x180, ResolveFlags.None, out descriptor);

    private static Errno TryDevice(int directory, ReadOnlySpan<byte> name)
    {
        Errno error = Libc.MakeNodeAt(directory, name, FileType.CharacterDevice, 0);
        return error.IsError ? error : IsDevice(directory, name) ? Errno.None : Errno.EINVAL;
    }

    private static bool IsDevice(int directory, ReadOnlySpan<byte> name) =>
        !Libc.StatAt(directory, name, StatxMask.Basic, out Statx whiteout).IsError && whiteout.IsWhiteoutDevice;

    private static ulong NumberOf(int directory, ReadOnlySpan<byte> name) =>
        Libc.StatAt(directory, name, StatxMask.Basic, out Statx stat).IsError ? 0 : stat.Ino;

    /// <summary>Whether a file has the same inode number after it got another name.</summary>
    private static bool KeepsNumber(int directory, ReadOnlySpan<byte> name, ReadOnlySpan<byte> newName)
    {
        ulong number = NumberOf(directory, name);
        return Libc.RenameAt(directory, name, directory, newName, RenameFlags.None).IsError || NumberOf(directory, newName) == number;
    }

    private static Errno MakeFile(int directory, ReadOnlySpan<byte> name)
    {
        Errno error = Libc.OpenAt(directory, name, OpenFlags.Create | OpenFlags.Exclusive | OpenFlags.WriteOnly, 0x180,
            ResolveFlags.Confined, out int descriptor);
        if (!error.IsError) { Libc.Close(descriptor); }
        return error;
    }

    /// <summary>Whether unlinking an open file leaves nothing in its directory.</summary>
    private static bool UnlinksOpenFilesAtOnce(int directory)
    {
        Errno error = Libc.OpenAt(directory, "names\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0,
            ResolveFlags.Confined, out int descriptor);
        if (error.IsError) { return false; }
        using var names = new Fd(descriptor);
        error = Libc.OpenAt(descriptor, "open\0"u8, OpenFlags.Create | OpenFlags.Exclusive | OpenFlags.ReadWrite, 0x180,
            ResolveFlags.Confined, out int file);
        if (error.IsError) { return true; } // probably full: it is believed to be an ordinary filesystem
        using var opened = new Fd(file);
        if (Libc.UnlinkAt(descriptor, "open\0"u8).IsError) { return false; }
        var reader = new DirectoryReader(descriptor);
        bool isEmpty = !reader.MoveNext() && !reader.Error.IsError;
        reader.Dispose();
        return isEmpty;
    }
}
