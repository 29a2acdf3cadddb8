namespace Veneer.Mount.Tests.Crash;

/// <summary>One thing that a user does, which a crash may cut off.</summary>
internal sealed record Operation(string Name, Action<FilePath> Do)
{
    /// <summary>Mount options.</summary>
    public string Options { get; init; } = "";

    /// <summary>Words of a <see cref="TreeImage"/> that belong to no state, by how they begin.</summary>
    public string[] Unsteady { get; init; } = [];

    /// <summary>
    /// Whether a crash makes two files of one with several names. Only their count of links tells which names have been copied up
    /// so far.
    /// </summary>
    public bool SplitsNames => Unsteady.Contains("nlink=", StringComparer.Ordinal);

    /// <summary>What upper holds in addition to <see cref="Upper"/>.</summary>
    public (string Path, Node Node)? AlsoInUpper { get; init; }

    /// <summary>The crash is to come while Veneer mounts, and finds this in the work directory.</summary>
    public Tree? LeftInWork { get; init; }

    private static readonly byte[] Capability = Convert.FromHexString("0100000200200000000000000000000000000000");
    private static readonly byte[] DefaultAcl = Acl.Of(owner: 7, user: (1001, 6), group: 5, mask: 7, other: 0);

    public static Tree[] Lowers { get; } =
    [
        Tree.Of(
            ("file", Node.File(new string('f', 5000)).Mode(Oct(4755)).OwnedBy(1000, 1001).Attribute("user.a", "b")),
            ("capable",
                Node.File(new string('c', 5000)).Mode(Oct(755)).Attribute("user.a", "b").Attribute("security.capability", Capability)),
            ("sparse", Node.Sparse(70_000, "content", 150_000)),
            ("empty", Node.File()),
            ("link", Node.Link("some/target").OwnedBy(1000, 1001)),
            ("fifo", Node.Fifo().Mode(Oct(622))),
            ("device", Node.Character(1, 3).Mode(Oct(666))),
            ("deep", Node.Directory().Mode(Oct(2775)).OwnedBy(7, 8).Attribute("user.of", "deep")),
            ("deep/er/est/file", Node.File("deep").OwnedBy(1000, 1001)),
            ("one", Node.File("linked")),
            ("two", Node.HardLink("one")),
            ("deep/three", Node.HardLink("one")),
            ("full/a", "a"), ("full/b", "b"),
            ("merged/low", "low"),
            ("hollow", Node.Directory().Mode(Oct(700))),
            ("whited/low", "low"),
            ("copied", "low"),
            ("gone", "gone"), ("gonedir/x", "x"),
            ("shared", Node.Directory().Mode(Oct(3777)).OwnedBy(0, 8).Attribute("system.posix_acl_default", DefaultAcl)),
            ("shared/gone", "gone"),
            ("was/x", "x")),
        Tree.Of(("merged/lowest", "lowest"), ("whited/lowest", "lowest"), ("full/c", "c"), ("bottom", "bottom"), ("file", "covered")),
    ];

    public static Tree Upper { get; } = Tree.Of(
        ("copied", "up"), ("pure", "pure"), ("other", "other"),
        ("gone", Node.Whiteout()), ("gonedir", Node.Whiteout()),
        ("merged/up", "up"),
        ("whited/low", Node.Whiteout()), ("whited/lowest", Node.Whiteout()),
        ("puredir/x", "x"), ("puredir/sub", Node.Directory()), ("barren", Node.Directory()),
        ("shared", Node.Directory().Mode(Oct(3777)).OwnedBy(0, 8).Attribute("system.posix_acl_default", DefaultAcl)),
        ("shared/gone", Node.Whiteout()),
        ("was", Node.Whiteout()), ("moved", Node.Directory().Attribute("trusted.overlay.redirect", "/was")), ("moved/x", Node.Whiteout()));

    /// <summary>What servers that were killed may have left in the work directory.</summary>
    private static Tree Leftovers => Tree.Of(
        ("#veneer-probe/one", Node.Directory()), ("#veneer-probe/whiteout", Node.Whiteout()),
        ("#veneer-probe/w/work/incompat/volatile/dirty", ""),
        ("work", Node.Directory().Mode(0)), ("work/#whiteout", Node.Whiteout()), ("work/#1", "half a fi"), ("work/#2/low", Node.Whiteout()),
        ("work/#3", Node.Directory()));

