using System.Globalization;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Overlay.Tests.Posix;

/// <summary>Compares an overlay with the tree in memory that it should show.</summary>
internal sealed class PosixComparison(ModelNode root, FuseClient client, Random random)
{
    public const ulong RootId = 1;

    /// <summary>The names that operations choose from, and comparisons look for in vain.</summary>
    public static IReadOnlyList<string> Names { get; } = ["1", "2", "3", "f1", "f2", "b", "c", "l2", "gone", "new", "sub", "s"];

    /// <summary>Reads the whole overlay.</summary>
    public void Compare() => Compare(root, RootId, "");

    private void CheckAttributes(ModelNode model, in Attr attr, string path)
    {
        Check(model.Type | model.Mode, attr.Mode, path, "mode");
        Check(model.Uid, attr.Uid, path, "uid");
        Check(model.Gid, attr.Gid, path, "gid");
        if (model.IsRegular) { Check((ulong)model.Content.Length, attr.Size, path, "size"); }
        if (model.IsSymbolicLink) { Check((ulong)model.Target.Length, attr.Size, path, "size"); }
        if (model.Type == FileType.CharacterDevice) { Check(model.Rdev, attr.Rdev, path, "rdev"); }
        if (model.ModifyTime is { } time) { Check(time, (attr.ModifyTime, attr.ModifyTimeNanoseconds), path, "mtime"); }
        if (model.IsMade) { Check(2 + (uint)model.Children.Values.Count(child => child.IsDirectory), attr.Nlink, path, "nlink"); }
        else if (!model.IsDirectory)
        {
            if (model.Nlink == 0 && model.LowerNlink > 0 && NamesOf(model).Any())
            {
                bool isPossible = attr.Nlink == model.LowerNlink || attr.Nlink == NamesOf(model).Count();
                Assert.True(isPossible, $"/{path} : nlink {attr.Nlink} after a mount");
                model.Nlink = attr.Nlink;
            }
            Check(model.Nlink, attr.Nlink, path, "nlink");
        }
        if (model.Ino == 0) { model.Ino = attr.Ino; }
        Check(model.Ino, attr.Ino, path, "ino");
    }

    public static void Check<T>(T expected, T actual, string path, string what) =>
        Assert.True(
            EqualityComparer<T>.Default.Equals(expected, actual),
            string.Create(CultureInfo.InvariantCulture, $"/{path} : {what} is {actual}, should be {expected}"));

    public static void CheckError(Errno expected, Errno actual, string path, string what) => Check(expected, actual, path, what);

    public IEnumerable<Named> NamesOf(ModelNode node) =>
        root.Walk().Where(entry => ReferenceEquals(entry.Node, node));

