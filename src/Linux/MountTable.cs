using System.Buffers.Text;

namespace Veneer.Linux;

/// <summary>One mount: a line of <c>/proc/PID/mountinfo</c>. See proc_pid_mountinfo(5).</summary>
public sealed record MountEntry
{
    /// <summary>The mount's id, as statx(2) gives it.</summary>
    public required int Id { get; init; }

    /// <summary>The id of the mount that contains the mount point.</summary>
    public required int Parent { get; init; }

    /// <summary>The device number of the superblock, <c>MAJOR:MINOR</c>, also on btrfs.</summary>
    public required string Device { get; init; }

    /// <summary>The directory of the filesystem that is the root of the mount.</summary>
    public required string Root { get; init; }

    /// <summary>The mount point, as seen from this process's root directory.</summary>
    public required string MountPoint { get; init; }

    /// <summary>The mount's own options, such as <c>rw,nosuid</c>.</summary>
    public required string Options { get; init; }

    /// <summary>The type of the filesystem, such as <c>fuse.veneer</c>.</summary>
    public required string Type { get; init; }

    /// <summary>The source of the mount, such as a device.</summary>
    public required string Source { get; init; }

    /// <summary>The filesystem's own options, one per element, such as <c>upperdir=/u</c>.</summary>
    public IReadOnlyList<string> FileSystemOptions { get; init; } = [];

    /// <summary>
    /// The flags of the superblock, the same for all its mounts: <c>rw</c> or <c>ro</c>, <c>sync</c>, <c>dirsync</c>,
    /// <c>mand</c>, <c>lazytime</c>.
    /// </summary>
    public IReadOnlyList<string> FileSystemFlags { get; init; } = [];

    /// <summary>
    /// The propagation of the mount: <c>shared</c>, <c>slave</c>, <c>unbindable</c>; empty when the mount is private.
    /// </summary>
    public IReadOnlyList<string> Propagation { get; init; } = [];

    /// <summary>Whether an option is one of <see cref="FileSystemFlags"/>.</summary>
    public static bool IsFileSystemFlag(string option) => option is "rw" or "ro" or "sync" or "dirsync" or "mand" or "lazytime";

    /// <summary>The value of one of the filesystem's own options, or null when it is not set. The last occurrence counts.</summary>
    public string? Option(string name) =>
        FileSystemOptions.LastOrDefault(option => option.Length > name.Length && option[name.Length] == '='
            && option.StartsWith(name, StringComparison.Ordinal))?[(name.Length + 1)..];
}

/// <summary>Reads the mounts of this process's mount namespace, as far as its root directory reaches.</summary>
public static class MountTable
{
    /// <summary>Reads the mount table of this process. A mount precedes the mounts on top of it.</summary>
    public static Errno Read(out List<MountEntry> mounts)
    {
        Errno error = Libc.ReadWhole("/proc/self/mountinfo\0"u8, out byte[] content);
        mounts = error.IsError ? [] : ParseAll(content);
        return error;
    }

    /// <summary>Parses a mount table as the kernel writes it.</summary>
    public static List<MountEntry> ParseAll(ReadOnlySpan<byte> table)
    {
        var mounts = new List<MountEntry>();
        ReadOnlySpan<byte> rest = table;
        while (rest.Length > 0)
        {
            if (Parse(NextLine(ref rest)) is { } entry) { mounts.Add(entry); }
        }
        return mounts;
    }

    /// <summary>Takes the next line off a table, without its newline.</summary>
    public static ReadOnlySpan<byte> NextLine(scoped ref ReadOnlySpan<byte> table)
    {
        int end = table.IndexOf((byte)'\n');
        ReadOnlySpan<byte> line = end < 0 ? table : table[..end];
        table = end < 0 ? default : table[(end + 1)..];
        return line;
    }

