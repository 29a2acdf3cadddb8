using System.Buffers.Text;
using System.Globalization;
using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>Reads /proc. A process may end while it is examined: then less can be read.</summary>
/// <remarks>A process is named by its directory in /proc: a pid, or <c>self</c>.</remarks>
internal static class Processes
{
    private const int MaxPath = 4096;

    /// <summary>The pids of the processes that this one can see, in the order of /proc.</summary>
    public static List<int> All()
    {
        var all = new List<int>();
        if (Libc.OpenAt(Libc.AtCwd, "/proc\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None,
            out int descriptor).IsError)
        {
            return all;
        }
        using var proc = new Fd(descriptor);
        Numbers(descriptor, all);
        return all;
    }

    /// <summary>The entries of a directory in /proc that are numbers: processes, threads, descriptors.</summary>
    public static List<int> NumbersIn(string directory)
    {
        var numbers = new List<int>();
        if (Libc.OpenAt(Libc.AtCwd, PathText.Encode(directory), OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None,
            out int descriptor).IsError)
        {
            return numbers;
        }
        using var opened = new Fd(descriptor);
        Numbers(descriptor, numbers);
        return numbers;
    }

    private static void Numbers(int directory, List<int> numbers)
    {
        var reader = new DirectoryReader(directory);
        while (reader.MoveNext())
        {
            if (Utf8Parser.TryParse(reader.Name, out int number, out int used) && used == reader.Name.Length) { numbers.Add(number); }
        }
        reader.Dispose();
    }

    /// <summary>Whether /proc shows the processes of all pid namespaces.</summary>
    public static bool AreAllNamespacesSeen()
    {
        const ulong first = 0xEFFFFFFC; // PROC_PID_INIT_INO: the initial pid namespace, which contains all others
        return (NamespaceOf("1", "pid") is var space and > 0 ? space : NamespaceOf("self", "pid")) == first;
    }

    /// <summary>Whether /proc may hide the processes of other users.</summary>
    public static bool AreOthersHidden() =>
        Libc.EffectiveUid != 0
        && !MountTable.Read(out List<MountEntry> mounts).IsError
        && mounts.FindLast(entry => entry.MountPoint == "/proc")?.Option("hidepid") is not (null or "0" or "off" or "1" or "noaccess");

    /// <summary>The inode number of a process's namespace, or 0 when it may not be known.</summary>
    /// <param name="process">A process, or <c>PID/task/TID</c>.</param>
    /// <param name="kind">The kind of namespace, such as <c>mnt</c> or <c>pid</c>.</param>
    public static ulong NamespaceOf(string process, string kind) =>
        Link($"/proc/{process}/ns/{kind}") is { } link ? NamespaceNumber(link) : 0;