    private static readonly TimeSpec Then = new() { Seconds = Node.LongAgo.Seconds + 5, Nanoseconds = 5 };

    private static IEnumerable<Operation> Mounts =>
    [
        new("mount for the first time", _ => { }) { LeftInWork = Tree.Empty },
        new("mount after others that were killed", _ => { }) { LeftInWork = Leftovers },
    ];

    private static IEnumerable<Operation> CopyUps =>
    [
        new("open a file to write", m => Sys.Open(m / "file", OpenFlags.ReadWrite).Dispose()),
        new("open a sparse file to write", m => Sys.Open(m / "sparse", OpenFlags.WriteOnly).Dispose()),
        new("open an empty file to append", m => Sys.Open(m / "empty", OpenFlags.WriteOnly | OpenFlags.Append).Dispose()),
        new("open to truncate", m => Sys.Open(m / "file", OpenFlags.WriteOnly | OpenFlags.Truncate).Dispose()),
        new("open a capable file to truncate", m => Sys.Open(m / "capable", OpenFlags.WriteOnly | OpenFlags.Truncate).Dispose()),
        new("open to truncate as its owner", m => As(1000, () => Sys.Open(m / "file", OpenFlags.WriteOnly | OpenFlags.Truncate).Dispose())),
        new("truncate", m => Sys.Truncate(m / "file", 100)),
        new("truncate as its owner", m => As(1000, () => Sys.Truncate(m / "file", 100))),
        new("truncate to more", m => Sys.Truncate(m / "sparse", 200_000)),
        new("chmod", m => Sys.ChangeMode(m / "file", Oct(640))),
        new("chmod a capable file", m => Sys.ChangeMode(m / "capable", Oct(700))),
        new("chown", m => Sys.ChangeOwner(m / "file", 7, 8)),
        new("utimens", m => Sys.ChangeTimes(m / "file", Then, Then)),
        new("setxattr", m => Sys.SetXattr(m / "file", "user.c", "d")),
        new("removexattr", m => Sys.RemoveXattr(m / "file", "user.a")),
        new("chmod in the depth", m => Sys.ChangeMode(m / "deep/er/est/file", Oct(640))),
        new("chmod from the bottom layer", m => Sys.ChangeMode(m / "bottom", Oct(640))),
        new("chown a symbolic link", m => Sys.ChangeOwner(m / "link", 7, 8)),
        new("chmod a fifo", m => Sys.ChangeMode(m / "fifo", Oct(600))),
        new("utimens of a device", m => Sys.ChangeTimes(m / "device", Then, Then)),
        new("setxattr of a directory", m => Sys.SetXattr(m / "deep", "user.c", "d")),
        new("chmod of one of several names", m => WithNames(m, one => Sys.ChangeMode(one, Oct(600)))) { Unsteady = ["nlink="] },
    ];

    /// <summary>A copy of "capable" without its data, as the kernel makes them.</summary>
    private static (string, Node) Metacopy =>
        ("capable", Node.Sparse(0, "", 5000)
            .Mode(Oct(755))
            .Attribute("user.a", "b")
            .Attribute("security.capability", Capability)
            .Attribute("trusted.overlay.metacopy", ""));

