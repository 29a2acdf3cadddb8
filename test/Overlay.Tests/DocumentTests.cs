using System.Buffers;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using System.Text.RegularExpressions;
using Veneer.Overlay.Changes;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Topology;
using Veneer.Overlay.Usage;

namespace Veneer.Overlay.Tests;

/// <summary>Each document is written and read by one type, and comes back as it was.</summary>
public sealed partial class DocumentTests
{
    /// <summary>A name that is not UTF-8: the bytes "b", FF, "é", as a program has it.</summary>
    private const string Odd = "b\udcffé";

    /// <summary>The same in a document: for people, and its bytes.</summary>
    private const string OddText = "b\uFFFDé", OddBytes = "Yv/DqQ==";

    private static LayerDescription Layer(int index, string path, bool isDataOnly = false) => new()
    {
        Index = index,
        Given = path,
        Path = $"/{path}",
        Device = "8:1",
        FileSystem = "ext4",
        Uuid = new string('A', 32),
        MountId = 7,
        Ino = ulong.MaxValue,
        HandleType = 1,
        Handle = "0A0B",
        IsDataOnly = isDataOnly,
    };

    private static OverlayTopology Topology => new()
    {
        Layers = [Layer(0, Odd), Layer(1, "l") with { Given = null, Path = null }, Layer(2, "d", isDataOnly: true), Layer(-1, "w")],
        UserXattr = true,
        UpperUserXattr = true,
        Options = ["volatile", "redirect_dir=on"],
        Path = Odd,
        Parts =
        [
            new ObjectPart
            {
                Layer = 0,
                Path = Odd,
                Roles = PartRoles.Upper | PartRoles.Metacopy,
                Type = ObjectType.File,
                Ino = 3,
                HandleType = 1,
                Handle = "0C",
            },
            new ObjectPart { Layer = 1, Roles = PartRoles.Origin | PartRoles.Redirected, Type = ObjectType.BlockDevice, Ino = 4 },
        ],
    };

    private static OverlayStatus Status => new()
    {
        Fsync = "volatile",
        Errors = "remount-ro",
        SyncOnUnmount = true,
        Revocable = true,
        Passthrough = "why not",
        IoUring = "on",
        Watch = "filesystem",
        Failure = "EIO",
        Reusable = false,
        Attributes = "user",
        Lacks = [new LackingFeature("RENAME_EXCHANGE", "several steps")],
        Sync = new SyncStatus
        {
            Over = true,
            Done = 3,
            Total = 4,
            Failed = 1,
            Failures = [new UnsyncedFile(Odd, "ENOSPC"), new UnsyncedFile("", "EIO")],
        },
    };

    private static Change New(string path, ObjectType type) =>
        new() { Kind = ChangeKind.Added, Path = path, Type = type, ContentChanged = true, AttributesChanged = true };

    private static Change Of(ChangeKind kind, string path, ObjectType type) => new() { Kind = kind, Path = path, Type = type, Was = type };

    private static Change[] Changes =>
    [
        New(Odd, ObjectType.File) with { Size = 5 },
        New("d", ObjectType.Directory) with { ContentChanged = false },
        Of(ChangeKind.Renamed, "r", ObjectType.File) with { From = Odd, AttributesChanged = true, Size = 1L << 40 },
        Of(ChangeKind.Modified, "m", ObjectType.CharacterDevice) with { ContentChanged = true },
        New("x", ObjectType.SymbolicLink) with { Kind = ChangeKind.Deleted, Was = ObjectType.SymbolicLink },
        New("t", ObjectType.Fifo) with { Kind = ChangeKind.TypeChanged, Was = ObjectType.Socket },
        New("o", ObjectType.Directory) with { Kind = ChangeKind.Opaque, Was = ObjectType.Directory, ContentChanged = false },
        Of(ChangeKind.Replaced, "s", ObjectType.BlockDevice),
    ];

