using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>What of each object is kept in a <see cref="TreeImage"/>.</summary>
[Flags]
public enum Facets
{
    None = 0,
    Content = 1,
    Mode = 2,
    Owner = 4,
    ModifyTime = 8,
    ChangeTime = 16,
    AccessTime = 32,
    Xattrs = 64,
    Nlink = 128,
    Ino = 256,
    /// <summary>Allocated blocks; a filesystem may change them when it writes back.</summary>
    Blocks = 512,
    /// <summary>Whether d_ino and d_type of a listing agree with stat(2).</summary>
    EntryMatchesStat = 1024,
    /// <summary>Times that no test has set are all the same.</summary>
    RecentTimesAreNow = 2048,

    /// <summary>What a user sees of a tree, and what two overlays over the same layers must agree on.</summary>
    Visible = Content | Mode | Owner | ModifyTime | Xattrs | Nlink,

    /// <summary>All that a layer has on its filesystem and that nobody may change.</summary>
    Everything = Visible | ChangeTime | AccessTime | Ino,
}

/// <summary>A whole tree as text, one line for an object, to compare with another.</summary>
public sealed class TreeImage
{
    private readonly SortedDictionary<string, string> lines = new(StringComparer.Ordinal);

    private TreeImage() { }

    public IReadOnlyDictionary<string, string> Lines => lines;

    /// <summary>What a directory holds, as its users see it.</summary>
    public static TreeImage Of(FilePath root, Facets facets = Facets.Visible)
    {
        using Descriptor directory = Sys.Open(root, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoAccessTime);
        return Of(directory.Value, facets);
    }

