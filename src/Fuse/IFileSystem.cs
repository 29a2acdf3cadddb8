using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>A filesystem: one method for each request that is served. See fuse(4) and include/uapi/linux/fuse.h.</summary>
/// <remarks>
/// Methods are called from several threads at once. A method returns <see cref="Errno.None"/> or the errno that the caller
/// gets. An exception is a bug: it is logged, and the caller gets EIO. Names include the NUL at the end and are valid
/// during the call.
/// </remarks>
public interface IFileSystem
{
    /// <summary>Chooses which of the offered capabilities to accept.</summary>
    InitFlags Negotiate(InitFlags offered);

    /// <summary>Starts the filesystem: kernel and server have agreed on <see cref="Connection.Flags"/>.</summary>
    void Start(Connection connection);

    /// <summary>
    /// FUSE_LOOKUP: finds a name and lends the kernel one reference to its inode. A NodeId of 0 means "no such name", which
    /// the kernel may cache.
    /// </summary>
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

    /// <summary>FUSE_LINK: the request's nodeid is the new directory.</summary>
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

    /// <summary>FUSE_FLUSH. After one <see cref="Errno.ENOSYS"/> the kernel does not ask again.</summary>
    Errno Flush(in Request request, in FlushIn input);

    /// <summary>FUSE_RELEASE.</summary>
    void Release(ulong nodeId, ulong fh);

    /// <summary>FUSE_FSYNC.</summary>
    Errno FSync(in Request request, in FSyncIn input);

    /// <summary>FUSE_OPENDIR.</summary>
    Errno OpenDir(in Request request, in OpenIn input, out OpenOut result);

    /// <summary>
    /// FUSE_READDIR and FUSE_READDIRPLUS, whose offsets are the same. An error after the first entry is not returned: the
    /// entries are the answer.
    /// </summary>
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

    /// <summary>
    /// FUSE_IOCTL, for commands whose number tells the size of their argument; the kernel has copied the argument.
    /// </summary>
    Errno Ioctl(in Request request, in IoctlIn input, ReadOnlySpan<byte> argument, Span<byte> output, out int outputLength, out int result);

    /// <summary>FUSE_FALLOCATE.</summary>
    Errno FAllocate(in Request request, in FAllocateIn input);

    /// <summary>FUSE_LSEEK.</summary>
    Errno LSeek(in Request request, in LSeekIn input, out ulong offset);

    /// <summary>FUSE_COPY_FILE_RANGE and FUSE_COPY_FILE_RANGE_64.</summary>
    Errno CopyFileRange(in Request request, in CopyFileRangeIn input, out ulong copied);

    /// <summary>
    /// Finds nodeids of regular files that the kernel knows, the likeliest first. One is enough; the others are for the
    /// case that the kernel has just forgotten it.
    /// </summary>
    /// <param name="nodeIds">Receives the nodeids.</param>
    /// <returns>The number of nodeids found.</returns>
    int FindKnownFiles(Span<ulong> nodeIds) => 0;

    /// <summary>Tidies up. Nobody waits for it; requests may come meanwhile.</summary>
    /// <param name="isQuiet">Whether no request has come for a moment. False when requests have kept coming for long.</param>
    void Rest(bool isQuiet);

    /// <summary>Stops the filesystem: the connection has ended.</summary>
    void Stop();
}
