using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Requests;

/// <summary>
/// Looks, on a thread of its own, at what a reader of directories is going to ask for while it is busy with what it has:
/// the next entries of a large directory, and the next directory of a walk through a tree.
/// </summary>
/// <remarks>
/// Only at lower objects, below directories that are not in upper: they do not change, so what was seen stays true, and
/// whoever comes later uses it or does without. A guess is made only while guesses come true. The thread sleeps, and
/// does not exist before the first guess.
/// </remarks>
/// <param name="lookup">Finds names.</param>
/// <param name="listings">Listings of directories.</param>
/// <param name="inodes">What the kernel knows.</param>
/// <param name="keys">By which keys real objects are known.</param>
/// <param name="log">For a fault of ours.</param>
internal sealed class LookAhead(LayeredLookup lookup, Listings listings, InodeTable inodes, ObjectKeys keys, Action<string> log)
{
    /// <summary>So many entries are looked at in one go.</summary>
    private const int Reach = 256;

    /// <summary>So many of them between two looks at how far the reader is.</summary>
    private const int Stride = 16;

    /// <summary>A walk is remembered to this depth.</summary>
    private const int MaxDepth = 64;

    /// <summary>In directories with more entries the next one to be visited is not guessed: their listings are large.</summary>
    private const int MaxListed = 4096;

    /// <summary>How many guesses in a row must have been right, and how many wrong ones are forgiven.</summary>
    private const int Trusted = 2, MostTrusted = 4;

    private readonly object gate = new();
    private readonly List<Visit> walk = [];
    private Thread? thread;
    private Work next;
    private RealKey? guess;
    private int trust;
    private volatile bool isOver;

    /// <summary>A directory on the way to the one that was read last, and the entry that the way goes on with.</summary>
    private struct Visit
    {
        public DirectoryInode Directory;
        public MergedDirectory Listing;
        public int Child;
    }

    /// <summary>What to look at. The nodeid is lent, so that the directory stays, and the listing is used.</summary>
    private readonly record struct Work(DirectoryInode? Directory, ulong NodeId, MergedDirectory? Listing, int First);

    /// <summary>Somebody begins to read a directory with attributes.</summary>
    public void Began(DirectoryInode directory, MergedDirectory listing)
    {
        using (ObjectLock.Enter(gate, OverlayLocks.LookAhead))
        {
            bool isRight = guess == directory.Key;
            trust = isRight ? Math.Min(trust + 1, MostTrusted) : Math.Max(trust - 1, 0);
            while (walk.Count > 0 && (!ReferenceEquals(walk[^1].Directory, directory.Parent) || walk.Count == MaxDepth)) { ForgetLast(); }
            if (walk.Count > 0)
            {
                Visit parent = walk[^1];
                parent.Child = parent.Listing.IndexOf(directory.Name);
                if (parent.Child < 0) { ForgetWalk(); } else { walk[^1] = parent; }
            }
            if (listing.Count <= MaxListed) { walk.Add(new Visit { Directory = directory, Listing = listings.Share(listing), Child = -1 }); }
            guess = null;
            if (!TryGuess(out DirectoryInode parentOfNext, out RealKey key)) { return; }
            guess = key;
            if (trust < Trusted) { return; }
            if (!inodes.TryLend(key, parentOfNext, inodes.VersionOf(parentOfNext), out Inode inode, out ulong nodeId)) { return; }
            Ask(new Work(inode as DirectoryInode, nodeId, null, 0));
        }
    }

    /// <summary>Caller holds the gate.</summary>
    private void ForgetLast()
    {
        listings.Return(walk[^1].Listing);
        walk.RemoveAt(walk.Count - 1);
    }

    /// <summary>Caller holds the gate.</summary>
    private void ForgetWalk()
    {
        while (walk.Count > 0) { ForgetLast(); }
    }

    /// <summary>Somebody has read a directory with attributes up to an entry, and not from its beginning.</summary>
    public void WentOn(DirectoryInode directory, MergedDirectory listing, int index)
    {
        if (directory.Upper is not null || index >= listing.Count) { return; }
        if (listing.Ahead is { } ahead && index >= ahead.First && index < ahead.End - (Reach / 2)) { return; }
        using (ObjectLock.Enter(gate, OverlayLocks.LookAhead)) { Ask(new Work(directory, inodes.Lend(directory), listings.Share(listing), index)); }
    }

    /// <summary>The directory that comes next when a tree is walked depth first, in the order of the listings. Caller holds the gate.</summary>
    private bool TryGuess(out DirectoryInode parent, out RealKey key)
    {
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
    private void Ask(Work work)
    {
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
        // The thread that asked first may be bound to the CPU of its caller: the work is to be done on another one.
        _ = Libc.UnpinThread(); // best effort: there it only takes longer
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
#pragma warning disable CA1031 // a bug here must not end the mount: whoever asks finds out by himself
            catch (Exception exception)
            {
                log($"veneer: looking ahead failed: {exception}");
            }
#pragma warning restore CA1031
            Forget(work with { Listing = listing });
        }
    }

    /// <param name="directory">The directory.</param>
    /// <param name="listing">What it lists; if nobody has read it yet, it is read, for the caller to give back.</param>
    /// <param name="first">The first entry.</param>
    private void Look(DirectoryInode directory, ref MergedDirectory? listing, int first)
    {
        Prefetched? prefetched = null;
        for (int index = first; prefetched is null || index < prefetched.End;)
        {
            if (directory.Upper is not null || isOver) { return; }
            if (listing is null)
            {
                if (listings.Read(directory.Stack, inodes.VersionOf(directory), out listing).IsError) { return; }
                listings.Show(directory.Stack, listing);
            }
            prefetched ??= listing.LookAhead(first, Reach);
            // Overtaken: the reader does the half that comes next, and need not wait for the other one.
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
    /// <param name="isAwaited">When this returns it uses no layer any more.</param>
    public void Stop(bool isAwaited)
    {
        using (ObjectLock.Enter(gate, OverlayLocks.LookAhead))
        {
            isOver = true;
            ForgetWalk();
            if (next.NodeId != 0) { Forget(next); }
            next = default;
            Monitor.Pulse(gate);
        }
        if (isAwaited) { thread?.Join(); }
    }
}