    /// <summary>What a directory holds, without leaving a trace: seen through a private mount that updates no access time.</summary>
    public static TreeImage OfLayer(FilePath root)
    {
        using Descriptor place = Sys.Open(root, OpenFlags.Path | OpenFlags.Directory);
        SysException.ThrowIf(Libc.CloneMount(place.Value, out int clone), $"open_tree({root})");
        using var mount = new Descriptor(clone);
        SysException.ThrowIf(
            Libc.SetMountAttributes(clone, MountAttributes.ReadOnly | MountAttributes.NoAccessTime, MountAttributes.AccessTimeField),
            "mount_setattr");
        SysException.ThrowIf(Libc.OpenAt(clone, ".\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int opened),
            $"open({root})");
        using var directory = new Descriptor(opened);
        return Of(directory.Value, Facets.Everything);
    }

    private static TreeImage Of(int directory, Facets facets)
    {
        var image = new TreeImage();
        image.lines["."] = Describe(directory, Libc.Self, facets);
        image.Walk(directory, "", facets);
        return image;
    }

    /// <summary>The same but for one object.</summary>
    public TreeImage Without(string path)
    {
        lines.Remove(path);
        return this;
    }

    /// <summary>The same with every line rewritten.</summary>
    public TreeImage Map(Func<string, string> rewrite) => Map((_, line) => rewrite(line));

    /// <inheritdoc cref="Map(Func{string, string})"/>
    /// <param name="rewrite">Given the path as well.</param>
    public TreeImage Map(Func<string, string, string> rewrite)
    {
        var image = new TreeImage();
        foreach ((string path, string line) in lines) { image.lines[path] = rewrite(path, line); }
        return image;
    }

    /// <summary>The lines in which two trees differ, or nothing.</summary>
    public static string Difference(TreeImage expected, TreeImage actual)
    {
        var text = new StringBuilder();
        foreach (string path in expected.lines.Keys.Union(actual.lines.Keys, StringComparer.Ordinal).Order(StringComparer.Ordinal))
        {
            string? one = expected.lines.GetValueOrDefault(path), other = actual.lines.GetValueOrDefault(path);
            if (one == other) { continue; }
            text.Append(CultureInfo.InvariantCulture, $"{path}\n  expected: {one ?? "nothing"}\n  actual:   {other ?? "nothing"}\n");
        }
        return text.ToString();
    }

    private void Walk(int directory, string prefix, Facets facets)
    {
        var entries = new List<DirectoryEntry>();
        // Not owned by the Descriptor: it is the caller's, or closed below.
        var listed = new Descriptor(directory);
        while (true)
        {
            try
            {
                if (!listed.ReadSomeEntries(entries, 64 * 1024)) { break; }
            }
            catch (SysException problem)
            {
                lines[prefix + "(listing)"] = problem.Errno.ToString();
                break;
            }
        }
        foreach (IGrouping<string, DirectoryEntry> same in entries.GroupBy(e => e.Name, StringComparer.Ordinal).Where(g => g.Count() > 1))
        {
            lines[$"{prefix}{same.Key} (again)"] = $"listed {same.Count()} times";
        }
        foreach (DirectoryEntry entry in entries)
        {
            byte[] name = PathText.Encode(entry.Name);
            string path = prefix + entry.Name;
            string line = Describe(directory, name, facets);
            if (facets.HasFlag(Facets.EntryMatchesStat) && !Libc.StatAt(directory, name, StatxMask.Basic, out Statx stat).IsError)
            {
                if (stat.Ino != entry.Ino) { line += " d_ino!=st_ino"; }
                if (stat.Type >> 12 != entry.Type) { line += $" d_type={entry.Type}"; }
            }
            lines[path] = line;
            if (!line.StartsWith("directory", StringComparison.Ordinal)) { continue; }
            Errno error = Libc.OpenAt(
                directory, name, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow | OpenFlags.NoAccessTime, 0,
                ResolveFlags.None, out int child);
            if (error.IsError)
            {
                lines[path + "/(listing)"] = error.ToString();
                continue;
            }
            using (new Descriptor(child)) { Walk(child, path + "/", facets); }
        }
    }

    private static string Describe(int directory, ReadOnlySpan<byte> name, Facets facets)
    {
        Errno error = Libc.StatAt(directory, name, StatxMask.Basic, out Statx stat);
        if (error.IsError) { return error.ToString(); }
        var text = new StringBuilder(KindOf(stat.Type));
        if (stat.Type is FileType.CharacterDevice or FileType.BlockDevice) { Say($"{stat.RdevMajor}:{stat.RdevMinor}"); }
        if (facets.HasFlag(Facets.Mode)) { Say(Octal.Text(stat.Mode)); }
        if (facets.HasFlag(Facets.Owner)) { Say($"{stat.Uid}:{stat.Gid}"); }
        if (facets.HasFlag(Facets.Nlink) && !stat.IsDirectory) { Say($"nlink={stat.Nlink}"); }
        if (facets.HasFlag(Facets.Ino)) { Say($"ino={stat.Ino}"); }
        if (facets.HasFlag(Facets.Blocks)) { Say($"blocks={stat.Blocks}"); }
        if (facets.HasFlag(Facets.ModifyTime))
        {
            Say($"mtime={(facets.HasFlag(Facets.RecentTimesAreNow) ? TimeOrNow(stat.ModifyTime) : Time(stat.ModifyTime))}");
        }
        if (facets.HasFlag(Facets.ChangeTime)) { Say($"ctime={Time(stat.ChangeTime)}"); }
        if (facets.HasFlag(Facets.AccessTime)) { Say($"atime={Time(stat.AccessTime)}"); }
        if (facets.HasFlag(Facets.Content) && stat.IsRegular) { Say($"size={stat.Size} {Hash(directory, name)}"); }
        if (facets.HasFlag(Facets.Content) && stat.IsSymbolicLink) { Say("-> " + LinkTarget(directory, name)); }
        if (facets.HasFlag(Facets.Xattrs)) { DescribeXattrs(directory, name, text); }
        return text.ToString();

        void Say(string word) => text.Append(' ').Append(word);
    }

    private static string Hash(int directory, ReadOnlySpan<byte> name)
    {
        Errno error = Libc.OpenAt(directory, name, OpenFlags.ReadOnly | OpenFlags.NoFollow | OpenFlags.NonBlock | OpenFlags.NoAccessTime, 0,
            ResolveFlags.None, out int opened);
        if (error.IsError) { return error.ToString(); }
        using var file = new Descriptor(opened);
        try { return Convert.ToHexString(SHA256.HashData(file.ReadToEnd()).AsSpan(0, 8)); }
        catch (SysException problem) { return problem.Errno.ToString(); }
    }

    private static string LinkTarget(int directory, ReadOnlySpan<byte> name)
    {
        byte[] buffer = new byte[4096];
        Errno error = Libc.ReadLinkAt(directory, name, buffer, out int length);
        return error.IsError ? error.ToString() : PathText.Decode(buffer.AsSpan(0, length));
    }

    private static void DescribeXattrs(int directory, ReadOnlySpan<byte> name, StringBuilder text)
    {
        byte[] list = new byte[65536];
        Errno error = Libc.ListXattrAt(directory, name, list, out int size);
        if (error.IsError)
        {
            if (!error.IsNoXattr) { text.Append(" xattrs:").Append(error); }
            return;
        }
        byte[] value = new byte[65536];
        foreach (string attribute in Encoding.Latin1.GetString(list, 0, size)
            .Split('\0', StringSplitOptions.RemoveEmptyEntries)
            .Order(StringComparer.Ordinal))
        {
            error = Libc.GetXattrAt(directory, name, PathText.Encode(attribute), value, out int length);
            text.Append(' ').Append(attribute).Append('=').Append(error.IsError ? error.ToString() : Readable(value.AsSpan(0, length)));
        }
    }

    private static string Readable(ReadOnlySpan<byte> value) =>
        value.ContainsAnyExceptInRange((byte)33, (byte)126) || value.Length > 80
            ? "0x" + Convert.ToHexString(value)
            : Encoding.ASCII.GetString(value);

    /// <summary>A time that a test has set, or <c>now</c>.</summary>
    public static string TimeOrNow(in StatxTime time) => time.Seconds > Node.LongAgo.Seconds + 1_000_000 ? "now" : Time(time);

    private static string Time(in StatxTime time) => $"{time.Seconds}.{time.Nanoseconds:D9}";

    /// <summary>The word for a file type.</summary>
    public static string KindOf(uint type) => type switch
    {
        FileType.Directory => "directory",
        FileType.Regular => "file",
        FileType.SymbolicLink => "link",
        FileType.Fifo => "fifo",
        FileType.Socket => "socket",
        FileType.CharacterDevice => "character",
        FileType.BlockDevice => "block",
        _ => $"type-{type:X}",
    };
}
