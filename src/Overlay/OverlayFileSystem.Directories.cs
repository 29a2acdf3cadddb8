using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay;

internal sealed partial class OverlayFileSystem
{
    /// <remarks>
    /// ENOSYS: the kernel opens and closes directories by itself from now on, and keeps what it has read of them until a
    /// name in them changes. Nothing is lost, since offsets mean the same to every reader, open or not.
    /// </remarks>
    public Errno OpenDir(in Request request, in OpenIn input, out OpenOut result)
    {
        result = new OpenOut { Flags = OpenReply.CacheDir | OpenReply.KeepCache };
        return opensDirectoriesItself ? Errno.ENOSYS : Errno.None;
    }

    public void ReleaseDir(ulong nodeId, ulong fh) { }

    public Errno ReadDir(in Request request, in ReadIn input, ref DirectoryWriter writer)
    {
        Errno error = volume.Inodes.FindDirectory(request.NodeId, out DirectoryInode directory);
        if (error.IsError) { return error; }
        MergedDirectory? content = null;
        bool isOver = false;
        try
        {
            error = ListingOf(directory, input.Offset, out content);
            if (error.IsError) { return error; }
            if (input.Offset == 0) { directory.Stack.Readers.Began(content.Version, request.Header.Pid, Environment.TickCount); }
            ulong offset = input.Offset;
            for (; offset < MergedDirectory.FirstOffset; offset++)
            {
                DirectoryInode shown = offset == 0 ? directory : directory.Parent ?? directory;
                var none = new EntryOut { Attr = new Attr { Ino = shown.Ino, Mode = FileType.Directory } };
                if (!writer.TryAdd(offset == 0 ? "."u8 : ".."u8, shown.Ino, FileType.Directory >> 12, offset + 1, none)) { return Errno.None; }
            }
            int index = content.FirstBehind(offset);
            if (input.Offset == 0 && writer.IsPlus) { ahead.Began(directory, content); }
            while (index < content.Count && AddEntry(directory, content, index, ref writer)) { index++; }
            if (input.Offset != 0 && writer.IsPlus) { ahead.WentOn(directory, content, index); }
            // Read to the end: whoever comes next finds it in the kernel, or wants it fresh.
            isOver = index == content.Count && writer.Used == 0;
            if (isOver)
            {
                volume.Listings.Hide(directory.Stack, content);
                if (directory.IsImpure) { Purify(directory, content); }
            }
        }
        finally
        {
            volume.Listings.Return(content);
        }
        if (isOver && directory.Stack.Readers.HaveMixed(Environment.TickCount)) { DropListing(request.NodeId); }
        return Errno.None;
    }

    /// <summary>A directory of upper that was read, and in which nothing came from below any more, is not impure. Kernel: ovl_cache_get_impure().</summary>
    /// <remarks>A crash leaves the attribute there or not; it only makes listing slower where there is no need for it.</remarks>
    private void Purify(DirectoryInode directory, MergedDirectory content)
    {
        if (directory.IsMerged || !volume.IsWritable || volume.IsReadOnly || errors.Failure.IsError || HasOrigins(directory, content)) { return; }
        using (volume.RenameLock.Share())
        {
            using (directory.LockNames())
            {
                // What comes into it marks it first, and is in the directory when the lock is free.
                if (directory.IsUnlinked || !directory.IsImpure || content.Version != volume.Inodes.VersionOf(directory)) { return; }
                if (volume.Objects.Of(directory.Upper!, Libc.Self, out RealReference real).IsError) { return; }
                using (real)
                {
                    if (Libc.RemoveXattrAt(real.Directory, real.Name, volume.Xattr.Impure).IsError) { return; } // best effort, as in the kernel
                }
                directory.IsImpure = false;
            }
        }
        notifier?.InvalidateAttributes(directory.NodeId); // st_ctime is another now
    }

    /// <summary>Whether something in a directory of upper says where it came from, or cannot be asked.</summary>
    private bool HasOrigins(DirectoryInode directory, MergedDirectory content)
    {
        if (volume.Lookup.OpenDirectory(directory.Upper!, out int descriptor).IsError) { return true; }
        bool isFound = false;
        for (int i = 0; i < content.Count && !isFound; i++)
        {
            ReadOnlySpan<byte> name = content.NameOf(i);
            isFound = Has(name, volume.Xattr.Origin) || (content.TypeOf(i) == FileType.Directory >> 12 && Has(name, volume.Xattr.Redirect));
        }
        Libc.Close(descriptor);
        return isFound;

        bool Has(ReadOnlySpan<byte> name, byte[] attribute)
        {
            Errno error = Libc.GetXattrAt(descriptor, name, attribute, [], out _);
            return !error.IsNoXattr && error != Errno.ENOENT; // who is gone has made a new version
        }
    }

    /// <summary>The kernel is not to keep what it has read of a directory; whoever comes next reads it anew.</summary>
    private void DropListing(ulong nodeId)
    {
        workers?.BeginBlocking(); // a reader may have a page locked, and wait for us
        try { notifier?.DropInode(nodeId); }
        finally { workers?.EndBlocking(); }
    }

