using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Veneer.Linux;

namespace Veneer.Overlay.Tests.Posix;

/// <summary>
/// Real directories that are layers: makes objects in them by hand, and tells without any code of the overlay what they show.
/// </summary>
/// <param name="prefix">Of the overlay's attributes: <c>trusted.overlay.</c> or <c>user.overlay.</c>.</param>
internal sealed class RealLayers(string prefix)
{
    private static byte[] Name(string path) => [.. Encoding.UTF8.GetBytes(path), 0];

    private static Statx Stat(string path)
    {
        Assert.True(TryStat(path, out Statx stat), path);
        return stat;
    }

    private static bool TryStat(string path, out Statx stat) => !Libc.StatAt(Libc.AtCwd, Name(path), StatxMask.Basic, out stat).IsError;

    public string Prefix => prefix;

    /// <summary>Whether the attributes are <c>user.overlay.*</c>, which only files and directories take.</summary>
    public bool IsUser => prefix.StartsWith("user.", StringComparison.Ordinal);

    /// <summary>Finishes an object that was just made: owner, mode and times, which tell it apart from others.</summary>
    private static void Finish(string path, uint mode, uint uid, uint gid)
    {
        Statx stat = Stat(path);
        Assert.Equal(Errno.None, Libc.ChangeOwnerAt(Libc.AtCwd, Name(path), uid, gid));
        if (!stat.IsSymbolicLink) { Assert.Equal(Errno.None, Libc.ChangeModeAt(Libc.AtCwd, Name(path), mode)); }
    }

    public void Directory(string path, uint mode = 0x1ED, uint uid = 0, uint gid = 0)
    {
        if (!System.IO.Directory.Exists(path)) { System.IO.Directory.CreateDirectory(path); }
        Finish(path, mode, uid, gid);
    }

    public void File(string path, byte[] content, uint mode = 0x1A4, uint uid = 0, uint gid = 0)
    {
        System.IO.File.WriteAllBytes(path, content);
        Finish(path, mode, uid, gid);
    }

    public void Link(string path, string newPath) =>
        Assert.Equal(Errno.None, Libc.LinkAt(Libc.AtCwd, Name(path), Libc.AtCwd, Name(newPath)));

    public void SymbolicLink(string path, string target)
    {
        Assert.Equal(Errno.None, Libc.SymbolicLinkAt(Name(target), Libc.AtCwd, Name(path)));
        Finish(path, 0, 7, 8);
    }

    public void Node(string path, uint type, uint mode, uint device = 0)
    {
        Assert.Equal(Errno.None, Libc.MakeNodeAt(Libc.AtCwd, Name(path), type | mode, device));
        if (type != FileType.CharacterDevice || device != 0) { Finish(path, mode, 3, 4); }
    }

    public void Whiteout(string path) => Node(path, FileType.CharacterDevice, 0);

    /// <summary>A whiteout of the other form, in a directory that says that it has some.</summary>
    public void FileWhiteout(string path)
    {
        Attribute(Path.GetDirectoryName(path)!, prefix + "opaque", "x");
        File(path, []);
        Attribute(path, prefix + "whiteout", "");
    }

    public void Attribute(string path, string name, string value) =>
        Assert.Equal(Errno.None, Libc.SetXattrAt(Libc.AtCwd, Name(path), Name(name), Encoding.UTF8.GetBytes(value), XattrFlags.None));

    private static IOrderedEnumerable<string> AllOf(string root) =>
        System.IO.Directory.EnumerateFileSystemEntries(root, "*", SearchOption.AllDirectories).Append(root).Order(StringComparer.Ordinal);

    /// <summary>Gives every object of a layer a modification time of its own.</summary>
    public static void SetTimes(string root, int seed)
    {
        long second = 1_000_000_000 + (seed * 100_000);
        foreach (string path in AllOf(root))
        {
            var time = new TimeSpec { Seconds = ++second, Nanoseconds = (uint)(second % 1000) * 1000 };
            Assert.Equal(Errno.None, Libc.ChangeTimesAt(Libc.AtCwd, Name(path), time, time));
        }
    }

