using System.Globalization;
using System.Net;
using System.Text;

namespace Veneer.Compare;

/// <summary>Pictures of results, as SVG.</summary>
internal static class Plot
{
    private const int Left = 150, Width = 560, Legend = 20;

    private static readonly string[] colours = ["#999999", "#333333", "#0072b2", "#56b4e9", "#009e73", "#d55e00", "#e69f00", "#cc79a7"];

    /// <summary>Bars of each row of a group: how many times the kernel's overlayfs, on a logarithmic scale.</summary>
    public static string Bars(Results results, string group)
    {
        const int bar = 7, gap = 8;
        Finding[] rows = [.. results.Rows.Where(row => row.Group == group && row.Ratios.Count > 1)];
        string[] contenders = [.. results.Contenders.Where(name => name != Contender.Base && rows.Any(row => row.Ratio(name) > 0))];
        double[] ratios = [.. from row in rows from name in contenders let ratio = row.Ratio(name) where ratio > 0 select ratio.Value];
        if (ratios.Length == 0) { return ""; }
        var scale = new LogScale(Math.Min(0.5, ratios.Min()), Math.Max(2, ratios.Max()), Left, Width);
        int rowHeight = (contenders.Length * bar) + gap, top = 30 + (contenders.Length * Legend);
        var svg = new Svg(Left + Width + 60, top + (rows.Length * rowHeight) + 30, $"{group}: times the kernel's overlayfs");
        AddLegend(svg, contenders);
        foreach (double tick in scale.Ticks())
        {
            svg.Line(scale.At(tick), top, scale.At(tick), top + (rows.Length * rowHeight), tick == 1 ? "#000000" : "#dddddd");
            svg.Text(scale.At(tick), top + (rows.Length * rowHeight) + 16, Number(tick), "middle");
        }
        for (int i = 0; i < rows.Length; i++)
        {
            double y = top + (i * rowHeight);
            svg.Text(Left - 8, y + (rowHeight / 2.0), rows[i].Name, "end");
            for (int j = 0; j < contenders.Length; j++)
            {
                if (rows[i].Ratio(contenders[j]) is not { } ratio) { continue; }
                double from = Math.Min(scale.At(1), scale.At(ratio)), to = Math.Max(scale.At(1), scale.At(ratio));
                svg.Rectangle(from, y + (j * bar), Math.Max(1, to - from), bar - 1, ColourOf(contenders[j]),
                    $"{rows[i].Name}, {contenders[j]}: {Number(ratio)}");
            }
        }
        return svg.ToString();
    }

    /// <summary>One line for each contender: cost against what grows, both scales logarithmic.</summary>
    public static string Lines(Results results, string line)
    {
        const int height = 320;
        Finding[] rows = [.. results.Rows.Where(row => row.Line == line)];
        var lines = new List<(string Contender, (double X, double Cost)[] Points)>();
        foreach (string contender in results.ContendersOf(rows))
        {
            (double, double)[] points = [.. rows.SelectMany(row => PointsOf(row, contender)).Where(point => point.X > 0 && point.Cost > 0)];
            if (points.Length > 0) { lines.Add((contender, points)); }
        }
        if (lines.Count == 0) { return ""; }
        (double X, double Cost)[] all = [.. lines.SelectMany(each => each.Points)];
        int top = 30 + (lines.Count * Legend);
        var across = new LogScale(all.Min(point => point.X), all.Max(point => point.X), Left, Width);
        var up = new LogScale(all.Min(point => point.Cost), all.Max(point => point.Cost), top + height, -height);
        var svg = new Svg(Left + Width + 60, top + height + 40, line);
        AddLegend(svg, [.. lines.Select(each => each.Contender)]);
        foreach (double tick in up.Ticks())
        {
            svg.Line(Left, up.At(tick), Left + Width, up.At(tick), "#dddddd");
            svg.Text(Left - 8, up.At(tick) + 4, Results.Readable(tick, rows[0].Unit), "end");
        }
        foreach (double x in rows[0].X > 0 ? rows.Select(row => row.X) : across.Ticks())
        {
            svg.Text(across.At(x), top + height + 20, Number(x), "middle");
        }
        foreach ((string contender, (double X, double Cost)[] points) in lines)
        {
            svg.Path([.. points.Select(point => (across.At(point.X), up.At(point.Cost)))], ColourOf(contender));
        }
        return svg.ToString();

        static IEnumerable<(double X, double Cost)> PointsOf(Finding row, string contender) =>
            !row.Contenders.TryGetValue(contender, out Cell? cell) ? []
            : row.X > 0 ? [(row.X, cell.Median ?? 0)]
            : (cell.Samples ?? []).Select(sample => (sample[0], sample[1]));
    }

