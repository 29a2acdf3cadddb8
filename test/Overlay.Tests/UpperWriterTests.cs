using System.Reflection;
using System.Text.RegularExpressions;
using Veneer.Linux;

namespace Veneer.Overlay.Tests;

/// <summary>Which code of src/Overlay changes files. ARCHITECTURE.md says so of the room Upper, and names the other classes.</summary>
public sealed partial class UpperWriterTests
{
    /// <summary>The calls that change an object by its name.</summary>
    private static readonly string[] changes =
    [
        nameof(Libc.ChangeModeAt), nameof(Libc.ChangeOwnerAt), nameof(Libc.ChangeTimesAt), nameof(Libc.LinkAt),
        nameof(Libc.LinkDescriptor), nameof(Libc.MakeDirectoryAt), nameof(Libc.MakeNodeAt), nameof(Libc.RemoveDirectoryAt),
        nameof(Libc.RemoveXattrAt), nameof(Libc.RenameAt), nameof(Libc.SetXattrAt), nameof(Libc.SymbolicLinkAt), nameof(Libc.UnlinkAt),
    ];

    /// <summary>The calls that change an object by a descriptor.</summary>
    private static readonly string[] descriptorChanges =
    [
        nameof(Libc.Allocate), nameof(Libc.Clone), nameof(Libc.CopyFileRange), nameof(Libc.Ioctl), nameof(Libc.Truncate),
        nameof(Libc.TruncateAsNamed), nameof(Libc.Write), nameof(Libc.WriteAt),
    ];

    /// <summary>The flags of an open that makes a file.</summary>
    private static readonly string[] opens = [nameof(OpenFlags.Create), nameof(OpenFlags.TemporaryFile)];

    /// <summary>The calls that take a name and only read, or make an object that has no name in any directory.</summary>
    private static readonly string[] reads =
    [
        nameof(Libc.CreateMemoryFile), nameof(Libc.GetXattrAt), nameof(Libc.ListXattrAt), nameof(Libc.ReadLinkAt), nameof(Libc.StatAnew),
        nameof(Libc.StatAt), nameof(Libc.StatPlace),
    ];

    /// <summary>What other rooms may do, and to what.</summary>
    private static readonly string[] elsewhere =
    [
        "Control/ControlClient: Ioctl", // asks a server
        "Durability/ErrorSentinel: MakeDirectoryAt", // in work, for an overlay of the kernel
        "Durability/MarkParts: Create, Ioctl, MakeDirectoryAt, MakeNodeAt, RemoveDirectoryAt, RemoveXattrAt, RenameAt, SetXattrAt, "
            + "UnlinkAt, WriteAt", // the mark of a volatile upper
        "Layers/InUseLock: RemoveXattrAt, SetXattrAt", // the owner record on upper and on work
        "Layers/LayerFileSystem: Ioctl", // reads flags
        "Layers/Pin: MakeDirectoryAt, RemoveDirectoryAt", // in /run
        "Requests/FileRequests: Allocate, CopyFileRange, WriteAt", // the data of open files
        "Usage/FormerLayer: Write", // a file in memory
        "Usage/KernelFiles: Ioctl", // asks a loop device
    ];

    [Fact]
    public void Only_Upper_and_the_classes_named_change_files()
    {
        const string upper = "Upper/";
        var found = new SortedDictionary<string, SortedSet<string>>(StringComparer.Ordinal);
        int seen = 0;
        foreach (string file in Repository.SourcesIn("src/Overlay"))
        {
            string place = Path.ChangeExtension(Path.GetRelativePath("src/Overlay", file), null);
            foreach (Match match in Use().Matches(File.ReadAllText(Path.Combine(Repository.Root, file))))
            {
                string word = match.Groups["word"].Value;
                string[] known = match.Groups["type"].Value == nameof(Libc) ? [.. changes, .. descriptorChanges] : opens;
                if (!known.Contains(word)) { continue; }
                seen++;
                if (place.StartsWith(upper, StringComparison.Ordinal)) { continue; }
                if (!found.TryGetValue(place, out SortedSet<string>? words))
                {
                    found.Add(place, words = new SortedSet<string>(StringComparer.Ordinal));
                }
                words.Add(word);
            }
        }

        Assert.True(seen > 100, $"only {seen} calls were seen");
        Assert.Equal(elsewhere, found.Select(pair => $"{pair.Key}: {string.Join(", ", pair.Value)}"));
    }

    /// <summary>So that a new call is not forgotten above.</summary>
    [Fact]
    public void Each_call_with_a_name_is_known_to_change_it_or_not()
    {
        string[] named =
        [
            .. typeof(Libc).GetMethods(BindingFlags.Public | BindingFlags.Static)
                .Where(method => method.GetParameters().Any(one => one.Name is "name" or "newName"))
                .Select(method => method.Name).Distinct().Order(StringComparer.Ordinal),
        ];

        Assert.Equal([.. changes.Concat(reads).Order(StringComparer.Ordinal)], named);
    }

    [Fact]
    public void Architecture_names_the_classes_beside_Upper_that_change_upper()
    {
        string row = File.ReadLines(Path.Combine(Repository.Root, "ARCHITECTURE.md"))
            .First(line => line.StartsWith("| `Upper/` |", StringComparison.Ordinal));

        string[] others = ["InUseLock", "MarkParts", "ErrorSentinel", "FileRequests"];
        Assert.All(others, name => Assert.Contains($"`{name}`", row, StringComparison.Ordinal));
        Assert.All(others, name => Assert.Contains(elsewhere, one => one.Contains($"/{name}:", StringComparison.Ordinal)));
    }

    [GeneratedRegex(@"\b(?<type>Libc|OpenFlags)\.(?<word>\w+)\b",
        RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Use();
}