    /// <summary>The number in a namespace's name such as <c>mnt:[4026531841]</c>, or 0.</summary>
    public static ulong NamespaceNumber(string name)
    {
        int open = name.IndexOf('[', StringComparison.Ordinal);
        if (open <= 0 || !name.EndsWith(']')) { return 0; }
        ReadOnlySpan<char> digits = name.AsSpan(open + 1, name.Length - open - 2);
        return ulong.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) ? number : 0;
    }

    /// <summary>The number in the name of a mount namespace such as <c>mnt:[4026531841]</c>; 0 for any other name.</summary>
    public static ulong MountNamespaceOf(string name) => name.StartsWith("mnt:[", StringComparison.Ordinal) ? NamespaceNumber(name) : 0;

    /// <summary>Whether a process is ending or has ended, and so is in no namespace any more.</summary>
    public static bool HasEnded(string process)
    {
        Span<byte> target = stackalloc byte[64];
        return Libc.ReadLinkAt(Libc.AtCwd, PathText.Encode($"/proc/{process}/ns/mnt"), target, out _) is Errno.ENOENT or Errno.ESRCH;
    }

    /// <summary>The name of a process, at most 15 bytes; a question mark when it has ended.</summary>
    public static string NameOf(string process) =>
        Libc.ReadWhole(PathText.Encode($"/proc/{process}/comm"), out byte[] name).IsError ? "?" : PathText.Decode(name).TrimEnd('\n');

    /// <summary>The command line of a process, with spaces between the words; its name when it has none.</summary>
    public static string CommandLineOf(string process)
    {
        if (Libc.ReadWhole(PathText.Encode($"/proc/{process}/cmdline"), out byte[] line).IsError || line.Length == 0)
        {
            return NameOf(process);
        }
        for (int i = 0; i < line.Length; i++)
        {
            if (line[i] == 0) { line[i] = (byte)' '; }
        }
        return PathText.Decode(line).TrimEnd(' ');
    }

    /// <summary>The words of the command line of a process; none when it has ended.</summary>
    public static IReadOnlyList<string> WordsOf(string process)
    {
        var words = new List<string>();
        if (Libc.ReadWhole(PathText.Encode($"/proc/{process}/cmdline"), out byte[] line).IsError) { return words; }
        ReadOnlySpan<byte> rest = line.AsSpan().TrimEnd((byte)0);
        foreach (Range word in rest.Split((byte)0)) { words.Add(PathText.Decode(rest[word])); }
        return words;
    }

    /// <summary>
    /// Whether a process may write a directory, judged by its user: root, the owner, root of a user namespace that has the
    /// owner, or anybody if group or others may write.
    /// </summary>
    /// <remarks>True also for a process that has ended or hides its user: it must not be ruled out.</remarks>
    public static bool MayWrite(string process, in Statx directory)
    {
        const uint others = 0x12; // group and others, write
        if (Libc.StatAt(Libc.AtCwd, PathText.Encode($"/proc/{process}"), StatxMask.Basic, out Statx stat).IsError) { return true; }
        if (stat.Uid == 0 || stat.Uid == directory.Uid || (directory.Mode & others) != 0) { return true; }
        if (Link($"/proc/{process}/ns/user") is not { } space || space == Link("/proc/self/ns/user")) { return false; }
        if (Libc.ReadWhole(PathText.Encode($"/proc/{process}/uid_map"), out byte[] map).IsError) { return true; }
        foreach (string line in PathText.Decode(map).Split('\n'))
        {
            // The first id inside, the first id outside as seen by this process, and their number.
            string[] fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (fields is [_, var outside, var count] && uint.TryParse(outside, out uint first)
                && uint.TryParse(count, out uint number) && directory.Uid >= first && directory.Uid - first < number)
            {
                return true;
            }
        }
        return false;
    }

    /// <summary>
    /// The start time of a process in clock ticks since boot, which with its pid identifies the process for ever. Null when
    /// it has ended.
    /// </summary>
    public static ulong? StartTimeOf(string process) =>
        ulong.TryParse(FieldOf(process, 19), NumberStyles.None, CultureInfo.InvariantCulture, out ulong started) ? started : null;

    /// <summary>The start time of a process, in whole seconds; null when it has ended.</summary>
    public static DateTimeOffset? StartOf(string process)
    {
        const ulong ticksPerSecond = 100; // USER_HZ
        if (StartTimeOf(process) is not { } started || Libc.ReadWhole("/proc/uptime\0"u8, out byte[] uptime).IsError) { return null; }
        if (!Utf8Parser.TryParse(uptime, out double seconds, out _)) { return null; }
        var age = (long)(seconds - started / (double)ticksPerSecond);
        return DateTimeOffset.FromUnixTimeSeconds(DateTimeOffset.UtcNow.ToUnixTimeSeconds() - age);
    }

    /// <summary>The device of the mount that a descriptor of /dev/fuse serves, <c>0:MINOR</c>; null before Linux 6.15.</summary>
    public static string? FuseConnectionOf(string process, int descriptor)
    {
        ReadOnlySpan<byte> key = "fuse_connection:\t"u8;
        if (Libc.ReadWhole(PathText.Encode($"/proc/{process}/fdinfo/{descriptor}"), out byte[] content).IsError) { return null; }
        int start = content.AsSpan().IndexOf(key);
        return start >= 0 && Utf8Parser.TryParse(content.AsSpan(start + key.Length), out uint minor, out _) ? $"0:{minor}" : null;
    }

    /// <summary>The paths of the files that are registered with an io_uring, as /proc shows them.</summary>
    /// <param name="description">The path of the ring's file in <c>fdinfo</c>.</param>
    /// <returns>Null when /proc does not show them, since the ring was busy just then.</returns>
    public static List<string>? RegisteredFiles(string description)
    {
        if (Libc.ReadWhole(PathText.Encode(description), out byte[] content).IsError) { return null; }
        int start = content.AsSpan().IndexOf("\nUserFiles:"u8);
        if (start < 0) { return null; }
        var paths = new List<string>();
        ReadOnlySpan<byte> rest = content.AsSpan(start + 1);
        _ = MountTable.NextLine(ref rest);
        while (rest.Length > 0)
        {
            // "    0: /path"; an entry without a file is <none>, or is left out.
            ReadOnlySpan<byte> line = MountTable.NextLine(ref rest);
            if (line.Length == 0 || line[0] != ' ') { break; }
            int path = line.IndexOf((byte)'/');
            if (path >= 0) { paths.Add(MountTable.Unescape(line[path..])); }
        }
        return paths;
    }

    /// <summary>The id of the mount that a descriptor is in, or null.</summary>
    /// <param name="description">The path of the descriptor's file in <c>fdinfo</c>.</param>
    public static int? MountIdOf(string description)
    {
        ReadOnlySpan<byte> key = "mnt_id:\t"u8;
        if (Libc.ReadWhole(PathText.Encode(description), out byte[] content).IsError) { return null; }
        int start = content.AsSpan().IndexOf(key);
        return start >= 0 && Utf8Parser.TryParse(content.AsSpan(start + key.Length), out int id, out _) ? id : null;
    }

    /// <summary>The number of descriptors that have been sent to a socket and not yet received; 0 before Linux 5.5.</summary>
    /// <param name="description">The path of the socket's file in <c>fdinfo</c>.</param>
    public static int DescriptorsInFlight(string description)
    {
        ReadOnlySpan<byte> key = "scm_fds: "u8;
        if (Libc.ReadWhole(PathText.Encode(description), out byte[] content).IsError) { return 0; }
        int start = content.AsSpan().IndexOf(key);
        return start >= 0 && Utf8Parser.TryParse(content.AsSpan(start + key.Length), out int count, out _) ? count : 0;
    }

    /// <summary>The flags that a descriptor was opened with, and whether it holds an exclusive flock(2).</summary>
    public static (OpenFlags Flags, bool IsLocked) KindOf(string process, int descriptor)
    {
        if (Libc.ReadWhole(PathText.Encode($"/proc/{process}/fdinfo/{descriptor}"), out byte[] content).IsError)
        {
            return (OpenFlags.ReadOnly, false);
        }
        ReadOnlySpan<byte> key = "flags:\t"u8;
        int start = content.AsSpan().IndexOf(key);
        if (start < 0) { return (OpenFlags.ReadOnly, false); }
        uint flags = 0;
        foreach (byte digit in content.AsSpan(start + key.Length))
        {
            if (digit is < (byte)'0' or > (byte)'7') { break; }
            flags = flags * 8 + (uint)(digit - '0');
        }
        return ((OpenFlags)flags, content.AsSpan().IndexOf("FLOCK  ADVISORY  WRITE"u8) >= 0);
    }

    /// <summary>
    /// The pid of the parent of a process, or of the process that has adopted it; empty when the process has ended.
    /// </summary>
    public static string ParentOf(string process) => FieldOf(process, 1);

    /// <summary>Whether a process leads a session.</summary>
    public static bool LeadsSession(string process) => FieldOf(process, 3) == process;

    /// <summary>A field of /proc/PID/stat; empty when the process has ended.</summary>
    /// <param name="process">The process.</param>
    /// <param name="index">
    /// The index of the field, counted from 0 after the command's name, which may contain any character. Index 19 is the
    /// 22nd field of proc_pid_stat(5).
    /// </param>
    private static string FieldOf(string process, int index)
    {
        if (Libc.ReadWhole(PathText.Encode($"/proc/{process}/stat"), out byte[] stat).IsError) { return ""; }
        string text = PathText.Decode(stat);
        string[] fields = text[(text.LastIndexOf(')') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return index < fields.Length ? fields[index] : "";
    }

    /// <summary>Whether this process is in a user namespace that does not map all users.</summary>
    public static bool IsInUserNamespace =>
        !Libc.ReadWhole("/proc/self/uid_map\0"u8, out byte[] map).IsError
            && !PathText.Decode(map).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries).SequenceEqual(["0", "0", "4294967295"]);

    /// <summary>The target of a symbolic link, or null.</summary>
    public static string? Link(string path)
    {
        Span<byte> target = stackalloc byte[MaxPath];
        return Libc.ReadLinkAt(Libc.AtCwd, PathText.Encode(path), target, out int length).IsError
            ? null
            : PathText.Decode(target[..length]);
    }

    /// <summary>The pid of the process that holds an exclusive flock(2) on an inode, as far as this process can see it.</summary>
    /// <param name="device">The device number of the filesystem, as in mountinfo.</param>
    /// <param name="ino">The inode number.</param>
    /// <returns>0 when no process holds it, or none that is seen from this pid namespace.</returns>
    public static int HolderOfLock(string device, ulong ino) => HoldersOfLock(device, ino).FirstOrDefault(holder => holder.IsExclusive).Pid;

    /// <summary>The processes that hold a flock(2) on an inode, as far as this process can see them.</summary>
    /// <inheritdoc cref="HolderOfLock"/>
    public static List<(int Pid, bool IsExclusive)> HoldersOfLock(string device, ulong ino)
    {
        var holders = new List<(int, bool)>();
        if (device.Split(':') is not [var major, var minor] || !uint.TryParse(major, out uint a) || !uint.TryParse(minor, out uint b))
        {
            return holders;
        }
        if (Libc.ReadWhole("/proc/locks\0"u8, out byte[] locks).IsError) { return holders; }
        string wanted = string.Create(CultureInfo.InvariantCulture, $"{a:x2}:{b:x2}:{ino}");
        foreach (string line in PathText.Decode(locks).Split('\n'))
        {
            // 1: FLOCK  ADVISORY  WRITE 14074 00:27:3 0 EOF
            string[] fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (fields is [_, "FLOCK", _, var kind, var pid, var inode, ..] && inode == wanted && int.TryParse(pid, out int process))
            {
                holders.Add((process, kind == "WRITE"));
            }
        }
        return holders;
    }
}
