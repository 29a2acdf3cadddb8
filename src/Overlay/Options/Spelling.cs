namespace Veneer.Overlay;

/// <summary>Finds what a misspelt word was meant to be.</summary>
public static class Spelling
{
    /// <summary>
    /// Finds the candidate that takes the fewest changes, at most a given number. A change inserts, deletes or replaces a
    /// letter, or swaps two neighbours.
    /// </summary>
    public static string? Nearest(string word, IEnumerable<string> candidates, int most)
    {
        string? nearest = null;
        foreach (string candidate in candidates)
        {
            int distance = Distance(word, candidate);
            if (distance <= most) { (nearest, most) = (candidate, distance - 1); }
        }
        return nearest;
    }

    /// <summary>The distance of Damerau and Levenshtein, in which no letter is changed twice.</summary>
    private static int Distance(string one, string other)
    {
        var rows = new int[one.Length + 1, other.Length + 1];
        for (int i = 0; i <= one.Length; i++)
        {
            for (int j = 0; j <= other.Length; j++)
            {
                if (i == 0 || j == 0)
                {
                    rows[i, j] = i + j;
                    continue;
                }
                int cost = one[i - 1] == other[j - 1] ? 0 : 1;
                rows[i, j] = Math.Min(Math.Min(rows[i - 1, j], rows[i, j - 1]) + 1, rows[i - 1, j - 1] + cost);
                if (i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1])
                {
                    rows[i, j] = Math.Min(rows[i, j], rows[i - 2, j - 2] + 1);
                }
            }
        }
        return rows[one.Length, other.Length];
    }
}
