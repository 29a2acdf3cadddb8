using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>A filesystem, one method per request that is served. See fuse(4) and include/uapi/linux/fuse.h.</summary>
/// <remarks>
/// Called from several threads at once. A method returns <see cref="Errno.None"/> or the errno that the caller gets;
/// an exception is a bug, is logged, and answers EIO. Names include the NUL at the end and live as long as the call.
/// </remarks>
public interface IFileSystem
{
    /// <summary>Which of the kernel's capabilities to accept.</summary>
    InitFlags Negotiate(InitFlags offered);

    /// <summary>The connection is up: kernel and server agreed on <see cref="Connection.Flags"/>.</summary>
    void Start(Connection connection);

    /// <summary>FUSE_LOOKUP: finds a name and lends the kernel one reference to it. A NodeId of 0 is a cacheable "no such name".</summary>
    Errno Lookup(in Request request, ReadOnlySpan<byte> name, out EntryOut entry);

    /// <summary>FUSE_FORGET: the kernel returns references.</summary>
    void Forget(ulong nodeId, ulong lookups);

    /// <summary>FUSE_GETATTR.</summary>
    Errno GetAttr(in Request request, in GetAttrIn input, out AttrOut result);

    /// <summary>FUSE_STATX.</summary>
    Errno StatX(in Request request, in StatXIn input, out StatXOut result);

    /// <summary>FUSE_SETATTR.</summary>
    Errno SetAttr(in Request request, in SetAttrIn input, out AttrOut result);

    /// <summary>FUSE_READLINK.</summary>
    Errno ReadLink(in Request request, Span<byte> target, out int length);

    /// <summary>FUSE_SYMLINK.</summary>
    Errno SymLink(in Request request, ReadOnlySpan<byte> name, ReadOnlySpan<byte> target, out EntryOut entry);

    /// <summary>FUSE_MKNOD.</summary>
    Errno MkNod(in Request request, ReadOnlySpan<byte> name, in MkNodIn input, out EntryOut entry);

    /// <summary>FUSE_MKDIR.</summary>
    Errno MkDir(in Request request, ReadOnlySpan<byte> name, in MkDirIn input, out EntryOut entry);

    /// <summary>FUSE_UNLINK.</summary>
    Errno Unlink(in Request request, ReadOnlySpan<byte> name);

    /// <summary>FUSE_RMDIR.</summary>
    Errno RmDir(in Request request, ReadOnlySpan<byte> name);

    /// <summary>FUSE_RENAME and FUSE_RENAME2.</summary>
    Errno Rename(in Request request, ReadOnlySpan<byte> name, ulong newDirectory, ReadOnlySpan<byte> newName, RenameFlags flags);

    /// <summary>FUSE_LINK: the request is about the new directory.</summary>
    Errno Link(in Request request, ulong target, ReadOnlySpan<byte> newName, out EntryOut entry);

    /// <summary>FUSE_OPEN.</summary>
    Errno Open(in Request request, in OpenIn input, out OpenOut result);

    /// <summary>FUSE_CREATE.</summary>
    Errno Create(in Request request, ReadOnlySpan<byte> name, in CreateIn input, out CreateOut result);

    /// <summary>FUSE_TMPFILE.</summary>
    Errno TmpFile(in Request request, in CreateIn input, out CreateOut result);

    /// <summary>FUSE_READ.</summary>
    Errno Read(in Request request, in ReadIn input, ref ContentWriter content);

    /// <summary>FUSE_WRITE.</summary>
    Errno Write(in Request request, in WriteIn input, ReadOnlySpan<byte> data, out int count);

    /// <summary>FUSE_FLUSH. <see cref="Errno.ENOSYS"/> once: never asked again.</summary>
    Errno Flush(in Request request, in FlushIn input);

    /// <summary>FUSE_RELEASE.</summary>
    void Release(ulong nodeId, ulong fh);

    /// <summary>FUSE_FSYNC.</summary>
    Errno FSync(in Request request, in FSyncIn input);

    /// <summary>FUSE_OPENDIR.</summary>
    Errno OpenDir(in Request request, in OpenIn input, out OpenOut result);

    /// <summary>FUSE_READDIR and FUSE_READDIRPLUS, whose offsets are the same. After an entry was added there is no error: the entries are the answer.</summary>
    Errno ReadDir(in Request request, in ReadIn input, ref DirectoryWriter writer);

    /// <summary>FUSE_RELEASEDIR.</summary>
    void ReleaseDir(ulong nodeId, ulong fh);

    /// <summary>FUSE_FSYNCDIR.</summary>
    Errno FSyncDir(in Request request, in FSyncIn input);

    /// <summary>FUSE_STATFS.</summary>
    Errno StatFs(in Request request, out StatFsOut result);

    /// <summary>FUSE_SETXATTR.</summary>
    Errno SetXattr(in Request request, ReadOnlySpan<byte> attribute, ReadOnlySpan<byte> value, in SetXattrIn input);

    /// <summary>FUSE_GETXATTR. An empty buffer asks for the size.</summary>
    Errno GetXattr(in Request request, ReadOnlySpan<byte> attribute, Span<byte> value, out int size);

    /// <summary>FUSE_LISTXATTR. An empty buffer asks for the size.</summary>
    Errno ListXattr(in Request request, Span<byte> list, out int size);

    /// <summary>FUSE_REMOVEXATTR.</summary>
    Errno RemoveXattr(in Request request, ReadOnlySpan<byte> attribute);

    /// <summary>FUSE_ACCESS.</summary>
    Errno Access(in Request request, uint mask);

    /// <summary>FUSE_IOCTL, of a command whose argument the kernel copied by the command's own size.</summary>
    Errno Ioctl(in Request request, in IoctlIn input, ReadOnlySpan<byte> argument, Span<byte> output, out int outputLength, out int result);

    /// <summary>FUSE_FALLOCATE.</summary>
    Errno FAllocate(in Request request, in FAllocateIn input);

    /// <summary>FUSE_LSEEK.</summary>
    Errno LSeek(in Request request, in LSeekIn input, out ulong offset);

    /// <summary>FUSE_COPY_FILE_RANGE and FUSE_COPY_FILE_RANGE_64.</summary>
    Errno CopyFileRange(in Request request, in CopyFileRangeIn input, out ulong copied);

    /// <summary>Nodeids of regular files that the kernel knows, the surest first: any will do, and some more in case it has just forgotten one.</summary>
    /// <param name="nodeIds">Room for them.</param>
    /// <returns>How many there are.</returns>
    int FindKnownFiles(Span<ulong> nodeIds) => 0;

    /// <summary>A time to tidy up. Nobody waits for it; requests may come meanwhile.</summary>
    /// <param name="isQuiet">Whether no request has come for a moment; if not, they have not ceased for long.</param>
    void Rest(bool isQuiet);

    /// <summary>FUSE_DESTROY, or the end of the connection.</summary>
    void Stop();
}
