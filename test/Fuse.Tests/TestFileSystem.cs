using System.Collections.Concurrent;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>One call of a filesystem's method: which one, and with what.</summary>
/// <param name="Method">The method.</param>
/// <param name="NodeId">The inode.</param>
/// <param name="Names">The names, with their NULs, one after the other; a character is a byte.</param>
/// <param name="Input">The structure, or other arguments.</param>
/// <param name="Data">Bytes that are neither.</param>
internal sealed record Call(string Method, ulong NodeId, string Names = "", object? Input = null, string Data = "");

/// <summary>Looks at a request.</summary>
internal delegate void RequestAction(in Request request);

/// <summary>Answers every request with something that can be recognised, and remembers the calls.</summary>
internal sealed class TestFileSystem : IFileSystem
{
    public const string LinkTarget = "where/it/leads";

    /// <summary>The node whose requests wait until they are interrupted.</summary>
    public const ulong WaitsForInterrupt = 0xEEEE;

    public static readonly EntryOut Entry = new()
    {
        NodeId = 0x1111, Generation = 0x2222, EntryValid = 0x3333, AttrValid = 0x4444, EntryValidNanoseconds = 0x55,
        AttrValidNanoseconds = 0x66,
        Attr = new() { Ino = 0x7777, Size = 0x8888, Mode = 0x81A4 },
    };

    public static readonly AttrOut Attributes =
        new() { AttrValid = 0x9999, AttrValidNanoseconds = 0xAA, Attr = new() { Ino = 0xBBBB, Mode = 0x41ED, Nlink = 2 } };
    public static readonly OpenOut Opened = new() { Fh = 0xCCCC, Flags = OpenReply.KeepCache, BackingId = 0x77 };
    public static readonly CreateOut Created = new() { Entry = Entry, Open = Opened };
    public static readonly StatXOut Statx = new()
    {
        AttrValid = 0xDDDD, AttrValidNanoseconds = 0xEE, Stat = new() { Mask = StatxMask.Basic, Ino = 0xFFFF, MountId = 0x1234 },
    };

    public static readonly StatFsOut Space = new()
    {
        Blocks = 1, BlocksFree = 2, BlocksAvailable = 3, Files = 4, FilesFree = 5, BlockSize = 6, NameLength = 7, FragmentSize = 8,
    };

    /// <summary>What there is to read, and the value of every extended attribute.</summary>
    public byte[] Content { get; init; } = Bytes.Of("0123456789abcdef");

    /// <summary>What READDIR finds, from the offset that is the position in the list.</summary>
    public byte[][] Names { get; init; } = [];

    /// <summary>The capabilities to accept.</summary>
    public InitFlags Wanted { get; init; } = ~InitFlags.None;

    /// <summary>Decides how a call ends; it may also throw, or block. Null: every call succeeds.</summary>
    public Func<Call, Errno>? Script { get; set; }

    /// <summary>Sees every request before it is served.</summary>
    public RequestAction? OnRequest { get; init; }

    /// <summary>Whether sizes of attributes are told without their values.</summary>
    public bool FillsNothing { get; init; }

    /// <summary>Called when the connection is up.</summary>
    public Action? Starting { get; init; }

    /// <summary>Whether calls are remembered, for which memory is allocated.</summary>
    public bool IsRecording { get; set; } = true;

    public ConcurrentQueue<Call> Calls { get; } = new();

    /// <summary>Set when a request to <see cref="WaitsForInterrupt"/> has begun.</summary>
    public SemaphoreSlim Waiting { get; } = new(0);

    /// <summary>How many milliseconds such a request waits.</summary>
    public int InterruptPatience { get; init; } = 10_000;

    public InitFlags Offered { get; private set; }

    public Connection? Connection { get; private set; }

    public int Stops;
    public int Rests;

    /// <summary>The thread that the filesystem rests on, as a directory below /proc.</summary>
    public string? Resting { get; private set; }

    /// <summary>Bytes allocated by the thread that served the last GETATTR.</summary>
    public long AllocatedBytes;

    /// <summary>The only call since the last question.</summary>
    public Call Last()
    {
        Call call = Assert.Single(Calls);
        Calls.Clear();
        return call;
    }

    private Errno Serve<T>(
        string method, in Request request, ReadOnlySpan<byte> names, in T input, ReadOnlySpan<byte> data = default,
        ReadOnlySpan<byte> moreNames = default)
    {
        OnRequest?.Invoke(request);
        if (request.NodeId == WaitsForInterrupt) { return WaitForInterrupt(request); }
        return Serve(method, request.NodeId, names, input, data, moreNames);
    }

