using System.Text;
using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>What one name of a layer is to be.</summary>
public sealed record Node
{
    /// <summary>An instant long past, with nanoseconds: what a node has unless told otherwise.</summary>
    public static readonly TimeSpec LongAgo = new() { Seconds = 1_000_000_000, Nanoseconds = 123_456_789 };

    private Node(uint type, uint mode)
    {
        Type = type;
        Permissions = mode;
    }

    public uint Type { get; }

    public uint Permissions { get; private init; }

    public byte[] Content { get; private init; } = [];

    /// <summary>Where content begins; before it is a hole. The file ends at <see cref="Length"/>, with a hole again.</summary>
    public long ContentOffset { get; private init; }

    public long Length { get; private init; } = -1;

    public string? Target { get; private init; }

    public (uint Major, uint Minor) Device { get; private init; }

    public (uint Uid, uint Gid) Owner { get; private init; }

    public TimeSpec Modified { get; private init; } = LongAgo;

    public TimeSpec Accessed { get; private init; } = LongAgo;

    public (string Name, byte[] Value)[] Attributes { get; private init; } = [];

    public static Node File(string content = "") => File(Encoding.Latin1.GetBytes(content));

    public static Node File(byte[] content) => new(FileType.Regular, 0x1A4) { Content = content };

    /// <summary>A file with a hole before and after its content.</summary>
    public static Node Sparse(long offset, string content, long length) => File(content) with { ContentOffset = offset, Length = length };

    public static Node Directory() => new(FileType.Directory, 0x1ED);

    public static Node Link(string target) => new(FileType.SymbolicLink, 0x1FF) { Target = target };

    /// <summary>Another name of a file that stands earlier in the tree.</summary>
    public static Node HardLink(string existing) => new(0, 0) { Target = existing };

    public static Node Fifo() => new(FileType.Fifo, 0x1A4);

    public static Node Socket() => new(FileType.Socket, 0x1A4);

    public static Node Character(uint major, uint minor) => new(FileType.CharacterDevice, 0x1A4) { Device = (major, minor) };

    public static Node Block(uint major, uint minor) => new(FileType.BlockDevice, 0x1A4) { Device = (major, minor) };

    public static Node Whiteout() => new(FileType.CharacterDevice, 0);

    public static Node Opaque() => Directory().Attribute("trusted.overlay.opaque", "y");

    public static implicit operator Node(string content) => File(content);

    public Node Mode(uint mode) => this with { Permissions = mode };

    public Node OwnedBy(uint uid, uint gid) => this with { Owner = (uid, gid) };

    public Node At(TimeSpec modified) => this with { Modified = modified };

    public Node Attribute(string name, string value) => Attribute(name, Encoding.Latin1.GetBytes(value));

    public Node Attribute(string name, byte[] value) => this with { Attributes = [.. Attributes, (name, value)] };
}

/// <summary>A tree of files to be made on disk, as one layer of an overlay.</summary>
public sealed class Tree
{
    private readonly List<(string Path, Node Node)> nodes;

    private Tree(IEnumerable<(string, Node)> nodes) => this.nodes = [.. nodes];

    public static Tree Empty => new([]);

    /// <summary>Paths and what they are, text being the content of a file; <c>.</c> is the root. Directories on the way are made.</summary>
    public static Tree Of(params (string Path, Node Node)[] nodes) => new(nodes);

    public Tree And(string path, Node node) => new([.. nodes, (path, node)]);

    /// <summary>Makes the tree in an empty directory.</summary>
    /// <param name="root">The directory.</param>
    /// <param name="whiteoutsAreFiles">Whether whiteouts are empty files with an attribute, in marked directories, since no device
    /// can be one.</param>
    public void MakeAt(FilePath root, bool whiteoutsAreFiles = false)
    {
        var made = new List<(FilePath Path, Node Node)> { (root, Node.Directory()) };
        var known = new HashSet<string>(StringComparer.Ordinal);
        foreach ((string path, Node given) in nodes)
        {
            bool isFile = whiteoutsAreFiles && given is { Type: FileType.CharacterDevice, Device: (0, 0) };
            Node node = isFile ? Node.File().Attribute("trusted.overlay.whiteout", "y") : given;
            if (path == ".")
            {
                made[0] = (root, node);
                continue;
            }
            for (int slash = path.IndexOf('/', StringComparison.Ordinal); slash > 0; slash = path.IndexOf('/', slash + 1))
            {
                if (known.Add(path[..slash]))
                {
                    Sys.MakeDirectory(root / path[..slash]);
                    made.Add((root / path[..slash], Node.Directory()));
                }
            }
            known.Add(path);
            Make(root, root / path, node);
            if (isFile) { Sys.SetXattr((root / path).Parent, "trusted.overlay.opaque", "x"); }
            if (node.Type != 0) { made.Add((root / path, node)); }
        }
        foreach ((FilePath path, Node node) in made) { SetAttributes(path, node); }
        foreach ((FilePath path, Node node) in Enumerable.Reverse(made)) { Sys.ChangeTimes(path, node.Accessed, node.Modified); }
    }

    private static void Make(FilePath root, FilePath path, Node node)
    {
        switch (node.Type)
        {
            case 0:
                Sys.Link(root / node.Target!, path);
                break;
            case FileType.Directory:
                Sys.MakeDirectory(path);
                break;
            case FileType.SymbolicLink:
                Sys.SymbolicLink(node.Target!, path);
                break;
            case FileType.Regular:
                using (Descriptor file = Sys.Open(path, OpenFlags.WriteOnly | OpenFlags.Create | OpenFlags.Exclusive, 0x180))
                {
                    if (node.Content.Length > 0) { file.WriteAt(node.Content, node.ContentOffset); }
                    if (node.Length >= 0) { file.Truncate(node.Length); }
                }
                break;
            default:
                Sys.MakeNode(path, node.Type, 0, node.Device.Major, node.Device.Minor);
                break;
        }
    }

    /// <summary>In the one order in which nothing takes back what was set before: owner, permissions, attributes.</summary>
    private static void SetAttributes(FilePath path, Node node)
    {
        if (node.Owner != default) { Sys.ChangeOwner(path, node.Owner.Uid, node.Owner.Gid); }
        if (node.Type != FileType.SymbolicLink && !(node.Type == FileType.CharacterDevice && node.Device == default))
        {
            Sys.ChangeMode(path, node.Permissions);
        }
        foreach ((string name, byte[] value) in node.Attributes) { Sys.SetXattr(path, name, value); }
    }
}