    private static byte[]? Value(string path, string name)
    {
        byte[] value = new byte[4096];
        return Libc.GetXattrAt(Libc.AtCwd, Name(path), Name(name), value, out int size).IsError ? null : value[..size];
    }

    private static string[] Attributes(string path)
    {
        byte[] list = new byte[4096];
        Assert.Equal(Errno.None, Libc.ListXattrAt(Libc.AtCwd, Name(path), list, out int size));
        return Encoding.UTF8.GetString(list, 0, size).Split('\0', StringSplitOptions.RemoveEmptyEntries);
    }

    private bool Says(string path, string name, string value) =>
        Value(path, prefix + name) is { } bytes && Encoding.UTF8.GetString(bytes) == value;

    private bool IsWhiteout(string path, in Statx stat) =>
        (stat.Type == FileType.CharacterDevice && stat.Rdev == 0)
        || (stat.IsRegular && stat.Size == 0 && Value(path, prefix + "whiteout") is not null
            && Says(Path.GetDirectoryName(path)!, "opaque", "x"));

    /// <summary>Everything that a layer holds, a line for each object; without times of access and change.</summary>
    public static string[] Snapshot(string root) =>
    [
        .. AllOf(root).Select(path =>
        {
            Statx stat = Stat(path);
            string content = stat.IsRegular ? Convert.ToHexString(SHA256.HashData(System.IO.File.ReadAllBytes(path))) : "";
            string[] attributes = [.. Attributes(path).Order(StringComparer.Ordinal)
                .Select(name => $"{name}={Convert.ToHexString(Value(path, name)!)}")];
            string numbers = string.Create(CultureInfo.InvariantCulture,
                $"{stat.Mode:x} {stat.Uid}:{stat.Gid} {stat.Nlink} {stat.Rdev} {stat.ModifyTime.Seconds}.{stat.ModifyTime.Nanoseconds}");
            return $"{path} {numbers} {string.Join(',', attributes)} {content}";
        }),
    ];

    /// <summary>A directory of a layer, and the layer's position.</summary>
    private sealed record Part(string Path, int Layer);

    private string[] roots = [];
    private readonly Dictionary<(ulong, ulong), ModelNode> linked = [];

    /// <summary>What layers show together.</summary>
    /// <param name="layers">The roots, topmost first.</param>
    public ModelNode Merge(string[] layers)
    {
        roots = layers;
        linked.Clear();
        Part[] parts = [.. layers.Select((path, i) => new Part(path, i))];
        return DirectoryOf(parts);
    }

    private ModelNode DirectoryOf(Part[] parts)
    {
        ModelNode node = NodeOf(parts[0].Path);
        IEnumerable<string> names = parts
            .SelectMany(part => System.IO.Directory.EnumerateFileSystemEntries(part.Path)).Select(path => Path.GetFileName(path));
        foreach (string name in names.Distinct().Order(StringComparer.Ordinal))
        {
            if (Find(parts, name) is { } child) { node.Children.Add(name, child); }
        }
        return node;
    }

