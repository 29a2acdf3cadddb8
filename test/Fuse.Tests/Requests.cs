using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>A well-formed request, the call that it must become, and what must be answered.</summary>
/// <param name="Opcode">What is asked.</param>
/// <param name="Body">The request after its header.</param>
/// <param name="Expected">The call; null when no method is called.</param>
/// <param name="Reply">The answer after its header; null when there is no answer at all.</param>
internal sealed record Sample(Opcode Opcode, byte[] Body, Call? Expected, byte[]? Reply)
{
    /// <summary>The node that every sample is about.</summary>
    public const ulong Node = 0x0102030405060708;

    public byte[] Packet(ulong unique) => FakeKernel.Packet(unique, Opcode, Node, Body);
}

/// <summary>One request of every kind that the server knows, with values that no two fields share.</summary>
internal static class Requests
{
    private static readonly byte[] nothing = [];

    private static readonly GetAttrIn getAttr = new() { Flags = 1, Fh = 11 };
    private static readonly StatXIn statX = new() { GetAttrFlags = 1, Fh = 12, Flags = 13, Mask = 14 };
    private static readonly SetAttrIn setAttr = new()
    {
        Valid = SetAttrValid.Mode | SetAttrValid.Size | SetAttrValid.KillSuidGid, Fh = 15, Size = 16, LockOwner = 17,
        AccessTime = 18, ModifyTime = 19, ChangeTime = 20,
        AccessTimeNanoseconds = 21, ModifyTimeNanoseconds = 22, ChangeTimeNanoseconds = 23, Mode = 24, Uid = 25, Gid = 26,
    };

    private static readonly MkNodIn mkNod = new() { Mode = 27, Rdev = 28, Umask = 29 };
    private static readonly MkDirIn mkDir = new() { Mode = 30, Umask = 31 };
    private static readonly OpenIn open = new() { Flags = OpenFlags.ReadWrite | OpenFlags.Append, FuseFlags = 1 };
    private static readonly CreateIn create =
        new() { Flags = OpenFlags.WriteOnly | OpenFlags.Create, Mode = 32, Umask = 33, FuseFlags = 1 };
    private static readonly ReadIn read = new() { Fh = 34, Offset = 0, Size = 9, ReadFlags = 35, LockOwner = 36, Flags = OpenFlags.Direct };
    private static readonly ReadIn readDir =
        new() { Fh = 37, Offset = 0, Size = 4096, ReadFlags = 38, LockOwner = 39, Flags = OpenFlags.Directory };
    private static readonly WriteIn write = new()
    {
        Fh = 40, Offset = 1UL << 40, Size = 7, WriteFlags = WriteFlags.Cache | WriteFlags.KillSuidGid, LockOwner = 41,
        Flags = OpenFlags.Sync,
    };
    private static readonly ReleaseIn release = new() { Fh = 42, Flags = OpenFlags.ReadOnly, ReleaseFlags = 43, LockOwner = 44 };
    private static readonly FlushIn flush = new() { Fh = 45, LockOwner = 46 };
    private static readonly FSyncIn fSync = new() { Fh = 47, Flags = 1 };
    private static readonly SetXattrIn setXattr = new() { Size = 5, Flags = XattrFlags.Replace, SetXattrFlags = 1 };
    private static readonly IoctlIn ioctl =
        new() { Fh = 48, Flags = IoctlFlags.Directory, Command = 49, Argument = 50, InSize = 3, OutSize = 8 };
    private static readonly FAllocateIn fAllocate =
        new() { Fh = 51, Offset = 52, Length = 53, Mode = AllocateMode.PunchHole | AllocateMode.KeepSize };
    private static readonly LSeekIn lSeek = new() { Fh = 54, Offset = 55, Whence = SeekWhence.Hole };
    private static readonly CopyFileRangeIn copy =
        new() { FhIn = 56, OffsetIn = 57, NodeIdOut = 58, FhOut = 59, OffsetOut = 60, Length = 61, Flags = 0 };

