using System.Text;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using static Veneer.Overlay.Tests.Posix.PosixComparison;

namespace Veneer.Overlay.Tests.Posix;

/// <summary>A file that is open in the overlay.</summary>
internal sealed record OpenedFile(ulong Node, ulong Fh, ModelNode Model, bool Writes);

/// <summary>Does random operations in an overlay, and in the tree in memory what they should do there.</summary>
internal sealed class PosixOperations(ModelNode root, FuseClient client, PosixComparison comparison, Random random, List<string> trace)
{
    private const int MostObjects = 70, MostHandles = 4;

    private readonly List<OpenedFile> handles = [];

    public required bool IsWritable { get; init; }

    /// <summary>Whether directories of lowers can be renamed.</summary>
    public required bool MovesDirectories { get; init; }

    /// <summary>The extended attributes that are set and removed.</summary>
    public required IReadOnlyList<string> Attributes { get; init; }

    public IReadOnlyList<OpenedFile> Handles => handles;

    public void CloseAll()
    {
        while (handles.Count > 0) { Close(handles[0]); }
    }

    private ulong Find(string path)
    {
        ulong node = RootId;
        foreach (string name in path.Split('/', StringSplitOptions.RemoveEmptyEntries))
        {
            CheckError(Errno.None, client.Lookup(node, name, out node, out _), path, "LOOKUP on the way");
        }
        return node;
    }

    /// <summary>Looks a file up by all its names, which are then linked to its copy.</summary>
    private void FindAllNames(ModelNode? model)
    {
        if (model is not { LowerNlink: > 0 }) { return; }
        foreach (var entry in comparison.NamesOf(model).ToArray()) { Find(entry.Path); }
    }

    private T Pick<T>(IReadOnlyList<T> list) => list[random.Next(list.Count)];

    private (string Path, ModelNode Node) PickDirectory()
    {
        Named picked = Pick([new Named("", root, "", root), .. root.Walk().Where(entry => entry.Node.IsDirectory)]);
        return (picked.Path, picked.Node);
    }

    /// <summary>A name in a directory: one that it has, or had and which may be a whiteout now, or any other.</summary>
    private string PickName(ModelNode directory, int existing = 70) =>
        directory.Children.Count > 0 && random.Next(100) < existing ? Pick(directory.Children.Keys.ToArray())
            : directory.Former.Count > 0 && random.Next(2) == 0 ? Pick(directory.Former.ToArray())
            : Pick(Names);

    /// <summary>Does something in the overlay that the model says would give <paramref name="expected"/>.</summary>
    /// <returns>Whether it was done, so that the model must follow.</returns>
    private bool Do(string what, string path, Errno expected, Func<Errno> action)
    {
        trace.Add($"{what} /{path} -> {expected}");
        Errno error = action();
        if (!IsWritable && error == Errno.EROFS) { return false; }
        CheckError(IsWritable || expected.IsError ? expected : Errno.EROFS, error, path, what);
        return !error.IsError;
    }

    private static string Join(string directory, string name) => directory.Length == 0 ? name : $"{directory}/{name}";

    /// <summary>Does one operation.</summary>
    public void Step()
    {
        switch (random.Next(20))
        {
            case 0: Make(FileType.Regular); break;
            case 1: Make(FileType.Directory); break;
            case 2: Make(random.Next(2) == 0 ? FileType.Fifo : FileType.CharacterDevice); break;
            case 3: Make(FileType.SymbolicLink); break;
            case 4: Link(); break;
            case 5 or 6: Unlink(); break;
            case 7 or 8: RmDir(); break;
            case 9 or 10 or 11 or 12: Rename(); break;
            case 13: SetAttr(); break;
            case 14: SetXattr(); break;
            case 15: RemoveXattr(); break;
            case 16 or 17: Open(); break;
            case 18: Write(); break;
            default:
                if (handles.Count > 0 && random.Next(2) == 0) { Close(Pick(handles)); }
                else { RemoveTree(); }
                break;
        }
        if (random.Next(4) == 0) { client.ForgetAll(); }
    }