    private ModelNode? Find(Part[] parts, string name)
    {
        var found = new List<Part>();
        ModelNode? file = null;
        string wanted = name; // a redirect changes it for the layers below
        for (int i = 0; i < parts.Length; i++)
        {
            string? path = Follow(parts[i].Path, ref wanted, out bool isLast);
            if (isLast && path is null) { break; }
            if (path is null || !TryStat(path, out Statx stat))
            {
                if (isLast) { break; }
                continue;
            }
            if (IsWhiteout(path, stat)) { break; }
            byte[]? redirect = Value(path, prefix + "redirect");
            if (stat.IsDirectory)
            {
                if (file is not null) { break; }
                found.Add(new Part(path, parts[i].Layer));
                if (Says(path, "opaque", "y") || (isLast && redirect is null)) { break; }
            }
            else
            {
                if (found.Count > 0) { break; }
                bool isMetacopy = stat.IsRegular && Value(path, prefix + "metacopy") is not null;
                if (file is null)
                {
                    file = NodeOf(path);
                    if (!isMetacopy) { return file; }
                }
                else if (!isMetacopy)
                {
                    file.Content = System.IO.File.ReadAllBytes(path);
                    return file;
                }
            }
            if (redirect is null) { continue; }
            string to = Encoding.UTF8.GetString(redirect);
            if (to[0] != '/')
            {
                wanted = wanted[..(wanted.LastIndexOf('/') + 1)] + to;
                continue;
            }
            int above = parts[i].Layer;
            parts = [.. roots.Select((root, layer) => new Part(root, layer)).Where(part => part.Layer > above)];
            wanted = to[1..];
            i = -1;
        }
        Assert.True(file is null, $"{name} is a metacopy without data");
        return found.Count == 0 ? null : DirectoryOf([.. found]);
    }

    /// <summary>Walks the directories of a path in one layer.</summary>
    /// <param name="directory">Where the path begins.</param>
    /// <param name="wanted">The path; where a directory on it has a redirect, that takes its place in the layers below.</param>
    /// <param name="isLast">Whether nothing in the layers below counts.</param>
    /// <returns>Null when this layer does not have the directories.</returns>
    private string? Follow(string directory, ref string wanted, out bool isLast)
    {
        isLast = false;
        string[] names = wanted.Split('/');
        for (int i = 0; i < names.Length - 1; i++)
        {
            directory = Path.Combine(directory, names[i]);
            if (!TryStat(directory, out Statx stat)) { return null; }
            if (!stat.IsDirectory)
            {
                isLast = true;
                return null;
            }
            isLast |= Says(directory, "opaque", "y");
            if (Value(directory, prefix + "redirect") is not { } redirect) { continue; }
            string to = Encoding.UTF8.GetString(redirect);
            string rest = string.Join('/', names[(i + 1)..]);
            wanted = to[0] == '/' ? $"{to[1..]}/{rest}" : string.Join('/', [.. names[..i], to, rest]);
            isLast = false;
        }
        return Path.Combine(directory, names[^1]);
    }

    /// <summary>The object itself; its own attributes of the overlay are not shown, and those of users lose their escape.</summary>
    private ModelNode NodeOf(string path)
    {
        Statx stat = Stat(path);
        bool hasSeveral = !stat.IsDirectory && stat.Nlink > 1;
        if (hasSeveral && linked.TryGetValue((stat.Dev, stat.Ino), out ModelNode? known)) { return known; }
        var node = new ModelNode(stat.Type)
        {
            Mode = stat.Mode & ModeBits.Mask,
            Uid = stat.Uid,
            Gid = stat.Gid,
            Rdev = stat.Rdev,
            Nlink = stat.Nlink,
            LowerNlink = hasSeveral ? stat.Nlink : 0,
            ModifyTime = ((ulong)stat.ModifyTime.Seconds, stat.ModifyTime.Nanoseconds),
        };
        if (stat.IsRegular) { node.Content = System.IO.File.ReadAllBytes(path); }
        if (stat.IsSymbolicLink)
        {
            byte[] target = new byte[4096];
            Assert.Equal(Errno.None, Libc.ReadLinkAt(Libc.AtCwd, Name(path), target, out int length));
            node.Target = Encoding.UTF8.GetString(target, 0, length);
        }
        foreach (string name in Attributes(path))
        {
            if (!name.StartsWith(prefix, StringComparison.Ordinal)) { node.Xattrs[name] = Value(path, name)!; }
            else if (name.StartsWith(prefix + "overlay.", StringComparison.Ordinal))
            {
                node.Xattrs[prefix + name[(prefix + "overlay.").Length..]] = Value(path, name)!;
            }
        }
        if (hasSeveral) { linked.Add((stat.Dev, stat.Ino), node); }
        return node;
    }
}