    /// <summary>
    /// Finds the topmost mount at a path, or null. Parses only the lines that it needs, since a table may be large.
    /// </summary>
    /// <param name="table">The mount table, as the kernel writes it.</param>
    /// <param name="path">An absolute path without symbolic links.</param>
    public static MountEntry? Covering(ReadOnlySpan<byte> table, string path)
    {
        ReadOnlySpan<byte> wanted = PathText.Encode(path).AsSpan()[..^1];
        ReadOnlySpan<byte> best = table;
        int longest = -1;
        while (table.Length > 0)
        {
            ReadOnlySpan<byte> line = NextLine(ref table);
            ReadOnlySpan<byte> rest = line;
            for (int skipped = 0; skipped < 4; skipped++) { _ = Next(ref rest); } // ids, device, root
            ReadOnlySpan<byte> point = Next(ref rest);
            if (point.Contains((byte)'\\')) { point = PathText.Encode(Unescape(point)).AsSpan()[..^1]; }
            // Of several mounts at the same place, the last one is on top.
            bool covers = point.Length >= longest && wanted.StartsWith(point)
                && (wanted.Length == point.Length || point is [(byte)'/'] || wanted[point.Length] == '/');
            if (!covers) { continue; }
            best = line;
            longest = point.Length;
        }
        return longest < 0 ? null : Parse(best);
    }

