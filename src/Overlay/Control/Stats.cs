namespace Veneer.Overlay.Control;

/// <summary>The answer to <see cref="Query.Stats"/>: counts since the mount was made, and present values.</summary>
/// <remarks>
/// The records are an interface, like the names of their members in JSON (docs/control.md): members are added, and none goes
/// away or changes its meaning. Times are in seconds, sizes in bytes.
/// </remarks>
public sealed record Stats
{
    /// <summary>The time since the mount was made.</summary>
    public double UptimeSeconds { get; init; }

    /// <summary>The requests that were served, one record for each kind that came at all.</summary>
    public required IReadOnlyList<RequestStats> Requests { get; init; }

    /// <summary>The number of requests that were read from /dev/fuse.</summary>
    public long OverDevice { get; init; }

    /// <summary>The number of requests that came over io_uring.</summary>
    public long OverIoUring { get; init; }

    /// <summary>The number of requests that are being served now, including the one for this answer.</summary>
    public int InProgress { get; init; }

    /// <summary>How files were opened.</summary>
    public required OpenStats Opens { get; init; }

    /// <summary>The number of open files.</summary>
    public int OpenFiles { get; init; }

    /// <summary>The most files that may be open at once; more get ENFILE.</summary>
    public int MaxOpenFiles { get; init; }

    /// <summary>The number of files that are now registered with the kernel for passthrough.</summary>
    public int BackingIds { get; init; }

    /// <summary>The number of files that the kernel refused to pass through.</summary>
    public int BackingIdsRefused { get; init; }

    /// <summary>The number of inodes that the kernel knows, and of the directories above them.</summary>
    public int Inodes { get; init; }

    /// <summary>The cached descriptors of the layers' directories.</summary>
    public required DirectoryStats Directories { get; init; }

    /// <summary>What was copied up.</summary>
    public required CopyUpStats CopyUps { get; init; }

    /// <summary>The number of invalidations sent to the kernel.</summary>
    public long Notifications { get; init; }

    /// <summary>The server's process.</summary>
    public required ProcessStats Process { get; init; }
}

/// <summary>The requests of one kind that were served.</summary>
/// <remarks>
/// A request lasts from its arrival at the server until its reply is handed over. The kernel's share, and the wait for a
/// thread, are not included.
/// </remarks>
public sealed record RequestStats
{
    /// <summary>
    /// The kind in small letters, as in <c>enum fuse_opcode</c>: <c>lookup</c>, <c>readdirplus</c>. <c>other</c> stands for
    /// kinds that the server does not know.
    /// </summary>
    public required string Opcode { get; init; }

    /// <summary>The number of requests that were served.</summary>
    public long Count { get; init; }

    /// <summary>The number of these that were answered with an error.</summary>
    public long Errors { get; init; }

    /// <summary>The content read or written by read, write, copy_file_range, readdir and readdirplus.</summary>
    public long Bytes { get; init; }

    /// <summary>The total time of all requests.</summary>
    public double Seconds { get; init; }

    /// <summary>The time that half of the requests did not exceed. Like the other percentiles it is accurate to some 10 %.</summary>
    public double P50Seconds { get; init; }

    /// <summary>The time that 90 % of the requests did not exceed.</summary>
    public double P90Seconds { get; init; }

    /// <summary>The time that 99 % of the requests did not exceed.</summary>
    public double P99Seconds { get; init; }

    /// <summary>The time of the longest request.</summary>
    public double MaxSeconds { get; init; }

    /// <summary>
    /// The distribution of times. Each pair is a time in nanoseconds and the number of requests below it that are not in an
    /// earlier interval. Empty intervals are left out.
    /// </summary>
    public required IReadOnlyList<long[]> Latency { get; init; }
}

/// <summary>How many files were opened in which way.</summary>
public sealed record OpenStats
{
    /// <summary>Opens for which the kernel reads, writes and maps the real file itself.</summary>
    public long PassedThrough { get; init; }

    /// <summary>Opens for which the kernel maps the real file itself, while reads and writes come to the server.</summary>
    public long MapsPassedThrough { get; init; }

    /// <summary>Opens through the kernel's pages, of which the kernel could keep those it had.</summary>
    public long CacheKept { get; init; }

    /// <summary>Opens through the kernel's pages, which are read anew.</summary>
    public long Cached { get; init; }

    /// <summary>Opens for which all reads and writes come to the server.</summary>
    public long Direct { get; init; }
}

/// <summary>The cached descriptors of the layers' directories, which let a name cost one system call.</summary>
public sealed record DirectoryStats
{
    /// <summary>The number of descriptors that are open.</summary>
    public int Open { get; init; }

    /// <summary>The number of descriptors that may be open.</summary>
    public int Capacity { get; init; }

    /// <summary>How many times a needed descriptor was open already.</summary>
    public long Hits { get; init; }

    /// <summary>How many times a descriptor had to be opened.</summary>
    public long Misses { get; init; }

    /// <summary>How many times a descriptor was closed to make room.</summary>
    public long Evictions { get; init; }
}

/// <summary>What was copied up.</summary>
public sealed record CopyUpStats
{
    /// <summary>The number of files, directories and other objects.</summary>
    public long Count { get; init; }

    /// <summary>The data of files, including holes and shared blocks.</summary>
    public long Bytes { get; init; }
}

/// <summary>The server's process.</summary>
public sealed record ProcessStats
{
    /// <summary>The process id, in the server's own pid namespace.</summary>
    public int Pid { get; init; }

    /// <summary>The number of threads that serve, including those that wait.</summary>
    public int Threads { get; init; }

    /// <summary>The number of descriptors in use.</summary>
    public int Descriptors { get; init; }

    /// <summary>The limit of descriptors; 0 when it is not known.</summary>
    public long MaxDescriptors { get; init; }

    /// <summary>The memory that is resident in RAM.</summary>
    public long ResidentBytes { get; init; }

    /// <summary>The objects on the managed heap, used or not yet collected.</summary>
    public long HeapBytes { get; init; }

    /// <summary>The managed memory that was allocated since the start.</summary>
    public long AllocatedBytes { get; init; }

    /// <summary>The number of garbage collections.</summary>
    public int Collections { get; init; }

    /// <summary>CPU time in user space.</summary>
    public double UserSeconds { get; init; }

    /// <summary>CPU time in the kernel.</summary>
    public double SystemSeconds { get; init; }
}
