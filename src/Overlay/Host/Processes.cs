using System.Buffers.Text;
using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Host;

/// <summary>What /proc tells of processes. A process may end while it is looked at: then there is less to tell.</summary>
/// <remarks>A process is named by its directory in /proc: a number, or <c>self</c>.</remarks>
internal static class Processes
{
    private const int MaxPath = 4096;

    /// <summary>The processes that this one can see, in the order of /proc.</summary>
    public static List<int> All()
    {
        var all = new List<int>();
        if (Libc.OpenAt(Libc.AtCwd, "/proc\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int descriptor).IsError) { return all; }
        using var proc = new Fd(descriptor);
        Numbers(descriptor, all);
        return all;
    }

    /// <summary>The entries of a directory that are numbers: processes, threads, descriptors.</summary>
    public static List<int> NumbersIn(string directory)
    {
        var numbers = new List<int>();
        if (Libc.OpenAt(Libc.AtCwd, PathText.Encode(directory), OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int descriptor).IsError) { return numbers; }
        using var opened = new Fd(descriptor);
        Numbers(descriptor, numbers);
        return numbers;
    }

    private static void Numbers(int directory, List<int> numbers)
    {
        var reader = new RealDirectoryReader(directory);
        while (reader.MoveNext())
        {
            if (Utf8Parser.TryParse(reader.Name, out int number, out int used) && used == reader.Name.Length) { numbers.Add(number); }
        }
        reader.Dispose();
    }

    /// <summary>The inode number of a process's namespace, or 0 when that may not be known.</summary>
    /// <param name="process">A process, or <c>PID/task/TID</c>.</param>
    /// <param name="kind">Such as <c>mnt</c> or <c>pid</c>.</param>
    public static ulong NamespaceOf(string process, string kind) => Link($"/proc/{process}/ns/{kind}") is { } link ? NamespaceNumber(link) : 0;

    /// <summary>The number in <c>mnt:[4026531841]</c>, or 0.</summary>
    public static ulong NamespaceNumber(string name)
    {
        int open = name.IndexOf('[', StringComparison.Ordinal);
        return open > 0 && name.EndsWith(']') && ulong.TryParse(name.AsSpan(open + 1, name.Length - open - 2), NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) ? number : 0;
    }

    /// <summary>The name of a process, at most 15 bytes; a question mark when it has ended.</summary>
    public static string NameOf(string process) =>
        Libc.ReadWhole(PathText.Encode($"/proc/{process}/comm"), out byte[] name).IsError ? "?" : PathText.Decode(name).TrimEnd('\n');

    /// <summary>The command line of a process with spaces between the words, or its name when it has none.</summary>
    public static string CommandLineOf(string process)
    {
        if (Libc.ReadWhole(PathText.Encode($"/proc/{process}/cmdline"), out byte[] line).IsError || line.Length == 0) { return NameOf(process); }
        for (int i = 0; i < line.Length; i++)
        {
            if (line[i] == 0) { line[i] = (byte)' '; }
        }
        return PathText.Decode(line).TrimEnd(' ');
    }

    /// <summary>When a process was started, in clock ticks since boot: with its id it names a process for ever. Null when it has ended.</summary>
    /// <remarks>Field 22 of /proc/PID/stat, counted after the command's name, which may contain anything.</remarks>
    public static ulong? StartTimeOf(string process)
    {
        if (Libc.ReadWhole(PathText.Encode($"/proc/{process}/stat"), out byte[] stat).IsError) { return null; }
        string text = PathText.Decode(stat);
        string[] fields = text[(text.LastIndexOf(')') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return fields.Length > 19 && ulong.TryParse(fields[19], NumberStyles.None, CultureInfo.InvariantCulture, out ulong started) ? started : null;
    }

    /// <summary>Where a symbolic link leads, or null.</summary>
    public static string? Link(string path)
    {
        Span<byte> target = stackalloc byte[MaxPath];
        return Libc.ReadLinkAt(Libc.AtCwd, PathText.Encode(path), target, out int length).IsError ? null : PathText.Decode(target[..length]);
    }

    /// <summary>The process that holds an exclusive flock(2) on an inode, as far as this process can see it.</summary>
    /// <param name="device">The number of the filesystem's device as mountinfo has it.</param>
    /// <param name="ino">The inode number.</param>
    /// <returns>0 when nobody does, or nobody who is seen from this pid namespace.</returns>
    public static int HolderOfLock(string device, ulong ino)
    {
        if (device.Split(':') is not [var major, var minor] || !uint.TryParse(major, out uint a) || !uint.TryParse(minor, out uint b)) { return 0; }
        if (Libc.ReadWhole("/proc/locks\0"u8, out byte[] locks).IsError) { return 0; }
        string wanted = string.Create(CultureInfo.InvariantCulture, $"{a:x2}:{b:x2}:{ino}");
        foreach (string line in PathText.Decode(locks).Split('\n'))
        {
            // 1: FLOCK  ADVISORY  WRITE 14074 00:27:3 0 EOF
            string[] fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (fields is [_, "FLOCK", _, "WRITE", var pid, var inode, ..] && inode == wanted && int.TryParse(pid, out int process)) { return process; }
        }
        return 0;
    }
}
