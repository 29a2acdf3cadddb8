using Veneer.Fuse.Wire;

namespace Veneer.Fuse;

/// <summary>One serving thread, as the other threads see it.</summary>
internal sealed class Worker(WorkerPool pool, bool isExtra = false)
{
    [ThreadStatic]
    private static Worker? current;

    private ulong answered;

    /// <summary>The worker of the calling thread, or null.</summary>
    public static Worker? Current => current;

    /// <summary>The pool that the worker belongs to.</summary>
    public WorkerPool Pool { get; } = pool;

    /// <summary>
    /// Whether the worker was started because others are busy for long. Without it, they serve all requests, only later.
    /// </summary>
    public bool IsExtra { get; } = isExtra;

    /// <summary>The request that the worker serves, and whether its caller was interrupted.</summary>
    public Interruption Interruption { get; } = new();

    /// <summary>The inode that the request is about. Other threads may already see that of the next request.</summary>
    public ulong NodeId { get; set; }

    /// <summary>
    /// The thread that waits for the answer, or 0 when its number is unknown. Other threads may already see that of the
    /// next request.
    /// </summary>
    public uint Caller { get; set; }

    /// <summary>What the request is. Other threads may already see that of the next request.</summary>
    public Opcode Opcode { get; set; }

    /// <summary>
    /// Whether the request changes nothing, so that it need not be waited for when nobody wants the answer. Other threads
    /// may already see that of the next request.
    /// </summary>
    public bool OnlyReads { get; set; }

    /// <summary>
    /// The request that another thread answered in this one's place, or tried to. Changed under the pool's lock. The worker may read
    /// it without after its own answer.
    /// </summary>
    public ulong Answered { get => Volatile.Read(ref answered); set => Volatile.Write(ref answered, value); }

    /// <summary>The worker's exchange with the kernel while it serves, or null. Protected by the pool's lock.</summary>
    public Exchange? Exchange { get; set; }

    /// <summary>Whether another thread takes its requests, since this one is busy for long. Protected by the pool's lock.</summary>
    public bool IsReplaced { get; set; }

    /// <summary>The number of requests that the worker has begun.</summary>
    public int Begun { get; set; }

    /// <summary>The request that the worker served at the last look of <see cref="StallWatch"/>, which alone writes it.</summary>
    public ulong Seen { get; set; }

    /// <summary><see cref="Begun"/> at the last look of <see cref="StallWatch"/>, which alone writes it.</summary>
    public int SeenBegun { get; set; }

    /// <summary>Makes this the worker of the calling thread.</summary>
    public void Enter() => current = this;
}