    private Errno Serve(string method, in Request request, ReadOnlySpan<byte> names = default) =>
        Serve<object?>(method, request, names, null);

    private Errno Serve<T>(
        string method, ulong nodeId, ReadOnlySpan<byte> names, in T input, ReadOnlySpan<byte> data = default,
        ReadOnlySpan<byte> moreNames = default)
    {
        if (!IsRecording) { return Errno.None; }
        var call = new Call(method, nodeId, Bytes.Text(names) + Bytes.Text(moreNames), input, Bytes.Text(data));
        Calls.Enqueue(call);
        return Script?.Invoke(call) ?? Errno.None;
    }

    /// <summary>Like Assert, but allocates nothing.</summary>
    private static void Must(bool condition)
    {
        if (!condition) { throw new InvalidOperationException("The server called with the wrong arguments"); }
    }

    private Errno WaitForInterrupt(in Request request)
    {
        Waiting.Release();
        for (int i = 0; i < InterruptPatience; i++)
        {
            if (request.IsInterrupted) { return Errno.EINTR; }
            Thread.Sleep(1);
        }
        return Errno.EBUSY;
    }

    public InitFlags Negotiate(InitFlags offered)
    {
        Offered = offered;
        return Wanted;
    }

    public void Start(Connection connection)
    {
        Connection = connection;
        Starting?.Invoke();
    }

    public void Rest(bool isQuiet)
    {
        Resting = new FileInfo("/proc/thread-self").LinkTarget;
        Interlocked.Increment(ref Rests);
    }

    public void Stop() => Interlocked.Increment(ref Stops);

    public Errno Lookup(in Request request, ReadOnlySpan<byte> name, out EntryOut entry)
    {
        entry = Entry;
        return Serve(nameof(Lookup), request, name);
    }

    public void Forget(ulong nodeId, ulong lookups) => Serve(nameof(Forget), nodeId, default, lookups);

    public Errno GetAttr(in Request request, in GetAttrIn input, out AttrOut result)
    {
        result = Attributes;
        AllocatedBytes = GC.GetAllocatedBytesForCurrentThread();
        return Serve(nameof(GetAttr), request, default, input);
    }

    public Errno StatX(in Request request, in StatXIn input, out StatXOut result)
    {
        result = Statx;
        return Serve(nameof(StatX), request, default, input);
    }

    public Errno SetAttr(in Request request, in SetAttrIn input, out AttrOut result)
    {
        result = Attributes;
        return Serve(nameof(SetAttr), request, default, input);
    }

    public Errno ReadLink(in Request request, Span<byte> target, out int length)
    {
        length = LinkTarget.Length;
        Must(target.Length == 4095); // the longest target that Linux knows
        System.Text.Encoding.Latin1.GetBytes(LinkTarget, target);
        return Serve(nameof(ReadLink), request);
    }

    public Errno SymLink(in Request request, ReadOnlySpan<byte> name, ReadOnlySpan<byte> target, out EntryOut entry)
    {
        entry = Entry;
        return Serve<object?>(nameof(SymLink), request, name, null, default, target);
    }

    public Errno MkNod(in Request request, ReadOnlySpan<byte> name, in MkNodIn input, out EntryOut entry)
    {
        entry = Entry;
        return Serve(nameof(MkNod), request, name, input);
    }

    public Errno MkDir(in Request request, ReadOnlySpan<byte> name, in MkDirIn input, out EntryOut entry)
    {
        entry = Entry;
        return Serve(nameof(MkDir), request, name, input);
    }

    public Errno Unlink(in Request request, ReadOnlySpan<byte> name) => Serve(nameof(Unlink), request, name);

    public Errno RmDir(in Request request, ReadOnlySpan<byte> name) => Serve(nameof(RmDir), request, name);

    public Errno Rename(in Request request, ReadOnlySpan<byte> name, ulong newDirectory, ReadOnlySpan<byte> newName, RenameFlags flags) =>
        Serve(nameof(Rename), request, name, (newDirectory, flags), default, newName);

    public Errno Link(in Request request, ulong target, ReadOnlySpan<byte> newName, out EntryOut entry)
    {
        entry = Entry;
        return Serve(nameof(Link), request, newName, target);
    }

    public Errno Open(in Request request, in OpenIn input, out OpenOut result)
    {
        result = Opened;
        return Serve(nameof(Open), request, default, input);
    }