    private static IEnumerable<Operation> Metacopies =>
    [
        new("chmod that makes a metacopy", m => Sys.ChangeMode(m / "file", Oct(640))) { Options = "metacopy=on" },
        // The kernel sends two requests for it.
        new("chown that makes a metacopy of a capable file", m => Sys.ChangeOwner(m / "capable", 7, 8))
        {
            Options = "metacopy=on",
            Unsteady = ["security.capability="],
        },
        new("rename that makes a metacopy", m => Sys.Rename(m / "file", m / "full/new")) { Options = "metacopy=on" },
        new("rename of a metacopy", m => Sys.Rename(m / "capable", m / "full/new")) { Options = "metacopy=on", AlsoInUpper = Metacopy },
        new("link of a metacopy", m => Sys.Link(m / "capable", m / "full/new")) { Options = "metacopy=on", AlsoInUpper = Metacopy },
        new("open a metacopy to write", m => Sys.Open(m / "capable", OpenFlags.ReadWrite).Dispose())
        {
            Options = "metacopy=on",
            AlsoInUpper = Metacopy,
            Unsteady = ["mtime=", "security.capability="],
        },
        new("truncate a metacopy", m => Sys.Truncate(m / "capable", 100))
        {
            Options = "metacopy=on",
            AlsoInUpper = Metacopy,
            Unsteady = ["mtime=", "security.capability="],
        },
        new("open a metacopy to truncate", m => Sys.Open(m / "capable", OpenFlags.WriteOnly | OpenFlags.Truncate).Dispose())
        {
            Options = "metacopy=on",
            AlsoInUpper = Metacopy,
            Unsteady = ["mtime=", "security.capability="],
        },
    ];

    private static IEnumerable<Operation> Creations =>
    [
        new("create", m => Create(m / "full/new")),
        new("create as a user", m => As(1000, () => Create(m / "shared/new"))),
        new("mkdir", m => Sys.MakeDirectory(m / "merged/new")),
        new("mkdir where new directories are opaque", m => Sys.MakeDirectory(m / "merged/new")) { Options = "redirect_dir=on" },
        new("symlink", m => Sys.SymbolicLink("target", m / "full/new")),
        new("mknod", m => Sys.MakeNode(m / "full/new", FileType.BlockDevice, Oct(600), 7, 300)),
        new("O_TMPFILE and linkat", m => MakeUnnamed(m / "full", "new")),
        new("create over a whiteout", m => Create(m / "gone")),
        new("create over a whiteout as a user", m => As(1000, () => Create(m / "shared/gone"))),
        new("mkdir over a whiteout of a file", m => Sys.MakeDirectory(m / "gone")),
        new("mkdir over a whiteout as a user", m => As(1000, () => Sys.MakeDirectory(m / "shared/gone"))),
        new("mkdir over a whiteout of a directory", m => Sys.MakeDirectory(m / "gonedir")),
        new("symlink over a whiteout", m => Sys.SymbolicLink("target", m / "gone")),
        new("mknod over a whiteout", m => Sys.MakeNode(m / "gone", FileType.Fifo, Oct(644))),
        new("O_TMPFILE and linkat over a whiteout", m => MakeUnnamed(m, "gone")),
    ];

    private static IEnumerable<Operation> Removals =>
    [
        new("unlink a lower file", m => Sys.Unlink(m / "file")),
        new("unlink in the depth", m => Sys.Unlink(m / "deep/er/est/file")),
        new("unlink a copied-up file", m => Sys.Unlink(m / "copied")),
        new("unlink an upper file", m => Sys.Unlink(m / "pure")),
        new("unlink one of several names", m => WithNames(m, Sys.Unlink)) { Unsteady = ["nlink="] },
        new("rmdir a lower directory", m => Sys.RemoveDirectory(m / "hollow")),
        new("rmdir a directory with whiteouts", m => Sys.RemoveDirectory(m / "whited")),
        new("rmdir a renamed directory with whiteouts", m => Sys.RemoveDirectory(m / "moved")) { Options = "redirect_dir=on" },
        new("rmdir an upper directory", m => Sys.RemoveDirectory(m / "barren")),
    ];

