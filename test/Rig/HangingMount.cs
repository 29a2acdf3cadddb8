using System.Collections.Concurrent;
using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>
/// A directory that this process shows read-only through FUSE. Its server can be made to stop answering; later it answers again,
/// or dies.
/// </summary>
/// <remarks>The kernel is allowed to remember nothing, so that every call comes to the server.</remarks>
public sealed class HangingMount : IDisposable
{
    private readonly Mount mount;
    private readonly Server server;
    private readonly Shown shown;
    private readonly Thread thread;
    private bool ended;

    /// <param name="source">What is shown.</param>
    /// <param name="at">Where.</param>
    public HangingMount(FilePath source, FilePath at)
    {
        shown = new Shown(source);
        mount = Mount.Attach(at, new MountOptions { Source = "hanging", Subtype = "hanging" });
        server = new Server(mount.Device, shown, new ServerOptions { Threads = 4, Log = _ => { } });
        SysException.ThrowIf(server.Initialize(), "INIT");
        server.Start();
        thread = new Thread(server.WaitForEnd) { IsBackground = true, Name = "hanging mount" };
        thread.Start();
    }

    /// <summary>How many calls hang at the moment.</summary>
    public int Waiting => shown.Waiting;

    /// <summary>From now on nobody gets an answer to such a request, until <see cref="GoOn"/>.</summary>
    /// <param name="opcodes">The requests; none: all of them.</param>
    public void Hang(params Opcode[] opcodes) => shown.Hang(opcodes);

    /// <summary>From now on who looks up a name in any directory gets an error, though it is listed.</summary>
    public void Refuse(string name, Errno error) => shown.Refused = (name, error);

    /// <summary>Returns when so many calls hang.</summary>
    public void AwaitWaiting(int count = 1)
    {
        if (!SpinWait.SpinUntil(() => Waiting >= count, TimeSpan.FromSeconds(10)))
        {
            throw new TimeoutException($"{Waiting} calls hang in the lower layer, not {count}");
        }
    }

    /// <summary>Everybody is answered again.</summary>
    public void GoOn() => shown.GoOn();

    /// <summary>The server is gone: who waits gets ECONNABORTED, who comes later ENOTCONN.</summary>
    public void Die()
    {
        _ = mount.Abort(); // best effort: the end of the test ends it as well
        shown.GoOn();
    }

    public void Dispose()
    {
        if (ended) { return; }
        ended = true;
        shown.GoOn();
        _ = Mount.Unmount(mount.MountPoint, lazy: true); // best effort: an overlay may still have it
        _ = mount.Abort(); // best effort: as above
        thread.Join();
        server.Dispose();
        mount.Device.Dispose();
        shown.Dispose();
    }

    private sealed class Shown(FilePath source) : IFileSystem, IDisposable
    {
        private readonly ConcurrentDictionary<ulong, FilePath> nodes = new(new Dictionary<ulong, FilePath> { [1] = source });
        private readonly ConcurrentDictionary<FilePath, ulong> numbers = new();
        private readonly ConcurrentDictionary<ulong, int> files = new();
        private readonly ManualResetEventSlim open = new(true);
        private Opcode[] hanging = [];
        private int waiting;
        private long last = 1;

        public int Waiting => Volatile.Read(ref waiting);

        public (string Name, Errno Error) Refused { get; set; } = ("", Errno.None);

        public void Hang(Opcode[] opcodes)
        {
            hanging = opcodes;
            open.Reset();
        }

        public void GoOn() => open.Set();

        public void Dispose() => open.Dispose();

        private void Pass(in Request request)
        {
            if (open.IsSet || (hanging.Length > 0 && !hanging.Contains(request.Header.Opcode))) { return; }
            Interlocked.Increment(ref waiting);
            open.Wait();
            Interlocked.Decrement(ref waiting);
        }

        private FilePath PathOf(in Request request)
        {
            Pass(request);
            return nodes[request.NodeId];
        }

        private static Errno Stat(FilePath path, out Statx stat) => Libc.StatAt(Libc.AtCwd, path.Bytes, StatxMask.Basic, out stat);

        public InitFlags Negotiate(InitFlags offered) => InitFlags.ParallelDirOps | InitFlags.AsyncRead | InitFlags.MaxPages;

        public void Start(Connection connection) { }

        public Errno Lookup(in Request request, ReadOnlySpan<byte> name, out EntryOut entry)
        {
            FilePath path = PathOf(request) / PathText.Decode(name[..^1]);
            entry = default;
            Errno error = Stat(path, out Statx stat);
            if (PathText.Decode(name[..^1]) == Refused.Name) { error = Refused.Error; }
            if (error.IsError) { return error; }
            // A path keeps its number, or the kernel's overlayfs takes it for another object.
            ulong node = numbers.GetOrAdd(path, _ => (ulong)Interlocked.Increment(ref last));
            nodes[node] = path;
            entry = new EntryOut { NodeId = node, Attr = Attr.From(stat, stat.Ino, stat.Nlink) };
            return Errno.None;
        }

        public void Forget(ulong nodeId, ulong lookups) { }

        public Errno GetAttr(in Request request, in GetAttrIn input, out AttrOut result)
        {
            result = default;
            Errno error = Stat(PathOf(request), out Statx stat);
            if (!error.IsError) { result = new AttrOut { Attr = Attr.From(stat, stat.Ino, stat.Nlink) }; }
            return error;
        }

        public Errno ReadLink(in Request request, Span<byte> target, out int length) =>
            Libc.ReadLinkAt(Libc.AtCwd, PathOf(request).Bytes, target, out length);