    public Errno Create(in Request request, ReadOnlySpan<byte> name, in CreateIn input, out CreateOut result)
    {
        result = Created;
        return Serve(nameof(Create), request, name, input);
    }

    public Errno TmpFile(in Request request, in CreateIn input, out CreateOut result)
    {
        result = Created;
        return Serve(nameof(TmpFile), request, default, input);
    }

    public Errno Read(in Request request, in ReadIn input, ref ContentWriter content)
    {
        content.Add(Content);
        Must(content.Used == Math.Min(Content.Length, (int)Math.Min(input.Size, int.MaxValue))
            || content.Used >= 32 * Environment.SystemPageSize);
        return Serve(nameof(Read), request, default, input);
    }

    public Errno Write(in Request request, in WriteIn input, ReadOnlySpan<byte> data, out int count)
    {
        count = data.Length;
        return Serve(nameof(Write), request, default, input, data);
    }

    public Errno Flush(in Request request, in FlushIn input) => Serve(nameof(Flush), request, default, input);

    public void Release(ulong nodeId, ulong fh) => Serve(nameof(Release), nodeId, default, fh);

    public Errno FSync(in Request request, in FSyncIn input) => Serve(nameof(FSync), request, default, input);

    public Errno OpenDir(in Request request, in OpenIn input, out OpenOut result)
    {
        result = Opened;
        return Serve(nameof(OpenDir), request, default, input);
    }

    public Errno ReadDir(in Request request, in ReadIn input, ref DirectoryWriter writer)
    {
        for (int i = (int)Math.Min(input.Offset, (ulong)Names.Length); i < Names.Length; i++)
        {
            EntryOut entry = Entry;
            entry.NodeId = (ulong)i + 100;
            bool fits = writer.Fits(Names[i].Length);
            Must(fits == writer.TryAdd(Names[i], (ulong)i + 1000, 8, (ulong)i + 1, entry));
            if (!fits) { break; }
        }
        return Serve(writer.IsPlus ? "ReadDirPlus" : "ReadDir", request, default, input);
    }

    public void ReleaseDir(ulong nodeId, ulong fh) => Serve(nameof(ReleaseDir), nodeId, default, fh);

    public Errno FSyncDir(in Request request, in FSyncIn input) => Serve(nameof(FSyncDir), request, default, input);

    public Errno StatFs(in Request request, out StatFsOut result)
    {
        result = Space;
        return Serve(nameof(StatFs), request);
    }

    public Errno SetXattr(in Request request, ReadOnlySpan<byte> attribute, ReadOnlySpan<byte> value, in SetXattrIn input) =>
        Serve(nameof(SetXattr), request, attribute, input, value);

    public Errno GetXattr(in Request request, ReadOnlySpan<byte> attribute, Span<byte> value, out int size)
    {
        size = Content.Length;
        Errno error = Serve(nameof(GetXattr), request, attribute, value.Length);
        return error.IsError ? error : Fill(value);
    }

    public Errno ListXattr(in Request request, Span<byte> list, out int size)
    {
        size = Content.Length;
        Errno error = Serve(nameof(ListXattr), request, default, list.Length);
        return error.IsError ? error : Fill(list);
    }

    private Errno Fill(Span<byte> space)
    {
        if (space.IsEmpty || FillsNothing) { return Errno.None; }
        return Content.AsSpan().TryCopyTo(space) ? Errno.None : Errno.ERANGE;
    }

    public Errno RemoveXattr(in Request request, ReadOnlySpan<byte> attribute) => Serve(nameof(RemoveXattr), request, attribute);

    public Errno Access(in Request request, uint mask) => Serve(nameof(Access), request, default, mask);

    public Errno Ioctl(
        in Request request, in IoctlIn input, ReadOnlySpan<byte> argument, Span<byte> output, out int outputLength, out int result)
    {
        outputLength = Math.Min(output.Length, 3);
        "out"u8[..outputLength].CopyTo(output);
        result = 42;
        return Serve(nameof(Ioctl), request, default, input, argument);
    }

    public Errno FAllocate(in Request request, in FAllocateIn input) => Serve(nameof(FAllocate), request, default, input);

    public Errno LSeek(in Request request, in LSeekIn input, out ulong offset)
    {
        offset = 0x123456789A;
        return Serve(nameof(LSeek), request, default, input);
    }

    public Errno CopyFileRange(in Request request, in CopyFileRangeIn input, out ulong copied)
    {
        copied = input.Length;
        return Serve(nameof(CopyFileRange), request, default, input);
    }
}
