using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace Veneer.Oracle;

/// <summary>Does operations in one overlay and says in a line what came of each: <c>ok</c> and what was seen, or an errno.</summary>
internal sealed class Performer(FilePath root) : IDisposable
{
    private readonly Descriptor?[] slots = new Descriptor?[4];
    private uint umask = Octal.Oct(22);

    public string Perform(Operation operation)
    {
        (uint uid, uint gid) = LayerMaker.Users[operation.User];
        _ = Libc.SetUmask(umask);
        try
        {
            using (Identity.Assume(uid, gid)) { return $"ok {Do(operation.Name, operation.Arguments)}".TrimEnd(); }
        }
        catch (SysException problem)
        {
            return problem.Errno.ToString();
        }
    }

    public void CloseAll()
    {
        for (int i = 0; i < slots.Length; i++) { Close(i); }
    }

    /// <summary>Closes one slot, where the two sides are known to differ for as long as it is open.</summary>
    public void Close(int slot)
    {
        slots[slot]?.Dispose();
        slots[slot] = null;
    }

    public void Dispose() => CloseAll();

    private string Do(string name, string[] a)
    {
        switch (name)
        {
            case "mkdir": Sys.MakeDirectory(At(a[0]), Mode(a[1])); return "";
            case "rmdir": Sys.RemoveDirectory(At(a[0])); return "";
            case "unlink": Sys.Unlink(At(a[0])); return "";
            case "create": return Create(At(a[0]), a[1], Mode(a[2]), Int(a[3]));
            case "write": return Write(At(a[0]), Int(a[1]), Int(a[2]), Int(a[3]), a[4]);
            case "read": return Read(At(a[0]));
            case "truncate": return Truncate(At(a[0]), Int(a[1]));
            case "chmod": Sys.ChangeMode(At(a[0]), Mode(a[1])); return Describe(Sys.Stat(At(a[0]), follow: true));
            case "chown": return ChangeOwner(At(a[0]), Int(a[1]), Int(a[2]), a[3] == "follow");
            case "utimes": return ChangeTimes(At(a[0]), a[1], a[2] == "follow");
            case "symlink": Sys.SymbolicLink(a[0], At(a[1])); return "";
            case "readlink": return Sys.ReadLink(At(a[0]));
            case "link": return Link(At(a[0]), At(a[1]), a[2] == "follow");
            case "rename": Sys.Rename(At(a[0]), At(a[1])); return "";
            case "rename2": Sys.Rename(At(a[0]), At(a[1]), Flag(a[2])); return "";
            case "stat": return Describe(Sys.Stat(At(a[0]), a[1] == "follow"));
            case "list": return List(At(a[0]));
            case "access": return Sys.Access(At(a[0]), (AccessMode)Int(a[1])).ToString();
            case "copyup": return CopyUp(At(a[0]));
            case "umask": umask = Mode(a[0]); return "";
            case "statfs": return $"{Sys.StatFileSystem(root).NameLength}";
            case "rmtree": return RemoveTree(At(a[0]));
            case "fsyncdir":
                return Using(Sys.Open(At(a[0]), OpenFlags.ReadOnly | OpenFlags.Directory), directory => { directory.Sync(); return ""; });
            case "setxattr":
                Sys.SetXattr(At(a[0]), a[1], Encoding.ASCII.GetBytes(new string('V', Int(a[2]))), (XattrFlags)Int(a[3]));
                return "";
            case "getxattr": return Convert.ToHexString(SHA256.HashData(Sys.GetXattr(At(a[0]), a[1])).AsSpan(0, 4));
            case "listxattr": return string.Join(' ', Sys.ListXattr(At(a[0])));
            case "removexattr": Sys.RemoveXattr(At(a[0]), a[1]); return "";
            case "setacl":
                Sys.SetXattr(At(a[0]), "system.posix_acl_" + a[1], AccessList(Int(a[2]), Int(a[3])));
                return Describe(Sys.Stat(At(a[0]), follow: true));
            case "mknod": return MakeNode(At(a[0]), a[1], Mode(a[2]));
            case "mapwrite": return MapAndWrite(At(a[0]), Int(a[1]));
            case "mapread": return MapAndRead(At(a[0]), Int(a[1]));
            case "tmpfile": return Unnamed(At(a[0]), a[1], Mode(a[2]));
            case "fallocate": return Allocate(At(a[0]), a[1], Int(a[2]), Int(a[3]));
            case "copyrange": return CopyRange(At(a[0]), At(a[1]), Int(a[2]));
            case "holes": return Holes(At(a[0]));
            case "open": return Open(Int(a[0]), At(a[1]), a[2], Mode(a[3]));
            case "close": _ = Slot(a[0]); Close(Int(a[0])); return "";
            case "fwrite": return $"{RegularSlot(a[0]).WriteAt(Fill(Int(a[3]), Int(a[2])), Int(a[1]))} {DescribeOpen(Slot(a[0]))}";
            case "fread": return Summary(RegularSlot(a[0]).ReadAt(Int(a[1]), Int(a[2])));
            case "fstat": return DescribeOpen(Slot(a[0]));
            case "ftruncate": RegularSlot(a[0]).Truncate(Int(a[1])); return "";
            case "fchmod": ChangeableSlot(a[0]).ChangeMode(Mode(a[1])); return DescribeOpen(Slot(a[0]));
            case "fchown": ChangeableSlot(a[0]).ChangeOwner(1000, 1000); return DescribeOpen(Slot(a[0]));
            case "futimes": ChangeableSlot(a[0]).ChangeTimes(Instant(a[1]), Instant(a[1])); return "";
            case "fsync": Slot(a[0]).Sync(); return "";
            case "flist": return ListSlot(Slot(a[0]));
            default: throw new InvalidOperationException($"There is no operation {name}.");
        }
    }