        public Errno Open(in Request request, in OpenIn input, out OpenOut result)
        {
            result = default;
            Errno error = Libc.OpenAt(Libc.AtCwd, PathOf(request).Bytes, OpenFlags.ReadOnly, 0, ResolveFlags.None, out int descriptor);
            if (error.IsError) { return error; }
            result.Fh = (ulong)Interlocked.Increment(ref last);
            files[result.Fh] = descriptor;
            return Errno.None;
        }

        public Errno Read(in Request request, in ReadIn input, ref ContentWriter content)
        {
            Pass(request);
            return content.TakeFrom(files[input.Fh], (long)input.Offset);
        }

        public Errno Flush(in Request request, in FlushIn input)
        {
            Pass(request);
            return Errno.None;
        }

        public void Release(ulong nodeId, ulong fh)
        {
            if (files.TryRemove(fh, out int descriptor)) { Libc.Close(descriptor); }
        }

        public Errno OpenDir(in Request request, in OpenIn input, out OpenOut result)
        {
            Pass(request);
            result = default;
            return Errno.None;
        }

        public Errno ReadDir(in Request request, in ReadIn input, ref DirectoryWriter writer)
        {
            List<DirectoryEntry> entries = [.. Sys.ReadDirectory(PathOf(request)).OrderBy(entry => entry.Name, StringComparer.Ordinal)];
            for (int i = (int)input.Offset; i < entries.Count; i++)
            {
                if (!writer.TryAdd(PathText.Encode(entries[i].Name).AsSpan()[..^1], entries[i].Ino, entries[i].Type, (ulong)i + 1, default))
                {
                    break;
                }
            }
            return Errno.None;
        }

        public void ReleaseDir(ulong nodeId, ulong fh) { }

        public Errno StatFs(in Request request, out StatFsOut result)
        {
            Pass(request);
            result = new StatFsOut { BlockSize = 4096, FragmentSize = 4096, NameLength = 255 };
            return Errno.None;
        }

        public Errno GetXattr(in Request request, ReadOnlySpan<byte> attribute, Span<byte> value, out int size) =>
            Libc.GetXattrAt(Libc.AtCwd, PathOf(request).Bytes, attribute, value, out size);

        public Errno ListXattr(in Request request, Span<byte> list, out int size) =>
            Libc.ListXattrAt(Libc.AtCwd, PathOf(request).Bytes, list, out size);

        public void Rest(bool isQuiet) { }

        public void Stop()
        {
            foreach (int descriptor in files.Values) { Libc.Close(descriptor); }
        }

        public Errno StatX(in Request request, in StatXIn input, out StatXOut result)
        {
            result = default;
            return Errno.ENOSYS;
        }

        public Errno SetAttr(in Request request, in SetAttrIn input, out AttrOut result)
        {
            result = default;
            return Errno.EROFS;
        }

        public Errno SymLink(in Request request, ReadOnlySpan<byte> name, ReadOnlySpan<byte> target, out EntryOut entry)
        {
            entry = default;
            return Errno.EROFS;
        }

        public Errno MkNod(in Request request, ReadOnlySpan<byte> name, in MkNodIn input, out EntryOut entry)
        {
            entry = default;
            return Errno.EROFS;
        }

        public Errno MkDir(in Request request, ReadOnlySpan<byte> name, in MkDirIn input, out EntryOut entry)
        {
            entry = default;
            return Errno.EROFS;
        }

        public Errno Unlink(in Request request, ReadOnlySpan<byte> name) => Errno.EROFS;

        public Errno RmDir(in Request request, ReadOnlySpan<byte> name) => Errno.EROFS;

        public Errno Rename(
            in Request request, ReadOnlySpan<byte> name, ulong newDirectory, ReadOnlySpan<byte> newName, RenameFlags flags) => Errno.EROFS;

        public Errno Link(in Request request, ulong target, ReadOnlySpan<byte> newName, out EntryOut entry)
        {
            entry = default;
            return Errno.EROFS;
        }

        public Errno Create(in Request request, ReadOnlySpan<byte> name, in CreateIn input, out CreateOut result)
        {
            result = default;
            return Errno.EROFS;
        }

        public Errno TmpFile(in Request request, in CreateIn input, out CreateOut result)
        {
            result = default;
            return Errno.EROFS;
        }

        public Errno Write(in Request request, in WriteIn input, ReadOnlySpan<byte> data, out int count)
        {
            count = 0;
            return Errno.EROFS;
        }

        public Errno FSync(in Request request, in FSyncIn input) => Errno.None;

        public Errno FSyncDir(in Request request, in FSyncIn input) => Errno.None;

        public Errno SetXattr(in Request request, ReadOnlySpan<byte> attribute, ReadOnlySpan<byte> value, in SetXattrIn input) =>
            Errno.EROFS;

        public Errno RemoveXattr(in Request request, ReadOnlySpan<byte> attribute) => Errno.EROFS;

        public Errno Access(in Request request, uint mask) => Errno.ENOSYS;

        public Errno Ioctl(in Request request, in IoctlIn input, ReadOnlySpan<byte> argument, Span<byte> output, out int outputLength,
            out int result)
        {
            outputLength = result = 0;
            return Errno.ENOTTY;
        }

        public Errno FAllocate(in Request request, in FAllocateIn input) => Errno.EROFS;

        public Errno LSeek(in Request request, in LSeekIn input, out ulong offset)
        {
            offset = 0;
            return Errno.ENOSYS;
        }

        public Errno CopyFileRange(in Request request, in CopyFileRangeIn input, out ulong copied)
        {
            copied = 0;
            return Errno.ENOSYS;
        }
    }
}
