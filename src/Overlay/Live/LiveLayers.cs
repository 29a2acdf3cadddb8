using System.Globalization;
using System.Text.Json;
using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay.Changes;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Topology;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Live;

/// <summary>What the layers of a live mount contribute: the question layers, and the attributes that tell of one object.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="options">As the user asked.</param>
/// <param name="namedWork">A descriptor, O_PATH, of work through the mount that it was named in; -1 when read-only.</param>
internal sealed class LiveLayers(ObjectTree tree, OverlayOptions options, int namedWork)
{
    /// <summary>The argument is the object's path from the root; empty for none, "/" for the root.</summary>
    public Errno Answer(in Request request, ReadOnlySpan<byte> argument, Utf8JsonWriter document)
    {
        string? path = argument.IsEmpty ? null : PathText.Decode(argument.Trim((byte)'/'));
        bool mayKnow = IsInOurMountNamespace(request);
        var described = new List<LayerDescription>();
        foreach (Layer layer in tree.Layers.All) { described.Add(Describe(layer.Index, layer.Path, layer.Named, mayKnow)); }
        if (namedWork >= 0) { described.Add(Describe(-1, options.WorkDirectory!, namedWork, mayKnow)); }
        var topology = new OverlayTopology { Layers = described, UserXattr = tree.LowerXattr.IsUser, UpperUserXattr = tree.Xattr.IsUser, Options = options.Spelled };
        if (path is not null)
        {
            Errno error = PartsOf(PathText.Encode(path).AsSpan()[..^1], out IReadOnlyList<ObjectPart> parts);
            if (error is not (Errno.None or Errno.ENOENT or Errno.ENOTDIR)) { return error; }
            topology = topology with { Path = path, Parts = error.IsError ? [] : parts };
        }
        topology.Write(document);
        return Errno.None;
    }

    private static LayerDescription Describe(int index, string given, int named, bool mayKnow)
    {
        LayerDescription layer = LayerDescription.Of(index, given, named);
        if (!mayKnow) { return layer with { Given = null, Path = null }; }
        // What was unmounted everywhere lives on in this process, and can be reached through it.
        return layer.Path is null ? layer with { Path = string.Create(CultureInfo.InvariantCulture, $"/proc/{Libc.ProcessId}/fd/{named}") } : layer;
    }

    private Errno PartsOf(ReadOnlySpan<byte> path, out IReadOnlyList<ObjectPart> parts)
    {
        using LayerSet layers = LayerSet.Borrow(tree.Layers, tree.Directories, options);
        return new ObjectParts(layers).Find(path, out parts);
    }

    /// <summary>Paths of the layers are for those who see the same tree as the server; to a container they say what the host looks like.</summary>
    private static bool IsInOurMountNamespace(in Request request)
    {
        Span<byte> ours = stackalloc byte[64], theirs = stackalloc byte[64];
        return request.Header.Pid != 0 // in a pid namespace that we do not see into
            && !Libc.ReadLinkAt(Libc.AtCwd, "/proc/self/ns/mnt\0"u8, ours, out int length).IsError
            && !Libc.ReadLinkAt(Libc.AtCwd, PathText.Encode(string.Create(CultureInfo.InvariantCulture, $"/proc/{request.Header.Pid}/ns/mnt")), theirs, out int other).IsError
            && ours[..length].SequenceEqual(theirs[..other]);
    }

    /// <summary>Answers who asks an object for an attribute of <see cref="LayerAttributes"/>.</summary>
    public Errno GetAttribute(ulong nodeId, ReadOnlySpan<byte> attribute, Span<byte> value, out int size)
    {
        size = 0;
        Errno error = tree.Inodes.Find(nodeId, out Inode inode);
        if (error.IsError) { return error; }
        if (PathOf(inode) is not { } path || PartsOf(path, out IReadOnlyList<ObjectPart> parts).IsError) { return Errno.ENODATA; }
        byte[] content = LayerAttributes.Value(attribute, parts, index => tree.Layers[index].Uuid);
        if (content.Length == 0) { return Errno.ENODATA; }
        size = content.Length;
        if (value.IsEmpty) { return Errno.None; }
        return content.AsSpan().TryCopyTo(value) ? Errno.None : Errno.ERANGE;
    }

    /// <summary>From the root, without NUL; null when there is none.</summary>
    private byte[]? PathOf(Inode inode)
    {
        var names = new List<byte[]>();
        using (tree.RenameLock.Share())
        {
            if (inode.IsUnlinked || inode.IsNameless) { return null; }
            for (Inode? at = inode; at is { Parent: not null }; at = at.Parent) { names.Add(at.Name.ToArray()); }
        }
        var path = new MemoryStream();
        for (int i = names.Count - 1; i >= 0; i--)
        {
            path.Write(names[i].AsSpan(0, names[i].Length - 1));
            if (i > 0) { path.WriteByte((byte)'/'); }
        }
        return path.ToArray();
    }
}
