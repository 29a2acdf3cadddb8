using System.Globalization;
using System.Text;

namespace Veneer.Mount.Tests;

/// <summary>A layer of an OCI image, read and applied as the image specification says, without the server's own code.</summary>
public sealed class LayerArchive
{
    private const int Block = 512;

    public sealed record Entry(string Path, char Kind, uint Mode, uint Uid, uint Gid, TimeSpec Modified, string Target,
        (uint Major, uint Minor) Device, byte[] Content, IReadOnlyDictionary<string, byte[]> Attributes)
    {
        public string Name => Path[(Path.LastIndexOf('/') + 1)..];
    }

    private LayerArchive(List<Entry> entries) => Entries = entries;

    public IReadOnlyList<Entry> Entries { get; }

    public static LayerArchive Parse(byte[] archive)
    {
        var entries = new List<Entry>();
        var records = new Dictionary<string, byte[]>(StringComparer.Ordinal);
        int at = 0;
        while (true)
        {
            ReadOnlySpan<byte> header = archive.AsSpan(at, Block);
            at += Block;
            if (!header.ContainsAnyExcept((byte)0))
            {
                Assert.Equal(archive.Length, at + Block);
                Assert.True(!archive.AsSpan(at).ContainsAnyExcept((byte)0));
                return new LayerArchive(entries);
            }
            Assert.Equal("ustar\0" + "00", Encoding.ASCII.GetString(header.Slice(257, 8)));
            Assert.Equal(ChecksumOf(header), Octal(header.Slice(148, 8)));
            int size = (int)Octal(header.Slice(124, 12));
            byte[] content = archive[at..(at + size)];
            at += (size + Block - 1) / Block * Block;
            char kind = (char)header[156];
            if (kind == 'x')
            {
                Parse(content, records);
                continue;
            }
            string path = PathText.Decode(records.GetValueOrDefault("path") ?? header[..100].ToArray());
            entries.Add(new Entry(
                path.TrimEnd('/'), kind, (uint)Octal(header.Slice(100, 8)),
                (uint)Number("uid", header.Slice(108, 8)), (uint)Number("gid", header.Slice(116, 8)),
                Time(records, Octal(header.Slice(136, 12))),
                PathText.Decode(records.GetValueOrDefault("linkpath") ?? header.Slice(157, 100).ToArray()),
                ((uint)Octal(header.Slice(329, 8)), (uint)Octal(header.Slice(337, 8))), content,
                records
                    .Where(r => r.Key.StartsWith("SCHILY.xattr.", StringComparison.Ordinal))
                    .ToDictionary(r => r.Key["SCHILY.xattr.".Length..], r => r.Value)));
            Assert.Equal(kind == '5', path.EndsWith('/'));
            records.Clear();

            long Number(string key, ReadOnlySpan<byte> field) => records.TryGetValue(key, out byte[]? value)
                ? long.Parse(Encoding.ASCII.GetString(value), CultureInfo.InvariantCulture)
                : Octal(field);
        }
    }

    private static long ChecksumOf(ReadOnlySpan<byte> header)
    {
        long sum = 8 * ' ';
        for (int i = 0; i < Block; i++) { sum += i is >= 148 and < 156 ? 0 : header[i]; }
        return sum;
    }

    private static long Octal(ReadOnlySpan<byte> field) => Convert.ToInt64(Encoding.ASCII.GetString(field).TrimEnd(' ', '\0'), 8);

    private static void Parse(ReadOnlySpan<byte> content, Dictionary<string, byte[]> records)
    {
        while (content.Length > 0)
        {
            int space = content.IndexOf((byte)' ');
            int length = int.Parse(Encoding.ASCII.GetString(content[..space]), CultureInfo.InvariantCulture);
            Assert.Equal((byte)'\n', content[length - 1]);
            ReadOnlySpan<byte> record = content[(space + 1)..(length - 1)];
            int equals = record.IndexOf((byte)'=');
            records.Add(PathText.Decode(record[..equals]), record[(equals + 1)..].ToArray());
            content = content[length..];
        }
    }

    private static TimeSpec Time(Dictionary<string, byte[]> records, long seconds)
    {
        if (!records.TryGetValue("mtime", out byte[]? text)) { return new TimeSpec { Seconds = seconds }; }
        decimal time = decimal.Parse(Encoding.ASCII.GetString(text), CultureInfo.InvariantCulture);
        long whole = (long)Math.Floor(time);
        return new TimeSpec { Seconds = whole, Nanoseconds = (long)((time - whole) * 1_000_000_000) };
    }

    /// <summary>Applies the layer to a tree, which holds what the layers below show.</summary>
    public void ApplyTo(FilePath root)
    {
        DeleteFrom(root);
        foreach (Entry entry in Entries.Where(e => !e.Name.StartsWith(".wh.", StringComparison.Ordinal))) { Put(root, entry); }
        foreach (Entry entry in Entries.Where(e => !e.Name.StartsWith(".wh.", StringComparison.Ordinal)).Reverse())
        {
            Sys.ChangeTimes(root / entry.Path, entry.Modified, entry.Modified);
        }
    }

    /// <summary>The half of it that deletes.</summary>
    public void DeleteFrom(FilePath root)
    {
        // A whiteout means the layers below, so all of them come first.
        foreach (Entry entry in Entries)
        {
            FilePath path = root / entry.Path;
            if (entry.Name == ".wh..wh..opq") { foreach (string name in path.Parent.Entries()) { Sys.RemoveTree(path.Parent / name); } }
            else if (entry.Name.StartsWith(".wh.", StringComparison.Ordinal))
            {
                Assert.True((path.Parent / entry.Name[4..]).Exists, $"{entry.Path} deletes what is not there");
                Sys.RemoveTree(path.Parent / entry.Name[4..]);
            }
        }
    }

    private static void Put(FilePath root, Entry entry)
    {
        FilePath path = root / entry.Path;
        bool isThere = entry.Kind == '5' && path.Exists && Sys.Stat(path).IsDirectory;
        if (!isThere && path.Exists) { Sys.RemoveTree(path); }
        switch (entry.Kind)
        {
            case '0': Sys.Write(path, entry.Content); break;
            case '1': Sys.Link(root / entry.Target, path); return;
            case '2': Sys.SymbolicLink(entry.Target, path); break;
            case '3': Sys.MakeNode(path, FileType.CharacterDevice, 0, entry.Device.Major, entry.Device.Minor); break;
            case '4': Sys.MakeNode(path, FileType.BlockDevice, 0, entry.Device.Major, entry.Device.Minor); break;
            case '5': if (!isThere) { Sys.MakeDirectory(path); } break;
            case '6': Sys.MakeNode(path, FileType.Fifo, 0); break;
            default: throw new InvalidOperationException($"{entry.Path} is of type {entry.Kind}");
        }
        Sys.ChangeOwner(path, entry.Uid, entry.Gid);
        if (entry.Kind != '2') { Sys.ChangeMode(path, entry.Mode); }
        foreach (string old in Sys.ListXattr(path)) { Sys.RemoveXattr(path, old); } // also what a directory above hands on
        foreach ((string name, byte[] value) in entry.Attributes) { Sys.SetXattr(path, name, value); }
    }
}
