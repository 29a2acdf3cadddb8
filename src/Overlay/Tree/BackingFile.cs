using Veneer.Fuse;
using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>How the open files of one inode reach their data. Only this type sets the FOPEN flags of regular files.</summary>
/// <remarks>
/// The mode belongs to the kernel's inode, not to the open file: while one file is open, others must be opened in the same mode, or
/// the kernel answers EIO. The first open chooses the mode. After the last close, the next open chooses again.
/// <para>
/// Cached: reads and writes go through the kernel's pages and come to the server. So a program that opened the lower file sees what
/// is written to the copy. Passthrough: the kernel reads and writes the real file without the server. There is a third mode, in which
/// only maps are passed through, and reads and writes come to the server. It serves opens with flags such as O_APPEND and O_DIRECT: the
/// kernel opens the real file with the flags of that moment, and a later fcntl(2) would not change the flags there.
/// </para>
/// <para>
/// The backing id of a lower file never serves an open that may write: once the inode has a copy in upper, <see cref="Admit"/>
/// answers <see cref="Admission.Superseded"/>, and the inode gets a new nodeid. This happens only with <c>passthrough=lower</c>, since
/// otherwise no lower file that may be copied up is passed through.
/// </para>
/// </remarks>
internal sealed class BackingFile
{
    private readonly OrderedLock gate = new(OverlayLocks.BackingFile);
    private int opens;
    private int writers;
    private bool isPassthrough;
    private bool isLower;
    private bool onlyMaps;
    private int backingId;
    private bool pagesAreValid;

    /// <summary>What policy allows for the lower file, which does not change; unknown until the file has been read for it.</summary>
    public PassthroughScope ScopeOfLower { get; set; }

    /// <summary>Whether no file is open.</summary>
    public bool IsIdle => Volatile.Read(ref opens) == 0;

    /// <summary>Makes the object as new, for a recycled inode. Nobody else knows it, and no file is open.</summary>
    public void Clear()
    {
        ScopeOfLower = PassthroughScope.Unknown;
        pagesAreValid = false;
    }

    /// <summary>Whether the file is open for writing.</summary>
    public bool HasWriters => Volatile.Read(ref writers) > 0;

    /// <summary>Whether the files that are open are passed through, at least their maps.</summary>
    public bool IsPassthrough { get { using (gate.Enter()) { return isPassthrough; } } }

    /// <summary>Whether the kernel can have no page of the file. The answer may be out of date a moment later.</summary>
    public bool HasNoPages { get { using (gate.Enter()) { return opens == 0 && !pagesAreValid; } } }

    /// <summary>Admits one more open file and says in which mode the kernel opens it.</summary>
    /// <param name="descriptor">The real file, opened.</param>
    /// <param name="lower">Whether the real file is in a lower layer.</param>
    /// <param name="writes">Whether the open may write.</param>
    /// <param name="share">What must come to the server of this open, even if the file is passed through.</param>
    /// <param name="scope">What policy allows for this file.</param>
    /// <param name="backings">Registers the file; null without passthrough.</param>
    /// <param name="reply">The answer to the kernel, of which the flags and the backing id are set.</param>
    public Admission Admit(int descriptor, bool lower, bool writes, ServerShare share, PassthroughScope scope, BackingIds? backings,
        ref OpenOut reply)
    {
        using (gate.Enter())
        {
            if (opens == 0)
            {
                onlyMaps = scope == PassthroughScope.Maps;
                isPassthrough = scope != PassthroughScope.Nothing && backings is not null && backings.TryOpen(descriptor, out backingId);
                isLower = lower;
            }
            else if (isPassthrough && isLower && !lower)
            {
                return Admission.Superseded;
            }
            else if (isPassthrough && share == ServerShare.Everything)
            {
                return Admission.PassedThrough;
            }
            opens++;
            if (writes) { writers++; }
            if (isPassthrough)
            {
                // Writes to upper bypass the pages that an earlier cached open may have left. A lower file never changes.
                if (!isLower) { pagesAreValid = false; }
                reply.Flags = onlyMaps || share != ServerShare.Nothing ? OpenReply.Passthrough | OpenReply.DirectIo : OpenReply.Passthrough;
                reply.BackingId = backingId;
            }
            else if (share == ServerShare.Everything)
            {
                reply.Flags = OpenReply.DirectIo; // the kernel drops its pages of what is written
            }
            else
            {
                reply.Flags = pagesAreValid ? OpenReply.KeepCache : OpenReply.None;
                pagesAreValid = true;
            }
            return Admission.Admitted;
        }
    }

