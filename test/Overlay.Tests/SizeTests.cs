using System.CodeDom.Compiler;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text.RegularExpressions;

namespace Veneer.Overlay.Tests;

/// <summary>The house rules of size: the length of a line, and the lines and fields of a class of src/Overlay.</summary>
/// <remarks>
/// A class that must be larger is named in ARCHITECTURE.md, in a sentence that begins with "Larger than the rule:" and says why.
/// </remarks>
public sealed partial class SizeTests
{
    /// <summary>The most characters of a line.</summary>
    private const int LongestLine = 140;

    /// <summary>The most lines of a class.</summary>
    private const int MostLines = 399;

    /// <summary>The most instance fields of a class.</summary>
    private const int MostFields = 12;

    [Fact]
    public void No_line_is_longer_than_the_rule()
    {
        string[] files = [.. Repository.SourcesIn("src"), .. Repository.SourcesIn("test"), .. Repository.SourcesIn("bench")];
        string[] longer =
        [
            .. from file in files
               from line in File.ReadLines(Path.Combine(Repository.Root, file)).Index()
               where line.Item.Length > LongestLine
               select $"{file}:{line.Index + 1} has {line.Item.Length} characters",
        ];

        Assert.True(files.Length > 400, $"only {files.Length} files were seen");
        Assert.True(longer.Length == 0, string.Join("\n", longer));
    }

    /// <summary>Tables, consoles and pictures cannot be broken into shorter lines.</summary>
    [Fact]
    public void No_line_of_a_document_is_longer_than_the_rule()
    {
        string[] files = [.. Repository.Documents];
        var longer = new List<string>();
        int counted = 0;
        foreach (string file in files)
        {
            bool isConsole = false;
            foreach ((int index, string line) in File.ReadLines(Path.Combine(Repository.Root, file)).Index())
            {
                if (line.StartsWith("```", StringComparison.Ordinal)) { isConsole = line == "```console"; }
                if (isConsole || line.StartsWith('|') || line.StartsWith("![", StringComparison.Ordinal)) { continue; }
                counted++;
                if (line.Length > LongestLine) { longer.Add($"{file}:{index + 1} has {line.Length} characters"); }
            }
        }

        Assert.True(files.Length > 30 && counted > 1500, $"only {counted} lines of {files.Length} files were seen");
        Assert.True(longer.Count == 0, string.Join("\n", longer));
    }

    /// <summary>
    /// Counts the lines of each type from its documentation to its closing brace. A nested type counts with the outer type, and
    /// all parts of a partial type count together.
    /// </summary>
    [Fact]
    public void No_class_of_the_overlay_has_more_lines_than_the_rule()
    {
        Dictionary<string, int> lines = LinesOfTypes();
        string[] excepted = [.. Exceptions()];
        string[] larger =
        [
            .. lines.Where(type => type.Value > MostLines && !excepted.Contains(type.Key))
                .Select(type => $"{type.Key} has {type.Value} lines"),
        ];

        Assert.True(lines.Count > 200, $"only {lines.Count} types were seen");
        Assert.True(larger.Length == 0, string.Join("\n", larger));
    }

    /// <summary>
    /// Counts the fields of each class, including those behind a property and those of a parameter of the constructor that methods
    /// use. Inherited fields count with the class that declares them.
    /// </summary>
    [Fact]
    public void No_class_of_the_overlay_has_more_fields_than_the_rule()
    {
        Type[] classes = [.. Classes()];
        string[] excepted = [.. Exceptions()];
        string[] larger =
        [
            .. classes.Where(type => FieldsOf(type) > MostFields && !excepted.Contains(type.Name))
                .Select(type => $"{type.Name} has {FieldsOf(type)} fields"),
        ];

        Assert.True(classes.Length > 100, $"only {classes.Length} classes were seen");
        Assert.True(larger.Length == 0, string.Join("\n", larger));
    }

    [Fact]
    public void A_class_that_is_named_as_larger_is_larger()
    {
        Dictionary<string, int> lines = LinesOfTypes();
        string[] larger =
        [
            .. lines.Where(type => type.Value > MostLines).Select(type => type.Key),
            .. Classes().Where(type => FieldsOf(type) > MostFields).Select(type => type.Name),
        ];

        Assert.Empty(Exceptions().Except(larger));
    }

    /// <summary>The classes that ARCHITECTURE.md names as larger than the rule. Each sentence names one.</summary>
    private static IEnumerable<string> Exceptions() =>
        LargerSentence().Matches(File.ReadAllText(Path.Combine(Repository.Root, "ARCHITECTURE.md")))
            .Select(match => match.Groups["name"].Value);

    /// <summary>
    /// The classes whose fields count as state. Records and structs are values, such as options, documents and statistics: they may
    /// have as many fields as there are facts. What the compiler or a generator has made does not count either.
    /// </summary>
    private static IEnumerable<Type> Classes() =>
        typeof(OverlayMount).Assembly.GetTypes().Where(type => type.IsClass && !IsRecord(type) && !IsGenerated(type));

    private static bool IsRecord(Type type) => type.GetMethod("<Clone>$") is not null;

    private static bool IsGenerated(Type type) =>
        type.IsDefined(typeof(CompilerGeneratedAttribute)) || type.IsDefined(typeof(GeneratedCodeAttribute))
        || (type.DeclaringType is { } outer && IsGenerated(outer));

    private static int FieldsOf(Type type) =>
        type.GetFields(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly).Length;

    /// <summary>The number of lines of each type of src/Overlay that is not nested, by its name.</summary>
    private static Dictionary<string, int> LinesOfTypes()
    {
        var lines = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (string file in Repository.SourcesIn("src/Overlay"))
        {
            string[] text = File.ReadAllLines(Path.Combine(Repository.Root, file));
            for (int i = 0; i < text.Length; i++)
            {
                if (Declaration().Match(text[i]) is not { Success: true } match) { continue; }
                int start = i;
                while (start > 0 && (text[start - 1].StartsWith("///", StringComparison.Ordinal) || text[start - 1].StartsWith('[')))
                {
                    start--;
                }
                // A type without a body ends with a semicolon, before any brace.
                int end = Array.FindIndex(
                    text, i, line => line is "{" || line.EndsWith(';') || line.EndsWith(" }", StringComparison.Ordinal));
                if (end >= 0 && text[end] == "{") { end = Array.IndexOf(text, "}", end); }
                string name = match.Groups["name"].Value;
                Assert.True(end >= 0, $"{file}: the end of {name} was not found");
                lines[name] = lines.GetValueOrDefault(name) + end - start + 1;
                i = end;
            }
        }
        return lines;
    }

    [GeneratedRegex(@"^(?:public|internal) (?:[a-z]+ )*(?:class|struct|record|interface|enum) (?<name>\w+)",
        RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Declaration();

    [GeneratedRegex(@"\bLarger than the rule:\s+`(?<name>\w+)`",
        RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex LargerSentence();
}
