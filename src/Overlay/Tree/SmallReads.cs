namespace Veneer.Overlay.Tree;

/// <summary>Learns from what is opened whether it will be read, so that the content of small files can go to the kernel at once.</summary>
/// <remarks>
/// A read that comes to us costs three times what it costs to give the content unasked, but to give it for nothing costs
/// as well. Counts are lost when threads meet: it is a guess either way.
/// </remarks>
internal sealed class SmallReads
{
    private const int Limit = 8;
    /// <summary>One open in so many is left alone, to see whether a read follows.</summary>
    private const int Sample = 32;

    private int score;
    private uint turn;

    /// <summary>Whether a file that is being opened, and whose pages the kernel does not have, will be read.</summary>
    public bool IsLikely()
    {
        if (score > 0 && ++turn % Sample != 0) { return true; }
        score = Math.Max(score - 1, -Limit);
        return false;
    }

    /// <summary>A file has been read whose content was not given.</summary>
    public void SawRead() => score = Math.Min(score + 2, Limit);
}