    private static void AddLegend(Svg svg, string[] contenders)
    {
        for (int i = 0; i < contenders.Length; i++)
        {
            svg.Rectangle(Left, 30 + (i * Legend), 12, 12, ColourOf(contenders[i]), contenders[i]);
            svg.Text(Left + 18, 40 + (i * Legend), contenders[i], "start");
        }
    }

    /// <summary>The same in each picture.</summary>
    private static string ColourOf(string contender)
    {
        int known = Contender.All.ToList().FindIndex(c => c.Name == contender.Replace(Contender.Rootless, "", StringComparison.Ordinal));
        return colours[known < 0 ? ^1 : known];
    }

    private static string Number(double value) => value.ToString(value < 10 ? "0.##" : "0", CultureInfo.InvariantCulture);

    private sealed class LogScale(double lowest, double highest, double start, double length)
    {
        private readonly double low = Math.Log10(lowest), high = Math.Max(Math.Log10(highest), Math.Log10(lowest) + 0.1);

        public double At(double value) => start + (length * (Math.Log10(value) - low) / (high - low));

        /// <summary>1, 2 and 5 times the powers of ten.</summary>
        public IEnumerable<double> Ticks() =>
            from power in Enumerable.Range((int)Math.Floor(low), (int)Math.Ceiling(high) - (int)Math.Floor(low) + 1)
            from step in (double[])[1, 2, 5]
            let tick = step * Math.Pow(10, power)
            where Math.Log10(tick) >= low - 0.001 && Math.Log10(tick) <= high + 0.001
            select tick;
    }

    private sealed class Svg
    {
        private readonly StringBuilder text = new();

        public Svg(int width, int height, string title)
        {
            text.Append(CultureInfo.InvariantCulture, $"""
                <svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">
                <rect width="100%" height="100%" fill="#ffffff"/>

                """);
            Text(10, 18, title, "start");
        }

        public void Line(double x1, double y1, double x2, double y2, string colour) =>
            text.Append(CultureInfo.InvariantCulture,
                $"<line x1=\"{x1:0.#}\" y1=\"{y1:0.#}\" x2=\"{x2:0.#}\" y2=\"{y2:0.#}\" stroke=\"{colour}\"/>\n");

        public void Rectangle(double x, double y, double width, double height, string colour, string tip) =>
            text.Append(
                CultureInfo.InvariantCulture,
                $"<rect x=\"{x:0.#}\" y=\"{y:0.#}\" width=\"{width:0.#}\" height=\"{height:0.#}\" "
                + $"fill=\"{colour}\"><title>{WebUtility.HtmlEncode(tip)}</title></rect>\n");

        public void Path((double X, double Y)[] points, string colour)
        {
            IEnumerable<string> places = points.Select(p => string.Create(CultureInfo.InvariantCulture, $"{p.X:0.#},{p.Y:0.#}"));
            text.Append(CultureInfo.InvariantCulture,
                $"<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{string.Join(' ', places)}\"/>\n");
            foreach ((double x, double y) in points)
            {
                text.Append(CultureInfo.InvariantCulture, $"<circle cx=\"{x:0.#}\" cy=\"{y:0.#}\" r=\"3\" fill=\"{colour}\"/>\n");
            }
        }

        public void Text(double x, double y, string words, string anchor) =>
            text.Append(CultureInfo.InvariantCulture,
                $"<text x=\"{x:0.#}\" y=\"{y:0.#}\" text-anchor=\"{anchor}\">{WebUtility.HtmlEncode(words)}</text>\n");

        public override string ToString() => text + "</svg>\n";
    }
}