    // Words of operations.

    private FilePath At(string path) =>
        root / path
            .Replace("L255", new string('L', 255), StringComparison.Ordinal)
            .Replace("L256", new string('L', 256), StringComparison.Ordinal);

    private static int Int(string word) => int.Parse(word, CultureInfo.InvariantCulture);

    private static uint Mode(string word) => Octal.Oct(Int(word));

    private static byte[] Fill(int value, int count)
    {
        byte[] content = new byte[count];
        Array.Fill(content, (byte)value);
        return content;
    }

    private static TimeSpec Instant(string word)
    {
        string[] parts = word.Split('.');
        return LayerMaker.At(Int(parts[0]), Int(parts[1]));
    }

    private static RenameFlags Flag(string word) =>
        word switch { "noreplace" => RenameFlags.NoReplace, "exchange" => RenameFlags.Exchange, _ => RenameFlags.Whiteout };

    // What was seen.

    private static string Describe(in Statx stat) => DescribeOpen(stat) + (stat.IsDirectory ? "" : $" nlink={stat.Nlink}");

    /// <summary>Without the count of links: see <see cref="KnownDifferences"/>.</summary>
    private static string DescribeOpen(in Statx stat)
    {
        string text =
            $"{TreeImage.KindOf(stat.Type)} {Octal.Text(stat.Mode)} {stat.Uid}:{stat.Gid} mtime={TreeImage.TimeOrNow(stat.ModifyTime)}";
        if (stat.Type is FileType.CharacterDevice or FileType.BlockDevice) { text += $" {stat.RdevMajor}:{stat.RdevMinor}"; }
        return stat.IsDirectory ? text : $"{text} size={stat.Size}";
    }

    private static string DescribeOpen(Descriptor file) => DescribeOpen(file.Stat());

    private static string Summary(ReadOnlySpan<byte> content) =>
        $"{content.Length} {Convert.ToHexString(SHA256.HashData(content).AsSpan(0, 4))}";

    private static string Using(Descriptor opened, Func<Descriptor, string> use)
    {
        using (opened) { return use(opened); }
    }

    /// <summary>Opens something without waiting.</summary>
    /// <remarks>
    /// To write to a FIFO that nobody reads gives ENXIO. Whether somebody reads depends on which processes this one has started
    /// at that moment, as they have its descriptors until they execute their program: so we read as well.
    /// </remarks>
    private static Descriptor OpenAny(FilePath path, OpenFlags flags, uint mode = 0)
    {
        if ((flags & OpenFlags.AccessMode) == OpenFlags.WriteOnly)
        {
            bool isFifo = false;
            _ = Sys.ErrorOf(() => isFifo = Sys.Stat(path, follow: true).Type == FileType.Fifo); // it is opened all the same
            if (isFifo) { flags = (flags & ~OpenFlags.AccessMode) | OpenFlags.ReadWrite; }
        }
        return Sys.Open(path, flags | OpenFlags.NonBlock, mode);
    }

    /// <summary>Opens something, and does the work if it is a regular file: others would wait, or have no content.</summary>
    private static string WithRegular(FilePath path, OpenFlags flags, Func<Descriptor, string> use) =>
        Using(OpenAny(path, flags), file => file.Stat() is { IsRegular: false } stat ? TreeImage.KindOf(stat.Type) : use(file));

    // Operations of more than one call.

    private static string Create(FilePath path, string how, uint mode, int size)
    {
        OpenFlags flags = OpenFlags.ReadWrite | OpenFlags.Create | OpenFlags.NonBlock;
        if (how.Contains("excl", StringComparison.Ordinal)) { flags |= OpenFlags.Exclusive; }
        if (how.Contains("trunc", StringComparison.Ordinal)) { flags |= OpenFlags.Truncate; }
        return Using(Sys.Open(path, flags, mode), file =>
        {
            if (size > 0 && file.Stat().IsRegular) { file.Write(Fill('N', size)); }
            return Describe(file.Stat());
        });
    }

