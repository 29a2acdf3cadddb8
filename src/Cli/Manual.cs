using System.Reflection;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary>
/// The texts of <c>--help</c>: the pages of Manual/, in the sections of a manual page, embedded in the program.
/// <see cref="Roff"/> makes manual pages for man(1) from them.
/// </summary>
internal static class Manual
{
    /// <summary>The page of the helper that mount(8) calls.</summary>
    public const string MountHelper = "mount.fuse.veneer";

    /// <summary>The page of the mount options alone.</summary>
    private const string MountOptions = "veneer.options";

    /// <summary>The page of the program itself.</summary>
    public static string Veneer => Read("veneer");

    /// <summary>A short list of commands, for a call without arguments.</summary>
    public static string Synopsis => Read("synopsis");

    /// <summary>The page of a command, or another one by its name; null when there is no such page.</summary>
    public static string? Of(string name) =>
        name is MountHelper or MountOptions ? Read(name) : Commands.Find(name) is { } command ? Read(command.Name) : null;

    /// <summary>All pages, by the names that they have for man(1), such as <c>veneer-mount</c>, and their sections.</summary>
    public static IEnumerable<(string Name, int Section, string Text)> Pages() =>
    [
        ("veneer", 1, Veneer),
        .. Commands.All.Select(command => ($"veneer-{command.Name}", 1, Read(command.Name))),
        (MountOptions, 5, Read(MountOptions)),
        (MountHelper, 8, Read(MountHelper)),
    ];

    private static string Read(string page)
    {
        using Stream stream = Assembly.GetExecutingAssembly().GetManifestResourceStream($"{page}.txt")!;
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd()
            .Replace("{options}\n", OptionManual.Describe(), StringComparison.Ordinal)
            .Replace("{other options}\n", OptionManual.DescribeOthers(), StringComparison.Ordinal);
    }
}