    private static ChangesPart Part => new()
    {
        Changes = Changes,
        Disturbances = [.. Enum.GetValues<DisturbanceKind>().Select(kind => new Disturbance(Odd, kind, "was disturbed"))],
        Next = "1:2:x",
    };

    private static Uses Uses => new(
        [
            new NamespaceUse
            {
                Id = 4026532178,
                IsOwn = true,
                Mounts = [.. Enum.GetValues<MountRelation>().Select(relation => new MountUse(9, Odd, "ext4", relation))],
                Processes = [new ProcessName(5, Odd)],
                KeptBy = ["a descriptor"],
            },
        ],
        [new ProcessUse(new ProcessName(6, Odd), 4026532178, [new FileUse("open", 0, Odd), new FileUse("cwd", -1, "/m")])]);

    private static HolderReport Report => new()
    {
        Target = Odd,
        IsBusy = true,
        MountType = "fuse.veneer",
        Server = new ProcessName(4, Odd),
        Overlays =
        [
            new OverlayHolder { IsKernel = true, Role = "lower", Uses = Uses.None },
            new OverlayHolder
            {
                IsKernel = false,
                Role = "upper, work",
                IsShutDown = true,
                Pid = 4,
                PidNamespace = 77,
                Command = Odd,
                Since = new DateTimeOffset(2026, 11, 21, 13, 46, 59, TimeSpan.Zero),
                MountPoint = Odd,
                Device = "0:44",
                Uses = Uses,
            },
        ],
        Uses = Uses,
        LoopDevices = [new FileHolder(Odd, "/dev/loop0")],
        SwapFiles = [new FileHolder("/swap")],
        Gaps = ["a sentence"],
    };

    private static OverlayList List => new()
    {
        Overlays =
        [
            new ListedOverlay { Device = "0:44", Mounts = [], Layers = [], Answers = false },
            new ListedOverlay
            {
                Device = "0:45",
                Mounts = [new ListedMount(9, 4026532178, Odd, "rw,relatime")],
                Pid = 4,
                Command = Odd,
                Since = new DateTimeOffset(2026, 11, 21, 13, 46, 59, TimeSpan.Zero),
                Layers = [new ListedLayer("upper", Odd)],
                UpperFilesystem = new FileSystemUsage(4096, 1024, 10, 3),
                Options = ["volatile"],
                Answers = true,
                Requests = 12,
                UptimeSeconds = 1.5,
            },
        ],
        Gaps = ["a sentence"],
    };

    private static Checkpoint Checkpoint => new()
    {
        Type = "overlay",
        MountPoint = $"/{Odd}",
        Source = Odd,
        Flags = "rw,nosuid",
        FileSystemFlags = ["rw", "sync"],
        Propagation = ["shared"],
        Root = $"/{Odd}",
        Boot = "0-1",
        RootIno = 12,
        Topology = Topology with { Path = null, Parts = [], Layers = [Layer(0, Odd), Layer(1, "l"), Layer(-1, "w")] },
    };

    private static Stats Stats => new()
    {
        UptimeSeconds = 1.5,
        Requests = [new RequestStats { Opcode = "lookup", Count = 3, Seconds = 0.25, Latency = [[1000, 2], [2000, 1]] }],
        Opens = new OpenStats { CacheKept = 1 },
        Directories = new DirectoryStats { Open = 1 },
        CopyUps = new CopyUpStats { Count = 2 },
        Process = new ProcessStats { Pid = 9 },
    };

    private static string Write<T>(T document, JsonTypeInfo<T> type)
    {
        var output = new ArrayBufferWriter<byte>();
        Document.Write(output, document, type);
        return Encoding.UTF8.GetString(output.WrittenSpan);
    }

    private static T Read<T>(string document, JsonTypeInfo<T> type) where T : class =>
        Document.Read(Encoding.UTF8.GetBytes(document), type);

    private static void ComesBack<T>(T document, JsonTypeInfo<T> type) where T : class
    {
        string written = Write(document, type);
        T read = Read(written, type);

        Assert.Equivalent(document, read, strict: true);
        Assert.Equal(written, Write(read, type));
    }

