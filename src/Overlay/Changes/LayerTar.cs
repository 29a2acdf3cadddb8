using System.Globalization;
using System.Text;
using Veneer.Linux;

namespace Veneer.Overlay.Changes;

/// <summary>Writes changes as a layer of an OCI image: a tar in which <c>.wh.NAME</c> deletes and <c>.wh..wh..opq</c> empties.</summary>
/// <remarks>
/// The same layers give the same bytes. The order is that of the paths, names of users and access times are left out, and
/// every field that is not taken from an object is fixed. ADR 12 says why this is not System.Formats.Tar. See layer.md of the
/// image specification, and pax(1).
/// </remarks>
/// <param name="layers">The layers.</param>
/// <param name="output">Takes the archive.</param>
/// <param name="times">How times of modification are written.</param>
/// <param name="disturb">Called with a path (without a NUL) and with what a layer cannot express of it.</param>
internal sealed class LayerTar(LayerSet layers, Stream output, LayerTimes times, Action<byte[], DisturbanceKind, string> disturb)
{
    private const int Block = 512;
    private const int MaxField = 100;
    private const long MaxSize = 0x1_FFFF_FFFF; // 11 octal digits
    private const uint MaxId = 0x1F_FFFF; // 7 octal digits

    private readonly byte[] buffer = new byte[128 * 1024];
    private readonly byte[] zeros = new byte[128 * 1024];
    private readonly Dictionary<(ulong Device, ulong Ino), byte[]> linked = [];

    /// <summary>Writes one name of upper and its change, or leaves it out.</summary>
    /// <exception cref="IOException">The output takes no more.</exception>
    public void Write(Step step, Change? change)
    {
        ReadOnlySpan<byte> name = step.Name.AsSpan(0, step.Name.Length - 1);
        // Without the directory that is left out, objects in it would get a directory that nobody made.
        if (IsReserved(step.Path.AsSpan(0, step.Path.Length - name.Length))) { return; }
        if (!step.Found.Exists)
        {
            // The layer has the whole of a renamed directory, so a name that it does not show need not be deleted.
            if (step.IsWhole) { return; }
            if (name.StartsWith(".wh."u8))
            {
                disturb(step.Path, DisturbanceKind.Unexpressed, "cannot be deleted by a layer, where such a name deletes: left out");
            }
            else { WriteMark([.. step.Path[..^name.Length], .. ".wh."u8, .. name]); }
            return;
        }
        // An unchanged copy is left out, unless another one of its names may need it.
        if (change is null && step.Directory is null && !step.IsWhole && step.Found.Stat.Nlink == 1) { return; }
        if (name.StartsWith(".wh."u8))
        {
            disturb(step.Path, DisturbanceKind.Unexpressed, $"cannot be in a layer, where such a name deletes: left "
                + $"out{(step.Directory is null ? "" : ", with all that is in it")}");
            return;
        }
        if (step.Found.Stat.Type == FileType.Socket)
        {
            disturb(step.Path, DisturbanceKind.LeftOut, "is a socket, which a layer cannot hold: left out");
            return;
        }
        WriteObject(step);
        bool covers = step.Base is { Found.Stat.IsDirectory: true } && (step.Source is null || step.IsRenamedDirectory);
        if (step.Directory is not null && covers && !step.IsWhole) { WriteMark([.. step.Path, .. "/.wh..wh..opq"u8]); }
    }

    /// <summary>Whether a name in a path is one that deletes.</summary>
    private static bool IsReserved(ReadOnlySpan<byte> path) => path.StartsWith(".wh."u8) || path.IndexOf("/.wh."u8) >= 0;

    /// <summary>Ends the archive. If this end is missing, a reader knows that the archive was cut off.</summary>
    public void Finish()
    {
        output.Write(new byte[2 * Block]);
        output.Flush();
    }

    private void WriteMark(byte[] path)
    {
        var header = new Header { Path = path, Kind = '0' };
        WriteHeader(header, []);
    }

