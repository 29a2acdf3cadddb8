namespace Veneer.Overlay.Tree;

/// <summary>Learns whether small files are read after they are opened. If so, their content is sent to the kernel at the open.</summary>
/// <remarks>
/// A read that comes to the server costs three times as much as sending the content at the open. But sending content that nobody reads
/// is wasted. Threads that count at once may lose counts: the answer is a guess anyway.
/// </remarks>
internal sealed class SmallReads
{
    private const int Limit = 8;
    /// <summary>For one open in so many the content is not sent, to see whether a read follows.</summary>
    private const int Sample = 32;

    private int score;
    private uint turn;

    /// <summary>Whether a file that is being opened will probably be read. The kernel has no page of the file.</summary>
    public bool IsLikely()
    {
        if (score > 0 && ++turn % Sample != 0) { return true; }
        score = Math.Max(score - 1, -Limit);
        return false;
    }

    /// <summary>A file has been read whose content was not sent at the open.</summary>
    public void CountRead() => score = Math.Min(score + 2, Limit);
}
