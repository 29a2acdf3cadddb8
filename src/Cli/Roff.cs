using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace Veneer.Cli;

/// <summary>Makes pages for man(1), in roff with the macros of man(7), from the texts of <see cref="Manual"/>.</summary>
/// <remarks>
/// A text is understood by its layout:
/// <list type="bullet">
/// <item>The heading of a section begins in the first column, and all that belongs to it four columns further right. The
/// heading of a part of a section begins in the third column.</item>
/// <item>SYNOPSIS, EXAMPLES and SEE ALSO are taken line by line.</item>
/// <item>Elsewhere, a line with two spaces in it is an item of a list: what is before them is described by what follows
/// them and by the lines below that begin further right. So is a line without, if such lines follow; lines that end in a
/// comma may precede it.</item>
/// <item>All else are paragraphs, with empty lines between them.</item>
/// </list>
/// </remarks>
internal static partial class Roff
{
    private const string Indent = "    ";

    /// <summary>Makes a page.</summary>
    /// <param name="name">The name of the page, such as <c>veneer-mount</c>.</param>
    /// <param name="section">The section of the manual that it is in.</param>
    /// <param name="text">The text.</param>
    public static string PageOf(string name, int section, string text)
    {
        var roff = new StringBuilder();
        roff.Append(CultureInfo.InvariantCulture, $".\\\" Made from src/Cli/Manual by veneer --roff {name}.{section}\n");
        roff.Append(CultureInfo.InvariantCulture,
            $".TH {Escape(name.ToUpperInvariant())} {section} \"\" \"{Escape(Program.Version.Split('\n')[0])}\" \"Veneer\"\n");
        roff.Append(".nh\n.ad l\n.ss 12 0\n"); // words are not divided, lines not stretched, and sentences have one space between them

        string[] lines = text.TrimEnd('\n').Split('\n');
        for (int at = 0; at < lines.Length;)
        {
            string heading = lines[at++];
            int end = Array.FindIndex(lines, at, IsHeading);
            if (end < 0) { end = lines.Length; }
            roff.Append(".SH ").Append(Escape(heading)).Append('\n');
            Append(roff, heading, lines.AsSpan(at..end).TrimEnd(""));
            at = end;
        }
        return roff.ToString();

        static bool IsHeading(string line) => line.Length > 0 && line[0] != ' ';
    }

    private static void Append(StringBuilder roff, string heading, ReadOnlySpan<string> lines)
    {
        switch (heading)
        {
            case "NAME":
                // whatis(1) wants one word, and a hyphen
                string[] name = lines[0].Trim().Split(" - ", 2);
                AppendLine(roff, $"{name[0].Replace(' ', '-')} - {name[1]}");
                break;
            case "SYNOPSIS" or "EXAMPLES":
                AppendVerbatim(roff, lines, line => line);
                break;
            case "SEE ALSO":
                AppendVerbatim(roff, lines, line => HelpOfCommand().Replace(line, "veneer-${command}(1)"));
                break;
            default:
                AppendText(roff, lines);
                break;
        }
    }

    private static void AppendVerbatim(StringBuilder roff, ReadOnlySpan<string> lines, Func<string, string> change)
    {
        roff.Append(".nf\n");
        foreach (string line in lines)
        {
            if (line.Length == 0) { roff.Append(".sp\n"); }
            else { AppendLine(roff, change(line[Indent.Length..])); }
        }
        roff.Append(".fi\n");
    }

    private static void AppendText(StringBuilder roff, ReadOnlySpan<string> lines)
    {
        bool isFirst = true; // right below a heading no paragraph is begun
        for (int at = 0; at < lines.Length;)
        {
            string line = lines[at];
            if (line.Length == 0) { at++; }
            else if (!line.StartsWith(Indent, StringComparison.Ordinal))
            {
                roff.Append(".SS ").Append(Escape(line.Trim())).Append('\n');
                at++;
                isFirst = true;
                continue;
            }
            else if (TermsAt(lines[at..]) is var terms and > 0)
            {
                // .TP takes one line for what is described; of several lines a paragraph is made, and the description is moved in.
                roff.Append(terms == 1 ? ".TP\n" : ".PP\n");
                string[] item = lines[at].Trim().Split("  ", 2);
                for (int end = at + terms; at < end; at++)
                {
                    roff.Append("\\fB").Append(Escape(terms == 1 ? item[0] : lines[at].Trim())).Append("\\fR\n");
                }
                if (terms > 1) { roff.Append(".RS\n"); }
                if (item.Length == 2) { AppendLine(roff, item[1].Trim()); }
                for (; at < lines.Length && IsDeeper(lines[at]); at++) { AppendLine(roff, lines[at].Trim()); }
                if (terms > 1) { roff.Append(".RE\n"); }
            }
            else
            {
                if (!isFirst) { roff.Append(".PP\n"); }
                for (; at < lines.Length && lines[at].Length > 0 && TermsAt(lines[at..]) == 0; at++) { AppendLine(roff, lines[at].Trim()); }
            }
            isFirst = false;
        }
    }

    /// <summary>How many lines, from the first, name what is described together; 0 when no item of a list begins there.</summary>
    private static int TermsAt(ReadOnlySpan<string> lines)
    {
        if (lines[0].Trim().Contains("  ", StringComparison.Ordinal)) { return 1; }
        int count = 1;
        while (count < lines.Length && lines[count - 1].EndsWith(',') && lines[count].Length > 0 && !IsDeeper(lines[count])) { count++; }
        return count < lines.Length && IsDeeper(lines[count]) ? count : 0;
    }

    private static bool IsDeeper(string line) => line.StartsWith(Indent + " ", StringComparison.Ordinal);

    private static void AppendLine(StringBuilder roff, string line)
    {
        if (line[0] is '.' or '\'') { roff.Append("\\&"); } // otherwise it would be a request
        roff.Append(Escape(line)).Append('\n');
    }

    /// <summary>Writes characters that mean something to roff, and ASCII that it makes typographical, as what they are.</summary>
    private static string Escape(string text)
    {
        var escaped = new StringBuilder(text.Length);
        foreach (char c in text)
        {
            _ = c switch
            {
                '\\' => escaped.Append("\\(rs"),
                '-' => escaped.Append("\\-"),
                '\'' => escaped.Append("\\(aq"),
                '"' => escaped.Append("\\(dq"),
                '`' => escaped.Append("\\(ga"),
                '^' => escaped.Append("\\(ha"),
                '~' => escaped.Append("\\(ti"),
                _ => escaped.Append(c),
            };
        }
        return escaped.ToString();
    }

    [GeneratedRegex("veneer (?<command>[a-z]+) --help", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex HelpOfCommand();
}