    private void Make(uint type)
    {
        (string directory, ModelNode parent) = PickDirectory();
        if (root.Walk().Count() > MostObjects || directory.Count(c => c == '/') > 4) { return; }
        string name = type == FileType.Directory && parent.Buried.Count > 0 ? Pick(parent.Buried.ToArray()) : PickName(parent, 20);
        (uint Uid, uint Gid) caller = random.Next(3) == 0 ? (1000u, 100u) : (0, 0);
        uint mode = Pick<uint>([0x1B6, 0x1FF, 0x1C0]), umask = Pick<uint>([0, 0x12]);
        uint device = type == FileType.CharacterDevice ? Pick<uint>([0, DeviceNumber.Encode(1, 5)]) : 0;
        bool isWhiteout = type == FileType.CharacterDevice && device == 0;
        Errno expected = parent.Children.ContainsKey(name) ? Errno.EEXIST : isWhiteout ? Errno.EPERM : Errno.None;
        ulong node = Find(directory), made = 0, fh = 0;
        var model = new ModelNode(type) { Mode = mode & ~umask, Uid = caller.Uid, Gid = caller.Gid, Rdev = device };
        model.IsMade = model.IsDirectory;
        var create = new CreateIn { Flags = OpenFlags.ReadWrite, Mode = type | mode, Umask = umask };
        bool opens = type == FileType.Regular && random.Next(3) > 0;
        string target = "to/" + name;
        bool isDone = Do($"make {type:x} {mode:x} umask {umask:x} by {caller.Uid}", Join(directory, name), expected, () => type switch
        {
            FileType.Directory => client.MkDir(node, name, new MkDirIn { Mode = mode, Umask = umask }, caller),
            FileType.SymbolicLink => client.SymLink(node, name, target, caller),
            FileType.Regular when opens => client.Create(node, name, create, caller, out made, out fh),
            _ => client.MkNod(node, name, new MkNodIn { Mode = type | mode, Rdev = device, Umask = umask }, caller),
        });
        if (!isDone) { return; }
        if (type == FileType.SymbolicLink)
        {
            model.Mode = 0x1FF;
            model.Target = target;
        }
        if ((parent.Mode & ModeBits.SetGid) != 0)
        {
            model.Gid = parent.Gid;
            if (type == FileType.Directory) { model.Mode |= ModeBits.SetGid; }
        }
        parent.Children.Add(name, model);
        parent.ModifyTime = null;
        if (!opens) { return; }
        client.Pin(made);
        handles.Add(new OpenedFile(made, fh, model, true));
        if (handles.Count > MostHandles) { Close(handles[0]); }
    }

    private void Link()
    {
        Named[] files = [.. root.Walk().Where(entry => !entry.Node.IsDirectory)];
        if (files.Length == 0 || files.Length > MostObjects) { return; }
        var source = Pick(files);
        (string directory, ModelNode parent) = PickDirectory();
        string name = PickName(parent, 20);
        FindAllNames(source.Node);
        ulong file = Find(source.Path), node = Find(directory);
        Errno expected = parent.Children.ContainsKey(name) ? Errno.EEXIST : Errno.None;
        if (!Do($"link /{source.Path} to", Join(directory, name), expected, () => client.Link(file, node, name))) { return; }
        parent.Children.Add(name, source.Node);
        parent.ModifyTime = null;
        source.Node.Nlink++;
    }

    private void Unlink()
    {
        (string directory, ModelNode parent) = PickDirectory();
        string name = PickName(parent, 90);
        Errno expected = !parent.Children.TryGetValue(name, out ModelNode? model) ? Errno.ENOENT
            : model.IsDirectory ? Errno.EISDIR : Errno.None;
        FindAllNames(model);
        ulong node = Find(directory);
        if (Do("unlink", Join(directory, name), expected, () => client.Unlink(node, name))) { Remove(parent, name); }
    }

    private static void Remove(ModelNode parent, string name)
    {
        ModelNode gone = parent.Children[name];
        parent.Children.Remove(name);
        parent.Former.Add(name);
        parent.ModifyTime = null;
        if (!gone.IsDirectory) { gone.Nlink--; }
        else if (!gone.IsMade) { parent.Buried.Add(name); }
    }

