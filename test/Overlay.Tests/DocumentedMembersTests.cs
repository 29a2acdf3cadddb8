using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using System.Text.RegularExpressions;
using Veneer.Overlay.Changes;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Topology;
using Veneer.Overlay.Usage;

namespace Veneer.Overlay.Tests;

/// <summary>The documentation names the members of each document, and the words of its enumerations, and no others.</summary>
public sealed partial class DocumentedMembersTests
{
    /// <summary>
    /// Every member of a type is named by a table of its section, with all words of an enumeration, and every member that a table
    /// there names is one of the type.
    /// </summary>
    /// <remarks>
    /// A member is named by the first cell of a row, or in the row of the member that holds it. There, a colon and the words of an
    /// enumeration may follow, up to a semicolon or a parenthesis.
    /// </remarks>
    [Theory]
    [InlineData("control.md", "### 1: stats", typeof(Stats), new Type[0], new Type[0])]
    [InlineData("control.md", "### 16: layers", typeof(OverlayTopology), new Type[0], new Type[0])]
    [InlineData("control.md", "### 17: changes", typeof(ChangesPart), new Type[0], new[] { typeof(Change), typeof(Disturbance) })]
    [InlineData("control.md", "### 32: durability", typeof(OverlayStatus), new Type[0], new Type[0])]
    [InlineData("control.md", "### 34: remounted", typeof(Remounted), new Type[0], new Type[0])]
    [InlineData("changes.md", "## JSON", typeof(Change), new[] { typeof(Disturbance), typeof(ChangesEnd) }, new Type[0])]
    [InlineData("checkpoint.md", "## The document", typeof(Checkpoint), new Type[0], new[] { typeof(OverlayTopology) })]
    [InlineData("lifecycle.md", "## Who holds it", typeof(HolderReport), new Type[0], new Type[0])]
    [InlineData("lifecycle.md", "## All overlays", typeof(OverlayList), new Type[0], new Type[0])]
    public void Members_are_those_of_the_documentation(string page, string heading, Type type, Type[] others, Type[] elsewhere)
    {
        (string[][] Names, string Meaning)[] rows =
            [.. Row().Matches(Section(page, heading)).Select(row => (NamesIn(row.Groups["names"].Value), row.Groups["meaning"].Value))];
        var named = new HashSet<string>(rows.SelectMany(row => row.Names).SelectMany(name => name), StringComparer.Ordinal);
        var members = new HashSet<string>(StringComparer.Ordinal);
        var missing = new HashSet<string>(StringComparer.Ordinal);
        var listed = new Dictionary<Type, List<string[]>>();
        foreach (Type one in (Type[])[type, .. others]) { Collect(one, ""); }

        Assert.Empty(missing);
        Assert.Empty(named.Except(members));
        foreach ((Type enumeration, List<string[]> lists) in listed)
        {
            string[] words = WordsOf(enumeration);
            Assert.True(lists.Count > 0, $"{heading} does not list the words of {enumeration.Name}");
            Assert.All(lists, list => Assert.Equal(words, list));
        }

        void Collect(Type of, string holder)
        {
            JsonTypeInfo? info = DocumentJson.Default.GetTypeInfo(of);
            Type? element = of.IsArray ? of.GetElementType() : of.IsGenericType ? of.GetGenericArguments()[0] : null;
            if (element is not null) { Collect(element, holder); }
            if (info?.Kind != JsonTypeInfoKind.Object) { return; }
            foreach (JsonPropertyInfo member in info.Properties)
            {
                if (member.Get is null) { continue; } // no member of the document
                Type inner = member.PropertyType;
                Type innermost = inner.IsGenericType ? inner.GetGenericArguments()[0] : inner;
                string own = string.Join(' ', rows.Where(row => row.Names.Any(name => name[^1] == member.Name)).Select(row => row.Meaning));
                bool isHeld = NamesIn(holder).Any(name => name is [var only] && only == member.Name);
                if (!member.Name.EndsWith("_base64", StringComparison.Ordinal))
                {
                    members.Add(member.Name);
                    if (!isHeld && !named.Contains(member.Name)) { missing.Add(member.Name); }
                }
                if (innermost.IsEnum)
                {
                    if (!listed.TryGetValue(innermost, out List<string[]>? lists)) { listed[innermost] = lists = []; }
                    string[] words = ListedWords(isHeld ? After(holder, $"`{member.Name}`:") : own);
                    if (words.Length > 0) { lists.Add(words); }
                }
                if (!elsewhere.Contains(innermost)) { Collect(inner, $"{holder} {own}"); }
            }
        }
    }

    /// <summary>The names in backquotes, without the brackets of a list; of a member of a member there are several.</summary>
    private static string[][] NamesIn(string cell) =>
    [
        .. Quoted().Matches(cell).Select(match => match.Value.Trim('`').Replace("[]", "", StringComparison.Ordinal)
            .Split('.', StringSplitOptions.RemoveEmptyEntries)).Where(names => names.Length > 0),
    ];

    /// <summary>What follows a text up to a semicolon or a parenthesis, or nothing.</summary>
    private static string After(string text, string before)
    {
        int start = text.IndexOf(before, StringComparison.Ordinal);
        return start < 0 ? "" : text[(start + before.Length)..].Split(';', '(', ')')[0];
    }

    /// <summary>The words in backquotes that may be those of an enumeration.</summary>
    private static string[] ListedWords(string text) =>
    [
        .. Quoted().Matches(text).Select(match => match.Value.Trim('`')).Where(word => Word().Match(word).Length == word.Length)
            .Order(StringComparer.Ordinal),
    ];

    /// <summary>The words of an enumeration in a document, in alphabetical order.</summary>
    private static string[] WordsOf(Type enumeration) =>
    [
        .. Enum.GetValues(enumeration).Cast<object>()
            .SelectMany(value => Word().Matches(JsonSerializer.Serialize(value, DocumentJson.Default.GetTypeInfo(enumeration)!)))
            .Select(match => match.Value).Order(StringComparer.Ordinal),
    ];

    private static string Section(string page, string heading)
    {
        string text = File.ReadAllText(Path.Combine(Repository.Root, "docs", page));
        int start = text.IndexOf($"{heading}\n", StringComparison.Ordinal) + heading.Length;
        int end = text.IndexOf("\n#", start, StringComparison.Ordinal);
        return text[start..(end < 0 ? text.Length : end)];
    }

    [GeneratedRegex("`[^`\n]+`", RegexOptions.None, 1000)]
    private static partial Regex Quoted();

    [GeneratedRegex("[a-z][a-z0-9_]*", RegexOptions.None, 1000)]
    private static partial Regex Word();

    [GeneratedRegex(@"^\| (?<names>`[^|]*) \|(?<meaning>[^|]*)\|$", RegexOptions.Multiline | RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Row();
}
