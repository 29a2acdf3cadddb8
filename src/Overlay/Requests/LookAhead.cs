using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Requests;

/// <summary>
/// Looks up, on a thread of its own, what a reader of directories will probably ask for next while it processes what it has:
/// the next entries of a large directory, and the next directory of a walk through a tree.
/// </summary>
/// <remarks>
/// Only lower objects are looked up, below directories that are not in upper. Lowers do not change, so the results stay true;
/// a reader uses them if they are there. A guess is made only while guesses come true. The thread sleeps between guesses, and
/// is started by the first one.
/// </remarks>
/// <param name="lookup">Finds names.</param>
/// <param name="listings">Listings of directories.</param>
/// <param name="inodes">The inodes that the kernel knows.</param>
/// <param name="keys">Gives real objects the keys by which they are known.</param>
/// <param name="log">Receives the report of a bug.</param>
internal sealed class LookAhead(LayeredLookup lookup, Listings listings, InodeTable inodes, ObjectKeys keys, Action<string> log)
{
    /// <summary>The number of entries that are looked up in one go.</summary>
    private const int Reach = 256;

    /// <summary>The number of entries between two checks of the reader's position.</summary>
    private const int Stride = 16;

    /// <summary>The greatest depth to which a walk is remembered.</summary>
    private const int MaxDepth = 64;

    /// <summary>The most entries of a directory in which the next subdirectory is guessed: larger listings take much memory.</summary>
    private const int MaxListed = 4096;

    /// <summary>
    /// The trust from which guesses are acted on, and its maximum. A right guess adds one to the trust, a wrong one takes one
    /// away.
    /// </summary>
    private const int Trusted = 2, MostTrusted = 4;

    private readonly object gate = new();
    private readonly List<Visit> walk = [];
    private Thread? thread;
    private Work next;
    private RealKey? guess;
    private int trust;
    private volatile bool isOver;

    /// <summary>A directory on the path to the one that was read last, and the entry at which the path continues.</summary>
    private struct Visit
    {
        public DirectoryInode Directory;
        public MergedDirectory Listing;
        public int Child;
    }

    /// <summary>What to look up. The nodeid is lent, so that the directory stays known, and the listing has a user.</summary>
    private readonly record struct Work(DirectoryInode? Directory, ulong NodeId, MergedDirectory? Listing, int First);

    /// <summary>Notes that a reader begins to read a directory with attributes, and guesses which directory comes next.</summary>
    public void NoteBegin(DirectoryInode directory, MergedDirectory listing)
    {
        using (ObjectLock.Enter(gate, OverlayLocks.LookAhead))
        {
            bool isRight = guess == directory.Key;
            trust = isRight ? Math.Min(trust + 1, MostTrusted) : Math.Max(trust - 1, 0);
            while (walk.Count > 0 && (!ReferenceEquals(walk[^1].Directory, directory.Parent) || walk.Count == MaxDepth))
            {
                ForgetLastLocked();
            }
            if (walk.Count > 0)
            {
                Visit parent = walk[^1];
                parent.Child = parent.Listing.IndexOf(directory.Name);
                if (parent.Child < 0) { ForgetWalkLocked(); } else { walk[^1] = parent; }
            }
            if (listing.Count <= MaxListed)
            {
                walk.Add(new Visit { Directory = directory, Listing = listings.Share(listing), Child = -1 });
            }
            guess = null;
            if (!TryGuessLocked(out DirectoryInode parentOfNext, out RealKey key)) { return; }
            guess = key;
            if (trust < Trusted) { return; }
            if (!inodes.TryLend(key, parentOfNext, inodes.VersionOf(parentOfNext), out Inode inode, out ulong nodeId)) { return; }
            AskLocked(new Work(inode as DirectoryInode, nodeId, null, 0));
        }
    }

    /// <summary>Caller holds the gate.</summary>
    private void ForgetLastLocked()
    {
        LockOrder.AssertHeld(OverlayLocks.LookAhead, gate);
        listings.Return(walk[^1].Listing);
        walk.RemoveAt(walk.Count - 1);
    }

    /// <summary>Caller holds the gate.</summary>
    private void ForgetWalkLocked()
    {
        LockOrder.AssertHeld(OverlayLocks.LookAhead, gate);
        while (walk.Count > 0) { ForgetLastLocked(); }
    }