    [Fact]
    public void What_is_written_is_read()
    {
        ComesBack(Stats, DocumentJson.Default.Stats);
        ComesBack(Topology, DocumentJson.Default.OverlayTopology);
        ComesBack(Topology with { Path = "", Parts = [] }, DocumentJson.Default.OverlayTopology);
        ComesBack(Topology with { Path = null, Parts = [] }, DocumentJson.Default.OverlayTopology);
        ComesBack(Topology with { UserXattr = true, UpperUserXattr = false }, DocumentJson.Default.OverlayTopology);
        ComesBack(Part, DocumentJson.Default.ChangesPart);
        ComesBack(Part with { Next = null }, DocumentJson.Default.ChangesPart);
        ComesBack(new ChangesEnd(3, 1), DocumentJson.Default.ChangesEnd);
        ComesBack(Status, DocumentJson.Default.OverlayStatus);
        ComesBack(Status with { Failure = null, Reusable = null, Attributes = null, Sync = null }, DocumentJson.Default.OverlayStatus);
        ComesBack(new Remounted { Failure = "EIO" }, DocumentJson.Default.Remounted);
        ComesBack(new Remounted(), DocumentJson.Default.Remounted);
        ComesBack(Report, DocumentJson.Default.HolderReport);
        ComesBack(List, DocumentJson.Default.OverlayList);
        ComesBack(Checkpoint, DocumentJson.Default.Checkpoint);
    }

    [Fact]
    public void A_change_comes_back_as_it_was()
    {
        ChangesPart read = Read(Write(Part, DocumentJson.Default.ChangesPart), DocumentJson.Default.ChangesPart);

        Assert.Equal(Changes, read.Changes);
        Assert.Equal(Part.Disturbances, read.Disturbances);
    }

    /// <summary>In every document, whatever is not UTF-8 is told with its bytes.</summary>
    [Fact]
    public void A_path_that_is_not_utf8_is_there_twice()
    {
        Assert.Equal(["given", "path"], OddMembers(Write(Topology, DocumentJson.Default.OverlayTopology)));
        Assert.Equal(["path"], OddMembers(Write(Status, DocumentJson.Default.OverlayStatus)));
        Assert.Equal(["disturbed", "from", "path"], OddMembers(Write(Part, DocumentJson.Default.ChangesPart)));
        Assert.Equal(["command", "mount_point", "name", "path", "target"], OddMembers(Write(Report, DocumentJson.Default.HolderReport)));
        Assert.Equal(["command", "mount_point", "path"], OddMembers(Write(List, DocumentJson.Default.OverlayList)));
        Assert.Equal(["given", "mount_point", "path", "root", "source"], OddMembers(Write(Checkpoint, DocumentJson.Default.Checkpoint)));
    }

    /// <summary>The members with U+FFFD, each of which must have its bytes beside it, and no other may have such.</summary>
    private static string[] OddMembers(string document)
    {
        var names = new SortedSet<string>(StringComparer.Ordinal);
        Look(JsonDocument.Parse(document).RootElement);
        return [.. names];

        void Look(JsonElement element)
        {
            if (element.ValueKind == JsonValueKind.Array)
            {
                foreach (JsonElement one in element.EnumerateArray()) { Look(one); }
            }
            if (element.ValueKind != JsonValueKind.Object) { return; }
            foreach (JsonProperty member in element.EnumerateObject())
            {
                Look(member.Value);
                if (member.Value.ValueKind != JsonValueKind.String) { continue; }
                if (member.Name.EndsWith("_base64", StringComparison.Ordinal)) { continue; }
                bool isOdd = member.Value.GetString()!.Contains('\uFFFD', StringComparison.Ordinal);
                Assert.Equal(isOdd, element.TryGetProperty(member.Name + "_base64", out JsonElement bytes));
                if (!isOdd) { continue; }
                Assert.EndsWith(OddText, member.Value.GetString(), StringComparison.Ordinal);
                Assert.Equal(Odd, Linux.PathText.Decode(bytes.GetBytesFromBase64()).TrimStart('/'));
                names.Add(member.Name);
            }
        }
    }