    private void RmDir()
    {
        (string directory, ModelNode parent) = PickDirectory();
        string? empty = parent.Children.FirstOrDefault(pair => pair.Value.IsDirectory && pair.Value.Children.Count == 0).Key;
        string name = empty ?? PickName(parent, 90);
        Errno expected = !parent.Children.TryGetValue(name, out ModelNode? model) ? Errno.ENOENT
            : !model.IsDirectory ? Errno.ENOTDIR
            : model.Children.Count > 0 ? Errno.ENOTEMPTY : Errno.None;
        ulong node = Find(directory);
        if (Do("rmdir", Join(directory, name), expected, () => client.RmDir(node, name))) { Remove(parent, name); }
    }

    /// <summary>
    /// Removes a tree with its directory, or without: what is left of it in upper are whiteouts, and whatever is made there must
    /// hide the lowers.
    /// </summary>
    private void RemoveTree()
    {
        Named[] directories = [.. root.Walk().Where(entry => entry.Node.IsDirectory && entry.Node.Walk().Count() <= 8)];
        if (directories.Length == 0) { return; }
        var (path, parent, name, directory) = Pick(directories);
        RemoveBelow(path, directory);
        if (IsWritable && random.Next(3) > 0)
        {
            ulong node = Find(DirectoryOf(path));
            if (Do("remove tree", path, Errno.None, () => client.RmDir(node, name))) { Remove(parent, name); }
        }
    }

    private void RemoveBelow(string path, ModelNode directory)
    {
        foreach ((string name, ModelNode child) in directory.Children.ToArray())
        {
            string childPath = Join(path, name);
            if (child.IsDirectory) { RemoveBelow(childPath, child); }
            if (child.Children.Count > 0) { continue; } // read-only
            FindAllNames(child);
            ulong node = Find(path);
            bool isDone = Do("remove tree", childPath, Errno.None,
                () => child.IsDirectory ? client.RmDir(node, name) : client.Unlink(node, name));
            if (isDone) { Remove(directory, name); }
        }
    }

    private void Rename()
    {
        (string directory, ModelNode parent) = PickDirectory();
        (string newDirectory, ModelNode newParent) = random.Next(3) == 0 ? (directory, parent) : PickDirectory();
        string name = PickName(parent, 95), newName = PickName(newParent, 50);
        if (random.Next(4) == 0 && AimAtCovered(out Named source, out Named target))
        {
            (directory, parent, name) = (DirectoryOf(source.Path), source.Parent, source.Name);
            (newDirectory, newParent, newName) = (DirectoryOf(target.Path), target.Parent, target.Name);
        }
        RenameFlags flags = random.Next(32) switch
        {
            < 4 => RenameFlags.NoReplace,
            < 12 => RenameFlags.Exchange,
            12 => RenameFlags.Whiteout,
            _ => RenameFlags.None,
        };
        parent.Children.TryGetValue(name, out ModelNode? model);
        newParent.Children.TryGetValue(newName, out ModelNode? replaced);
        bool exchange = flags == RenameFlags.Exchange;
        // What the kernel refuses by itself, or has nothing to ask about.
        if (ReferenceEquals(parent, newParent) && name == newName) { return; }
        if (model is { IsDirectory: true } && model.Contains(newParent)) { return; }
        if (replaced is { IsDirectory: true } && replaced.Contains(parent)) { return; }
        if (newDirectory.Count(c => c == '/') > 4) { return; }
        Errno expected = ExpectRename(model, replaced, flags);
        FindAllNames(model);
        FindAllNames(replaced);
        ulong node = Find(directory), newNode = Find(newDirectory);
        bool isDone = Do($"rename {flags} /{Join(directory, name)} to", Join(newDirectory, newName), expected,
            () => client.Rename(node, name, newNode, newName, flags));
        if (!isDone || ReferenceEquals(model, replaced)) { return; }
        parent.ModifyTime = newParent.ModifyTime = null;
        if (replaced is not null && !exchange) { Remove(newParent, newName); }
        parent.Children.Remove(name);
        parent.Former.Add(name);
        newParent.Children[newName] = model!;
        if (exchange) { parent.Children[name] = replaced!; }
    }