    private void WriteObject(Step step)
    {
        Statx stat = step.Found.Stat;
        var header = new Header
        {
            Path = stat.IsDirectory ? [.. step.Path, (byte)'/'] : step.Path,
            Mode = stat.Mode & ModeBits.Mask,
            Uid = stat.Uid,
            Gid = stat.Gid,
            Time = times.Of(Timestamp.Of(stat.ModifyTime)),
            Kind = '0',
        };
        if (!stat.IsDirectory && stat.Nlink > 1 && !linked.TryAdd((stat.Dev, stat.Ino), step.Path))
        {
            header = header with { Kind = '1', Target = linked[(stat.Dev, stat.Ino)] };
            WriteHeader(header, []);
            return;
        }
        Errno error = ReadAttributes(step, out SortedDictionary<string, byte[]> records);
        Fd? file = null;
        switch (stat.Type)
        {
            case FileType.Regular:
                if (!error.IsError)
                {
                    error = layers.Open(step.Data, OpenFlags.ReadOnly, out int descriptor);
                    if (!error.IsError) { file = new Fd(descriptor); }
                }
                header = header with { Size = (long)stat.Size };
                break;
            case FileType.SymbolicLink:
                if (!error.IsError)
                {
                    error = layers.ReadLink(step.Real, out byte[] target);
                    header = header with { Kind = '2', Target = target };
                }
                break;
            case FileType.Directory:
                header = header with { Kind = '5' };
                break;
            case FileType.Fifo:
                header = header with { Kind = '6' };
                break;
            default:
                header = header with
                {
                    Kind = stat.Type == FileType.CharacterDevice ? '3' : '4', Major = stat.RdevMajor, Minor = stat.RdevMinor
                };
                break;
        }
        using (file)
        {
            if (error.IsError)
            {
                disturb(
                    step.Path,
                    error is Errno.ENOENT or Errno.ESTALE ? DisturbanceKind.Moved : DisturbanceKind.Unreadable,
                    $"cannot be read ({error}): left out");
                linked.Remove((stat.Dev, stat.Ino));
                return;
            }
            WriteHeader(header, records);
            if (file is not null) { WriteContent(step, file.Value, header.Size); }
        }
    }

    /// <summary>Writes as many bytes as the header announced, even if the file changes meanwhile.</summary>
    private void WriteContent(Step step, int file, long size)
    {
        Errno error = Errno.None;
        long at = 0;
        while (at < size && !error.IsError)
        {
            // Holes are not read, but written as zeros, since not all programs that unpack layers know sparse files.
            long end = Comparison.EndOfHole(file, at, size);
            if (end > at)
            {
                WriteZeros(end - at);
                at = end;
                continue;
            }
            long stop = Math.Min(size, Comparison.EndOfData(file, at, size));
            while (at < stop)
            {
                Span<byte> part = buffer.AsSpan(0, (int)Math.Min(buffer.Length, stop - at));
                error = Comparison.ReadFully(file, part, at, out int count);
                if (error.IsError || count == 0) { break; }
                output.Write(part[..count]);
                at += count;
            }
            if (at < stop) { break; }
        }
        if (error.IsError) { disturb(step.Path, DisturbanceKind.Unreadable, $"cannot be read to its end ({error}): zeros follow"); }
        else if (at < size
            || (!Libc.StatAt(file, Libc.Self, StatxMask.Basic, out Statx now).IsError
                && step.Whole.Metacopy is null
                && Timestamp.Of(now.ChangeTime) != Timestamp.Of(step.Found.Stat.ChangeTime)))
        {
            disturb(step.Path, DisturbanceKind.Moved, "changed while it was read");
        }
        WriteZeros((size + Block - 1) / Block * Block - at);
    }

    private void WriteZeros(long count)
    {
        for (; count > 0; count -= zeros.Length) { output.Write(zeros, 0, (int)Math.Min(zeros.Length, count)); }
    }

    /// <summary>
    /// Reads the attributes to write with an object: those that users see, except attributes that only this machine or an
    /// overlay understands.
    /// </summary>
    private Errno ReadAttributes(Step step, out SortedDictionary<string, byte[]> records)
    {
        records = new SortedDictionary<string, byte[]>(StringComparer.Ordinal);
        Errno error = layers.ReadXattrs(step.Real, out SortedDictionary<string, byte[]> attributes);
        foreach ((string name, byte[] value) in attributes)
        {
            if (name == "security.selinux") { continue; } // belongs to the policy of this machine
            if (name.StartsWith("trusted.overlay.", StringComparison.Ordinal)
                || name.StartsWith("user.overlay.", StringComparison.Ordinal)
                || name.Contains('=', StringComparison.Ordinal))
            {
                disturb(
                    step.Path,
                    DisturbanceKind.LeftOut,
                    $"has the attribute {PathText.Printable(name)}, which whoever unpacks the layer would misunderstand: "
                        + "the attribute is left out");
                continue;
            }
            records["SCHILY.xattr." + name] = value;
        }
        return error;
    }