    /// <summary>Notes that a reader has gone on in a directory with attributes, up to an entry.</summary>
    public void NoteProgress(DirectoryInode directory, MergedDirectory listing, int index)
    {
        if (directory.Upper is not null || index >= listing.Count) { return; }
        if (listing.Ahead is { } ahead && index >= ahead.First && index < ahead.End - (Reach / 2)) { return; }
        using (ObjectLock.Enter(gate, OverlayLocks.LookAhead))
        {
            AskLocked(new Work(directory, inodes.Lend(directory), listings.Share(listing), index));
        }
    }

    /// <summary>Guesses the next directory of a walk that is depth first, in the order of the listings. Caller holds the gate.</summary>
    private bool TryGuessLocked(out DirectoryInode parent, out RealKey key)
    {
        LockOrder.AssertHeld(OverlayLocks.LookAhead, gate);
        for (int depth = walk.Count - 1; depth >= 0; depth--)
        {
            Visit visit = walk[depth];
            for (int i = visit.Child + 1; i < visit.Listing.Count; i++)
            {
                if (visit.Listing.TypeOf(i) != FileType.Directory >> 12) { continue; }
                parent = visit.Directory;
                key = keys.Of(parent, visit.Listing, i);
                return true;
            }
        }
        parent = null!;
        key = default;
        return false;
    }

    /// <summary>Caller holds the gate.</summary>
    private void AskLocked(Work work)
    {
        LockOrder.AssertHeld(OverlayLocks.LookAhead, gate);
        if (isOver)
        {
            Forget(work);
            return;
        }
        if (next.NodeId != 0) { Forget(next); }
        next = work;
        Monitor.Pulse(gate);
        if (thread is not null) { return; }
        thread = new Thread(Run, 256 << 10) { IsBackground = true, Name = "look ahead" };
        thread.Start();
    }

    private void Forget(Work work)
    {
        listings.Return(work.Listing);
        inodes.Forget(work.NodeId, 1);
    }

    private void Run()
    {
        // The thread that started this one may be bound to the CPU of its caller: the work should run on another CPU.
        _ = Libc.UnpinThread(); // best effort: on that CPU it only takes longer
        while (true)
        {
            Work work;
            using (ObjectLock.Enter(gate, OverlayLocks.LookAhead))
            {
                while (next.NodeId == 0 && !isOver) { Monitor.Wait(gate); }
                if (isOver) { return; }
                work = next;
                next = default;
            }
            MergedDirectory? listing = work.Listing;
            try
            {
                if (work.Directory is { } directory) { Look(directory, ref listing, work.First); }
            }
#pragma warning disable CA1031 // a bug here must not end the mount: readers do their own lookups
            catch (Exception exception)
            {
                log($"veneer: looking ahead failed: {exception}");
            }
#pragma warning restore CA1031
            Forget(work with { Listing = listing });
        }
    }

    /// <summary>Looks up entries of a directory.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="listing">The directory's listing. If it is null the directory is read; the caller returns the listing.</param>
    /// <param name="first">The index of the first entry.</param>
    private void Look(DirectoryInode directory, ref MergedDirectory? listing, int first)
    {
        Prefetched? prefetched = null;
        for (int index = first; prefetched is null || index < prefetched.End;)
        {
            if (directory.Upper is not null || isOver) { return; }
            if (listing is null)
            {
                if (listings.Read(directory.Stack, inodes.VersionOf(directory), out listing).IsError) { return; }
                listings.Publish(directory.Stack, listing);
            }
            prefetched ??= listing.LookAhead(first, Reach);
            // The reader has overtaken us: it looks up the half of the rest that comes next, and we look up the other half.
            if (index <= prefetched.Reader) { index = prefetched.Reader + 1 + ((prefetched.End - prefetched.Reader) / 2); }
            for (int end = Math.Min(index + Stride, prefetched.End); index < end && index > prefetched.Reader && !isOver; index++)
            {
                ReadOnlySpan<byte> name = listing.NameOf(index);
                if (lookup.Find(directory.Stack, name, out Found found, listing.FirstLower(index)).IsError || !found.Exists) { continue; }
                if (!lookup.Complete(directory.Stack, name, found, out Whole whole).IsError) { prefetched.Add(index, found, whole); }
            }
        }
    }

    /// <summary>Ends the thread.</summary>
    /// <param name="isAwaited">Whether to wait until the thread has ended, so that it uses no layer any more.</param>
    public void Stop(bool isAwaited)
    {
        using (ObjectLock.Enter(gate, OverlayLocks.LookAhead))
        {
            isOver = true;
            ForgetWalkLocked();
            if (next.NodeId != 0) { Forget(next); }
            next = default;
            Monitor.Pulse(gate);
        }
        if (isAwaited) { thread?.Join(); }
    }
}
