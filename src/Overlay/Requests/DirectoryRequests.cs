using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Requests;

/// <summary>Serves requests that list directories.</summary>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="session">The connection to the kernel.</param>
/// <param name="maker">Makes inodes for objects that were found.</param>
/// <param name="finder">Finds names and their inodes.</param>
/// <param name="impure">The impure mark.</param>
/// <param name="ahead">Looks up entries ahead of readers.</param>
/// <param name="errors">Errors of writing to upper.</param>
internal sealed class DirectoryRequests(
    ObjectTree tree, KernelSession session, InodeMaker maker, NameFinder finder, ImpureMark impure,
    LookAhead ahead, WritebackErrors errors)
{
    /// <remarks>
    /// After ENOSYS the kernel opens and closes directories without asking, and keeps their entries until a name in them
    /// changes. Nothing is lost, since offsets mean the same to every reader, whether the directory is open or not.
    /// </remarks>
    public Errno OpenDir(in Request request, in OpenIn input, out OpenOut result)
    {
        result = new OpenOut { Flags = OpenReply.CacheDir | OpenReply.KeepCache };
        return session.OpensDirectoriesItself ? Errno.ENOSYS : Errno.None;
    }

    public Errno ReadDir(in Request request, in ReadIn input, ref DirectoryWriter writer)
    {
        Errno error = tree.Inodes.FindDirectory(request.NodeId, out DirectoryInode directory);
        if (error.IsError) { return error; }
        MergedDirectory? content = null;
        bool isOver = false;
        try
        {
            error = ListingOf(directory, input.Offset, out content);
            if (error.IsError) { return error; }
            if (input.Offset == 0) { directory.Stack.Readers.NoteReader(content.Version, request.Header.Pid, Environment.TickCount); }
            ulong offset = input.Offset;
            for (; offset < MergedDirectory.FirstOffset; offset++)
            {
                DirectoryInode shown = offset == 0 ? directory : directory.Parent ?? directory;
                var none = new EntryOut { Attr = new Attr { Ino = shown.Ino, Mode = FileType.Directory } };
                if (!writer.TryAdd(offset == 0 ? "."u8 : ".."u8, shown.Ino, FileType.Directory >> 12, offset + 1, none))
                {
                    return Errno.None;
                }
            }
            int index = content.IndexAfter(offset);
            if (input.Offset == 0 && writer.IsPlus) { ahead.NoteBegin(directory, content); }
            while (index < content.Count && AddEntry(directory, content, index, ref writer)) { index++; }
            if (input.Offset != 0 && writer.IsPlus) { ahead.NoteProgress(directory, content, index); }
            // The end was read: the next reader finds the entries in the kernel, or needs a fresh listing.
            isOver = index == content.Count && writer.Used == 0;
            if (isOver)
            {
                tree.Listings.Withdraw(directory.Stack, content);
                if (directory.IsImpure && !errors.Failure.IsError) { impure.RemoveIfPure(directory, content); }
            }
        }
        finally
        {
            tree.Listings.Return(content);
        }
        if (isOver && directory.Stack.Readers.MayBeMixed(Environment.TickCount)) { DropListing(request.NodeId); }
        return Errno.None;
    }

    /// <summary>Makes the kernel drop the entries that it keeps of a directory, so that the next reader reads it anew.</summary>
    private void DropListing(ulong nodeId)
    {
        using (session.Block()) { session.Notifier?.DropInode(nodeId); } // a reader may have a page locked, and wait for us
    }

    /// <summary>
    /// Gets the snapshot to read from. A reader that begins gets a fresh one. A reader that goes on gets the present one, so
    /// that removing while reading does not read the directory anew each time. The caller returns it.
    /// </summary>
    private Errno ListingOf(DirectoryInode directory, ulong offset, out MergedDirectory content)
    {
        if (tree.Listings.Find(directory.Stack) is { } listing)
        {
            content = listing;
            if (offset != 0 || listing.Version == tree.Inodes.VersionOf(directory)) { return Errno.None; }
            tree.Listings.Return(listing);
        }
        Errno error = tree.Listings.Read(directory.Stack, tree.Inodes.VersionOf(directory), out content);
        if (!error.IsError) { tree.Listings.Publish(directory.Stack, content); }
        return error;
    }

    /// <summary>Adds an entry of the snapshot to the reply. False when the reply is full.</summary>
    private bool AddEntry(DirectoryInode directory, MergedDirectory content, int index, ref DirectoryWriter writer)
    {
        ReadOnlySpan<byte> name = content.NameOf(index);
        if (!writer.Fits(name.Length - 1)) { return false; }
        if (writer.IsPlus)
        {
            Errno error = LendListed(directory, content, index, out EntryOut entry);
            if (!error.IsError && entry.NodeId != 0)
            {
                return writer.TryAdd(name[..^1], entry.Attr.Ino, entry.Attr.Mode >> 12, content.OffsetOf(index), entry);
            }
            if (!error.IsError && IsGone(directory, content, index)) { return true; }
            // The object cannot be reached: its name is listed, and a lookup reports the error.
        }
        ulong ino = InoOfEntry(directory, content, index);
        return ino == 0 || writer.TryAdd(name[..^1], ino, content.TypeOf(index), content.OffsetOf(index), default);
    }

    /// <summary>
    /// Whether an entry that is not found was removed after the snapshot was taken. If not, a lower layer lists a name that it
    /// does not find.
    /// </summary>
    private bool IsGone(DirectoryInode directory, MergedDirectory content, int index) =>
        content.IsUpper(index) || content.Version != tree.Inodes.VersionOf(directory);

    private Errno LendListed(DirectoryInode directory, MergedDirectory content, int index, out EntryOut entry)
    {
        ReadOnlySpan<byte> name = content.NameOf(index);
        int version = tree.Inodes.VersionOf(directory);
        if (content.Ahead is { } ahead && ahead.TryGet(directory.Stack, index, out Found found, out Whole whole)
            && finder.TryLend(directory, name, found, whole, isComplete: true, version, out entry, out Errno error))
        {
            return error;
        }
        return finder.Lend(directory, name, out entry, content.FirstLower(index));
    }

    /// <summary>
    /// The inode number that stat(2) would show for an entry; 0 when the object was removed after the snapshot was taken.
    /// Kernel: ovl_calc_d_ino().
    /// </summary>
    private ulong InoOfEntry(DirectoryInode directory, MergedDirectory content, int index)
    {
        ReadOnlySpan<byte> name = content.NameOf(index);
        RealKey key = tree.Keys.Of(directory, content, index);
        if (!content.IsUpper(index))
        {
            RealDirectory lower = directory.Lowers[content.FirstLower(index)];
            if (key.IsByName) { return InodeNumbers.NumberOfName(lower, name); }
            if (lower.Layer.Identity == RealIdentity.Numbers) { return tree.Numbers.Number(key); }
        }
        // Only an object that came from a lower layer has another number than its own. Merged and impure directories hold such
        // objects, and any directory of upper may hold one whose number is remembered, since it has no origin.
        else if (!directory.IsMerged && !directory.IsImpure && !key.IsByName && !tree.Numbers.IsRemembered(key))
        {
            return tree.Numbers.Number(key);
        }
        else if (tree.Inodes.TryGetIno(key, out ulong known))
        {
            return known;
        }
        (ulong device, ulong ino) = content.RealNumber(index);
        ulong own = tree.Numbers.Number(tree.Numbers.Key(device, ino));
        if (tree.Lookup.Find(directory.Stack, name, out Found found, content.FirstLower(index)).IsError) { return own; }
        if (!found.Exists) { return IsGone(directory, content, index) ? 0 : own; }
        if (tree.Lookup.Complete(directory.Stack, name, found, out Whole whole).IsError) { return own; }
        return tree.Inodes.Free(maker.InoOf(name, found, whole, tree.Keys.Of(directory, name, found)));
    }
}
