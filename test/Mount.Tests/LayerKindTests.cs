using System.Text;

namespace Veneer.Mount.Tests;

/// <summary>Layers on filesystems that lack what others have: ACLs, attributes or file flags.</summary>
public sealed class LayerKindTests
{
    private const string Access = "system.posix_acl_access", Default = "system.posix_acl_default";

    private static readonly string[] Attributes =
        ["user.a", "trusted.a", "security.a", "security.capability", "system.other", "other.a", "user.", Access, Default];

    private static readonly string[] Objects = ["file", "dir", "link", "fifo", "device", "."];

    private static readonly byte[] Capability = Convert.FromHexString("0100000200200000000000000000000000000000");

    /// <summary>Filesystems for the lower layer, and for upper.</summary>
    public static TheoryData<string, string> Kinds => new()
    {
        { "tmpfs", "tmpfs" },
        { "ramfs", "tmpfs" },
        { "squashfs", "tmpfs" },
        { "squashfs -no-xattrs", "tmpfs" },
        { "erofs", "tmpfs" },
        { "erofs noacl", "tmpfs" },
        { "ext4", "tmpfs" },
        { "xfs", "tmpfs" },
        { "btrfs noacl", "tmpfs" },
        { "kernel overlay", "tmpfs" },
        { "tmpfs", "btrfs noacl" },
        { "ext4", "btrfs noacl" },
        { "btrfs noacl", "btrfs noacl" },
    };

    [MountTheory]
    [MemberData(nameof(Kinds))]
    public void Attributes_and_file_flags_are_what_the_kernel_gives(string lower, string upper)
    {
        using var below = new Volume(lower, Fill);
        using var above = new Volume(upper, _ => { });

        string expected = Tried(below, above, Mounter.Kernel);
        string shown = Tried(below, above, Mounter.UnderTest);

        Assert.Equal(expected, shown);
    }

    private static void Fill(FilePath layer)
    {
        Sys.Write(layer / "file", "content");
        Sys.MakeDirectory(layer / "dir", Oct(755));
        Sys.Write(layer / "dir/in", "");
        Sys.MakeDirectory(layer / "theirs", Oct(755));
        Sys.Write(layer / "theirs/in", "theirs");
        Sys.SymbolicLink("file", layer / "link");
        Sys.MakeNode(layer / "fifo", FileType.Fifo, Oct(644));
        Sys.MakeNode(layer / "device", FileType.CharacterDevice, Oct(644), 1, 3);
        foreach (string name in (string[])["theirs", "theirs/in"]) { Sys.ChangeOwner(layer / name, 1000, 1000); }
        // What the filesystem can hold.
        foreach (string attribute in (string[])["user.a", "trusted.a", "security.capability", Access, Default])
        {
            _ = Sys.ErrorOf(() => Sys.SetXattr(layer / "file", attribute, ValueOf(attribute)));
            _ = Sys.ErrorOf(() => Sys.SetXattr(layer / "dir", attribute, ValueOf(attribute)));
        }
    }

    private static byte[] ValueOf(string attribute) => attribute switch
    {
        Access => Acl.Of(owner: 6, user: (1000, 6), group: 4, mask: 6, other: 4),
        Default => Acl.Of(owner: 7, user: (1000, 7), group: 5, mask: 7, other: 5),
        "security.capability" => Capability,
        _ => "value"u8.ToArray(),
    };

    /// <summary>What users and root get of every attribute and flag, of what is in lower and then of its copy.</summary>
    private static string Tried(Volume lower, Volume upper, Mounter mounter)
    {
        using Overlay overlay = Overlay.With(over: [lower.Path], upperIn: upper.New(), mounter: mounter);
        var result = new StringBuilder();
        using Actor user = Actor.User();
        void Note(string what, Func<object> attempt)
        {
            object value = Errno.None;
            Errno error = Sys.ErrorOf(() => value = attempt());
            result.Append(what)
                .Append(": ")
                .Append(error.IsError ? error : value is byte[] bytes ? Convert.ToHexString(bytes) : value)
                .Append('\n');
        }
        void Try(string what, Action attempt) => Note(what, () => { attempt(); return Errno.None; });

        foreach (string name in Objects)
        {
            FilePath path = overlay.Merged / name;
            foreach (string attribute in Attributes)
            {
                Note($"get {attribute} of {name}", () => Sys.GetXattr(path, attribute));
                // Without it there is nothing to remove, and nothing is copied up. The kernel sets and removes no list where lower cannot.
                if (!(lower.IsMadeOnce && attribute is Access or Default) && !Sys.HasXattr(path, attribute))
                {
                    Try($"remove {attribute} of {name}", () => Sys.RemoveXattr(path, attribute));
                }
            }
            Note($"list {name}", () => string.Join(' ', Sys.ListXattr(path)));
        }
        foreach (string name in (string[])["file", "theirs/in"])
        {
            Note($"a user reads {name}", () => user.Do(() => Sys.ReadText(overlay.Merged / name)));
        }
        foreach (string name in (string[])["dir", "theirs", "."])
        {
            Note($"a user lists {name}",
                () => user.Do(() => string.Join(' ', (overlay.Merged / name).Entries().Order(StringComparer.Ordinal))));
        }
        foreach (string name in (string[])["file", "dir", "."]) { Note($"flags of {name}", () => Flags(overlay.Merged / name)); }
        foreach (string name in Objects)
        {
            FilePath path = overlay.Merged / name;
            foreach (string attribute in Attributes)
            {
                Try($"set {attribute} of {name}", () => Sys.SetXattr(path, attribute, ValueOf(attribute)));
            }
            Try($"a user sets user.b of {name}", () => user.Do(() => Sys.SetXattr(path, "user.b", "b")));
            foreach (string attribute in Attributes)
            {
                Note($"get {attribute} of the copy of {name}", () => Sys.GetXattr(path, attribute));
            }
            Note($"list the copy of {name}", () => string.Join(' ', Sys.ListXattr(path)));
            Note($"mode of the copy of {name}", () => Text(Sys.Stat(path).Mode));
        }
        foreach (string name in (string[])["file", "dir", "."])
        {
            FilePath path = overlay.Merged / name;
            Try($"chattr +A {name}", () => SetFlags(path, 0x80));
            Note($"flags of the copy of {name}", () => Flags(path));
            Try($"chattr -A {name}", () => SetFlags(path, 0));
        }
        foreach (string name in (string[])["dir", "theirs"])
        {
            Try($"create in {name}", () => Sys.Write(overlay.Merged / name / "new", "", Oct(666)));
            Try($"mkdir in {name}", () => Sys.MakeDirectory(overlay.Merged / name / "new directory"));
            Note($"access list of what is new in {name}", () => Sys.GetXattr(overlay.Merged / name / "new", Access));
            Note($"inherited list of what is new in {name}", () => Sys.GetXattr(overlay.Merged / name / "new directory", Default));
            Note($"mode of what is new in {name}", () => Text(Sys.Stat(overlay.Merged / name / "new").Mode));
        }
        foreach (string name in Objects)
        {
            foreach (string attribute in Attributes)
            {
                Try($"remove {attribute} of the copy of {name}", () => Sys.RemoveXattr(overlay.Merged / name, attribute));
            }
        }
        Try("a user creates in a directory of his own", () => user.Do(() => Sys.Write(overlay.Merged / "theirs/his", "")));
        return result.ToString();
    }

