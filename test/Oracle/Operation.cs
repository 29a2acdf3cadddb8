namespace Veneer.Oracle;

/// <summary>One thing that a user does. It depends on no other, so that any part of a list of operations is one too.</summary>
/// <param name="Name">Which operation of <see cref="Performer"/>.</param>
/// <param name="User">Who does it, a position in <see cref="LayerMaker.Users"/>.</param>
/// <param name="Arguments">Words without spaces.</param>
public sealed record Operation(string Name, int User, string[] Arguments)
{
    /// <summary>Unmounts, forgets caches and mounts again.</summary>
    public const string Remount = "remount";

    /// <summary>Compares the whole trees.</summary>
    public const string Look = "look";

    public override string ToString() =>
        (User == 0 ? "" : $"user{User} ") + Name + string.Concat(Arguments.Select(a => " " + (a.Length == 0 ? "-" : a)));

    /// <summary>Reads what <see cref="ToString"/> wrote.</summary>
    public static Operation Parse(string line)
    {
        string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        int user = words[0].StartsWith("user", StringComparison.Ordinal) ? words[0][4] - '0' : 0;
        if (user > 0) { words = words[1..]; }
        return new Operation(words[0], user, [.. words[1..].Select(w => w == "-" ? "" : w)]);
    }
}
