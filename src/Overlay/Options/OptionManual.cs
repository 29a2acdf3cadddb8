using System.Text;
using static Veneer.Overlay.OptionKind;

namespace Veneer.Overlay;

/// <summary>Makes the part of the manual that is about mount options, from their table.</summary>
public static class OptionManual
{
    private static readonly (string Heading, Func<MountOption, bool> IsIn)[] sections =
    [
        ("Layers", option => option is { Kind: Place, Source: OptionSource.Kernel }),
        ("As in the kernel", option => option is { Kind: not Place, Source: OptionSource.Kernel }),
        ("Of Veneer", option => option.Source == OptionSource.Veneer),
        ("Of any mount", option => option.Source is OptionSource.Mount or OptionSource.Fuse),
    ];

    private static readonly (OptionKind Kind, string Heading, string Meaning)[] othersSections =
    [
        (Ignored, "For other programs", """
            Without effect on the overlay: mount(8), systemd and other callers use
            them. The same is true of every name that begins with x-.
            """),
        (Harmless, "Of other overlays, without effect", """
            Accepted: a warning on standard error says that they have no effect.
            """),
        (Refused, "Of other overlays, refused", """
            The overlay would show something else, or show it to others, than who
            asks for them expects.
            """),
    ];

    /// <summary>Makes the part of the manual that describes the options, in lines of at most 80 characters.</summary>
    public static string Describe()
    {
        var text = new StringBuilder();
        foreach ((string heading, Func<MountOption, bool> isIn) in sections)
        {
            AppendHeading(text, heading);
            var names = new List<string>();
            foreach (MountOption option in OptionTable.All.Where(option => option.IsShown && isIn(option)))
            {
                names.Add(option.Name + option.Value);
                if (option.Meaning is null) { continue; } // the next option's name is added to the line
                AppendItem(text, names, option.Meaning);
                names.Clear();
            }
        }
        return text.ToString();
    }

    /// <summary>
    /// Makes the part of the manual that names the options which <see cref="Describe"/> leaves out, in lines of at most 80
    /// characters.
    /// </summary>
    public static string DescribeOthers()
    {
        var text = new StringBuilder();
        foreach ((OptionKind kind, string heading, string meaning) in othersSections)
        {
            AppendHeading(text, heading);
            AppendItem(text, [.. OptionTable.All.Where(option => option.Kind == kind).Select(option => option.Name)], meaning);
        }
        return text.ToString();
    }

    private static void AppendHeading(StringBuilder text, string heading) =>
        text.Append(text.Length == 0 ? "  " : "\n  ").Append(heading).Append('\n');

    private static void AppendItem(StringBuilder text, List<string> names, string meaning)
    {
        int column = 0;
        foreach (string name in names)
        {
            bool fits = column + name.Length < 77;
            text.Append(column == 0 ? "    " : fits ? ", " : ",\n    ").Append(name);
            column = (column == 0 || !fits ? 4 : column + 2) + name.Length;
        }
        text.Append('\n');
        foreach (string line in meaning.Split('\n')) { text.Append("        ").Append(line).Append('\n'); }
    }
}