    /// <summary>
    /// Opens a path with O_PATH and gets its full name. The caller closes the descriptor, which keeps the mount busy until
    /// then. No FUSE server is asked.
    /// </summary>
    public static Errno OpenPlace(string path, out string resolved, out int descriptor)
    {
        resolved = path;
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.Path, 0, ResolveFlags.None, out descriptor);
        if (error.IsError) { return error; }
        Span<byte> name = stackalloc byte[4096];
        error = Libc.ReadLinkAt(Libc.AtCwd, PathText.Encode($"/proc/self/fd/{descriptor}"), name, out int length);
        if (error.IsError)
        {
            Libc.Close(descriptor);
            descriptor = -1;
            return error == Errno.ENOENT ? Errno.ENODEV : error; // the path exists; /proc is missing
        }
        resolved = PathText.Decode(name[..length]);
        return Errno.None;
    }

    /// <summary>
    /// Finds the mount that a path leads into, and opens the path with O_PATH. The mount is null when it cannot be
    /// determined. The caller closes the descriptor.
    /// </summary>
    /// <remarks>
    /// The mount comes from mountinfo. A kernel overlay is asked for with statmount(2) as well, which names exactly that
    /// mount and returns options of any length without escapes.
    /// </remarks>
    public static Errno FindAround(string path, out string resolved, out MountEntry? mount, out int descriptor)
    {
        mount = null;
        Errno error = OpenPlace(path, out resolved, out descriptor);
        if (error.IsError) { return error; }
        // Not statx(2), which would ask the FUSE server.
        error = Libc.ReadWhole(PathText.Encode($"/proc/self/fdinfo/{descriptor}"), out byte[] content);
        List<MountEntry> table = [];
        if (!error.IsError) { error = Read(out table); }
        if (error.IsError)
        {
            Libc.Close(descriptor);
            return error;
        }
        int id = MountId(content);
        mount = table.Find(entry => entry.Id == id) ?? FindElsewhere(path, id);
        if (mount is { Type: "overlay" } && !Libc.StatAt(descriptor, Libc.Self, StatxMask.UniqueMountId, out Statx stat).IsError
            && (stat.Mask & StatxMask.UniqueMountId) != 0 && !Libc.StatMount(stat.MountId, out MountEntry? told).IsError
            && told!.MountPoint == mount.MountPoint)
        {
            mount = told;
        }
        return Errno.None;
    }

    /// <summary>The id of the mount that a path leads into; -1 when it cannot be determined. No FUSE server is asked.</summary>
    public static int IdAt(string path)
    {
        if (OpenPlace(path, out _, out int descriptor).IsError) { return -1; }
        Errno error = Libc.ReadWhole(PathText.Encode($"/proc/self/fdinfo/{descriptor}"), out byte[] content);
        Libc.Close(descriptor);
        return error.IsError ? -1 : MountId(content);
    }

    /// <summary>Finds a mount behind <c>/proc/PID/root</c>, which is in the mount table of that process.</summary>
    private static MountEntry? FindElsewhere(string path, int id)
    {
        if (path.Split('/') is not ["", "proc", var process, "root", ..]) { return null; }
        return Libc.ReadWhole(PathText.Encode($"/proc/{process}/mountinfo"), out byte[] table).IsError
            ? null
            : ParseAll(table).Find(entry => entry.Id == id);
    }

    private static int MountId(ReadOnlySpan<byte> content)
    {
        ReadOnlySpan<byte> key = "mnt_id:\t"u8;
        int start = content.IndexOf(key);
        return start >= 0 && Utf8Parser.TryParse(content[(start + key.Length)..], out int id, out _) ? id : -1;
    }

    /// <summary>
    /// Parses one line: <c>36 35 98:0 /root /point options [optional ...] - type source superoptions</c>. Null when it is
    /// malformed.
    /// </summary>
    public static MountEntry? Parse(ReadOnlySpan<byte> line)
    {
        if (!Utf8Parser.TryParse(Next(ref line), out int id, out _) || !Utf8Parser.TryParse(Next(ref line), out int parent, out _))
        {
            return null;
        }
        string device = Unescape(Next(ref line));
        string root = Unescape(Next(ref line));
        string point = Unescape(Next(ref line));
        string options = Unescape(Next(ref line));
        var propagation = new List<string>();
        while (line.Length > 0 && Next(ref line) is var field && !field.SequenceEqual("-"u8))
        {
            if (field.StartsWith("shared:"u8)) { propagation.Add("shared"); }
            else if (field.StartsWith("master:"u8)) { propagation.Add("slave"); }
            else if (field.SequenceEqual("unbindable"u8)) { propagation.Add("unbindable"); }
        }
        string type = Unescape(Next(ref line));
        string source = Unescape(Next(ref line));
        var own = new List<string>();
        ReadOnlySpan<byte> list = Next(ref line);
        foreach (Range option in list.Split((byte)',')) { own.Add(Unescape(list[option])); } // a comma in a value is escaped
        return new MountEntry
        {
            Id = id,
            Parent = parent,
            Device = device,
            Root = root,
            MountPoint = point,
            Options = options,
            Type = type,
            Source = source,
            FileSystemOptions = own,
            FileSystemFlags = [.. own.Where(MountEntry.IsFileSystemFlag)],
            Propagation = propagation,
        };
    }

    private static ReadOnlySpan<byte> Next(ref ReadOnlySpan<byte> line)
    {
        int end = line.IndexOf((byte)' ');
        ReadOnlySpan<byte> field = end < 0 ? line : line[..end];
        line = end < 0 ? default : line[(end + 1)..];
        return field;
    }

    /// <summary>Undoes the kernel's escapes: space, tab, newline and backslash are written as three octal digits.</summary>
    public static string Unescape(ReadOnlySpan<byte> field)
    {
        if (!field.Contains((byte)'\\')) { return PathText.Decode(field); }
        byte[] plain = new byte[field.Length];
        int length = 0;
        for (int i = 0; i < field.Length; i++)
        {
            if (field[i] == '\\' && i + 3 < field.Length && IsOctal(field[i + 1]) && IsOctal(field[i + 2]) && IsOctal(field[i + 3]))
            {
                plain[length++] = (byte)(((field[i + 1] - '0') << 6) | ((field[i + 2] - '0') << 3) | (field[i + 3] - '0'));
                i += 3;
            }
            else
            {
                plain[length++] = field[i];
            }
        }
        return PathText.Decode(plain.AsSpan(0, length));

        static bool IsOctal(byte digit) => digit is >= (byte)'0' and <= (byte)'7';
    }
}
