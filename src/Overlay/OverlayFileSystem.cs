using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Live;
using Veneer.Overlay.Requests;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay;

/// <summary>
/// Answers the kernel's requests: passes each to the class for its kind, and requests of tools to <see cref="LiveTools"/>.
/// </summary>
internal sealed class OverlayFileSystem : IFileSystem
{
    private readonly ObjectTree tree;
    private readonly VolatileMark? mark;
    private readonly KernelSession session;
    private readonly OpenFiles files;
    private readonly WritebackErrors errors;
    private readonly LookAhead ahead;
    private readonly Garbage garbage;
    private readonly RequestHandlers requests;
    private readonly LiveTools tools;

    public OverlayFileSystem(Volume volume)
    {
        (tree, mark) = (volume.Tree, volume.Mark);
        UpperLayer upper = volume.Upper;
        Action<string> log = volume.Log;
        OverlayOptions options = volume.Options;
        session = new KernelSession(options, log);
        files = new OpenFiles(volume.MaxOpenFiles, Libc.EffectiveUid);
        Shutdown = new Shutdown(tree.Inodes, session, files, volume.Places, log) { Stop = Stop };
        Response = new FailureResponse(session, mark, options, reason => Shutdown.Run(reason), log);
        bool acts = mark is not null || options.Errors != OnError.Continue;
        errors = new WritebackErrors(volume.Sentinel, upper.IsInMemory, acts ? Response.ActOnError : null);
        ahead = new LookAhead(tree.Lookup, tree.Listings, tree.Inodes, tree.Keys, log);
        garbage = new Garbage(tree);

        requests = new RequestHandlers(tree, upper, session, files, errors, ahead, options, log);
        Sync = new LiveSync(tree, upper, mark, errors, Response, options, log);
        tools = new LiveTools(
            new LiveStats(tree, session, files, requests.CopyUp, volume.MaxOpenFiles),
            new LiveLayers(tree, options, volume.NamedWork),
            new LiveChanges(tree),
            new LiveStatus(tree, upper, session, mark, errors, Sync, options, volume.IsUserXattrAsked),
            Sync,
            Shutdown,
            new ServerAttribute(hasUpper: tree.Layers.Upper is not null));
    }

    /// <summary>Ends the overlay while its mount stays.</summary>
    public Shutdown Shutdown { get; }

    /// <summary>Responds to a failed write, or the loss of a layer.</summary>
    public FailureResponse Response { get; }

    /// <summary>Syncs upper.</summary>
    public LiveSync Sync { get; }

    public InitFlags Negotiate(InitFlags offered) => session.Negotiate();

    public void Start(Connection connection)
    {
        Libc.SetUmask(0); // requests carry the caller's umask
        session.Start(connection);
        if (mark is not null) { mark.IsServed = true; }
    }

    public int FindKnownFiles(Span<ulong> nodeIds) => tree.Inodes.FindKnownFiles(nodeIds);

    public void Stop() => Stop(hangs: false);

    /// <summary>Ends what uses the layers: look-ahead, sync, the check for errors, open files and inodes.</summary>
    /// <param name="hangs">Whether a lower does not answer. Then nothing is done that would wait for it.</param>
    private void Stop(bool hangs)
    {
        ahead.Stop(isAwaited: !hangs);
        Sync.End();
        if (errors.Check(-1).IsError) { Response.NoteFailure(errors.Failure); }
        errors.Stop();
        foreach (OpenFile file in files.RemoveAll())
        {
            file.Backing.Leave(file.Flags.Writes, session.Backings);
            if (file.Descriptor >= 0 && !(hangs && file.IsLower)) { Libc.Close(file.Descriptor); }
        }
        tree.Inodes.Clear();
    }

    public void Rest(bool isQuiet) => garbage.Rest(isQuiet);

    /// <summary>Does those parts of <see cref="Stop()"/> that wait for no lower.</summary>
    public void Abandon()
    {
        if (errors.Check(-1).IsError) { Response.NoteFailure(errors.Failure); }
        foreach (OpenFile file in files.RemoveAll())
        {
            if (file.Descriptor >= 0 && !file.IsLower) { Libc.Close(file.Descriptor); }
        }
    }

    public Errno Lookup(in Request request, ReadOnlySpan<byte> name, out EntryOut entry) => requests.Names.Lookup(request, name, out entry);

    public void Forget(ulong nodeId, ulong lookups) => requests.Names.Forget(nodeId, lookups);

    public Errno ReadLink(in Request request, Span<byte> target, out int length) => requests.Names.ReadLink(request, target, out length);

    public Errno SymLink(in Request request, ReadOnlySpan<byte> name, ReadOnlySpan<byte> target, out EntryOut entry) =>
        requests.Names.SymLink(request, name, target, out entry);