    /// <summary>A change is estimated before it is written: an answer must not become too large.</summary>
    [Theory]
    [InlineData("")]
    [InlineData("a")]
    [InlineData("some/path-with.plain_names")]
    [InlineData("+<>&'\"\\\n\t")]
    [InlineData("日本語/é")]
    [InlineData("\udcff\udc80\udcc3")]
    [InlineData("😀")]
    public void A_change_takes_no_more_than_was_thought(string name)
    {
        string path = string.Concat(Enumerable.Repeat(name, 100));
        Change change = Of(ChangeKind.Renamed, path, ObjectType.CharacterDevice) with { From = path, Size = long.MaxValue };
        var output = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(output)) // as the server has it
        {
            JsonSerializer.Serialize(json, change, DocumentJson.Default.Change);
        }

        Assert.InRange(output.WrittenCount, 1, ChangesPart.MostBytesOf(change));
    }

    // What programs have read so far, byte by byte: only the lines are broken here.

    private static string OneLine(string document) => LineBreak().Replace(document, "");

    [GeneratedRegex("\n *", RegexOptions.None, 1000)]
    private static partial Regex LineBreak();

    private static void IsWritten<T>(string expected, T document, JsonTypeInfo<T> type) =>
        Assert.Equal(OneLine(expected) + "\n", Write(document, type));

    [Fact]
    public void A_change_in_json() => Assert.Equal(
        [
            $$"""{"change":"added","path":"{{OddText}}","path_base64":"{{OddBytes}}","type":"file","size":5}""",
            """{"change":"added","path":"d","type":"directory"}""",
            OneLine($$"""
                {"change":"renamed","path":"r","from":"{{OddText}}","from_base64":"{{OddBytes}}","type":"file","was":"file",
                "content":false,"attributes":true,"size":1099511627776}
                """),
            """{"change":"modified","path":"m","type":"character","was":"character","content":true,"attributes":false}""",
            """{"change":"deleted","path":"x","type":"link","was":"link"}""",
            """{"change":"type_changed","path":"t","type":"fifo","was":"socket"}""",
            """{"change":"opaque","path":"o","type":"directory","was":"directory"}""",
            """{"change":"replaced","path":"s","type":"block","was":"block","content":false,"attributes":false}""",
        ],
        Changes.Select(change => Write(change, DocumentJson.Default.Change).TrimEnd('\n')));

    [Fact]
    public void The_lines_behind_the_changes_in_json()
    {
        var output = new ArrayBufferWriter<byte>();
        ChangeJson.WriteEnd(output, 2, [new Disturbance(Odd, DisturbanceKind.LeftOut, "is a \"socket\"")]);

        Assert.Equal(
            $$"""
            {"disturbed":"{{OddText}}","disturbed_base64":"{{OddBytes}}","kind":"left_out","reason":"is a \"socket\""}
            {"end":2,"disturbances":1}

            """,
            Encoding.UTF8.GetString(output.WrittenSpan));
    }

    [Fact]
    public void A_part_of_the_changes_in_json() => IsWritten(
        """
        {"changes":[{"change":"added","path":"d","type":"directory"}],
        "disturbances":[{"disturbed":"d","kind":"moved","reason":"changed"}],"next":"1"}
        """,
        new ChangesPart { Changes = [Changes[1]], Disturbances = [new Disturbance("d", DisturbanceKind.Moved, "changed")], Next = "1" },
        DocumentJson.Default.ChangesPart);

    [Fact]
    public void The_status_in_json()
    {
        IsWritten(
            $$$"""
            {"fsync":"volatile","errors":"remount-ro","sync_on_unmount":true,"revocable":true,
            "passthrough":"why not","io_uring":"on","watch":"filesystem","failure":"EIO","reusable":false,"attributes":"user",
            "lacks":[{"what":"RENAME_EXCHANGE","instead":"several steps"}],
            "sync":{"over":true,"done":3,"total":4,"failed":1,"failures":[
            {"path":"{{{OddText}}}","path_base64":"{{{OddBytes}}}","error":"ENOSPC"},{"path":"","error":"EIO"}]}}
            """,
            Status,
            DocumentJson.Default.OverlayStatus);
        IsWritten(
            """
            {"fsync":"auto","errors":"continue","sync_on_unmount":false,"revocable":false,
            "passthrough":"off","io_uring":"off","watch":"nothing","failure":null,"reusable":null,"attributes":null,
            "lacks":[],"sync":null}
            """,
            new OverlayStatus { Fsync = "auto", Errors = "continue", Passthrough = "off", IoUring = "off", Watch = "nothing" },
            DocumentJson.Default.OverlayStatus);
        IsWritten("""{"failure":null}""", new Remounted(), DocumentJson.Default.Remounted);
    }

    private const string UpperText = $$"""
        {"index":0,"role":"upper","given":"{{OddText}}","given_base64":"{{OddBytes}}",
        "path":"/{{OddText}}","path_base64":"L2L/w6k=","device":"8:1","filesystem":"ext4",
        "uuid":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","mount_id":7,"ino":18446744073709551615,"handle_type":1,"handle":"0A0B"}
        """;

    [Fact]
    public void Layers_in_json() => IsWritten(
        $$$"""
        {"layers":[{{{UpperText}}},
        {"index":1,"role":"data","device":"8:1","filesystem":"ext4",
        "uuid":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","mount_id":7,"ino":18446744073709551615,"handle_type":1,"handle":"0A0B"}],
        "userxattr":true,"upper_userxattr":true,"options":["volatile","redirect_dir=on"],
        "object":{"path":"{{{OddText}}}","path_base64":"{{{OddBytes}}}","parts":[
        {"layer":0,"path":"{{{OddText}}}","path_base64":"{{{OddBytes}}}",
        "roles":["upper","metacopy"],"type":"file","ino":3,"handle_type":1,"handle":"0C"},
        {"layer":1,"roles":["origin","redirected"],"type":"block","ino":4,"handle_type":0,"handle":""}]}}
        """,
        Topology with { Layers = [Layer(0, Odd), Layer(1, "d", isDataOnly: true) with { Given = null, Path = null }] },
        DocumentJson.Default.OverlayTopology);

    [Fact]
    public void A_checkpoint_in_json() => IsWritten(
        $$$"""
        {"veneer_checkpoint":1,"type":"overlay","mount_point":"/{{{OddText}}}","mount_point_base64":"L2L/w6k=",
        "source":"{{{OddText}}}","source_base64":"{{{OddBytes}}}","flags":"rw,nosuid",
        "filesystem_flags":["rw","sync"],"propagation":["shared"],
        "root":"/{{{OddText}}}","root_base64":"L2L/w6k=","boot":"0-1","root_ino":12,
        "overlay":{"layers":[{{{UpperText}}}],"userxattr":false,"upper_userxattr":false,"options":[]}}
        """,
        Checkpoint with { Topology = new OverlayTopology { Layers = [Layer(0, Odd)] } },
        DocumentJson.Default.Checkpoint);

    [Fact]
    public void Holders_in_json()
    {
        const string name = $$$"""
            "name":"{{{OddText}}}","name_base64":"{{{OddBytes}}}"
            """;
        const string point = $$$"""
            "mount_point":"{{{OddText}}}","mount_point_base64":"{{{OddBytes}}}"
            """;
        const string uses = $$$"""
            "namespaces":[{"id":4026532178,"own":true,"mounts":[
            {"id":9,{{{point}}},"type":"ext4","relation":"copy"},
            {"id":9,{{{point}}},"type":"ext4","relation":"nested"},
            {"id":9,{{{point}}},"type":"ext4","relation":"pin"},
            {"id":9,{{{point}}},"type":"ext4","relation":"image"}],
            "processes":[{"pid":5,{{{name}}}}],"kept_by":["a descriptor"]}],
            "processes":[{"pid":6,{{{name}}},"mount_namespace":4026532178,"files":[
            {"use":"open","descriptor":0,"path":"{{{OddText}}}","path_base64":"{{{OddBytes}}}"},{"use":"cwd","path":"/m"}]}]
            """;
        IsWritten(
            $$$"""
            {"target":"{{{OddText}}}","target_base64":"{{{OddBytes}}}","held":true,"busy":true,"type":"fuse.veneer",
            "server":{"pid":4,{{{name}}}},"overlays":[
            {"kind":"kernel","role":"lower","namespaces":[],"processes":[]},
            {"kind":"veneer","role":"upper, work","shut_down":true,"pid":4,"pid_namespace":77,
            "command":"{{{OddText}}}","command_base64":"{{{OddBytes}}}","since":"2026-11-21T13:46:59+00:00",
            {{{point}}},"device":"0:44",{{{uses}}}}],
            {{{uses}}},
            "loop_devices":[{"path":"{{{OddText}}}","path_base64":"{{{OddBytes}}}","device":"/dev/loop0"}],
            "swap_files":[{"path":"/swap"}],"gaps":["a sentence"]}
            """,
            Report,
            DocumentJson.Default.HolderReport);
    }

    [Fact]
    public void A_list_in_json() => IsWritten(
        $$"""
        {"overlays":[{"device":"0:44","mounts":[],"layers":[],"answers":false},
        {"device":"0:45","mounts":[{"id":9,"mount_namespace":4026532178,
        "mount_point":"{{OddText}}","mount_point_base64":"{{OddBytes}}","options":"rw,relatime"}],
        "pid":4,"command":"{{OddText}}","command_base64":"{{OddBytes}}","since":"2026-11-21T13:46:59+00:00",
        "layers":[{"role":"upper","path":"{{OddText}}","path_base64":"{{OddBytes}}"}],
        "upper_filesystem":{"bytes":4096,"used_bytes":1024,"inodes":10,"used_inodes":3},
        "options":["volatile"],"answers":true,"requests":12,"uptime_seconds":1.5}],"gaps":["a sentence"]}
        """,
        List,
        DocumentJson.Default.OverlayList);

    /// <summary>A reader ignores what it does not know, and an older writer does not know all.</summary>
    [Fact]
    public void Members_may_be_more_or_less()
    {
        OverlayStatus status = Read(
            """{"fsync":"auto","errors":"continue","watch":"nothing","sync":{},"new":[1]}""",
            DocumentJson.Default.OverlayStatus);

        Assert.Equal(("auto", "", "", null, null), (status.Fsync, status.Passthrough, status.IoUring, status.Failure, status.Reusable));
        Assert.Empty(status.Lacks);
        Assert.Empty(status.Sync!.Failures);
        Assert.True(Read("""{"layers":[],"userxattr":true,"options":[]}""", DocumentJson.Default.OverlayTopology).UpperUserXattr);
    }

    [Theory]
    [InlineData("""{"change":"lost","path":"a","type":"file"}""")]
    [InlineData("""{"change":1,"path":"a","type":"file"}""")]
    [InlineData("""{"change":"added","type":"file"}""")]
    [InlineData("""{"change":"added","path":null,"type":"file"}""")]
    [InlineData("""{"change":"added","path":"a","path_base64":"!","type":"file"}""")]
    [InlineData("""{"change":"added","path":"a","type":"File"}""")]
    [InlineData("""[]""")]
    [InlineData("""null""")]
    [InlineData("")]
    public void Something_else_is_not_a_change(string document) =>
        Assert.Throws<FormatException>(() => Read(document, DocumentJson.Default.Change));
}
