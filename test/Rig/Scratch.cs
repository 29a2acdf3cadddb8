using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>A filesystem for layers to be on.</summary>
public enum Filesystem
{
    Tmpfs,
    Ext4,
    Xfs,
    Btrfs,
}

/// <summary>Room for layers: mounts that exist only in this process's namespace, each made when it is first asked for.</summary>
/// <remarks>Access times are kept strictly, so that no read of a lower layer goes unseen.</remarks>
public static class Scratch
{
    private static readonly Lock Guard = new();
    private static readonly Dictionary<Filesystem, FilePath> Mounted = [];
    /// <summary>A part of every path that is handed out.</summary>
    internal const string Name = "veneer-tests";

    private const string QuietSuffix = "-quiet";
    private static int number;

    /// <summary>A new, empty directory on a filesystem of this kind.</summary>
    public static FilePath New(Filesystem kind = Filesystem.Tmpfs)
    {
        lock (Guard)
        {
            FilePath directory = Root(kind) / $"{++number}";
            Sys.MakeDirectory(directory, Octal.Oct(755));
            return directory;
        }
    }

    /// <summary>The same place, but what is read there leaves no access time behind.</summary>
    public static FilePath Quiet(FilePath place)
    {
        lock (Guard)
        {
            FilePath root = Mounted.Values
                .Where(m => place.Text.StartsWith(m.Text + "/", StringComparison.Ordinal))
                .MaxBy(m => m.Text.Length);
            return root.Text + QuietSuffix + place.Text[root.Text.Length..];
        }
    }

    /// <summary>Mounts a tmpfs of its own at a directory, such as one that is soon full.</summary>
    public static void MountTmpfs(FilePath at, string size, MountFlags flags = MountFlags.StrictAccessTime) =>
        SysException.ThrowIf(Libc.Mount("tmpfs\0"u8, at.Bytes, "tmpfs\0"u8, flags, PathText.Encode($"mode=755,size={size}")),
            $"mount -t tmpfs {at}");

    /// <summary>Makes a filesystem in a new image file and mounts it.</summary>
    public static void MountImage(Filesystem kind, FilePath image, FilePath at, long size, string options)
    {
        using (Descriptor file = Sys.Open(image, OpenFlags.WriteOnly | OpenFlags.Create | OpenFlags.Exclusive, Octal.Oct(600)))
        {
            file.Truncate(size);
        }
        // Enough inodes for millions of small files.
        Command.Require([$"mkfs.{NameOf(kind)}", .. kind == Filesystem.Ext4 ? ["-Fq", "-i", "2048"] : (string[])["-q"], image]);
        Sys.MakeDirectory(at, Octal.Oct(755));
        Command.Require("mount", "-o", options, image, at);
    }

    private static string NameOf(Filesystem kind) => kind.ToString().ToLowerInvariant();

    /// <summary>Makes a btrfs subvolume at a directory that does not exist, with a quota; it goes as a directory goes.</summary>
    public static void MakeLimitedSubvolume(FilePath at, string quota)
    {
        Command.Require("btrfs", "subvolume", "create", at);
        Command.Require("btrfs", "quota", "enable", at); // of the whole filesystem, where only this subvolume has a limit
        Command.Require("btrfs", "qgroup", "limit", quota, at);
    }

    private static FilePath Root(Filesystem kind)
    {
        if (Mounted.TryGetValue(kind, out FilePath root)) { return root; }
        if (PrivateNamespace.Obstacle is { } obstacle) { throw new InvalidOperationException(obstacle); }
        if (kind == Filesystem.Tmpfs)
        {
            // Test programs may share a namespace, one after the other, and mkfs.btrfs knows an image by its path.
            root = Path.Combine(Path.GetTempPath(), Name, AppDomain.CurrentDomain.FriendlyName);
            Directory.CreateDirectory(root);
            MountTmpfs(root, "4g");
        }
        else
        {
            FilePath home = Root(Filesystem.Tmpfs);
            root = home / NameOf(kind);
            MountImage(kind, home / $"{NameOf(kind)}.img", root, 512L << 20, "loop,strictatime");
        }
        FilePath quiet = root + QuietSuffix;
        Directory.CreateDirectory(quiet);
        Command.Require("mount", "--bind", root, quiet);
        Command.Require("mount", "-o", "remount,bind,noatime", quiet);
        Mounted[kind] = root;
        return root;
    }
}