    /// <summary>Sends the file's content to the kernel before a program reads it, if the kernel can have no page of the file.</summary>
    /// <remarks>Caller holds the copy-up lock, and there is no copy. So the size does not change meanwhile.</remarks>
    /// <param name="notifier">Sends the content.</param>
    /// <param name="nodeId">The nodeid of the file.</param>
    /// <param name="message">Space for a header, and the whole content: see <see cref="Notifier.Store"/>.</param>
    public void FillLocked(Notifier notifier, ulong nodeId, Span<byte> message)
    {
        LockOrder.AssertHeld(OverlayLocks.CopyUp);
        using (gate.Enter())
        {
            if (opens == 0 && !pagesAreValid) { pagesAreValid = notifier.Store(nodeId, message); }
        }
    }

    /// <summary>A file was closed. After the last one, the backing id is returned.</summary>
    public void Leave(bool writes, BackingIds? backings)
    {
        using (gate.Enter())
        {
            if (writes) { writers--; }
            if (--opens > 0 || !isPassthrough) { return; }
            isPassthrough = false;
            backings!.Close(backingId);
        }
    }
}

/// <summary>What the kernel may do on the real file without the server.</summary>
internal enum PassthroughScope
{
    /// <summary>Not known yet.</summary>
    Unknown,
    /// <summary>Nothing: reads, writes and maps go through the kernel's pages and come to the server.</summary>
    Nothing,
    /// <summary>Maps. Each read comes to the server, so that it sees a later copy-up. Kernel overlayfs behaves the same.</summary>
    Maps,
    /// <summary>Reads, writes and maps.</summary>
    Everything,
}

/// <summary>What must come to the server of one open.</summary>
internal enum ServerShare
{
    /// <summary>Nothing: reads, writes and maps may be passed through.</summary>
    Nothing,
    /// <summary>Each read and write.</summary>
    ReadsAndWrites,
    /// <summary>Each read and write, and the file cannot be mapped shared: the server must check everything that is written.</summary>
    Everything,
}

/// <summary>The answer of <see cref="BackingFile.Admit"/>.</summary>
internal enum Admission
{
    /// <summary>The file is open.</summary>
    Admitted,
    /// <summary>The files that are open are bound to the lower file: the inode needs a new nodeid first.</summary>
    Superseded,
    /// <summary>
    /// The files that are open are passed through, so <see cref="ServerShare.Everything"/> is not possible for this one.
    /// </summary>
    PassedThrough,
}

/// <summary>Registers real files for passthrough.</summary>
internal sealed class BackingIds(Device device, Action<string> log)
{
    /// <summary>The inode number of the initial user namespace (PROC_USER_INIT_INO).</summary>
    private const ulong InitialUserNamespace = 0xEFFFFFFD;

    private bool isRefused;
    private int failures;
    private int held;

    /// <summary>How many backing ids are in use.</summary>
    public int Held => Volatile.Read(ref held);

    /// <summary>How many files the kernel has refused.</summary>
    public int Failures => Volatile.Read(ref failures);

    /// <summary>Whether the server may register files: the kernel requires CAP_SYS_ADMIN in the initial user namespace.</summary>
    public static bool IsPermitted =>
        Libc.EffectiveUid == 0
        && Libc.OpenAt(Libc.AtCwd, "/proc/self/ns/user\0"u8, OpenFlags.ReadOnly, 0, ResolveFlags.None, out int descriptor) == Errno.None
        && IsInitial(descriptor);

    private static bool IsInitial(int descriptor)
    {
        Errno error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat);
        Libc.Close(descriptor);
        return !error.IsError && stat.Ino == InitialUserNamespace;
    }

    /// <summary>Registers a file.</summary>
    /// <returns>False when the kernel refuses. Then the file is opened without passthrough.</returns>
    public bool TryOpen(int descriptor, out int backingId)
    {
        backingId = 0;
        if (Volatile.Read(ref isRefused)) { return false; }
        Errno error = device.OpenBacking(descriptor, out backingId);
        if (!error.IsError)
        {
            Interlocked.Increment(ref held);
            return true;
        }
        if (error == Errno.EPERM) { Volatile.Write(ref isRefused, true); } // later files would be refused as well
        if (Interlocked.Increment(ref failures) == 1)
        {
            log($"veneer: the kernel refused passthrough for a file ({error}); it is served without");
        }
        return false;
    }

    /// <summary>Returns a backing id.</summary>
    public void Close(int backingId)
    {
        Interlocked.Decrement(ref held);
        _ = device.CloseBacking(backingId); // best effort: the end of the connection closes the id as well
    }
}
