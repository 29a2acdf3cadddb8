using System.Reflection;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary>The texts of <c>--help</c>: the pages of Manual/, in the sections of a manual page, embedded in the program.</summary>
internal static class Manual
{
    /// <summary>The page of the program itself.</summary>
    public static string Veneer => Read("veneer");

    /// <summary>A short list of commands, for a call without arguments.</summary>
    public static string Synopsis => Read("synopsis");

    /// <summary>The page of a command, or null when there is no such command.</summary>
    public static string? Of(string command) =>
        Program.Commands.Contains(command, StringComparer.Ordinal) ? Read(command == "unmount" ? "umount" : command) : null;

    private static string Read(string page)
    {
        using Stream stream = Assembly.GetExecutingAssembly().GetManifestResourceStream($"{page}.txt")!;
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd().Replace("{options}\n", OptionTable.Describe(), StringComparison.Ordinal);
    }
}