    /// <summary>Reads everything through the overlay.</summary>
    private void Compare(ModelNode model, ulong node, string path)
    {
        bool isPlus = random.Next(2) == 0;
        uint room = random.Next(3) == 0 ? 400u : 16384u;
        CheckError(Errno.None, client.ReadDir(node, isPlus, room, out Dictionary<string, Listed> listed), path, "READDIR");
        Check(string.Join(' ', model.Children.Keys), string.Join(' ', listed.Keys.Order(StringComparer.Ordinal)), path, "listing");
        CompareXattrs(model, node, path);
        foreach ((string name, ModelNode child) in model.Children)
        {
            string childPath = path.Length == 0 ? name : $"{path}/{name}";
            CheckError(Errno.None, client.Lookup(node, name, out ulong childNode, out Attr attr), childPath, "LOOKUP");
            CheckAttributes(child, attr, childPath);
            Check(child.Type, listed[name].Type, childPath, "d_type");
            Check(attr.Ino, listed[name].Ino, childPath, "d_ino");
            if (listed[name].Attr is { } plus) { CheckAttributes(child, plus, childPath); }
            else { Check(false, isPlus, childPath, "READDIRPLUS without attributes"); }
            if (random.Next(4) == 0)
            {
                CheckError(Errno.None, client.GetAttr(childNode, out Attr again), childPath, "GETATTR");
                CheckAttributes(child, again, childPath);
            }
            if (child.IsDirectory)
            {
                Compare(child, childNode, childPath);
                continue;
            }
            CompareXattrs(child, childNode, childPath);
            if (child.IsRegular)
            {
                CheckError(Errno.None, client.Open(childNode, OpenFlags.ReadOnly, out ulong fh), childPath, "OPEN");
                CheckContent(child, childNode, fh, childPath);
                client.Release(childNode, fh);
            }
            if (child.IsSymbolicLink)
            {
                CheckError(Errno.None, client.ReadLink(childNode, out string target), childPath, "READLINK");
                Check(child.Target, target, childPath, "target");
            }
        }
        foreach (string name in model.Former.TakeLast(3).Append(Names[random.Next(Names.Count)]).Append("hidden"))
        {
            if (model.Children.ContainsKey(name)) { continue; }
            CheckError(Errno.ENOENT, client.Lookup(node, name, out _, out _), $"{path}/{name}", "LOOKUP");
        }
        if (path.Length == 0)
        {
            var inos = new Dictionary<ulong, ModelNode>();
            foreach (Named entry in root.Walk())
            {
                if (inos.TryAdd(entry.Node.Ino, entry.Node)) { continue; }
                Assert.True(ReferenceEquals(inos[entry.Node.Ino], entry.Node), $"/{entry.Path} : ino of another object");
            }
        }
    }

    private void CheckContent(ModelNode model, ulong node, ulong fh, string path)
    {
        CheckError(Errno.None, client.Read(node, fh, out byte[] content), path, "READ");
        Check(model.Content.Length, content.Length, path, "length of content");
        Check(content.Length, content.AsSpan().CommonPrefixLength(model.Content), path, "first other byte");
    }

    private void CompareXattrs(ModelNode model, ulong node, string path)
    {
        CheckError(Errno.None, client.ListXattr(node, out string[] listed), path, "LISTXATTR");
        Check(string.Join(' ', model.Xattrs.Keys), string.Join(' ', listed.Order(StringComparer.Ordinal)), path, "attributes");
        foreach ((string name, byte[] value) in model.Xattrs)
        {
            CheckError(Errno.None, client.GetXattr(node, name, out byte[] actual), path, "GETXATTR");
            Check(Convert.ToHexString(value), Convert.ToHexString(actual), path, name);
        }
    }

    /// <summary>Compares what was opened and may have no name.</summary>
    public void CheckHandles(IEnumerable<OpenedFile> handles)
    {
        foreach (OpenedFile handle in handles)
        {
            CheckError(Errno.None, client.GetAttr(handle.Node, out Attr attr), "open", "GETATTR");
            CheckAttributes(handle.Model, attr, "open");
            CheckContent(handle.Model, handle.Node, handle.Fh, "open");
            CompareXattrs(handle.Model, handle.Node, "open");
        }
    }


    public static void CompareModels(ModelNode model, ModelNode disk, string path)
    {
        Check(model.Type | model.Mode, disk.Type | disk.Mode, path, "mode on disk");
        Check((model.Uid, model.Gid), (disk.Uid, disk.Gid), path, "owner on disk");
        Check(model.Target, disk.Target, path, "target on disk");
        Check(true, model.Content.AsSpan().SequenceEqual(disk.Content), path, "content on disk");
        Check(TextOf(model.Xattrs), TextOf(disk.Xattrs), path, "attributes on disk");
        if (model.ModifyTime is { } time) { Check(time, disk.ModifyTime, path, "mtime on disk"); }
        Check(string.Join(' ', model.Children.Keys), string.Join(' ', disk.Children.Keys), path, "entries on disk");
        foreach ((string name, ModelNode child) in model.Children)
        {
            CompareModels(child, disk.Children[name], path.Length == 0 ? name : $"{path}/{name}");
        }
    }

    private static string TextOf(IDictionary<string, byte[]> attributes) =>
        string.Join(' ', attributes.Select(pair => $"{pair.Key}={Convert.ToHexString(pair.Value)}"));
}
