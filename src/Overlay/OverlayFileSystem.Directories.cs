using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay;

internal sealed partial class OverlayFileSystem
{
    /// <summary>"." and "..".</summary>
    private const int DotEntries = 2;

    public Errno OpenDir(in Request request, in OpenIn input, out OpenOut result)
    {
        result = default;
        Errno error = volume.Inodes.FindDirectory(request.NodeId, out DirectoryInode directory);
        if (error.IsError) { return error; }
        result.Fh = openDirectories.Add(new OpenDirectory(directory));
        return Errno.None;
    }

    public void ReleaseDir(ulong nodeId, ulong fh) => openDirectories.Remove(fh);

    public Errno ReadDir(in Request request, in ReadIn input, ref DirectoryWriter writer)
    {
        Errno error = openDirectories.Find(input.Fh, out OpenDirectory open);
        if (error.IsError) { return error; }
        DirectoryInode directory = open.Inode;
        volume.RenameLock.EnterReadLock();
        try
        {
            MergedDirectory content;
            lock (open)
            {
                // From the start: look again, as rewinddir(3) promises.
                if (open.Content is null || input.Offset == 0)
                {
                    error = MergedDirectory.Read(volume, directory, out content);
                    if (error.IsError) { return error; }
                    open.Content = content;
                }
                content = open.Content;
            }
            for (ulong position = input.Offset; position < (ulong)(content.Count + DotEntries); position++)
            {
                if (position < DotEntries)
                {
                    DirectoryInode shown = position == 0 ? directory : directory.Parent ?? directory;
                    var none = new EntryOut { Attr = new Attr { Ino = shown.Ino, Mode = FileType.Directory } };
                    if (!writer.TryAdd(position == 0 ? "."u8 : ".."u8, shown.Ino, FileType.Directory >> 12, position + 1, none)) { break; }
                    continue;
                }
                if (!AddEntry(directory, content, (int)position - DotEntries, ref writer)) { break; }
            }
            return Errno.None;
        }
        finally
        {
            volume.RenameLock.ExitReadLock();
        }
    }

    /// <summary>Adds an entry of the snapshot; false when the reply is full.</summary>
    private bool AddEntry(DirectoryInode directory, MergedDirectory content, int index, ref DirectoryWriter writer)
    {
        ReadOnlySpan<byte> name = content.NameOf(index);
        ulong next = (ulong)(index + DotEntries + 1);
        if (!writer.Fits(name.Length - 1)) { return false; }
        if (!writer.IsPlus)
        {
            return writer.TryAdd(name[..^1], InoOfEntry(directory, content, index), content.TypeOf(index), next, default);
        }
        Errno error = LendLocked(directory, name, out EntryOut entry);
        if (error.IsError || entry.NodeId == 0)
        {
            // Gone since the snapshot was taken, or not to be reached: the name is listed, and a lookup says what is the matter.
            entry = default;
            return writer.TryAdd(name[..^1], InoOfEntry(directory, content, index), content.TypeOf(index), next, entry);
        }
        return writer.TryAdd(name[..^1], entry.Attr.Ino, entry.Attr.Mode >> 12, next, entry);
    }

    /// <summary>The number that stat would show. Kernel: ovl_calc_d_ino().</summary>
    private ulong InoOfEntry(DirectoryInode directory, MergedDirectory content, int index)
    {
        (ulong device, ulong ino) = content.RealNumber(index);
        RealKey key = volume.Numbers.Key(device, ino);
        // Only what came from a lower layer has another number than its own, and only such directories hold it.
        if (!content.IsUpper(index) || (!directory.IsMerged && !directory.IsImpure)) { return volume.Numbers.Number(key); }
        if (volume.Inodes.FindByKey(key) is { } known) { return known.Ino; }
        ReadOnlySpan<byte> name = content.NameOf(index);
        if (volume.Lookup.Find(directory, name, out Found found).IsError || !found.Exists) { return volume.Numbers.Number(key); }
        if (volume.Lookup.Complete(directory, name, ref found).IsError) { return volume.Numbers.Number(key); }
        return InoOf(found, key);
    }

    public Errno FSyncDir(in Request request, in FSyncIn input)
    {
        if (!volume.IsDurable) { return Errno.None; }
        Errno error = volume.Inodes.FindDirectory(request.NodeId, out DirectoryInode directory);
        if (error.IsError) { return error; }
        int descriptor;
        volume.RenameLock.EnterReadLock();
        try
        {
            if (directory.Upper is not { } upper) { return Errno.None; } // nothing of it is ours to write
            error = volume.Objects.Of(upper, Libc.Self, out RealReference real);
            if (error.IsError) { return error; }
            using (real) { error = real.Open(OpenFlags.ReadOnly | OpenFlags.Directory, out descriptor); }
            if (error.IsError) { return error; }
        }
        finally
        {
            volume.RenameLock.ExitReadLock();
        }
        error = SyncDescriptor(descriptor, input.DataOnly);
        Libc.Close(descriptor);
        return error;
    }
}
