using System.Text.RegularExpressions;
using ArchUnitNET.Domain;
using ArchUnitNET.Domain.Dependencies;
using ArchUnitNET.Loader;

namespace Veneer.Overlay.Tests;

/// <summary>The rooms of src/Overlay: each knows only those before it. ARCHITECTURE.md says what each of them owns.</summary>
public sealed partial class RoomTests
{
    private const string Root = "Veneer.Overlay";

    private const string Options = "Options", Tools = "Tools", Mount = "Mount";

    /// <summary>In their order.</summary>
    private static readonly string[] order =
    [
        "", Options, "Locking", "Format", "Host", "Layers", "Lookup", "Tree", "Upper", "Durability", "Requests", Tools, Mount,
    ];

    /// <summary>One room, though each has a folder.</summary>
    private static readonly string[] tools = ["Documents", "Control", "Changes", "Topology", "Usage", "Live"];

    /// <summary>What every room may say to a user.</summary>
    private static readonly string[] words = ["OverlayMountException", "OverlayQueryException", "QueryProblem"];

    /// <summary>The options are part of the public face, and so in its namespace.</summary>
    private static readonly string[] options =
    [
        "OverlayOptions", "OptionParser", "OptionTable", "OptionManual", "MountOption", "OptionSource", "OptionKind", "Spelling",
        "InUse", "RedirectDirectory", "Xino", "KernelFeature", "Sync", "OnError",
    ];

    [Fact]
    public void Each_room_knows_only_those_before_it()
    {
        Architecture architecture = new ArchLoader().LoadAssemblies(typeof(OverlayMount).Assembly).Build();
        var arrows = new SortedSet<string>(StringComparer.Ordinal);
        int seen = 0;
        foreach (IType type in architecture.Types)
        {
            if (RoomOf(type) is not { } room) { continue; }
            int place = PlaceOf(room);
            foreach (ITypeDependency dependency in type.Dependencies)
            {
                if (RoomOf(dependency.Target) is not { } other || other == room) { continue; }
                seen++;
                if (PlaceOf(other) >= place) { arrows.Add($"{room}.{type.Name} knows {other}.{dependency.Target.Name}"); }
            }
        }
        Assert.True(seen > 500, $"only {seen} arrows were seen");
        Assert.True(arrows.Count == 0, string.Join("\n", arrows));
    }

    [Fact]
    public void Architecture_names_them_in_this_order()
    {
        string[] table =
        [
            .. File.ReadLines(Path.Combine(Repository.Root, "ARCHITECTURE.md"))
                .SkipWhile(line => !line.StartsWith("| room of the overlay | ", StringComparison.Ordinal)).Skip(2)
                .TakeWhile(line => line.StartsWith('|'))
                .Select(line => line.Split('`')[1].TrimEnd('/')),
        ];

        Assert.Equal(order[1..], table);
    }

    /// <summary>Rooms are told apart by namespaces, and people look for them in folders.</summary>
    [Fact]
    public void The_folder_of_each_file_is_its_namespace()
    {
        Dictionary<string, string> exceptions = Exception().Matches(File.ReadAllText(Path.Combine(Repository.Root, "ARCHITECTURE.md")))
            .ToDictionary(match => match.Groups["folder"].Value, match => match.Groups["namespace"].Value, StringComparer.Ordinal);
        var used = new HashSet<string>(StringComparer.Ordinal);
        var others = new List<string>();
        string[] files = [.. Repository.SourcesIn("src/Overlay")];
        foreach (string file in files)
        {
            string folder = Path.GetDirectoryName(Path.GetRelativePath("src/Overlay", file))!.Replace('/', '.');
            string expected = folder.Length == 0 ? Root : $"{Root}.{folder}";
            string[] spaces =
            [
                .. File.ReadLines(Path.Combine(Repository.Root, file))
                    .Where(line => line.StartsWith("namespace ", StringComparison.Ordinal))
                    .Select(line => line["namespace ".Length..].TrimEnd(';')),
            ];
            if (spaces is [var only] && only == expected) { continue; }
            if (spaces is [var other] && exceptions.GetValueOrDefault(folder) == other) { used.Add(folder); }
            else { others.Add($"{file} is in {string.Join(", ", spaces)}, not in {expected}"); }
        }

        Assert.True(files.Length > 150, $"only {files.Length} files were seen");
        Assert.True(others.Count == 0, string.Join("\n", others));
        Assert.Empty(exceptions.Keys.Except(used));
    }

    [GeneratedRegex(@"\bExcept: `(?<folder>\w+)/` is in `(?<namespace>[\w.]+)`",
        RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Exception();

    private static int PlaceOf(string room)
    {
        int place = Array.IndexOf(order, room);
        return place >= 0
            ? place
            : throw new InvalidOperationException($"The room {room} has no place in the order: give it one here and in ARCHITECTURE.md.");
    }

    /// <summary>Null for what is in no room, such as the base class library.</summary>
    private static string? RoomOf(IType type)
    {
        string space = type.Namespace?.FullName ?? "";
        if (type is GenericParameter) { return null; }
        if (space != Root && !space.StartsWith(Root + ".", StringComparison.Ordinal)) { return null; }
        if (space == Root) { return words.Contains(type.Name) ? "" : options.Contains(type.Name) ? Options : Mount; }
        string room = space[(Root.Length + 1)..];
        int dot = room.IndexOf('.', StringComparison.Ordinal);
        room = dot < 0 ? room : room[..dot];
        return tools.Contains(room) ? Tools : room;
    }
}
