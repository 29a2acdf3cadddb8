namespace Veneer.Fuse;

/// <summary>One thread that serves, as others see it.</summary>
internal sealed class Worker(Crew crew, bool isExtra = false)
{
    [ThreadStatic]
    private static Worker? current;

    /// <summary>That of the calling thread.</summary>
    public static Worker? Current => current;

    /// <summary>Where it belongs.</summary>
    public Crew Crew { get; } = crew;

    /// <summary>Whether it was started since others take long: without it they serve the requests all the same, only later.</summary>
    public bool IsExtra { get; } = isExtra;

    /// <summary>What it serves, and whether the caller has given up.</summary>
    public Interruption Interruption { get; } = new();

    /// <summary>The inode that the request is about. Others may see that of the next one already.</summary>
    public ulong NodeId { get; set; }

    /// <summary>The thread that waits for the answer, or 0 when its number is not known. Others may see that of the next request already.</summary>
    public uint Caller { get; set; }

    /// <summary>Whether the request changes nothing, so that it need not be waited for when nobody wants the answer. As <see cref="Caller"/>.</summary>
    public bool OnlyReads { get; set; }

    /// <summary>The request that was answered in the place of this thread. Protected by the crew.</summary>
    public ulong Answered { get; set; }

    /// <summary>How it talks to the kernel, while it does. Protected by the crew.</summary>
    public Exchange? Exchange { get; set; }

    /// <summary>Whether another thread takes its requests, since this one takes long. Protected by the crew.</summary>
    public bool IsReplaced { get; set; }

    /// <summary>Counts the requests that it has begun.</summary>
    public int Begun { get; set; }

    /// <summary>The request that it served when <see cref="StallWatch"/> looked last. Only that writes it.</summary>
    public ulong Seen { get; set; }

    /// <summary><see cref="Begun"/> when <see cref="StallWatch"/> looked last. Only that writes it.</summary>
    public int SeenBegun { get; set; }

    /// <summary>The calling thread is this one.</summary>
    public void Enter() => current = this;
}
