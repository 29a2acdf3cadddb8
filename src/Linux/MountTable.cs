using System.Buffers.Text;

namespace Veneer.Linux;

/// <summary>One line of <c>/proc/self/mountinfo</c>. See proc_pid_mountinfo(5).</summary>
public sealed record MountEntry
{
    /// <summary>The mount's id, as statx(2) gives it.</summary>
    public required int Id { get; init; }

    /// <summary>The id of the mount that holds the mount point.</summary>
    public required int Parent { get; init; }

    /// <summary>Number of the filesystem's device, <c>MAJOR:MINOR</c>: the superblock's, also on btrfs.</summary>
    public required string Device { get; init; }

    /// <summary>The directory of the filesystem that is the root of the mount.</summary>
    public required string Root { get; init; }

    /// <summary>Where the mount is, seen from this process's root directory.</summary>
    public required string MountPoint { get; init; }

    /// <summary>The mount's own options, such as <c>rw,nosuid</c>.</summary>
    public required string Options { get; init; }

    /// <summary>The type of the filesystem, such as <c>fuse.veneer</c>.</summary>
    public required string Type { get; init; }

    /// <summary>What was mounted.</summary>
    public required string Source { get; init; }

    /// <summary>The filesystem's own options, one each, such as <c>upperdir=/u</c>.</summary>
    public IReadOnlyList<string> FileSystemOptions { get; init; } = [];
}

/// <summary>The mounts of this process's mount namespace, as far as its root directory reaches.</summary>
public static class MountTable
{
    /// <summary>Reads the table, parents before what is mounted on them.</summary>
    public static Errno Read(out List<MountEntry> mounts)
    {
        mounts = [];
        Errno error = Libc.ReadWhole("/proc/self/mountinfo\0"u8, out byte[] content);
        if (error.IsError) { return error; }

        ReadOnlySpan<byte> rest = content;
        while (rest.Length > 0)
        {
            int end = rest.IndexOf((byte)'\n');
            if (end < 0) { end = rest.Length; }
            if (Parse(rest[..end]) is { } entry) { mounts.Add(entry); }
            rest = rest[Math.Min(end + 1, rest.Length)..];
        }
        return Errno.None;
    }

    /// <summary>One line: <c>36 35 98:0 /root /point options [optional ...] - type source superoptions</c>.</summary>
    internal static MountEntry? Parse(ReadOnlySpan<byte> line)
    {
        if (!Utf8Parser.TryParse(Next(ref line), out int id, out _) || !Utf8Parser.TryParse(Next(ref line), out int parent, out _)) { return null; }
        string device = Unescape(Next(ref line));
        string root = Unescape(Next(ref line));
        string point = Unescape(Next(ref line));
        string options = Unescape(Next(ref line));
        while (line.Length > 0 && !Next(ref line).SequenceEqual("-"u8)) { }
        string type = Unescape(Next(ref line));
        string source = Unescape(Next(ref line));
        var own = new List<string>();
        ReadOnlySpan<byte> list = Next(ref line);
        foreach (Range option in list.Split((byte)',')) { own.Add(Unescape(list[option])); } // a comma in a value is escaped
        return new MountEntry { Id = id, Parent = parent, Device = device, Root = root, MountPoint = point, Options = options, Type = type, Source = source, FileSystemOptions = own };
    }

    private static ReadOnlySpan<byte> Next(ref ReadOnlySpan<byte> line)
    {
        int end = line.IndexOf((byte)' ');
        ReadOnlySpan<byte> field = end < 0 ? line : line[..end];
        line = end < 0 ? default : line[(end + 1)..];
        return field;
    }

    /// <summary>Space, tab, newline and backslash are written as three octal digits.</summary>
    private static string Unescape(ReadOnlySpan<byte> field)
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
