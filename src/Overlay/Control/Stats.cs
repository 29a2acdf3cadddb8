namespace Veneer.Overlay.Control;

/// <summary>The answer to <see cref="Query.Stats"/>: everything since the mount was made, or as it is now.</summary>
/// <remarks>
/// An interface, like the names that these have in JSON (docs/control.md): members are added, and none goes away or
/// changes its meaning. Times are seconds, sizes bytes.
/// </remarks>
public sealed record Stats
{
    /// <summary>Since the mount was made.</summary>
    public double UptimeSeconds { get; init; }

    /// <summary>What was served, one for each kind of request that came at all.</summary>
    public required IReadOnlyList<RequestStats> Requests { get; init; }

    /// <summary>Requests that came by reading /dev/fuse.</summary>
    public long OverDevice { get; init; }

    /// <summary>Requests that came over io_uring.</summary>
    public long OverIoUring { get; init; }

    /// <summary>Requests that are being served now, that for this answer among them.</summary>
    public int InProgress { get; init; }

    /// <summary>How files were opened.</summary>
    public required OpenStats Opens { get; init; }

    /// <summary>Files that are open.</summary>
    public int OpenFiles { get; init; }

    /// <summary>The most files that may be open at once; more get ENFILE.</summary>
    public int MaxOpenFiles { get; init; }

    /// <summary>Files registered with the kernel for passthrough now.</summary>
    public int BackingIds { get; init; }

    /// <summary>Files that the kernel refused to pass through.</summary>
    public int BackingIdsRefused { get; init; }

    /// <summary>Inodes that the kernel knows, or that lie above such.</summary>
    public int Inodes { get; init; }

    /// <summary>Descriptors of the layers' directories that are kept open.</summary>
    public required DirectoryStats Directories { get; init; }

    /// <summary>What was copied up.</summary>
    public required CopyUpStats CopyUps { get; init; }

    /// <summary>Invalidations sent to the kernel.</summary>
    public long Notifications { get; init; }

    /// <summary>The server's process.</summary>
    public required ProcessStats Process { get; init; }
}

/// <summary>What was served of one kind of request.</summary>
/// <remarks>A request lasts from its arrival at the server until its reply is handed over. The kernel's part, and the wait for a thread, come on top.</remarks>
public sealed record RequestStats
{
    /// <summary>The kind, as <c>enum fuse_opcode</c> has it, in small letters: <c>lookup</c>, <c>readdirplus</c>. <c>other</c>: what the server does not know.</summary>
    public required string Opcode { get; init; }

    /// <summary>How many were served.</summary>
    public long Count { get; init; }

    /// <summary>How many of these were answered with an error.</summary>
    public long Errors { get; init; }

    /// <summary>Content read or written, of read, write, copy_file_range, readdir and readdirplus.</summary>
    public long Bytes { get; init; }

    /// <summary>Of all together.</summary>
    public double Seconds { get; init; }

    /// <summary>Half of them took no longer; like the others right to some 10 %.</summary>
    public double P50Seconds { get; init; }

    /// <summary>Nine of ten took no longer.</summary>
    public double P90Seconds { get; init; }

    /// <summary>99 of 100 took no longer.</summary>
    public double P99Seconds { get; init; }

    /// <summary>The longest.</summary>
    public double MaxSeconds { get; init; }

    /// <summary>How many took how long: pairs of a time in nanoseconds and how many took less than that and no less than the pair before. Pairs of none are left out.</summary>
    public required IReadOnlyList<long[]> Latency { get; init; }
}

/// <summary>How many files were opened in which way.</summary>
public sealed record OpenStats
{
    /// <summary>The kernel reads, writes and maps the real file itself.</summary>
    public long PassedThrough { get; init; }

    /// <summary>The kernel maps the real file itself; what is read and written comes to the server.</summary>
    public long MapsPassedThrough { get; init; }

    /// <summary>Through the kernel's pages, and it could keep those that it had.</summary>
    public long CacheKept { get; init; }

    /// <summary>Through the kernel's pages, which are read anew.</summary>
    public long Cached { get; init; }

    /// <summary>All that is read and written comes to the server.</summary>
    public long Direct { get; init; }
}

/// <summary>Descriptors of the layers' directories that are kept open, so that a name costs one system call.</summary>
public sealed record DirectoryStats
{
    /// <summary>How many are open.</summary>
    public int Open { get; init; }

    /// <summary>How many may be.</summary>
    public int Capacity { get; init; }

    /// <summary>How often one was open that was needed.</summary>
    public long Hits { get; init; }

    /// <summary>How often one had to be opened.</summary>
    public long Misses { get; init; }

    /// <summary>How often one was closed to make room.</summary>
    public long Evictions { get; init; }
}

/// <summary>What was copied up.</summary>
public sealed record CopyUpStats
{
    /// <summary>Files, directories and others.</summary>
    public long Count { get; init; }

    /// <summary>The data of files, holes included, shared blocks too.</summary>
    public long Bytes { get; init; }
}

/// <summary>The server's process.</summary>
public sealed record ProcessStats
{
    /// <summary>Its id, in its own pid namespace.</summary>
    public int Pid { get; init; }

    /// <summary>Threads that serve, those that wait included.</summary>
    public int Threads { get; init; }

    /// <summary>Descriptors in use.</summary>
    public int Descriptors { get; init; }

    /// <summary>How many it may have.</summary>
    public long MaxDescriptors { get; init; }

    /// <summary>Memory in RAM.</summary>
    public long ResidentBytes { get; init; }

    /// <summary>Of that, objects on the managed heap, used or not yet collected.</summary>
    public long HeapBytes { get; init; }

    /// <summary>Managed memory that was ever allocated.</summary>
    public long AllocatedBytes { get; init; }

    /// <summary>Garbage collections.</summary>
    public int Collections { get; init; }

    /// <summary>CPU time in user space.</summary>
    public double UserSeconds { get; init; }

    /// <summary>CPU time in the kernel.</summary>
    public double SystemSeconds { get; init; }
}
