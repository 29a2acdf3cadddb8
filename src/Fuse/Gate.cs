using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>Which requests are served.</summary>
public enum Service
{
    /// <summary>All.</summary>
    All,
    /// <summary>Those that change nothing; the others get EROFS.</summary>
    Reading,
    /// <summary>What ends: the kernel writes the pages of maps back, closes and forgets. The others get EIO.</summary>
    Ending,
    /// <summary>None: all get EIO, and the filesystem is not asked.</summary>
    Nothing,
}

/// <summary>Decides which requests reach the filesystem. It closes step by step and never opens again.</summary>
public sealed class Gate
{
    private const ulong Root = 1;

    private readonly OrderedLock closing = new(FuseLocks.Gate);
    private readonly Func<Interruption[]> requests;
    private volatile Service service;
    private volatile ulong[] revoked = [];

    internal Gate(Func<Interruption[]> requests) => this.requests = requests;

    /// <summary>What is served now.</summary>
    public Service Service => service;

    /// <summary>What a looked-up name in the root begins with whose number says which of <see cref="Revoke"/>'s inodes is meant.</summary>
    public static ReadOnlySpan<byte> RevokedPrefix => "#veneer-revoke-"u8;

    /// <summary>Serves no more than this from now on, and returns when the requests have ended that were begun before.</summary>
    /// <param name="rest">What is still served.</param>
    /// <param name="patience">How long to wait for those requests, in milliseconds; -1: for as long as they take.</param>
    /// <remarks>A request of the calling thread, and those that said <see cref="ExpectClosing"/>, are not waited for.</remarks>
    /// <returns>False when one of them has not ended in that time.</returns>
    public bool Close(Service rest, int patience = Timeout.Infinite)
    {
        long end = patience < 0 ? long.MaxValue : Environment.TickCount64 + patience;
        bool haveEnded = true;
        using (closing.Enter())
        {
            if (rest > service) { service = rest; }
        }
        // A worker says what it serves, and then looks here; we have written, and look there now. One of us sees the other.
        Interlocked.MemoryBarrierProcessWide();
        foreach (Interruption request in requests())
        {
            ulong unique = request.Unique;
            if (ReferenceEquals(request, Worker.Current?.Interruption)) { continue; }
            for (int wait = 0; unique != 0 && request.Unique == unique && !request.ExpectsClosing; wait = Math.Min(wait + 1, 10))
            {
                if (Environment.TickCount64 >= end)
                {
                    haveEnded = false;
                    break;
                }
                Thread.Sleep(wait);
            }
        }
        return haveEnded;
    }

    /// <summary>The request of this thread is one that closes the gate, or waits until another one has.</summary>
    public static void ExpectClosing()
    {
        if (Worker.Current is { } worker) { worker.Interruption.ExpectsClosing = true; }
    }

    /// <summary>Has the kernel refuse to read and write files that are passed through, which it does without asking, as soon as somebody looks up names.</summary>
    /// <param name="nodeIds">Their inodes. Number N is revoked by a lookup of <see cref="RevokedPrefix"/> with N in the root, while <see cref="Service.Ending"/>.</param>
    /// <remarks>
    /// The answer says that the nodeid belongs to a file of another generation: all that was opened by the old one then
    /// gets EIO from the kernel. See fuse_stale_inode() and fuse_make_bad() in fs/fuse/inode.c.
    /// </remarks>
    public void Revoke(ulong[] nodeIds) => revoked = nodeIds;

    /// <summary>Whether a request does not reach the filesystem, and what is answered instead.</summary>
    internal bool Refuses(in InHeader header, RequestReader reader, out Errno error)
    {
        error = Errno.None;
        switch (service)
        {
            case Service.All:
                return false;
            case Service.Reading:
                error = Errno.EROFS;
                return Changes(header, ref reader);
            case Service.Ending:
                error = Errno.EIO;
                return !Ends(header, ref reader);
            default:
                error = header.Opcode is Opcode.Release or Opcode.ReleaseDir or Opcode.Destroy ? Errno.None : Errno.EIO;
                return true;
        }
    }

    private static bool Changes(in InHeader header, ref RequestReader reader) => header.Opcode switch
    {
        Opcode.SetAttr or Opcode.SymLink or Opcode.MkNod or Opcode.MkDir or Opcode.Unlink or Opcode.RmDir or Opcode.Rename or Opcode.Rename2 => true,
        Opcode.Link or Opcode.Create or Opcode.TmpFile or Opcode.Write or Opcode.SetXattr or Opcode.RemoveXattr or Opcode.FAllocate => true,
        Opcode.CopyFileRange or Opcode.CopyFileRange64 => true,
        Opcode.Open => reader.Take(out OpenIn open) && ((open.Flags & OpenFlags.AccessMode) != OpenFlags.ReadOnly || (open.Flags & OpenFlags.Truncate) != 0),
        Opcode.Ioctl => reader.Take(out IoctlIn ioctl) && ioctl is { InSize: > 0, OutSize: 0 }, // FS_IOC_SETFLAGS and FS_IOC_FSSETXATTR; a tool's question has an answer
        _ => false,
    };

    private static bool Ends(in InHeader header, ref RequestReader reader) => header.Opcode switch
    {
        Opcode.Write => reader.Take(out WriteIn write) && (write.WriteFlags & WriteFlags.Cache) != 0,
        Opcode.Release or Opcode.ReleaseDir or Opcode.Forget or Opcode.BatchForget or Opcode.Interrupt or Opcode.Destroy => true,
        Opcode.GetAttr or Opcode.StatX => header.NodeId == Root, // who looks up the names to revoke must get into the root
        _ => false,
    };

    /// <summary>The answer to the lookup of a name that revokes an inode.</summary>
    internal bool TryRevoke(in InHeader header, RequestReader reader, out EntryOut entry)
    {
        entry = default;
        if (service != Service.Ending || header.Opcode != Opcode.Lookup || header.NodeId != Root) { return false; }
        if (!reader.TakeName(out ReadOnlySpan<byte> name) || !name.StartsWith(RevokedPrefix)) { return false; }
        ReadOnlySpan<byte> number = name[RevokedPrefix.Length..^1];
        if (!System.Buffers.Text.Utf8Parser.TryParse(number, out int index, out int used) || used != number.Length || (uint)index >= (uint)revoked.Length) { return false; }
        entry.NodeId = revoked[index];
        entry.Generation = 1; // ours have 0
        entry.AttrValid = 60; // or the one who looked it up would ask again, and be refused
        entry.Attr = new Attr { Ino = revoked[index], Mode = FileType.Regular, Nlink = 1 };
        return true;
    }
}
