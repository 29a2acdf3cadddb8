using System.Buffers.Binary;
using System.Text;
using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>One entry of a directory as getdents64(2) gives it.</summary>
public readonly record struct DirectoryEntry(string Name, ulong Ino, long NextOffset, byte Type);

/// <summary>System calls by path, for tests: they throw a <see cref="SysException"/> when the kernel refuses.</summary>
public static unsafe class Sys
{
    private const int NoFollow = 0x100, Follow = 0x400, RemoveDirectory_ = 0x200;

    /// <summary>What the action fails with, or <see cref="Errno.None"/>.</summary>
    public static Errno ErrorOf(Action action)
    {
        try
        {
            action();
            return Errno.None;
        }
        catch (SysException problem)
        {
            return problem.Errno;
        }
    }

    public static Descriptor Open(FilePath path, OpenFlags flags, uint mode = 0)
    {
        SysException.ThrowIf(Libc.OpenAt(Libc.AtCwd, path.Bytes, flags, mode, ResolveFlags.None, out int descriptor),
            $"open({path}, {flags})");
        return new Descriptor(descriptor);
    }

    /// <summary>Opens a directory by its name in another, so that paths may be longer than the kernel takes.</summary>
    /// <param name="directory">The other one, or <see cref="Libc.AtCwd"/>.</param>
    /// <param name="name">The name, with NUL at its end.</param>
    public static Descriptor OpenDirectoryAt(int directory, ReadOnlySpan<byte> name)
    {
        const OpenFlags flags = OpenFlags.ReadOnly | OpenFlags.Directory;
        SysException.ThrowIf(Libc.OpenAt(directory, name, flags, 0, ResolveFlags.None, out int descriptor), "openat");
        return new Descriptor(descriptor);
    }

    public static Statx Stat(FilePath path, bool follow = false)
    {
        var result = default(Statx);
        Errno error;
        fixed (byte* p = path.Bytes)
        {
            error = Native.Check(
                Native.statx(Libc.AtCwd, p, follow ? 0 : NoFollow, (uint)(StatxMask.Basic | StatxMask.BirthTime), &result));
        }
        SysException.ThrowIf(error, $"stat({path})");
        return result;
    }

    public static StatFs StatFileSystem(FilePath path)
    {
        using Descriptor place = Open(path, OpenFlags.Path);
        SysException.ThrowIf(Libc.StatFileSystem(place.Value, out StatFs result), $"statfs({path})");
        return result;
    }

    public static void MakeDirectory(FilePath path, uint mode = 0x1FF) =>
        SysException.ThrowIf(Libc.MakeDirectoryAt(Libc.AtCwd, path.Bytes, mode), $"mkdir({path})");

    public static void MakeNode(FilePath path, uint type, uint mode, uint major = 0, uint minor = 0) =>
        SysException.ThrowIf(Libc.MakeNodeAt(Libc.AtCwd, path.Bytes, type | mode, DeviceNumber.Encode(major, minor)), $"mknod({path})");

    public static void MakeWhiteout(FilePath path) => MakeNode(path, FileType.CharacterDevice, 0);

    public static void SymbolicLink(string target, FilePath path) =>
        SysException.ThrowIf(Libc.SymbolicLinkAt(PathText.Encode(target), Libc.AtCwd, path.Bytes), $"symlink({path})");

    public static string ReadLink(FilePath path)
    {
        byte[] buffer = new byte[4096];
        SysException.ThrowIf(Libc.ReadLinkAt(Libc.AtCwd, path.Bytes, buffer, out int length), $"readlink({path})");
        return PathText.Decode(buffer.AsSpan(0, length));
    }

    public static void Link(FilePath existing, FilePath path, bool follow = false)
    {
        Errno error;
        fixed (byte* from = existing.Bytes, to = path.Bytes)
        {
            error = Native.Check(Native.linkat(Libc.AtCwd, from, Libc.AtCwd, to, follow ? Follow : 0));
        }
        SysException.ThrowIf(error, $"link({existing}, {path})");
    }

    public static void Unlink(FilePath path) => SysException.ThrowIf(Libc.UnlinkAt(Libc.AtCwd, path.Bytes), $"unlink({path})");

    public static void RemoveDirectory(FilePath path) =>
        SysException.ThrowIf(Libc.RemoveDirectoryAt(Libc.AtCwd, path.Bytes), $"rmdir({path})");

    public static void Rename(FilePath from, FilePath to, RenameFlags flags = RenameFlags.None) =>
        SysException.ThrowIf(Libc.RenameAt(Libc.AtCwd, from.Bytes, Libc.AtCwd, to.Bytes, flags), $"rename({from}, {to}, {flags})");

    public static void ChangeMode(FilePath path, uint mode)
    {
        Errno error;
        fixed (byte* p = path.Bytes) { error = Native.Check(Native.chmod(p, mode)); }
        SysException.ThrowIf(error, $"chmod({path})");
    }

    /// <summary>Owner and group; <see cref="uint.MaxValue"/> leaves one as it is.</summary>
    public static void ChangeOwner(FilePath path, uint uid, uint gid, bool follow = false)
    {
        Errno error;
        fixed (byte* p = path.Bytes) { error = Native.Check(Native.fchownat(Libc.AtCwd, p, uid, gid, follow ? 0 : NoFollow)); }
        SysException.ThrowIf(error, $"chown({path})");
    }

