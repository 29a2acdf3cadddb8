using Veneer.Fuse.Locking;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>The requests that are served.</summary>
public enum Service
{
    /// <summary>All requests.</summary>
    All,
    /// <summary>Requests that change nothing; the others get EROFS.</summary>
    Reading,
    /// <summary>Requests that end something: writing back the pages of maps, closing, forgetting. The others get EIO.</summary>
    Ending,
    /// <summary>None: closing succeeds, all other requests get EIO, and the filesystem is not called.</summary>
    Nothing,
}

/// <summary>Decides which requests reach the filesystem. The gate closes step by step and never opens again.</summary>
public sealed class Gate
{
    private const ulong Root = 1;

    private readonly OrderedLock closing = new(FuseLocks.Gate);
    private readonly Func<Interruption[]> requests;
    private volatile Service service;
    private volatile ulong[] revoked = [];

    internal Gate(Func<Interruption[]> requests) => this.requests = requests;

    /// <summary>The requests that are served now.</summary>
    public Service Service => service;

    /// <summary>
    /// The prefix of the names in the root whose lookup revokes an inode. The index in the array of <see cref="Revoke"/>
    /// follows it.
    /// </summary>
    public static ReadOnlySpan<byte> RevokedPrefix => "#veneer-revoke-"u8;

    /// <summary>Serves no more than the given requests from now on, and waits for the requests that were begun before.</summary>
    /// <param name="rest">The requests that are still served.</param>
    /// <param name="patience">How long to wait for earlier requests, in milliseconds; -1 for no limit.</param>
    /// <remarks>
    /// The calling thread's own request is not waited for, nor are requests that called <see cref="ExpectClosing"/>.
    /// </remarks>
    /// <returns>False when an earlier request has not ended in that time.</returns>
    public bool Close(Service rest, int patience = Timeout.Infinite)
    {
        long end = patience < 0 ? long.MaxValue : Environment.TickCount64 + patience;
        bool haveEnded = true;
        using (closing.Enter())
        {
            if (rest > service) { service = rest; }
        }
        // A worker stores its request and then loads the state; here the state has been stored and the requests are loaded next. At least
        // one thread sees the other's store.
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

    /// <summary>Says that the calling thread's request closes the gate, or waits for the gate to close.</summary>
    public static void ExpectClosing()
    {
        if (Worker.Current is { } worker) { worker.Interruption.ExpectsClosing = true; }
    }

    /// <summary>
    /// Prepares the kernel to refuse reads and writes of passed-through files, which it does without asking. It takes
    /// effect when somebody looks up the files' names.
    /// </summary>
    /// <param name="nodeIds">
    /// The inodes of the files. Index N is revoked by a lookup of <see cref="RevokedPrefix"/> with N in the root, while
    /// <see cref="Service.Ending"/>.
    /// </param>
    /// <remarks>
    /// The answer to that lookup gives the nodeid another generation. All files that were opened under the old one then get
    /// EIO from the kernel. See fuse_stale_inode() and fuse_make_bad() in fs/fuse/inode.c.
    /// </remarks>
    public void Revoke(ulong[] nodeIds) => revoked = nodeIds;

    /// <summary>Whether a request must not reach the filesystem, and the error to answer instead.</summary>
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
        Opcode.SetAttr or Opcode.SymLink or Opcode.MkNod or Opcode.MkDir or Opcode.Unlink or Opcode.RmDir or Opcode.Rename
            or Opcode.Rename2 => true,
        Opcode.Link or Opcode.Create or Opcode.TmpFile or Opcode.Write or Opcode.SetXattr or Opcode.RemoveXattr or Opcode.FAllocate => true,
        Opcode.CopyFileRange or Opcode.CopyFileRange64 => true,
        Opcode.Open =>
            reader.Take(out OpenIn open)
            && ((open.Flags & OpenFlags.AccessMode) != OpenFlags.ReadOnly || (open.Flags & OpenFlags.Truncate) != 0),
        // FS_IOC_SETFLAGS and FS_IOC_FSSETXATTR; the ioctls of our tools have output
        Opcode.Ioctl => reader.Take(out IoctlIn ioctl) && ioctl is { InSize: > 0, OutSize: 0 },
        _ => false,
    };

    private static bool Ends(in InHeader header, ref RequestReader reader) => header.Opcode switch
    {
        Opcode.Write => reader.Take(out WriteIn write) && (write.WriteFlags & WriteFlags.Cache) != 0,
        Opcode.Release or Opcode.ReleaseDir or Opcode.Forget or Opcode.BatchForget or Opcode.Interrupt or Opcode.Destroy => true,
        Opcode.GetAttr or Opcode.StatX => header.NodeId == Root, // the process that looks up the names to revoke must get into the root
        _ => false,
    };

    /// <summary>Makes the answer to the lookup of a name that revokes an inode. False for any other request.</summary>
    internal bool TryRevoke(in InHeader header, RequestReader reader, out EntryOut entry)
    {
        entry = default;
        if (service != Service.Ending || header.Opcode != Opcode.Lookup || header.NodeId != Root) { return false; }
        if (!reader.TakeName(out ReadOnlySpan<byte> name) || !name.StartsWith(RevokedPrefix)) { return false; }
        ReadOnlySpan<byte> number = name[RevokedPrefix.Length..^1];
        if (!System.Buffers.Text.Utf8Parser.TryParse(number, out int index, out int used) || used != number.Length
            || (uint)index >= (uint)revoked.Length)
        {
            return false;
        }
        entry.NodeId = revoked[index];
        entry.Generation = 1; // our own generation is 0
        entry.AttrValid = 60; // otherwise the process that looked it up would ask again, and be refused
        entry.Attr = new Attr { Ino = revoked[index], Mode = FileType.Regular, Nlink = 1 };
        return true;
    }
}
