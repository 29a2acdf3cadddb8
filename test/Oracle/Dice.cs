namespace Veneer.Oracle;

/// <summary>Numbers that look random and are a function of the seed alone, in every version of .NET (splitmix64).</summary>
public sealed class Dice(ulong seed)
{
    private ulong state = seed;

    /// <summary>A stream of its own for one purpose, so that more numbers for it shift no other.</summary>
    public static Dice For(int seed, string purpose)
    {
        ulong hash = 14695981039346656037;
        foreach (char c in $"{purpose}/{seed}") { hash = (hash ^ c) * 1099511628211; }
        return new Dice(hash);
    }

    /// <summary>From 0 up to below the bound.</summary>
    public int Below(int bound) => (int)(Next() % (ulong)bound);

    public double Fraction() => (Next() >> 11) * (1.0 / (1ul << 53));

    public bool Chance(double probability) => Fraction() < probability;

    public T Of<T>(params ReadOnlySpan<T> choices) => choices[Below(choices.Length)];

    private ulong Next()
    {
        ulong z = state += 0x9E3779B97F4A7C15;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }
}
