using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Veneer.Compare;

/// <summary>What was measured.</summary>
/// <param name="rows">The rows that were asked for.</param>
/// <param name="contenders">The columns.</param>
internal sealed class Results(IReadOnlyList<Row> rows, IReadOnlyList<Contender> contenders)
{
    private static readonly JsonSerializerOptions readable = new() { WriteIndented = true, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull };

    private readonly Dictionary<(Row Row, Contender Contender), Cell> cells = [];

    private sealed class Cell
    {
        public List<double> Values { get; } = [];

        public List<double> ServerTimes { get; } = [];

        public string? Problem { get; set; }
    }

    public IReadOnlyList<Row> Rows => rows;

    public IReadOnlyList<Contender> Contenders => contenders;

    /// <summary>Circumstances: kernel, processors, versions.</summary>
    public SortedDictionary<string, string> Circumstances { get; } = new(StringComparer.Ordinal);

    public void Add(Row row, Contender contender, double value, double? serverTime)
    {
        CellOf(row, contender).Values.Add(value);
        if (serverTime is { } time) { CellOf(row, contender).ServerTimes.Add(time); }
    }

    /// <summary>Notes why something could not be measured, the first time.</summary>
    public bool Fail(Row row, Contender contender, string problem)
    {
        Cell cell = CellOf(row, contender);
        if (cell.Problem is not null) { return false; }
        cell.Problem = problem;
        return true;
    }

    private Cell CellOf(Row row, Contender contender)
    {
        if (!cells.TryGetValue((row, contender), out Cell? cell)) { cells[(row, contender)] = cell = new Cell(); }
        return cell;
    }

    /// <summary>The median of all rounds.</summary>
    public double? Median(Row row, Contender contender) => cells.TryGetValue((row, contender), out Cell? cell) ? Median(cell.Values) : null;

    /// <summary>How many times what the kernel's overlayfs takes.</summary>
    public double? Ratio(Row row, Contender contender) =>
        contenders.FirstOrDefault(c => c.Name == Contender.Base) is { } other && Median(row, other) is > 0 and var reference ? Median(row, contender) / reference : null;

    private static double? Median(List<double> values)
    {
        if (values.Count == 0) { return null; }
        double[] sorted = [.. values.Order()];
        int middle = sorted.Length / 2;
        return sorted.Length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }

    /// <summary>A Markdown table for each group, then what failed.</summary>
    public string ToMarkdown()
    {
        var text = new StringBuilder();
        foreach (IGrouping<string, Row> group in rows.GroupBy(row => row.Group))
        {
            text.Append(CultureInfo.InvariantCulture, $"| {group.Key} | {string.Join(" | ", contenders.Select(c => c.Name))} |\n");
            text.Append('|').Insert(text.Length, "---|", contenders.Count + 1).Append('\n');
            foreach (Row row in group)
            {
                text.Append(CultureInfo.InvariantCulture, $"| {row.Name} | {string.Join(" | ", contenders.Select(c => TextOf(row, c)))} |\n");
            }
            text.Append('\n');
        }
        text.Append("Medians; in brackets, how many times the kernel's. `-`: it cannot do that. `cpu`: what the server computed.\n");
        foreach (((Row row, Contender contender), Cell cell) in cells.Where(c => c.Value.Problem is not null))
        {
            text.Append(CultureInfo.InvariantCulture, $"\n{row.Name}, {contender.Name}: {cell.Problem}\n");
        }
        return text.ToString();
    }

    private string TextOf(Row row, Contender contender)
    {
        if (!contender.CanDo(row)) { return "-"; }
        if (Median(row, contender) is not { } median) { return cells.ContainsKey((row, contender)) ? "fail" : ""; }
        string text = Readable(median, row.Unit);
        if (contender.Name != Contender.Base && Ratio(row, contender) is { } ratio) { text += $" ({Short(ratio)})"; }
        if (row.Group == Row.RealWork && Median(CellOf(row, contender).ServerTimes) is { } time) { text += time > 0 ? $", cpu {Readable(time, Unit.Milliseconds)}" : ", cpu < 10 ms"; }
        return text;
    }

    /// <summary>A value with a unit that fits it.</summary>
    public static string Readable(double value, Unit unit) => unit switch
    {
        Unit.Mebibytes => $"{Short(value)} MiB",
        Unit.Milliseconds => Time(value * 1e6),
        _ => Time(value),
    };

    private static string Time(double nanoseconds) => nanoseconds switch
    {
        < 1e3 => $"{Short(nanoseconds)} ns",
        < 1e6 => $"{Short(nanoseconds / 1e3)} µs",
        < 1e9 => $"{Short(nanoseconds / 1e6)} ms",
        _ => $"{Short(nanoseconds / 1e9)} s",
    };

    private static string Short(double value) => value.ToString(value < 10 ? "0.00" : value < 100 ? "0.0" : "0", CultureInfo.InvariantCulture);

    /// <summary>Everything, for programs.</summary>
    public string ToJson() => JsonSerializer.Serialize(
        new
        {
            Circumstances,
            Rows = rows.Select(row => new
            {
                row.Name,
                row.Group,
                Unit = row.Unit.ToString(),
                Contenders = contenders.Where(c => cells.ContainsKey((row, c))).ToDictionary(
                    c => c.Name,
                    c => new { Median = Median(row, c), Ratio = Ratio(row, c), CellOf(row, c).Values, ServerMilliseconds = CellOf(row, c).ServerTimes, CellOf(row, c).Problem },
                    StringComparer.Ordinal),
            }),
        },
        readable);
}
