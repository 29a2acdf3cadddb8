using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay;
using Veneer.Overlay.Topology;

namespace Veneer.Cli;

/// <summary>Mounts kernel overlayfs over layers that are open.</summary>
/// <remarks>
/// The new mount interface takes a descriptor for each layer (Linux 6.13). So nobody can put another directory in the place
/// of upper or work, no path needs an escape, and no page limits the length. A few lowers are still named in one text,
/// since mount tables then show them in the usual way; they are compared once they are mounted. Older kernels take a path
/// for each layer (6.7), or all options in one text (mount(2)).
/// </remarks>
internal static class KernelOverlayMount
{
    /// <summary>The longest text of an option that fsconfig(2) takes, in bytes with its NUL.</summary>
    private const int MaxText = 256;

    /// <summary>Mounts the overlay.</summary>
    /// <param name="checkpoint">The options and flags to mount with.</param>
    /// <param name="layers">The layers, upper first, each with a path and a descriptor.</param>
    /// <param name="mountPoint">The mount point.</param>
    public static int Attach(Checkpoint checkpoint, IReadOnlyList<(LayerDescription Layer, string Path, int Descriptor)> layers,
        string mountPoint)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(mountPoint), OpenFlags.Path | OpenFlags.Directory, 0,
            ResolveFlags.None, out int opened);
        if (error.IsError)
        {
            throw new LayerException($"The mount point {mountPoint} cannot be opened ({error}): name a directory.", ExitCode.Failure);
        }
        using var target = new Fd(opened);
        if (TryMount(checkpoint, layers, byDescriptor: true, mountPoint, out int mount)
            || TryMount(checkpoint, layers, byDescriptor: false, mountPoint, out mount))
        {
            using var made = new Fd(mount);
            error = Libc.AttachMount(made.Value, target.Value);
        }
        else
        {
            error = MountByText(checkpoint, layers, target.Value);
        }
        return error.IsError
            ? throw new LayerException($"The kernel does not mount the overlay on {mountPoint} ({error}): see dmesg.", ExitCode.Failure)
            : ExitCode.Success;
    }

    /// <returns>False when the kernel does not know the interface.</returns>
    private static bool TryMount(Checkpoint checkpoint, IReadOnlyList<(LayerDescription Layer, string Path, int Descriptor)> layers,
        bool byDescriptor, string mountPoint, out int mount)
    {
        mount = -1;
        if (Libc.OpenFileSystem("overlay\0"u8, out int opened).IsError) { return false; }
        using var context = new Fd(opened);
        byte[] together = PathText.Encode(Lowers(layers));
        bool isShort = together.Length <= MaxText;
        if (isShort && Libc.ConfigureFileSystem(context.Value, "lowerdir\0"u8, together).IsError) { return false; }
        foreach ((LayerDescription layer, string path, int descriptor) in layers)
        {
            if (isShort && layer.Index > 0) { continue; }
            byte[] key = PathText.Encode(layer.Index switch
            {
                0 => "upperdir",
                < 0 => "workdir",
                _ => layer.IsDataOnly ? "datadir+" : "lowerdir+",
            });
            Errno set = byDescriptor
                ? Libc.AddToFileSystem(context.Value, key, descriptor)
                : Libc.ConfigureFileSystem(context.Value, key, PathText.Encode(layer.Index > 0 ? path : Escaped(path)));
            if (set.IsError) { return false; }
        }
        Set("source", checkpoint.Source);
        foreach (string option in checkpoint.Topology.Options)
        {
            int equals = option.IndexOf('=', StringComparison.Ordinal);
            Set(equals < 0 ? option : option[..equals], equals < 0 ? "" : option[(equals + 1)..]);
        }
        foreach (string flag in checkpoint.FileSystemFlags ?? checkpoint.Flags.Split(','))
        {
            if (MountEntry.IsFileSystemFlag(flag)) { Set(flag, ""); }
        }
        Errno error = Libc.MountFileSystem(context.Value, out mount, AttributesOf(RestoreCommand.WithAccessTime(checkpoint.Flags)));
        return error.IsError
            ? throw new LayerException($"The kernel does not mount the overlay on {mountPoint} ({error}): see dmesg.", ExitCode.Failure)
            : true;

        void Set(string key, string value)
        {
            Errno set = Libc.ConfigureFileSystem(context.Value, PathText.Encode(key), value.Length == 0 ? [] : PathText.Encode(value));
            if (set.IsError)
            {
                throw new LayerException(
                    $"The kernel does not take {key}{(value.Length == 0 ? "" : $"={value}")} for the overlay on {mountPoint} "
                    + $"({set}): see dmesg.", ExitCode.Failure);
            }
        }
    }

    private static MountAttributes AttributesOf(string flags)
    {
        MountAttributes attributes = MountAttributes.None;
        foreach (string word in flags.Split(','))
        {
            attributes |= word switch
            {
                "ro" => MountAttributes.ReadOnly,
                "nosuid" => MountAttributes.NoSetUid,
                "nodev" => MountAttributes.NoDevices,
                "noexec" => MountAttributes.NoExecute,
                "noatime" => MountAttributes.NoAccessTime,
                "strictatime" => MountAttributes.StrictAccessTime,
                "nodiratime" => MountAttributes.NoDirectoryAccessTime,
                "nosymfollow" => MountAttributes.NoSymbolicLinks,
                _ => MountAttributes.None,
            };
        }
        return attributes;
    }

    private static Errno MountByText(Checkpoint checkpoint,
        IReadOnlyList<(LayerDescription Layer, string Path, int Descriptor)> layers, int target)
    {
        var options = new List<string>(checkpoint.Topology.Options) { $"lowerdir={Lowers(layers)}" };
        foreach ((LayerDescription layer, string path, _) in layers)
        {
            if (layer.Index <= 0) { options.Add($"{(layer.Index == 0 ? "upperdir" : "workdir")}={Escaped(path)}"); }
        }
        byte[] text = PathText.Encode(string.Join(',', options));
        if (text.Length > 4096)
        {
            throw new LayerException(
                "The options of the overlay are longer than the page that this kernel takes: give the layers shorter names.",
                ExitCode.Failure);
        }
        var flags = new OptionParser();
        flags.Add(RestoreCommand.WithAccessTime(checkpoint.Flags));
        return Libc.Mount(PathText.Encode(checkpoint.Source),
            PathText.Encode(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{target}")), "overlay\0"u8,
            flags.MountFlags, text);
    }

    /// <summary>Makes the value of <c>lowerdir=</c>.</summary>
    private static string Lowers(IReadOnlyList<(LayerDescription Layer, string Path, int Descriptor)> layers)
    {
        string only = Join("::", data: true);
        return Join(":", data: false) + (only.Length > 0 ? "::" + only : "");

        string Join(string between, bool data) =>
            string.Join(between, layers
                .Where(one => one.Layer.Index > 0 && one.Layer.IsDataOnly == data)
                .Select(one => Escaped(one.Path).Replace(":", "\\:", StringComparison.Ordinal)));
    }

    /// <summary>Escapes a path for an option. Kernel: ovl_unescape().</summary>
    private static string Escaped(string path) =>
        path.Replace("\\", "\\\\", StringComparison.Ordinal).Replace(",", "\\,", StringComparison.Ordinal);
}