    private static string Write(FilePath path, int offset, int count, int value, string how) =>
        WithRegular(path, WriteFlags(how), file =>
        {
            int written = how == "append" ? file.Write(Fill(value, count)) : file.WriteAt(Fill(value, count), offset);
            return $"{written} {Describe(file.Stat())}";
        });

    private static OpenFlags WriteFlags(string how) =>
        OpenFlags.WriteOnly | (how switch { "append" => OpenFlags.Append, "trunc" => OpenFlags.Truncate, _ => 0 });

    private static string Read(FilePath path) => WithRegular(path, OpenFlags.ReadOnly, file => Summary(file.ReadToEnd()));

    private static string Truncate(FilePath path, int length)
    {
        if (Sys.Stat(path, follow: true) is { IsRegular: false, IsDirectory: false }) { return "special"; }
        Sys.Truncate(path, length);
        return "";
    }

    private static string ChangeOwner(FilePath path, int uid, int gid, bool follow)
    {
        Sys.ChangeOwner(path, (uint)uid, (uint)gid, follow);
        return Describe(Sys.Stat(path, follow));
    }

    private static string ChangeTimes(FilePath path, string when, bool follow)
    {
        Sys.ChangeTimes(path, Instant(when), Instant(when), follow);
        return TreeImage.TimeOrNow(Sys.Stat(path, follow).ModifyTime);
    }

    private static string Link(FilePath existing, FilePath path, bool follow)
    {
        Sys.Link(existing, path, follow);
        return $"{Describe(Sys.Stat(path))} same={Sys.Stat(existing, follow).Ino == Sys.Stat(path).Ino}";
    }

    private static string List(FilePath path) => string.Join(' ', Sys.ReadDirectory(path)
        .Select(e => $"{Short(e.Name)}:{e.Type}{(Sys.Stat(path / e.Name).Ino == e.Ino ? "" : KnownDifferences.OtherInode)}")
        .Order(StringComparer.Ordinal));

    /// <summary>A change that changes nothing: number, count and time must survive it.</summary>
    private static string CopyUp(FilePath path)
    {
        Statx before = Sys.Stat(path);
        if (before.IsSymbolicLink) { Sys.ChangeOwner(path, before.Uid, before.Gid); }
        else { Sys.ChangeMode(path, before.Mode & ModeBits.Mask); }
        Statx after = Sys.Stat(path);
        return
            $"ino {(before.Ino, before.Dev) == (after.Ino, after.Dev)} mtime "
            + $"{TreeImage.TimeOrNow(before.ModifyTime) == TreeImage.TimeOrNow(after.ModifyTime)} nlink "
            + $"{before.IsDirectory || before.Nlink == after.Nlink}";
    }

    private static string RemoveTree(FilePath path)
    {
        var errors = new List<string>();
        Remove(path);
        return string.Join(' ', errors);

        void Remove(FilePath directory)
        {
            foreach (DirectoryEntry entry in Sys.ReadDirectory(directory).OrderBy(e => e.Name, StringComparer.Ordinal))
            {
                try
                {
                    if (Sys.Stat(directory / entry.Name).IsDirectory) { Remove(directory / entry.Name); }
                    else { Sys.Unlink(directory / entry.Name); }
                }
                catch (SysException problem)
                {
                    errors.Add(problem.Errno.ToString());
                }
            }
            Sys.RemoveDirectory(directory);
        }
    }

    private static byte[] AccessList(int user, int mask)
    {
        // Owner rwx, user 1001 as asked, group r-x, the mask, others r--: see acl(5).
        var list = new MemoryStream();
        var writer = new BinaryWriter(list);
        writer.Write(2u);
        foreach ((ushort tag, int permissions, uint id) in ((ushort, int, uint)[])[(1, 7, uint.MaxValue), (2, user, 1001),
            (4, 5, uint.MaxValue), (16, mask, uint.MaxValue), (32, 4, uint.MaxValue)])
        {
            writer.Write(tag);
            writer.Write((ushort)permissions);
            writer.Write(id);
        }
        return list.ToArray();
    }

    private static string MakeNode(FilePath path, string kind, uint mode)
    {
        uint type = kind switch
        {
            "fifo" => FileType.Fifo,
            "socket" => FileType.Socket,
            "block" => FileType.BlockDevice,
            _ => FileType.CharacterDevice,
        };
        (uint major, uint minor) = kind == "whiteout" ? (0u, 0u) : (1u, 3u);
        Sys.MakeNode(path, type, mode, major, minor);
        return Describe(Sys.Stat(path));
    }