    /// <summary>
    /// Chooses a directory to be moved to where lowers have one that nobody must see: onto an empty one, or to the name of one that
    /// was removed.
    /// </summary>
    private bool AimAtCovered(out Named source, out Named target)
    {
        source = target = default;
        Named[] directories = [.. root.Walk().Where(entry => entry.Node.IsDirectory)];
        Named[] movable = [.. directories.Where(entry => CanMove(entry.Node))];
        IEnumerable<Named> buried = directories.Append(new Named("", root, "", root)).SelectMany(entry => entry.Node.Buried
            .Where(name => !entry.Node.Children.ContainsKey(name))
            .Select(name => new Named(Join(entry.Path, name), entry.Node, name, entry.Node)));
        Named[] targets = [.. directories.Where(entry => !entry.Node.IsMade && entry.Node.Children.Count == 0), .. buried];
        if (movable.Length == 0 || targets.Length == 0) { return false; }
        source = Pick(movable);
        target = Pick(targets);
        return true;
    }

    private static string DirectoryOf(string path) => path.LastIndexOf('/') is > 0 and int slash ? path[..slash] : "";

    private Errno ExpectRename(ModelNode? model, ModelNode? replaced, RenameFlags flags)
    {
        bool exchange = flags == RenameFlags.Exchange;
        if (flags == RenameFlags.Whiteout) { return Errno.EINVAL; }
        if (model is null || (exchange && replaced is null)) { return Errno.ENOENT; }
        if (flags == RenameFlags.NoReplace && replaced is not null) { return Errno.EEXIST; }
        if (!CanMove(model) || (exchange && !CanMove(replaced!))) { return Errno.EXDEV; }
        if (exchange || replaced is null) { return Errno.None; }
        if (model.IsDirectory != replaced.IsDirectory) { return model.IsDirectory ? Errno.ENOTDIR : Errno.EISDIR; }
        return replaced.Children.Count > 0 ? Errno.ENOTEMPTY : Errno.None;
    }

    private bool CanMove(ModelNode model) => MovesDirectories || !model.IsDirectory || model.IsMade;

    private Named PickObject() => Pick([.. root.Walk(), new Named("", root, "", root)]);

    private void SetAttr()
    {
        var (path, _, _, model) = PickObject();
        var input = new SetAttrIn();
        switch (random.Next(4))
        {
            case 0 when !model.IsSymbolicLink:
                input.Valid = SetAttrValid.Mode;
                input.Mode = Pick<uint>([0x1A4, 0x9ED, 0x5ED, 0x180]);
                break;
            case 1:
                input.Valid = SetAttrValid.Uid | SetAttrValid.Gid;
                (input.Uid, input.Gid) = ((uint)random.Next(3) * 500, (uint)random.Next(3) * 50);
                break;
            case 2 when model.IsRegular:
                input.Valid = SetAttrValid.Size;
                input.Size = (ulong)random.Next(6000);
                break;
            default:
                input.Valid = SetAttrValid.AccessTime | SetAttrValid.ModifyTime;
                (input.AccessTime, input.ModifyTime, input.ModifyTimeNanoseconds) = (5, (ulong)random.Next(1_000_000_000), 7000);
                break;
        }
        FindAllNames(model);
        ulong node = Find(path);
        string what = $"setattr {input.Valid} {input.Mode:x} {input.Size} {input.Uid}:{input.Gid}";
        if (!Do(what, path, Errno.None, () => client.SetAttr(node, input))) { return; }
        switch (input.Valid)
        {
            case SetAttrValid.Mode: model.Mode = input.Mode; break;
            case SetAttrValid.Size:
                Array.Resize(ref model.Content, (int)input.Size);
                model.ModifyTime = null;
                break;
            case SetAttrValid.AccessTime | SetAttrValid.ModifyTime: model.ModifyTime = (input.ModifyTime, 7000); break;
            default:
                (model.Uid, model.Gid) = (input.Uid, input.Gid);
                if (!model.IsDirectory) // chown(2) takes the set-id bits, from root as well
                {
                    if ((model.Mode & ModeBits.GroupExecute) != 0) { model.Mode &= ~ModeBits.SetGid; }
                    model.Mode &= ~ModeBits.SetUid;
                }
                break;
        }
    }

