using System.Globalization;
using Veneer.Fuse;
using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>Looks up the names by which the kernel learns that files it reads and writes by itself are gone. See <see cref="Gate.Revoke"/>.</summary>
/// <remarks>
/// In a process of its own: the server would wait for itself. The mount is looked for in our mount namespace, and then in
/// those of others, since it may be left there alone.
/// </remarks>
internal static class Revocation
{
    private const string Mark = "VENEER_REVOKE";
    private const int AnswerTime = 10_000;

    /// <summary>Whether this process is the one that looks up.</summary>
    public static bool IsAsked => Self.IsStartedAs(Mark);

    /// <summary>In the server: has the names looked up. Best effort: where the mount cannot be found, files that are open already go on.</summary>
    /// <param name="device">The number of the mount's device.</param>
    /// <param name="count">How many names.</param>
    public static void Run(string device, int count)
    {
        if (device.Length == 0) { return; }
        byte[] number = PathText.Encode(count.ToString(CultureInfo.InvariantCulture))[..^1];
        foreach (string place in Places(device))
        {
            Errno error = Self.Ask(Mark, ["veneer"u8.ToArray(), PathText.Encode(place)[..^1], number], AnswerTime, out byte[] answer, out _);
            if (error.IsError || answer.Length > 0) { return; }
        }
    }

    /// <summary>In the child: writes something when all names were found.</summary>
    public static int LookUp(string place, string count)
    {
        if (!int.TryParse(count, NumberStyles.None, CultureInfo.InvariantCulture, out int number)) { return ExitCode.Usage; }
        string prefix = PathText.Decode(Gate.RevokedPrefix);
        for (int i = 0; i < number; i++)
        {
            Errno error = Libc.StatAt(Libc.AtCwd, PathText.Encode(string.Create(CultureInfo.InvariantCulture, $"{place}/{prefix}{i}")), StatxMask.Basic, out _);
            if (error.IsError) { return ExitCode.Failure; }
        }
        _ = Libc.Write(2, "."u8, out _); // best effort: the server may be gone
        return ExitCode.Success;
    }

    private static IEnumerable<string> Places(string device)
    {
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach (string process in Processes())
        {
            // One process of each mount namespace will do.
            if (!TryNamespace(process, out string name) || !seen.Add(name)) { continue; }
            if (MountTable.Read(process, out List<MountEntry> mounts).IsError) { continue; }
            foreach (MountEntry entry in mounts)
            {
                if (entry.Device == device && entry.Root == "/") { yield return process == "self" ? entry.MountPoint : $"/proc/{process}/root{entry.MountPoint}"; }
            }
        }
    }

    private static bool TryNamespace(string process, out string name)
    {
        Span<byte> link = stackalloc byte[64];
        bool isThere = !Libc.ReadLinkAt(Libc.AtCwd, PathText.Encode($"/proc/{process}/ns/mnt"), link, out int length).IsError;
        name = isThere ? PathText.Decode(link[..length]) : "";
        return isThere;
    }

    private static IEnumerable<string> Processes()
    {
        yield return "self";
        foreach (string path in System.IO.Directory.EnumerateDirectories("/proc"))
        {
            string name = path[(path.LastIndexOf('/') + 1)..];
            if (char.IsAsciiDigit(name[0])) { yield return name; }
        }
    }
}