    public static void ChangeTimes(FilePath path, TimeSpec access, TimeSpec modify, bool follow = false)
    {
        TimeSpec* times = stackalloc TimeSpec[] { access, modify };
        Errno error;
        fixed (byte* p = path.Bytes) { error = Native.Check(Native.utimensat(Libc.AtCwd, p, times, follow ? 0 : NoFollow)); }
        SysException.ThrowIf(error, $"utimensat({path})");
    }

    public static void Truncate(FilePath path, long length)
    {
        Errno error;
        fixed (byte* p = path.Bytes) { error = Native.Check(Native.truncate(p, length)); }
        SysException.ThrowIf(error, $"truncate({path})");
    }

    /// <summary>Whether the effective ids may do this.</summary>
    public static Errno Access(FilePath path, AccessMode mode)
    {
        fixed (byte* p = path.Bytes) { return Native.Check(Native.faccessat(Libc.AtCwd, p, (int)mode, 0x200)); }
    }

    // Content.

    public static byte[] Read(FilePath path)
    {
        using Descriptor file = Open(path, OpenFlags.ReadOnly | OpenFlags.NonBlock);
        return file.ReadToEnd();
    }

    public static string ReadText(FilePath path) => Encoding.Latin1.GetString(Read(path));

    /// <summary>Replaces or makes a file: O_CREAT | O_TRUNC.</summary>
    public static void Write(FilePath path, ReadOnlySpan<byte> content, uint mode = 0x1B6)
    {
        using Descriptor file = Open(path, OpenFlags.WriteOnly | OpenFlags.Create | OpenFlags.Truncate, mode);
        file.Write(content);
    }

    public static void Write(FilePath path, string content, uint mode = 0x1B6) => Write(path, Encoding.Latin1.GetBytes(content), mode);

    public static void Append(FilePath path, string content)
    {
        using Descriptor file = Open(path, OpenFlags.WriteOnly | OpenFlags.Append);
        file.Write(Encoding.Latin1.GetBytes(content));
    }

    public static List<DirectoryEntry> ReadDirectory(FilePath path)
    {
        using Descriptor directory = Open(path, OpenFlags.ReadOnly | OpenFlags.Directory);
        return directory.ReadDirectory();
    }

    /// <summary>The entries in a getdents64(2) buffer, without "." and "..".</summary>
    internal static void ParseEntries(ReadOnlySpan<byte> buffer, List<DirectoryEntry> into)
    {
        while (buffer.Length > 0)
        {
            ulong ino = BinaryPrimitives.ReadUInt64LittleEndian(buffer);
            long next = BinaryPrimitives.ReadInt64LittleEndian(buffer[8..]);
            int length = BinaryPrimitives.ReadUInt16LittleEndian(buffer[16..]);
            string name = PathText.Decode(buffer[19..length]);
            if (name is not ("." or "..")) { into.Add(new DirectoryEntry(name, ino, next, buffer[18])); }
            buffer = buffer[length..];
        }
    }

    // Extended attributes, of the object itself: a last symbolic link is not followed.

    public static byte[] GetXattr(FilePath path, string name)
    {
        byte[] value = new byte[65536];
        SysException.ThrowIf(Libc.GetXattrAt(Libc.AtCwd, path.Bytes, PathText.Encode(name), value, out int size),
            $"getxattr({path}, {name})");
        return value[..size];
    }

    public static string GetXattrText(FilePath path, string name) => Encoding.Latin1.GetString(GetXattr(path, name));

    public static bool HasXattr(FilePath path, string name) => ErrorOf(() => GetXattr(path, name)) == Errno.None;

    public static void SetXattr(FilePath path, string name, ReadOnlySpan<byte> value, XattrFlags flags = XattrFlags.None) =>
        SysException.ThrowIf(Libc.SetXattrAt(Libc.AtCwd, path.Bytes, PathText.Encode(name), value, flags), $"setxattr({path}, {name})");

    public static void SetXattr(FilePath path, string name, string value) => SetXattr(path, name, Encoding.Latin1.GetBytes(value));

    public static void RemoveXattr(FilePath path, string name) =>
        SysException.ThrowIf(Libc.RemoveXattrAt(Libc.AtCwd, path.Bytes, PathText.Encode(name)), $"removexattr({path}, {name})");

    /// <summary>Names of the attributes, sorted.</summary>
    public static string[] ListXattr(FilePath path)
    {
        byte[] list = new byte[65536];
        SysException.ThrowIf(Libc.ListXattrAt(Libc.AtCwd, path.Bytes, list, out int size), $"listxattr({path})");
        return [
            .. Encoding.Latin1.GetString(list, 0, size).Split('\0', StringSplitOptions.RemoveEmptyEntries).Order(StringComparer.Ordinal)];
    }

    /// <summary>Removes a tree, also where permissions are in the way of root's tools; what is not there is fine.</summary>
    public static void RemoveTree(FilePath path)
    {
        Errno error = Libc.UnlinkAt(Libc.AtCwd, path.Bytes);
        if (error is Errno.None or Errno.ENOENT) { return; }
        if (error != Errno.EISDIR) { throw new SysException(error, $"unlink({path})"); }
        foreach (DirectoryEntry entry in ReadDirectory(path)) { RemoveTree(path / entry.Name); }
        RemoveDirectory(path);
    }

    /// <summary>Forgets every name and inode that the kernel keeps only for speed.</summary>
    public static void DropCaches() => Write("/proc/sys/vm/drop_caches", "2");
}