    private static string Flags(FilePath path)
    {
        using Descriptor opened = Sys.Open(path, OpenFlags.ReadOnly);
        return opened.GetFlags().ToString("x");
    }

    private static void SetFlags(FilePath path, uint flags)
    {
        using Descriptor opened = Sys.Open(path, OpenFlags.ReadOnly);
        opened.SetFlags(flags);
    }

    /// <summary>A filesystem of its own, gone when it is disposed of.</summary>
    private sealed class Volume : IDisposable
    {
        private readonly FilePath home = Scratch.New();
        private int number;

        public Volume(string kind, Action<FilePath> fill)
        {
            Path = home / "layer";
            IsMadeOnce = kind.StartsWith("squashfs", StringComparison.Ordinal) || kind.StartsWith("erofs", StringComparison.Ordinal);
            FilePath image = home / "image", source = home / "source";
            string[] words = kind.Split(' ');
            Needs.FileSystem(words[0] == "kernel" ? "overlay" : words[0]);
            Sys.MakeDirectory(Path, Oct(755));
            Sys.MakeDirectory(source, Oct(755));
            switch (kind)
            {
                case "kernel overlay":
                    foreach (string name in (string[])["lower", "upper", "work"]) { Sys.MakeDirectory(home / name, Oct(755)); }
                    Command.Require("mount", "-t", "overlay", "-o",
                        $"lowerdir={home / "lower"},upperdir={home / "upper"},workdir={home / "work"}", "overlay", Path);
                    break;
                case "squashfs" or "squashfs -no-xattrs":
                    fill(source);
                    Command.Require(["mksquashfs", source, image, "-quiet", "-no-progress", .. words.Skip(1)]);
                    Command.Require("mount", "-t", "squashfs", "-o", "loop,ro", image, Path);
                    return;
                case "erofs" or "erofs noacl":
                    fill(source);
                    Command.Require("mkfs.erofs", image, source);
                    Command.Require("mount", "-t", "erofs", "-o", string.Join(',', ["loop", "ro", .. words.Skip(1)]), image, Path);
                    return;
                case "tmpfs" or "ramfs":
                    Command.Require("mount", "-t", kind, "none", Path);
                    break;
                default:
                    using (Descriptor file = Sys.Open(image, OpenFlags.WriteOnly | OpenFlags.Create | OpenFlags.Exclusive, Oct(600)))
                    {
                        file.Truncate(320L << 20);
                    }
                    Command.Require([$"mkfs.{words[0]}", .. words[0] == "ext4" ? ["-Fq"] : (string[])["-q"], image]);
                    Command.Require("mount", "-t", words[0], "-o", string.Join(',', ["loop", .. words.Skip(1)]), image, Path);
                    break;
            }
            Path /= "in";
            Sys.MakeDirectory(Path, Oct(755));
            fill(Path);
        }

        public FilePath Path { get; }

        /// <summary>Whether nothing can be changed in it.</summary>
        public bool IsMadeOnce { get; }

        /// <summary>An empty directory in it.</summary>
        public FilePath New()
        {
            FilePath made = Path / $"{++number}";
            Sys.MakeDirectory(made, Oct(755));
            return made;
        }

        public void Dispose()
        {
            _ = Libc.Unmount((home / "layer").Bytes, lazy: true); // best effort: a mount that failed is not there
            Sys.RemoveTree(home);
        }
    }
}
