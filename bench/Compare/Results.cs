using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Veneer.Compare;

/// <summary>What was measured of one row.</summary>
internal sealed record Finding
{
    public required string Name { get; init; }

    public required string Group { get; init; }

    public required Unit Unit { get; init; }

    /// <summary>The line in a plot, if any.</summary>
    public string? Line { get; init; }

    /// <summary>Where on it; 0: the line is what was sampled over time.</summary>
    public double X { get; init; }

    /// <summary>When.</summary>
    public required string Date { get; init; }

    /// <summary>Why it was not measured at all.</summary>
    public string? LeftOut { get; set; }

    public Dictionary<string, Cell> Contenders { get; init; } = new(StringComparer.Ordinal);

    /// <summary>How many times what the kernel's overlayfs takes.</summary>
    public Dictionary<string, double> Ratios =>
        Contenders.Keys
            .Where(name => Ratio(name) is not null)
            .ToDictionary(name => name, name => Math.Round(Ratio(name)!.Value, 3), StringComparer.Ordinal);

    public Cell CellOf(string contender)
    {
        if (!Contenders.TryGetValue(contender, out Cell? cell)) { Contenders[contender] = cell = new Cell(); }
        return cell;
    }

    /// <summary>The median of all rounds.</summary>
    public double? Median(string contender) => Contenders.TryGetValue(contender, out Cell? cell) ? cell.Median : null;

    public double? Ratio(string contender) => Ratio(contender, Contender.Base);

    /// <summary>How many times what another takes.</summary>
    public double? Ratio(string contender, string other) => Median(other) is > 0 and var reference ? Median(contender) / reference : null;
}

/// <summary>What was measured of one row with one contender.</summary>
internal sealed record Cell
{
    /// <summary>One of each round.</summary>
    public List<double> Values { get; init; } = [];

    public double? Median => MedianOf(Values);

    public List<double> ServerMilliseconds { get; init; } = [];

    /// <summary>Seconds and the value, of the last round.</summary>
    public List<double[]>? Samples { get; set; }

    /// <summary>Why it could not be measured, the first time.</summary>
    public string? Problem { get; set; }

    public static double? MedianOf(List<double> values)
    {
        if (values.Count == 0) { return null; }
        double[] sorted = [.. values.Order()];
        int middle = sorted.Length / 2;
        return sorted.Length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }
}

/// <summary>What was measured.</summary>
internal sealed record Results
{
    private static readonly JsonSerializerOptions readable = new()
    {
        WriteIndented = true,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    };

    /// <summary>Kernel, processors, versions.</summary>
    public SortedDictionary<string, string> Circumstances { get; init; } = new(StringComparer.Ordinal);

    /// <summary>The columns.</summary>
    public required List<string> Contenders { get; init; }

    public required List<Finding> Rows { get; init; }

    public Finding? Find(string row) => Rows.Find(finding => finding.Name == row);

    public static Results Load(string file) => JsonSerializer.Deserialize<Results>(File.ReadAllText(file), readable)!;

    /// <summary>Everything, for programs.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, readable);

    /// <summary>Adds the rows of an earlier run that this one does not have.</summary>
    /// <param name="earlier">Made under the same circumstances.</param>
    /// <param name="order">Names of all rows, as the table has them.</param>
    public void Keep(Results earlier, List<string> order)
    {
        Rows.AddRange(earlier.Rows.Where(finding => Find(finding.Name) is null));
        Rows.Sort((one, other) => order.IndexOf(one.Name).CompareTo(order.IndexOf(other.Name)));
        Contenders.AddRange(earlier.Contenders.Except(Contenders, StringComparer.Ordinal));
    }

    /// <summary>Who has been measured in any of some rows.</summary>
    public string[] ContendersOf(IEnumerable<Finding> findings) =>
        [.. Contenders.Where(name => findings.Any(finding => finding.Contenders.ContainsKey(name)))];

    /// <summary>A Markdown table for each group, then what was left out or failed.</summary>
    public string ToMarkdown()
    {
        var text = new StringBuilder();
        foreach (IGrouping<string, Finding> group in Rows.Where(row => row.LeftOut is null).GroupBy(row => row.Group))
        {
            string[] contenders = ContendersOf(group);
            text.Append(CultureInfo.InvariantCulture, $"| {group.Key} | {string.Join(" | ", contenders)} |\n");
            text.Append('|').Insert(text.Length, "---|", contenders.Length + 1).Append('\n');
            foreach (Finding row in group)
            {
                text.Append(CultureInfo.InvariantCulture,
                    $"| {row.Name} | {string.Join(" | ", contenders.Select(name => TextOf(row, name)))} |\n");
            }
            text.Append('\n');
        }
        text.Append(
            "Medians; in brackets, how many times the kernel's. `-`: it cannot do that, or was not asked. "
            + "`cpu`: what the server computed.\n");
        foreach (Finding row in Rows.Where(row => row.LeftOut is not null))
        {
            text.Append(CultureInfo.InvariantCulture, $"\n{row.Name} was left out: {row.LeftOut}\n");
        }
        var problems =
            from row in Rows
            from pair in row.Contenders
            where pair.Value.Problem is not null
            select (row, pair.Key, pair.Value);
        foreach ((Finding row, string contender, Cell cell) in problems)
        {
            text.Append(CultureInfo.InvariantCulture, $"\n{row.Name}, {contender}: {cell.Problem}\n");
        }
        return text.ToString();
    }

    private static string TextOf(Finding row, string contender)
    {
        if (!row.Contenders.TryGetValue(contender, out Cell? cell)) { return "-"; }
        if (cell.Median is not { } median) { return "fail"; }
        string text = Readable(median, row.Unit);
        if (contender != Contender.Base && row.Ratio(contender) is { } ratio) { text += $" ({Short(ratio)})"; }
        if (row.Group == Row.RealWork && Cell.MedianOf(cell.ServerMilliseconds) is { } time)
        {
            text += time > 0 ? $", cpu {Readable(time, Unit.Milliseconds)}" : ", cpu < 10 ms";
        }
        return text;
    }

    /// <summary>A value with a unit that fits it.</summary>
    public static string Readable(double value, Unit unit) => unit switch
    {
        Unit.Mebibytes => $"{Short(value)} MiB",
        Unit.Milliseconds => Time(value * 1e6),
        Unit.Count => value.ToString("0.#", CultureInfo.InvariantCulture),
        _ => Time(value),
    };

    private static string Time(double nanoseconds) => nanoseconds switch
    {
        < 1e3 => $"{Short(nanoseconds)} ns",
        < 1e6 => $"{Short(nanoseconds / 1e3)} µs",
        < 1e9 => $"{Short(nanoseconds / 1e6)} ms",
        _ => $"{Short(nanoseconds / 1e9)} s",
    };

    public static string Short(double value) =>
        value.ToString(Math.Abs(value) switch { < 10 => "0.00", < 100 => "0.0", _ => "0" }, CultureInfo.InvariantCulture);
}
