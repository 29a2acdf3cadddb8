using System.Globalization;
using System.Text.Json;
using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay.Changes;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Topology;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Live;

/// <summary>
/// Answers what the layers of a live mount contribute: the question layers, and the attributes that describe one object.
/// </summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="options">The options of the mount.</param>
/// <param name="namedWork">An O_PATH descriptor of work through the mount in which it was named; -1 when the overlay has no work.</param>
internal sealed class LiveLayers(ObjectTree tree, OverlayOptions options, int namedWork)
{
    /// <summary>Answers the question layers.</summary>
    /// <param name="request">The request.</param>
    /// <param name="argument">The object's path from the root; empty for no object, "/" for the root.</param>
    /// <param name="document">Takes the answer.</param>
    /// <returns><see cref="Errno.EINVAL"/> when the argument is no such path.</returns>
    public Errno Answer(in Request request, ReadOnlySpan<byte> argument, Utf8JsonWriter document)
    {
        if (!argument.IsEmpty && !IsPath(argument)) { return Errno.EINVAL; }
        string? path = argument.IsEmpty ? null : PathText.Decode(argument.Trim((byte)'/'));
        bool mayKnow = IsInOurMountNamespace(request);
        var described = new List<LayerDescription>();
        foreach (Layer layer in tree.Layers.All) { described.Add(Describe(layer.Index, layer.Path, layer.NamedRoot, mayKnow)); }
        if (namedWork >= 0) { described.Add(Describe(-1, options.WorkDirectory!, namedWork, mayKnow)); }
        var topology = new OverlayTopology
        {
            Layers = described, UserXattr = tree.LowerXattr.IsUser, UpperUserXattr = tree.Xattr.IsUser, Options = options.Spelled
        };
        if (path is not null)
        {
            Errno error = PartsOf(PathText.Encode(path).AsSpan()[..^1], out IReadOnlyList<ObjectPart> parts);
            if (error is not (Errno.None or Errno.ENOENT or Errno.ENOTDIR)) { return error; }
            topology = topology with { Path = path, Parts = error.IsError ? [] : parts };
        }
        topology.Write(document);
        return Errno.None;
    }

    /// <summary>Whether an argument is "/", or names after a slash each.</summary>
    private static bool IsPath(ReadOnlySpan<byte> argument)
    {
        if (argument[0] != '/' || argument.Contains((byte)0)) { return false; }
        if (argument.Length == 1) { return true; }
        ReadOnlySpan<byte> names = argument[1..];
        if (names[^1] == '/') { names = names[..^1]; } // as in the path of a directory
        foreach (Range range in names.Split((byte)'/'))
        {
            if (names[range] is [] or [(byte)'.'] or [(byte)'.', (byte)'.']) { return false; }
        }
        return true;
    }

    private static LayerDescription Describe(int index, string given, int named, bool mayKnow)
    {
        LayerDescription layer = LayerDescription.Of(index, given, named);
        if (!mayKnow) { return layer with { Given = null, Path = null }; }
        // A layer that was unmounted everywhere lives on in this process, and can be reached through it.
        return layer.Path is null
            ? layer with { Path = string.Create(CultureInfo.InvariantCulture, $"/proc/{Libc.ProcessId}/fd/{named}") }
            : layer;
    }

    private Errno PartsOf(ReadOnlySpan<byte> path, out IReadOnlyList<ObjectPart> parts)
    {
        using LayerSet layers = LayerSet.Borrow(tree.Layers, tree.Directories, options);
        return new ObjectParts(layers).Find(path, out parts);
    }

    /// <summary>
    /// Whether a caller sees the same mounts as the server. Only such callers are told the paths of the layers: to a container
    /// they would show what the host looks like.
    /// </summary>
    private static bool IsInOurMountNamespace(in Request request)
    {
        Span<byte> ours = stackalloc byte[64], theirs = stackalloc byte[64];
        return request.Header.Pid != 0 // 0: the caller is in a pid namespace that we cannot see into
            && !Libc.ReadLinkAt(Libc.AtCwd, "/proc/self/ns/mnt\0"u8, ours, out int length).IsError
            && !Libc.ReadLinkAt(
                Libc.AtCwd,
                PathText.Encode(string.Create(CultureInfo.InvariantCulture, $"/proc/{request.Header.Pid}/ns/mnt")),
                theirs,
                out int other).IsError
            && ours[..length].SequenceEqual(theirs[..other]);
    }

    /// <summary>Gets an attribute of <see cref="LayerAttributes"/> for an object.</summary>
    /// <param name="nodeId">The object.</param>
    /// <param name="attribute">The attribute's name, with its NUL.</param>
    /// <param name="value">Room for the value; empty to ask only for the size.</param>
    /// <param name="size">The value's size in bytes.</param>
    /// <returns><see cref="Errno.ENODATA"/> when the object has no such attribute.</returns>
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

    /// <summary>An object's path from the root, without a NUL; null when it has no name.</summary>
    private byte[]? PathOf(Inode inode)
    {
        var names = new List<byte[]>();
        using (tree.RenameLock.Share())
        {
            if (inode.IsUnlinked || inode.IsNameless) { return null; }
            for (Inode? at = inode; at is { Parent: not null }; at = at.Parent) { names.Add(at.Name.ToArray()); }
        }
        return NamePath.FromLowest(names);
    }
}