    private static string MapAndWrite(FilePath path, int value)
    {
        string done = WithRegular(path, OpenFlags.ReadWrite, file =>
        {
            long size = (long)file.Stat().Size;
            if (size == 0) { return "empty"; }
            using Map map = file.Map(size, write: true);
            map.Write(0, $"{(char)value}");
            map.Write(size - 1, $"{(char)value}");
            map.Sync();
            return "";
        });
        return done.Length > 0 ? done : Read(path);
    }

    /// <summary>Whether a reader, and a shared map, see what another descriptor writes afterwards.</summary>
    private static string MapAndRead(FilePath path, int value) => WithRegular(path, OpenFlags.ReadOnly, reader =>
    {
        long size = (long)reader.Stat().Size;
        if (size == 0) { return "empty"; }
        using Map map = reader.Map(size);
        _ = map.Read(0, 1);
        using (Descriptor writer = Sys.Open(path, OpenFlags.WriteOnly)) { writer.WriteAt([(byte)value], 0); }
        return $"read {reader.ReadAt(0, 1)[0] == value} map {(map.Read(0, 1)[0] == value ? "fresh" : KnownDifferences.StaleMap)}";
    });

    private string Unnamed(FilePath directory, string name, uint mode) =>
        Using(Sys.Open(directory, OpenFlags.TemporaryFile | OpenFlags.ReadWrite, mode), file =>
        {
            file.Write("unnamed");
            if (name.Length == 0) { return DescribeOpen(file); }
            file.LinkTo(At(name));
            return Describe(Sys.Stat(At(name)));
        });

    private static string Allocate(FilePath path, string how, int offset, int length) => WithRegular(path, OpenFlags.WriteOnly, file =>
    {
        AllocateMode mode = how switch
        {
            "keep" => AllocateMode.KeepSize,
            "punch" => AllocateMode.PunchHole | AllocateMode.KeepSize,
            "zero" => AllocateMode.ZeroRange,
            _ => AllocateMode.Default,
        };
        file.Allocate(mode, offset, length);
        return Describe(file.Stat());
    });

    private static string CopyRange(FilePath from, FilePath to, int length) =>
        Using(OpenAny(from, OpenFlags.ReadOnly), source =>
            Using(OpenAny(to, OpenFlags.WriteOnly), target => $"{source.CopyRangeTo(target, 0, 0, length)} {Describe(target.Stat())}"));

    private static string Holes(FilePath path) => WithRegular(path, OpenFlags.ReadOnly, file =>
    {
        return $"{Where(SeekWhence.Hole)} {Where(SeekWhence.Data)}";

        string Where(SeekWhence whence)
        {
            try { return $"{file.Seek(0, whence)}"; }
            catch (SysException problem) { return problem.Errno.ToString(); }
        }
    });

    // Descriptors that stay open between operations.

    private string Open(int slot, FilePath path, string how, uint mode)
    {
        OpenFlags flags = how switch
        {
            "r" => OpenFlags.ReadOnly,
            "w" => OpenFlags.WriteOnly,
            "rw" => OpenFlags.ReadWrite,
            "rwc" => OpenFlags.ReadWrite | OpenFlags.Create,
            "a" => OpenFlags.WriteOnly | OpenFlags.Append,
            "d" => OpenFlags.ReadOnly | OpenFlags.Directory,
            _ => OpenFlags.Path,
        };
        Descriptor opened = how == "path" ? Sys.Open(path, flags) : OpenAny(path, flags, how == "rwc" ? mode : 0);
        Close(slot);
        slots[slot] = opened;
        return DescribeOpen(opened);
    }

    private Descriptor Slot(string word) => slots[Int(word)] ?? throw new SysException(Errno.EBADF, "an empty slot");

    private Descriptor RegularSlot(string word) =>
        Slot(word).Stat().IsRegular ? Slot(word) : throw new SysException(Errno.EBADF, "not a regular file");

    /// <summary>No FIFO: see <see cref="KnownDifferences"/>.</summary>
    private Descriptor ChangeableSlot(string word) =>
        Slot(word).Stat().Type != FileType.Fifo ? Slot(word) : throw new SysException(Errno.EBADF, "a FIFO");

    private static string ListSlot(Descriptor directory)
    {
        if (!directory.Stat().IsDirectory) { throw new SysException(Errno.ENOTDIR, "not a directory"); }
        directory.SeekDirectory(0);
        return string.Join(' ', directory.ReadDirectory().Select(e => Short(e.Name)).Order(StringComparer.Ordinal));
    }

    private static string Short(string name) => name.Length > 200 ? $"L{name.Length}" : name;
}