    public Errno MkNod(in Request request, ReadOnlySpan<byte> name, in MkNodIn input, out EntryOut entry) =>
        requests.Names.MkNod(request, name, input, out entry);

    public Errno MkDir(in Request request, ReadOnlySpan<byte> name, in MkDirIn input, out EntryOut entry) =>
        requests.Names.MkDir(request, name, input, out entry);

    public Errno Unlink(in Request request, ReadOnlySpan<byte> name) => requests.Names.Unlink(request, name);

    public Errno RmDir(in Request request, ReadOnlySpan<byte> name) => requests.Names.RmDir(request, name);

    public Errno Link(in Request request, ulong target, ReadOnlySpan<byte> newName, out EntryOut entry) =>
        requests.Names.Link(request, target, newName, out entry);

    public Errno Rename(in Request request, ReadOnlySpan<byte> name, ulong newDirectory, ReadOnlySpan<byte> newName, RenameFlags flags) =>
        requests.Renames.Run(request, name, newDirectory, newName, flags);

    public Errno Open(in Request request, in OpenIn input, out OpenOut result) => requests.Opens.Open(request, input, out result);

    public Errno Create(in Request request, ReadOnlySpan<byte> name, in CreateIn input, out CreateOut result) =>
        requests.Opens.Create(request, name, input, out result);

    public Errno TmpFile(in Request request, in CreateIn input, out CreateOut result) => requests.Opens.TmpFile(request, input, out result);

    public void Release(ulong nodeId, ulong fh) => requests.Opens.Release(fh);

    // close(2) has nothing to wait for: writes are not kept back
    public Errno Flush(in Request request, in FlushIn input) => Errno.ENOSYS;

    public Errno Read(in Request request, in ReadIn input, ref ContentWriter content) => requests.Files.Read(request, input, ref content);

    public Errno Write(in Request request, in WriteIn input, ReadOnlySpan<byte> data, out int count) =>
        requests.Files.Write(request, input, data, out count);

    public Errno FSync(in Request request, in FSyncIn input) => requests.Files.FSync(request, input);

    public Errno FAllocate(in Request request, in FAllocateIn input) => requests.Files.FAllocate(request, input);

    public Errno LSeek(in Request request, in LSeekIn input, out ulong offset) => requests.Files.LSeek(request, input, out offset);

    public Errno CopyFileRange(in Request request, in CopyFileRangeIn input, out ulong copied) =>
        requests.Files.CopyFileRange(request, input, out copied);

    public Errno GetAttr(in Request request, in GetAttrIn input, out AttrOut result) =>
        requests.Attributes.GetAttr(request, input, out result);

    public Errno StatX(in Request request, in StatXIn input, out StatXOut result) => requests.Attributes.StatX(request, input, out result);

    public Errno SetAttr(in Request request, in SetAttrIn input, out AttrOut result) =>
        requests.Attributes.SetAttr(request, input, out result);

    public Errno Access(in Request request, uint mask) => Errno.ENOSYS; // the kernel checks permissions itself (default_permissions)

    public Errno StatFs(in Request request, out StatFsOut result) => requests.Attributes.StatFs(request, out result);

    public Errno GetXattr(in Request request, ReadOnlySpan<byte> attribute, Span<byte> value, out int size) =>
        tools.TryGetXattr(request, attribute, value, out size, out Errno error)
            ? error
            : requests.Xattrs.GetXattr(request, attribute, value, out size);

    public Errno ListXattr(in Request request, Span<byte> list, out int size) => requests.Xattrs.ListXattr(request, list, out size);

    public Errno SetXattr(in Request request, ReadOnlySpan<byte> attribute, ReadOnlySpan<byte> value, in SetXattrIn input) =>
        requests.Xattrs.SetXattr(request, attribute, value, input);

    public Errno RemoveXattr(in Request request, ReadOnlySpan<byte> attribute) => requests.Xattrs.RemoveXattr(request, attribute);

    public Errno OpenDir(in Request request, in OpenIn input, out OpenOut result) =>
        requests.Directories.OpenDir(request, input, out result);

    public void ReleaseDir(ulong nodeId, ulong fh) { }

    public Errno ReadDir(in Request request, in ReadIn input, ref DirectoryWriter writer) =>
        requests.Directories.ReadDir(request, input, ref writer);

    public Errno FSyncDir(in Request request, in FSyncIn input) => requests.Files.FSyncDir(request, input);

    public Errno Ioctl(in Request request, in IoctlIn input, ReadOnlySpan<byte> argument, Span<byte> output, out int outputLength,
        out int result)
    {
        result = 0;
        return tools.TryIoctl(request, input, argument, output, out outputLength, out Errno error)
            ? error
            : requests.Flags.Run(request, input, argument, output, out outputLength);
    }
}