    public static IReadOnlyList<Sample> All { get; } =
    [
        Ask(Opcode.Lookup, Name("name"), Call("Lookup", "name\0"), Bytes.Of(TestFileSystem.Entry)),
        Ask(Opcode.Forget, Bytes.Of(new ForgetIn { Lookups = 3 }), Call("Forget", input: 3UL), null),
        Ask(Opcode.GetAttr, Bytes.Of(getAttr), Call("GetAttr", input: getAttr), Bytes.Of(TestFileSystem.Attributes)),
        Ask(Opcode.StatX, Bytes.Of(statX), Call("StatX", input: statX), Bytes.Of(TestFileSystem.Statx)),
        Ask(Opcode.SetAttr, Bytes.Of(setAttr), Call("SetAttr", input: setAttr), Bytes.Of(TestFileSystem.Attributes)),
        Ask(Opcode.ReadLink, nothing, Call("ReadLink"), Bytes.Of(TestFileSystem.LinkTarget)),
        Ask(Opcode.SymLink, [.. Name("name"), .. Name("to/there")], Call("SymLink", "name\0to/there\0"), Bytes.Of(TestFileSystem.Entry)),
        Ask(Opcode.MkNod, [.. Bytes.Of(mkNod), .. Name("name")], Call("MkNod", "name\0", mkNod), Bytes.Of(TestFileSystem.Entry)),
        Ask(Opcode.MkDir, [.. Bytes.Of(mkDir), .. Name("name")], Call("MkDir", "name\0", mkDir), Bytes.Of(TestFileSystem.Entry)),
        Ask(Opcode.Unlink, Name("name"), Call("Unlink", "name\0"), nothing),
        Ask(Opcode.RmDir, Name("name"), Call("RmDir", "name\0"), nothing),
        Ask(Opcode.Rename, [.. Bytes.Of(new RenameIn { NewDirectory = 70 }), .. Name("old"), .. Name("new")],
            Call("Rename", "old\0new\0", (70UL, RenameFlags.None)), nothing),
        Ask(Opcode.Rename2,
            [.. Bytes.Of(new Rename2In { NewDirectory = 71, Flags = RenameFlags.Exchange }), .. Name("old"), .. Name("new")],
            Call("Rename", "old\0new\0", (71UL, RenameFlags.Exchange)), nothing),
        Ask(Opcode.Link, [.. Bytes.Of(new LinkIn { OldNodeId = 72 }), .. Name("new")], Call("Link", "new\0", 72UL),
            Bytes.Of(TestFileSystem.Entry)),
        Ask(Opcode.Open, Bytes.Of(open), Call("Open", input: open), Bytes.Of(TestFileSystem.Opened)),
        Ask(Opcode.Create, [.. Bytes.Of(create), .. Name("name")], Call("Create", "name\0", create), Bytes.Of(TestFileSystem.Created)),
        Ask(Opcode.TmpFile, Bytes.Of(create), Call("TmpFile", input: create), Bytes.Of(TestFileSystem.Created)),
        Ask(Opcode.Read, Bytes.Of(read), Call("Read", input: read), Bytes.Of("012345678")),
        Ask(Opcode.Write, [.. Bytes.Of(write), .. Bytes.Of("content")], Call("Write", input: write, data: "content"),
            Bytes.Of(new WriteOut { Size = 7 })),
        Ask(Opcode.StatFs, nothing, Call("StatFs"), Bytes.Of(TestFileSystem.Space)),
        Ask(Opcode.Release, Bytes.Of(release), Call("Release", input: 42UL), nothing),
        Ask(Opcode.FSync, Bytes.Of(fSync), Call("FSync", input: fSync), nothing),
        Ask(Opcode.SetXattr, [.. Bytes.Of(setXattr), .. Name("user.name"), .. Bytes.Of("value")],
            Call("SetXattr", "user.name\0", setXattr, "value"), nothing),
        Ask(Opcode.GetXattr, [.. Bytes.Of(new GetXattrIn { Size = 100 }), .. Name("user.name")], Call("GetXattr", "user.name\0", 100),
            Bytes.Of("0123456789abcdef")),
        Ask(Opcode.ListXattr, Bytes.Of(new GetXattrIn { Size = 101 }), Call("ListXattr", input: 101), Bytes.Of("0123456789abcdef")),
        Ask(Opcode.RemoveXattr, Name("user.name"), Call("RemoveXattr", "user.name\0"), nothing),
        Ask(Opcode.Flush, Bytes.Of(flush), Call("Flush", input: flush), nothing),
        Ask(Opcode.OpenDir, Bytes.Of(open), Call("OpenDir", input: open), Bytes.Of(TestFileSystem.Opened)),
        Ask(Opcode.ReadDir, Bytes.Of(readDir), Call("ReadDir", input: readDir), nothing),
        Ask(Opcode.ReadDirPlus, Bytes.Of(readDir), Call("ReadDirPlus", input: readDir), nothing),
        Ask(Opcode.ReleaseDir, Bytes.Of(release), Call("ReleaseDir", input: 42UL), nothing),
        Ask(Opcode.FSyncDir, Bytes.Of(fSync), Call("FSyncDir", input: fSync), nothing),
        Ask(Opcode.Access, Bytes.Of(new AccessIn { Mask = 5 }), Call("Access", input: 5u), nothing),
        Ask(Opcode.Ioctl, [.. Bytes.Of(ioctl), .. Bytes.Of("arg")], Call("Ioctl", input: ioctl, data: "arg"),
            [.. Bytes.Of(new IoctlOut { Result = 42 }), .. Bytes.Of("out")]),
        Ask(Opcode.FAllocate, Bytes.Of(fAllocate), Call("FAllocate", input: fAllocate), nothing),
        Ask(Opcode.LSeek, Bytes.Of(lSeek), Call("LSeek", input: lSeek), Bytes.Of(new LSeekOut { Offset = 0x123456789A })),
        Ask(Opcode.CopyFileRange, Bytes.Of(copy), Call("CopyFileRange", input: copy), Bytes.Of(new WriteOut { Size = 61 })),
        Ask(Opcode.CopyFileRange64, Bytes.Of(copy), Call("CopyFileRange", input: copy), Bytes.Of(new CopyFileRangeOut { Copied = 61 })),
        Ask(Opcode.BatchForget,
            [.. Bytes.Of(new BatchForgetIn { Count = 1 }), .. Bytes.Of(new ForgetOne { NodeId = Sample.Node, Lookups = 4 })],
            Call("Forget", input: 4UL), null),
        Ask(Opcode.Interrupt, Bytes.Of(new InterruptIn { Unique = 1UL << 40 }), null, null),
        Ask(Opcode.Destroy, nothing, null, nothing),
    ];

    /// <summary>What the server answers with ENOSYS, so that the kernel does it itself and does not ask again.</summary>
    public static IReadOnlyList<Opcode> NotServed { get; } =
    [
        Opcode.GetLock, Opcode.SetLock, Opcode.SetLockWait, Opcode.BMap, Opcode.Poll, Opcode.NotifyReply, Opcode.SetupMapping,
        Opcode.RemoveMapping, Opcode.SyncFs,
    ];

    public static Sample Of(Opcode opcode) => All.Single(sample => sample.Opcode == opcode);

    public static byte[] Name(string name) => [.. Bytes.Of(name), 0];

    private static Call Call(string method, string names = "", object? input = null, string data = "") =>
        new(method, Sample.Node, names, input, data);

    private static Sample Ask(Opcode opcode, byte[] body, Call? expected, byte[]? reply) => new(opcode, body, expected, reply);
}