    private static IEnumerable<Operation> Renames =>
    [
        new("rename an upper file", m => Sys.Rename(m / "pure", m / "new")),
        new("rename over an upper file", m => Sys.Rename(m / "pure", m / "other")),
        new("rename a lower file", m => Sys.Rename(m / "file", m / "new")),
        new("rename a lower file to another directory", m => Sys.Rename(m / "file", m / "puredir/new")),
        new("rename a lower file over a lower file", m => Sys.Rename(m / "file", m / "full/a")),
        new("rename a lower file over a whiteout", m => Sys.Rename(m / "file", m / "gone")),
        new("rename an upper file over a whiteout", m => Sys.Rename(m / "pure", m / "gone")),
        new("rename an upper directory over a whiteout", m => Sys.Rename(m / "barren", m / "gonedir")),
        new("rename out of an upper directory over a whiteout", m => Sys.Rename(m / "puredir/sub", m / "gonedir")),
        new("rename an upper directory into a merged one", m => Sys.Rename(m / "barren", m / "merged/new")),
        new("rename an upper directory over one with whiteouts", m => Sys.Rename(m / "puredir", m / "whited")),
        new("rename a lower directory", m => Sys.Rename(m / "full", m / "new")) { Options = "redirect_dir=on" },
        new("rename a merged directory to another directory", m => Sys.Rename(m / "merged", m / "full/new"))
        {
            Options = "redirect_dir=on",
        },
        new("rename a merged directory over one with whiteouts", m => Sys.Rename(m / "merged", m / "whited"))
        {
            Options = "redirect_dir=on",
        },
        new("exchange two lower files", m => Sys.Rename(m / "file", m / "full/a", RenameFlags.Exchange)),
        new("exchange an upper file with a directory", m => Sys.Rename(m / "pure", m / "puredir", RenameFlags.Exchange)),
        new("exchange two directories", m => Sys.Rename(m / "full", m / "merged", RenameFlags.Exchange)) { Options = "redirect_dir=on" },
        new("rename one of several names", m => WithNames(m, one => Sys.Rename(one, m / "full/new"))) { Unsteady = ["nlink="] },
    ];

    private static IEnumerable<Operation> Links =>
    [
        new("link a lower file", m => Sys.Link(m / "file", m / "full/new")),
        new("link a lower symbolic link", m => Sys.Link(m / "link", m / "new")),
        new("link an upper file", m => Sys.Link(m / "pure", m / "new")),
        new("link over a whiteout", m => Sys.Link(m / "copied", m / "gone")),
        new("link one of several names", m => WithNames(m, one => Sys.Link(one, m / "new"))) { Unsteady = ["nlink="] },
    ];

    private static IEnumerable<Operation> Readings =>
    [
        new("list an impure directory with nothing from below", m => Sys.ReadDirectory(m / "marked"))
        {
            AlsoInUpper = ("marked", Node.Directory().Attribute("trusted.overlay.impure", "y")),
        },
    ];

    /// <summary>All of them, over <see cref="Lowers"/> and <see cref="Upper"/>.</summary>
    public static IReadOnlyList<Operation> All { get; } =
        [.. Mounts, .. CopyUps, .. Metacopies, .. Creations, .. Removals, .. Renames, .. Links, .. Readings];

    /// <summary>What a server holds in work until it ends: a whiteout, to which others are linked, and a file of several names.</summary>
    public static Operation BeforeUnmount { get; } = new("what leaves something in work", m =>
    {
        WithNames(m, one => Sys.ChangeMode(one, Oct(600)));
        Sys.Unlink(m / "full/a");
        Sys.RemoveDirectory(m / "whited");
    })
    { Unsteady = ["nlink="] };

    public override string ToString() => Name;

    private static void Create(FilePath path) =>
        Sys.Open(path, OpenFlags.WriteOnly | OpenFlags.Create | OpenFlags.Exclusive, Oct(666)).Dispose();

    private static void MakeUnnamed(FilePath directory, string name)
    {
        using Descriptor file = Sys.Open(directory, OpenFlags.TemporaryFile | OpenFlags.ReadWrite, Oct(640));
        file.LinkTo(directory / name);
    }

    /// <summary>Names that the kernel knows are kept as one file; held, so that it does not forget them.</summary>
    private static void WithNames(FilePath merged, Action<FilePath> action)
    {
        Descriptor[] held = [.. ((string[])["one", "two", "deep/three"]).Select(name => Sys.Open(merged / name, OpenFlags.Path))];
        try { action(merged / "one"); }
        finally { Array.ForEach(held, one => one.Dispose()); }
    }

    private static void As(uint uid, Action action)
    {
        using Actor user = Actor.User(uid, 1001);
        user.Do(action);
    }
}
