using Veneer.Fuse;
using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Tree;

/// <summary>How the open files of one inode reach their data, and the only type that sets FOPEN flags.</summary>
/// <remarks>
/// The mode belongs to the kernel's inode, not to the open: while one file is open, the others must be opened the same
/// way, or the kernel answers EIO. The first open chooses; when the last is closed, the next may choose again.
/// <para>
/// Cached: reads and writes pass through the kernel's pages and come to us, so that a reader that opened the lower file
/// sees what is written to its copy. Passthrough: the kernel does them on the real file, and we never hear of it. In
/// between: maps are passed through, reads and writes come to us. Such is an open whose flags matter: the kernel opens
/// the real file with those of the moment, and fcntl(2) never changes them there.
/// </para>
/// <para>
/// A lower file's backing id never serves an open that may write: once the inode has its copy in upper,
/// <see cref="Admit"/> answers <see cref="Admission.Superseded"/>, and the inode gets a new nodeid. That comes with
/// <c>passthrough=lower</c> alone: else no lower file is passed through that can get a copy.
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

    /// <summary>What policy says of the lower file, which never changes; unknown until somebody has looked.</summary>
    public Pass PassOfLower { get; set; }

    /// <summary>Whether no file is open.</summary>
    public bool IsIdle => Volatile.Read(ref opens) == 0;

    /// <summary>For another inode, with nothing known of its file. Nobody else knows this one, and no file is open.</summary>
    public void Clear()
    {
        PassOfLower = Pass.Unknown;
        pagesAreValid = false;
    }

    /// <summary>Whether the file is open for writing.</summary>
    public bool HasWriters => Volatile.Read(ref writers) > 0;

    /// <summary>Whether the kernel reaches the real file without us, for the files that are open now.</summary>
    public bool IsPassthrough { get { using (gate.Enter()) { return isPassthrough; } } }

    /// <summary>Whether the kernel can have no page of the file. True may be false a moment later.</summary>
    public bool HasNoPages { get { using (gate.Enter()) { return opens == 0 && !pagesAreValid; } } }

    /// <summary>Lets one more open in.</summary>
    /// <param name="descriptor">The real file, opened.</param>
    /// <param name="lower">Whether the real file is in a lower layer.</param>
    /// <param name="writes">Whether the open may write.</param>
    /// <param name="way">What of this open must come to us, though of others' it need not.</param>
    /// <param name="pass">What policy allows for this file.</param>
    /// <param name="backings">Where to register the file, or null without passthrough.</param>
    /// <param name="reply">What to tell the kernel.</param>
    public Admission Admit(int descriptor, bool lower, bool writes, Way way, Pass pass, BackingIds? backings, ref OpenOut reply)
    {
        using (gate.Enter())
        {
            if (opens == 0)
            {
                onlyMaps = pass == Pass.Maps;
                isPassthrough = pass != Pass.Nothing && backings is not null && backings.TryOpen(descriptor, out backingId);
                isLower = lower;
            }
            else if (isPassthrough && isLower && !lower)
            {
                return Admission.Superseded;
            }
            else if (isPassthrough && way == Way.Guarded)
            {
                return Admission.Unguarded;
            }
            opens++;
            if (writes) { writers++; }
            if (isPassthrough)
            {
                // Writes to upper go past the pages that an earlier cached open may have left; a lower never changes.
                if (!isLower) { pagesAreValid = false; }
                reply.Flags = onlyMaps || way != Way.Any ? OpenReply.Passthrough | OpenReply.DirectIo : OpenReply.Passthrough;
                reply.BackingId = backingId;
            }
            else if (way == Way.Guarded)
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

    /// <summary>Gives the kernel the file's pages before somebody reads them, if it cannot have any of them yet.</summary>
    /// <remarks>Caller holds the copy-up lock and has seen that there is no copy: nothing changes the size meanwhile.</remarks>
    /// <param name="notifier">The way to the kernel.</param>
    /// <param name="nodeId">The inode.</param>
    /// <param name="message">The whole content, behind room for a header: see <see cref="Notifier.Store"/>.</param>
    public void Fill(Notifier notifier, ulong nodeId, Span<byte> message)
    {
        using (gate.Enter())
        {
            if (opens == 0 && !pagesAreValid) { pagesAreValid = notifier.Store(nodeId, message); }
        }
    }

    /// <summary>One open file less.</summary>
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

/// <summary>What the kernel may do on the real file by itself.</summary>
internal enum Pass
{
    /// <summary>Not known yet.</summary>
    Unknown,
    /// <summary>Nothing: reads, writes and maps go through the kernel's pages and come to us.</summary>
    Nothing,
    /// <summary>Maps; reads come to us each time, so that they see a later copy-up. This is just what kernel overlayfs does.</summary>
    Maps,
    /// <summary>Reads, writes and maps.</summary>
    Everything,
}

/// <summary>What of one open must come to us.</summary>
internal enum Way
{
    /// <summary>Nothing need.</summary>
    Any,
    /// <summary>Each read and write.</summary>
    Asked,
    /// <summary>Each read and write, and no map may be shared: whatever is written must be looked at.</summary>
    Guarded,
}

/// <summary>The answer of <see cref="BackingFile.Admit"/>.</summary>
internal enum Admission
{
    /// <summary>The open may go on.</summary>
    Admitted,
    /// <summary>Open files are bound to the lower file: the inode needs a new nodeid first.</summary>
    Superseded,
    /// <summary>The kernel reaches the file without us for those who have it open: no open can be guarded.</summary>
    Unguarded,
}

/// <summary>Registers real files for passthrough.</summary>
internal sealed class BackingIds(Device device, Action<string> log)
{
    /// <summary>PROC_USER_INIT_INO.</summary>
    private const ulong InitialUserNamespace = 0xEFFFFFFD;

    private bool isRefused;
    private int failures;
    private int held;

    /// <summary>How many ids are in use.</summary>
    public int Held => Volatile.Read(ref held);

    /// <summary>How many files the kernel has refused.</summary>
    public int Failures => Volatile.Read(ref failures);

    /// <summary>Whether we may register files: the kernel asks for CAP_SYS_ADMIN in the initial user namespace.</summary>
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
    /// <returns>False when the kernel refuses: the open goes on without passthrough.</returns>
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
        if (error == Errno.EPERM) { Volatile.Write(ref isRefused, true); } // it will not change its mind
        if (Interlocked.Increment(ref failures) == 1) { log($"veneer: the kernel refused passthrough for a file ({error}); it is served without"); }
        return false;
    }

    /// <summary>Gives an id back.</summary>
    public void Close(int backingId)
    {
        Interlocked.Decrement(ref held);
        _ = device.CloseBacking(backingId); // best effort: the connection's end closes the rest
    }
}
