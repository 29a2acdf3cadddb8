using System.Globalization;
using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>Which processes keep a mount busy, as far as /proc tells this user. Only names are compared: the mount is not touched.</summary>
internal static class MountUsers
{
    private const int MostNamed = 3;

    /// <summary>Such as <c>bash (123) and 2 others</c>; empty when none is seen.</summary>
    public static string Describe(string mountPoint)
    {
        var users = new List<string>();
        int count = 0;
        string self = Libc.ProcessId.ToString(CultureInfo.InvariantCulture);
        foreach (string directory in Directory.EnumerateDirectories("/proc"))
        {
            string pid = directory["/proc/".Length..];
            if (!int.TryParse(pid, NumberStyles.None, CultureInfo.InvariantCulture, out _) || self == pid || !Uses(directory, mountPoint)) { continue; }
            count++;
            if (users.Count < MostNamed) { users.Add($"{Command(directory)} ({pid})"); }
        }
        string named = string.Join(", ", users);
        return count > users.Count ? $"{named} and {count - users.Count} more" : named;
    }

    private static bool Uses(string process, string mountPoint)
    {
        if (LeadsBelow(process + "/cwd", mountPoint) || LeadsBelow(process + "/root", mountPoint) || LeadsBelow(process + "/exe", mountPoint)) { return true; }
        try
        {
            foreach (string descriptor in Directory.EnumerateFileSystemEntries(process + "/fd"))
            {
                if (LeadsBelow(descriptor, mountPoint)) { return true; }
            }
            foreach (string line in File.ReadLines(process + "/maps"))
            {
                int path = line.IndexOf('/', StringComparison.Ordinal);
                if (path >= 0 && IsBelow(line[path..], mountPoint)) { return true; }
            }
        }
        catch (Exception gone) when (gone is IOException or UnauthorizedAccessException)
        {
            // The process has ended, or is not ours to look at.
        }
        return false;
    }

    private static bool LeadsBelow(string link, string mountPoint)
    {
        Span<byte> target = stackalloc byte[4096];
        return !Libc.ReadLinkAt(Libc.AtCwd, PathText.Encode(link), target, out int length).IsError
            && IsBelow(PathText.Decode(target[..length]), mountPoint);
    }

    private static bool IsBelow(string path, string mountPoint) =>
        path.StartsWith(mountPoint, StringComparison.Ordinal) && (path.Length == mountPoint.Length || path[mountPoint.Length] == '/');

    private static string Command(string process) =>
        Libc.ReadWhole(PathText.Encode(process + "/comm"), out byte[] name).IsError ? "?" : PathText.Decode(name).TrimEnd();
}