    /// <summary>
    /// The snapshot to read from: a fresh one for whoever starts; for whoever goes on the one that is there, so that
    /// removing while reading does not read the directory anew each time.
    /// </summary>
    private Errno ListingOf(DirectoryInode directory, ulong offset, out MergedDirectory content)
    {
        if (volume.Listings.Find(directory.Stack) is { } listing)
        {
            content = listing;
            if (offset != 0 || listing.Version == volume.Inodes.VersionOf(directory)) { return Errno.None; }
            volume.Listings.Return(listing);
        }
        Errno error = volume.Listings.Read(directory.Stack, volume.Inodes.VersionOf(directory), out content);
        if (!error.IsError) { volume.Listings.Show(directory.Stack, content); }
        return error;
    }

    /// <summary>Adds an entry of the snapshot; false when the reply is full.</summary>
    private bool AddEntry(DirectoryInode directory, MergedDirectory content, int index, ref DirectoryWriter writer)
    {
        ReadOnlySpan<byte> name = content.NameOf(index);
        if (!writer.Fits(name.Length - 1)) { return false; }
        if (writer.IsPlus)
        {
            Errno error = LendListed(directory, content, index, out EntryOut entry);
            if (!error.IsError && entry.NodeId != 0) { return writer.TryAdd(name[..^1], entry.Attr.Ino, entry.Attr.Mode >> 12, content.OffsetOf(index), entry); }
            if (!error.IsError && IsGone(directory, content, index)) { return true; }
            // Not to be reached: the name is listed, and a lookup says what is the matter.
        }
        ulong ino = InoOfEntry(directory, content, index);
        return ino == 0 || writer.TryAdd(name[..^1], ino, content.TypeOf(index), content.OffsetOf(index), default);
    }

    /// <summary>Whether an entry that is not found was removed since the snapshot was taken. A lower layer may list what it does not show.</summary>
    private bool IsGone(DirectoryInode directory, MergedDirectory content, int index) =>
        content.IsUpper(index) || content.Version != volume.Inodes.VersionOf(directory);

    private Errno LendListed(DirectoryInode directory, MergedDirectory content, int index, out EntryOut entry)
    {
        ReadOnlySpan<byte> name = content.NameOf(index);
        int version = volume.Inodes.VersionOf(directory);
        if (content.Ahead is { } ahead && ahead.TryGet(directory.Stack, index, out Found found, out Whole whole)
            && TryLend(directory, name, found, whole, version, out entry, out Errno error))
        {
            return error;
        }
        return Lend(directory, name, out entry, content.FirstLower(index));
    }

    /// <summary>The number that stat would show; 0 when the object is gone since the snapshot was taken. Kernel: ovl_calc_d_ino().</summary>
    private ulong InoOfEntry(DirectoryInode directory, MergedDirectory content, int index)
    {
        ReadOnlySpan<byte> name = content.NameOf(index);
        RealKey key = volume.Keys.Of(directory, content, index);
        if (!content.IsUpper(index))
        {
            RealDirectory lower = directory.Lowers[content.FirstLower(index)];
            if (key.IsByName) { return InodeNumbers.NumberOfName(lower, name); }
            if (lower.Layer.Identity == RealIdentity.Numbers) { return volume.Numbers.Number(key); }
        }
        // Only what came from a lower layer has another number than its own, and only such directories hold it.
        else if (!directory.IsMerged && !directory.IsImpure && !key.IsByName)
        {
            return volume.Numbers.Number(key);
        }
        else if (volume.Inodes.TryGetIno(key, out ulong known))
        {
            return known;
        }
        (ulong device, ulong ino) = content.RealNumber(index);
        ulong own = volume.Numbers.Number(volume.Numbers.Key(device, ino));
        if (volume.Lookup.Find(directory.Stack, name, out Found found, content.FirstLower(index)).IsError) { return own; }
        if (!found.Exists) { return IsGone(directory, content, index) ? 0 : own; }
        if (volume.Lookup.Complete(directory.Stack, name, found, out Whole whole).IsError) { return own; }
        return volume.Inodes.Free(InoOf(name, found, whole, volume.Keys.Of(directory, name, found)));
    }

    public Errno FSyncDir(in Request request, in FSyncIn input)
    {
        if (!volume.IsDurable) { return errors.Check(-1); }
        Errno error = volume.Inodes.FindDirectory(request.NodeId, out DirectoryInode directory);
        if (error.IsError) { return error; }
        int descriptor;
        using (volume.RenameLock.Share())
        {
            if (directory.Upper is not { } upper) { return Failed(); } // nothing of it is ours to write
            error = volume.Objects.Of(upper, Libc.Self, out RealReference real);
            if (error.IsError) { return error; }
            using (real) { error = real.Open(OpenFlags.ReadOnly | OpenFlags.Directory, out descriptor); }
            if (error.IsError) { return error; }
        }
        error = SyncDescriptor(descriptor, input.DataOnly);
        Libc.Close(descriptor);
        return error;
    }
}
