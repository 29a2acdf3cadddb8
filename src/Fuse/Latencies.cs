using System.Numerics;

namespace Veneer.Fuse;

/// <summary>A histogram of latencies: buckets of a logarithmic scale, four to each doubling.</summary>
/// <remarks>A bucket is a quarter of an octave wide, so that a percentile is right to some 10 %.</remarks>
public static class Latencies
{
    /// <summary>The first bucket holds all times below two to this power, in nanoseconds.</summary>
    private const int FirstOctave = 8;

    private const int StepsBits = 2, Steps = 1 << StepsBits;

    /// <summary>The number of buckets. The last one holds all times of 2^34 nanoseconds, 17 seconds, and more.</summary>
    public const int Buckets = 106;

    /// <summary>The bucket of a time in nanoseconds.</summary>
    public static int BucketOf(long nanoseconds)
    {
        if (nanoseconds < 1 << FirstOctave) { return 0; }
        int octave = BitOperations.Log2((ulong)nanoseconds);
        int step = (int)(nanoseconds >> (octave - StepsBits)) & (Steps - 1);
        return Math.Min(1 + ((octave - FirstOctave) * Steps) + step, Buckets - 1);
    }

    /// <summary>The upper bound of a bucket in nanoseconds: the shortest time that is too long for it.</summary>
    public static long BoundOf(int bucket) =>
        bucket == 0 ? 1 << FirstOctave : (long)(Steps + ((bucket - 1) % Steps) + 1) << ((bucket - 1) / Steps + FirstOctave - StepsBits);

    /// <summary>The time within which a part of the requests was served, in nanoseconds; 0 when there were none.</summary>
    /// <param name="counts">The count of each bucket.</param>
    /// <param name="part">The part, from 0 to 1.</param>
    public static double Percentile(ReadOnlySpan<long> counts, double part)
    {
        long all = 0;
        foreach (long count in counts) { all += count; }
        if (all == 0) { return 0; }
        double wanted = all * part;
        long below = 0;
        for (int bucket = 0; ; bucket++)
        {
            long count = counts[bucket];
            if (count > 0 && (below + count >= wanted || below + count == all))
            {
                double from = bucket == 0 ? 0 : BoundOf(bucket - 1);
                return from + ((BoundOf(bucket) - from) * Math.Clamp((wanted - below) / count, 0, 1));
            }
            below += count;
        }
    }
}
