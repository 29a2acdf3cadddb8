namespace Veneer.Rig;

/// <summary>The chart of locks in ARCHITECTURE.md.</summary>
/// <param name="repository">The root of the repository.</param>
public sealed class LockChart(string repository)
{
    private readonly (string Lock, string Under)[] rows =
    [
        .. File.ReadLines(Path.Combine(repository, "ARCHITECTURE.md"))
            .SkipWhile(line => !line.StartsWith("| lock | ", StringComparison.Ordinal)).Skip(2).TakeWhile(line => line.StartsWith('|'))
            .Select(line => line.Split('|', StringSplitOptions.TrimEntries)).Select(cells => (cells[1], cells[3])),
    ];

    /// <summary>Each lock, and what may be taken under it, in the words of the chart.</summary>
    public IEnumerable<string> Rows => rows.Select(row => $"{row.Lock}: {row.Under}");

    /// <summary>Each pair of locks of which the second may be taken while the first is held, as <c>first > second</c>.</summary>
    public IEnumerable<string> Pairs =>
        from first in rows.Index()
        from second in rows.Index()
        where first.Item.Under.Split(", ").Any(word => word switch
        {
            "all below" => second.Index > first.Index,
            "that of a child" => second.Index == first.Index,
            _ => word == second.Item.Lock,
        })
        select $"{first.Item.Lock} > {second.Item.Lock}";
}