    private void SetXattr()
    {
        var (path, _, _, model) = PickObject();
        string name = Pick(Attributes);
        XattrFlags flags = Pick<XattrFlags>([XattrFlags.None, XattrFlags.None, XattrFlags.Create, XattrFlags.Replace]);
        if (name.StartsWith("user.", StringComparison.Ordinal) && !model.TakesUserAttributes) { return; } // the kernel refuses it
        bool exists = model.Xattrs.ContainsKey(name);
        Errno expected = flags == XattrFlags.Create && exists ? Errno.EEXIST
            : flags == XattrFlags.Replace && !exists ? Errno.ENODATA : Errno.None;
        byte[] value = Encoding.UTF8.GetBytes($"value {trace.Count}");
        FindAllNames(model);
        ulong node = Find(path);
        if (Do($"setxattr {name} {flags}", path, expected, () => client.SetXattr(node, name, value, flags))) { model.Xattrs[name] = value; }
    }

    private void RemoveXattr()
    {
        var (path, _, _, model) = PickObject();
        string name = model.Xattrs.Count > 0 ? Pick(model.Xattrs.Keys.ToArray()) : Pick(Attributes);
        if (name.StartsWith("user.", StringComparison.Ordinal) && !model.TakesUserAttributes) { return; }
        FindAllNames(model);
        ulong node = Find(path);
        Errno expected = model.Xattrs.ContainsKey(name) ? Errno.None : Errno.ENODATA;
        if (Do($"removexattr {name}", path, expected, () => client.RemoveXattr(node, name))) { model.Xattrs.Remove(name); }
    }

    private void Open()
    {
        Named[] files = [.. root.Walk().Where(entry => entry.Node.IsRegular)];
        if (files.Length == 0) { return; }
        var (path, _, _, model) = Pick(files);
        OpenFlags flags = Pick<OpenFlags>([OpenFlags.ReadOnly, OpenFlags.ReadWrite, OpenFlags.ReadWrite | OpenFlags.Truncate]);
        bool writes = flags != OpenFlags.ReadOnly;
        FindAllNames(model);
        ulong node = Find(path), fh = 0;
        bool isDone;
        if (writes) { isDone = Do($"open {flags}", path, Errno.None, () => client.Open(node, flags, out fh)); }
        else
        {
            trace.Add($"open {flags} /{path}");
            CheckError(Errno.None, client.Open(node, flags, out fh), path, "OPEN");
            isDone = true;
        }
        if (!isDone) { return; }
        if ((flags & OpenFlags.Truncate) != 0)
        {
            model.Content = [];
            model.ModifyTime = null;
        }
        client.Pin(node);
        handles.Add(new OpenedFile(node, fh, model, writes));
        if (handles.Count > MostHandles) { Close(handles[0]); }
    }

    private void Write()
    {
        OpenedFile[] writers = [.. handles.Where(handle => handle.Writes)];
        if (writers.Length == 0) { return; }
        OpenedFile handle = Pick(writers);
        byte[] data = new byte[random.Next(1, 5000)];
        random.NextBytes(data);
        int offset = random.Next(3000);
        string names = string.Join(' ', comparison.NamesOf(handle.Model).Select(entry => "/" + entry.Path));
        trace.Add($"write {data.Length} at {offset} {names}");
        CheckError(Errno.None, client.Write(handle.Node, handle.Fh, (ulong)offset, data), "open", "WRITE");
        if (handle.Model.Content.Length < offset + data.Length) { Array.Resize(ref handle.Model.Content, offset + data.Length); }
        data.CopyTo(handle.Model.Content, offset);
        handle.Model.ModifyTime = null;
    }

    private void Close(OpenedFile handle)
    {
        handles.Remove(handle);
        client.Release(handle.Node, handle.Fh);
        client.Unpin(handle.Node);
    }
}
