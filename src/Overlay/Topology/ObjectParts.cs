using Veneer.Linux;
using Veneer.Overlay.Changes;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Topology;

/// <summary>Finds what the layers contribute to one object, topmost first, with the lookup that also serves mounts.</summary>
internal sealed class ObjectParts(LayerSet layers)
{
    private readonly List<ObjectPart> parts = [];

    /// <summary>Finds the parts of the object at a path.</summary>
    /// <param name="path">
    /// Names separated by slashes, from the root; empty for the root. "." and ".." are ordinary names, and never exist.
    /// </param>
    /// <param name="found">The parts, topmost layer first; a whiteout when the object is gone.</param>
    /// <returns>
    /// <see cref="Errno.ENOENT"/> when no layer has anything under the path; <see cref="Errno.ENOTDIR"/> when a name on the way
    /// is no directory.
    /// </returns>
    public Errno Find(ReadOnlySpan<byte> path, out IReadOnlyList<ObjectPart> found)
    {
        parts.Clear();
        found = parts;
        DirectoryStack directory = layers.Root;
        if (path.IsEmpty)
        {
            AddDirectory(directory, "", isOpaque: false);
            return Errno.None;
        }
        string natural = PathText.Decode(path);
        while (true)
        {
            int slash = path.IndexOf((byte)'/');
            bool isLast = slash < 0;
            byte[] name = [.. isLast ? path : path[..slash], 0];
            if (name is [0] or [(byte)'.', 0] or [(byte)'.', (byte)'.', 0]) { return Errno.ENOENT; }
            Errno error = layers.Lookup.Find(directory, name, out Found here);
            Whole whole = default;
            if (!error.IsError && here.Exists) { error = layers.Lookup.Complete(directory, name, here, out whole); }
            if (error.IsError) { return error; }
            if (isLast) { return Describe(directory, name, natural, here, whole); }
            if (!here.Exists) { return Errno.ENOENT; }
            if (!here.Stat.IsDirectory) { return Errno.ENOTDIR; }
            directory = directory.Child(name, here.HasUpper, whole);
            path = path[(slash + 1)..];
        }
    }

    private Errno Describe(DirectoryStack parent, byte[] name, string natural, in Found here, in Whole whole)
    {
        if (!here.Exists) { return AddWhiteout(parent, name, natural); }
        if (here.Stat.IsDirectory)
        {
            AddDirectory(parent.Child(name, here.HasUpper, whole), natural, whole.IsOpaque);
            return Errno.None;
        }
        PartRoles metacopy = whole.Metacopy is null ? PartRoles.None : PartRoles.Metacopy;
        if (here.HasUpper) { Add(new RealName(parent.Upper!, name), PartRoles.Upper | metacopy, natural); }
        else { Add(new RealName(whole.LowerDirectory!, whole.LowerName ?? name), PartRoles.Lower | metacopy, natural); }
        if (whole.Metacopy is { } data) { Add(data, PartRoles.Data, natural); }
        if (here.HasUpper) { AddOrigin(parent, name, natural, here.Stat, whole); }
        return Errno.None;
    }

    private void AddDirectory(DirectoryStack directory, string natural, bool isOpaque)
    {
        if (directory.Upper is { } upper) { Add(NameOf(upper), PartRoles.Upper | (isOpaque ? PartRoles.Opaque : PartRoles.None), natural); }
        foreach (RealDirectory lower in directory.Lowers)
        {
            PartRoles roles = directory.Upper is null && ReferenceEquals(lower, directory.Lowers[0]) ? PartRoles.Lower : PartRoles.Merged;
            if (layers.ReadXattr(NameOf(lower), layers.Layers.LowerXattr.Opaque) is [(byte)'y']) { roles |= PartRoles.Opaque; }
            Add(NameOf(lower), roles, natural);
        }
    }

    private static RealName NameOf(RealDirectory directory) =>
        directory.Parent is { } parent ? new RealName(parent, directory.Name) : new RealName(directory, [0]);

    /// <summary>Adds the topmost whiteout under a name.</summary>
    private Errno AddWhiteout(DirectoryStack parent, byte[] name, string natural)
    {
        foreach (RealDirectory directory in (IEnumerable<RealDirectory>)
            [.. parent.Upper is { } upper ? [upper] : Array.Empty<RealDirectory>(), .. parent.Lowers])
        {
            var real = new RealName(directory, name);
            if (layers.Stat(real, out Statx stat).IsError || !layers.Reader.IsWhiteout(directory, name, stat)) { continue; }
            Add(real, PartRoles.Whiteout, natural);
            return Errno.None;
        }
        return Errno.ENOENT;
    }

    /// <summary>
    /// Adds the object that upper's object was copied from. Most have the same name; others are known only by their handle.
    /// </summary>
    private void AddOrigin(DirectoryStack parent, byte[] name, string natural, in Statx stat, in Whole whole)
    {
        if (!whole.HasOrigin) { return; }
        ulong number = whole.OriginIno;
        int data = parts.FindIndex(part => part.Roles.HasFlag(PartRoles.Data) && part.Ino == number);
        if (data >= 0)
        {
            parts[data] = parts[data] with { Roles = parts[data].Roles | PartRoles.Origin };
            return;
        }
        Found below = default;
        if (parent.Lowers.Length > 0 && layers.Lookup.Find(parent.Below, name, out below).IsError) { return; }
        if (below.Exists && below.Stat.Ino == whole.OriginIno && below.Stat.Dev == whole.OriginDevice)
        {
            Add(new RealName(below.LowerDirectory!, name), PartRoles.Origin, natural);
            return;
        }
        byte[]? value = layers.ReadXattr(new RealName(parent.Upper!, name), layers.Layers.UpperXattr.Origin);
        if (value is null || !OriginHandle.TryDecode(value, out FileHandle handle, out _)) { return; }
        foreach (Layer layer in layers.Layers.Lowers)
        {
            if (Libc.OpenByHandle(layer.MountDescriptor, ref handle, OpenFlags.Path, out int descriptor).IsError) { continue; }
            Libc.Close(descriptor);
            parts.Add(new ObjectPart
            {
                Layer = layer.Index,
                Roles = PartRoles.Origin,
                Type = OverlayDiff.TypeOf(stat),
                Ino = whole.OriginIno,
                HandleType = handle.Type,
                Handle = Convert.ToHexString(handle.Content),
            });
            return;
        }
    }

    private void Add(RealName real, PartRoles roles, string natural)
    {
        if (layers.Stat(real, out Statx stat).IsError) { return; } // it was removed meanwhile
        string path = PathText.Decode(PathOf(real));
        bool hasHandle = !layers.ReadHandle(real, out FileHandle handle).IsError;
        parts.Add(new ObjectPart
        {
            Layer = real.Directory.Layer.Index,
            Path = path,
            Roles = roles | (path == natural ? PartRoles.None : PartRoles.Redirected),
            Type = OverlayDiff.TypeOf(stat),
            Ino = stat.Ino,
            HandleType = hasHandle ? handle.Type : 0,
            Handle = hasHandle ? Convert.ToHexString(handle.Content) : "",
        });
    }

    /// <summary>The path of a real object from the root of its layer.</summary>
    private static byte[] PathOf(RealName real)
    {
        var names = new List<byte[]>();
        if (real.Name.Length > 1) { names.Add(real.Name); }
        for (RealDirectory? directory = real.Directory; directory is { Parent: not null }; directory = directory.Parent)
        {
            names.Add(directory.Name);
        }
        return NamePath.FromLowest(names);
    }
}