    private readonly record struct Header(byte[] Path, char Kind)
    {
        public byte[]? Target { get; init; }
        public uint Mode { get; init; }
        public uint Uid { get; init; }
        public uint Gid { get; init; }
        public long Size { get; init; }
        public Timestamp Time { get; init; }
        public uint Major { get; init; }
        public uint Minor { get; init; }
    }

    private void WriteHeader(Header header, SortedDictionary<string, byte[]> records)
    {
        if (header.Path.Length > MaxField) { records["path"] = header.Path; }
        if (header.Target is { Length: > MaxField } target) { records["linkpath"] = target; }
        if (header.Uid > MaxId) { records["uid"] = Number(header.Uid); }
        if (header.Gid > MaxId) { records["gid"] = Number(header.Gid); }
        if (header.Size > MaxSize) { records["size"] = Number(header.Size); }
        Timestamp time = header.Time;
        if (time.Nanoseconds != 0 || time.Seconds is < 0 or > MaxSize) { records["mtime"] = Encoding.ASCII.GetBytes(Decimal(time)); }
        if (records.Count > 0)
        {
            var content = new MemoryStream();
            // pax(1) takes all records as UTF-8, unless a record before them says otherwise.
            if (records.Any(record => record.Key is "path" or "linkpath" && !PathText.IsUtf8(PathText.Decode(record.Value))))
            {
                WriteRecord(content, "hdrcharset", "BINARY"u8.ToArray());
            }
            foreach ((string key, byte[] value) in records) { WriteRecord(content, key, value); }
            WriteBlock(new Header("PaxHeader"u8.ToArray(), 'x') { Mode = 0x1A4, Size = content.Length });
            content.SetLength((content.Length + Block - 1) / Block * Block);
            content.WriteTo(output);
        }
        WriteBlock(header);
    }

    /// <summary>Writes a record of pax(1). Its length counts the digits of the length, too.</summary>
    private static void WriteRecord(MemoryStream content, string key, byte[] value)
    {
        byte[] name = PathText.Encode(key)[..^1];
        int rest = 1 + name.Length + 1 + value.Length + 1; // the space, "=" and the newline
        int length = rest + 1;
        while (Digits(length) + rest != length) { length = Digits(length) + rest; }
        content.Write(Number(length));
        content.Write(" "u8);
        content.Write(name);
        content.Write("="u8);
        content.Write(value);
        content.Write("\n"u8);

        static int Digits(int number) => number.ToString(CultureInfo.InvariantCulture).Length;
    }

    private static byte[] Number(long number) => Encoding.ASCII.GetBytes(number.ToString(CultureInfo.InvariantCulture));

    /// <summary>A time in seconds with as many decimals as it needs; the fraction of a negative time counts backwards as well.</summary>
    private static string Decimal(Timestamp time)
    {
        decimal seconds = time.Seconds + time.Nanoseconds / 1_000_000_000m;
        return seconds.ToString("0.#########", CultureInfo.InvariantCulture);
    }

    /// <summary>Writes a <c>struct posix_header</c>, see tar(5). Values that do not fit are in the pax records before it.</summary>
    private void WriteBlock(Header header)
    {
        Span<byte> block = stackalloc byte[Block];
        block.Clear();
        Copy(header.Path, block[..100]);
        Octal(header.Mode, block.Slice(100, 8));
        Octal(header.Uid > MaxId ? 0 : header.Uid, block.Slice(108, 8));
        Octal(header.Gid > MaxId ? 0 : header.Gid, block.Slice(116, 8));
        Octal(header.Size > MaxSize ? 0 : header.Size, block.Slice(124, 12));
        Octal(header.Time.Seconds is < 0 or > MaxSize ? 0 : header.Time.Seconds, block.Slice(136, 12));
        block.Slice(148, 8).Fill((byte)' ');
        block[156] = (byte)header.Kind;
        Copy(header.Target, block.Slice(157, 100));
        "ustar\u000000"u8.CopyTo(block[257..]);
        Octal(header.Major, block.Slice(329, 8));
        Octal(header.Minor, block.Slice(337, 8));
        long sum = 0;
        foreach (byte b in block) { sum += b; }
        Octal(sum, block.Slice(148, 7));
        output.Write(block);

        static void Copy(ReadOnlySpan<byte> text, Span<byte> field) => text[..Math.Min(text.Length, field.Length)].CopyTo(field);
    }

    /// <summary>Writes octal digits with leading zeros, and a NUL.</summary>
    private static void Octal(long number, Span<byte> field)
    {
        for (int i = field.Length - 2; i >= 0; i--, number >>= 3) { field[i] = (byte)('0' + (number & 7)); }
        field[^1] = 0;
    }
}
