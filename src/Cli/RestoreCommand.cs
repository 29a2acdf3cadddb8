using System.CommandLine;
using System.Globalization;
using System.Text;
using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay;
using Veneer.Overlay.Topology;

namespace Veneer.Cli;

/// <summary><c>veneer restore</c>: mounts an overlay again from a document of <c>veneer checkpoint</c>.</summary>
/// <remarks>
/// Anybody may have written the document: it names directories and options, and is not trusted. Each layer is opened and
/// checked first, and the directories that were opened are the ones that are mounted, before anything is written to them.
/// </remarks>
internal static class RestoreCommand
{
    /// <summary>The option of <c>veneer mount</c> that says which directories the layers must be.</summary>
    public const string IdentitiesOption = "--identities";

    /// <summary>The largest checkpoint that is read, in bytes. A layer takes a few hundred bytes and its paths.</summary>
    private const int MostBytes = 16 << 20;

    /// <summary>A layer of the checkpoint with the directory that was found for it.</summary>
    private sealed record FoundLayer(LayerDescription Layer, string Path, Fd Directory, ulong Device);

    /// <summary>Mounts the overlay of a checkpoint.</summary>
    /// <returns>The exit status.</returns>
    public static int Run(ParseResult parsed, string[] words)
    {
        Checkpoint checkpoint = Read(words[0]);
        string mountPoint = words.Length == 2 ? words[1] : checkpoint.MountPoint;
        var layers = new List<FoundLayer>();
        try
        {
            foreach (LayerDescription layer in checkpoint.Topology.Layers)
            {
                layers.Add(Locate(layer, checkpoint.Boot.Length > 0 && checkpoint.Boot == BootId.Read()));
            }
            int code = checkpoint.Type == "overlay"
                ? KernelOverlayMount.Attach(checkpoint, [.. layers.Select(one => (one.Layer, one.Path, one.Directory.Value))], mountPoint)
                : MountWithVeneer(checkpoint, layers, mountPoint);
            if (code != ExitCode.Success) { return code; }
        }
        finally
        {
            foreach (FoundLayer layer in layers) { layer.Directory.Dispose(); }
        }
        try
        {
            Check(checkpoint, mountPoint);
            if (checkpoint.Root != "/") { ShowPart(checkpoint, mountPoint); }
        }
        catch
        {
            // best effort: the exception names the cause
            if (!Target.Find(mountPoint, out string path, out MountEntry? mount).IsError && mount?.Type == checkpoint.Type)
            {
                _ = Mount.Unmount(path, lazy: true);
            }
            throw;
        }
        return MakeAsItWas(checkpoint, mountPoint);
    }

    private static Checkpoint Read(string file)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, file == "-" ? "/proc/self/fd/0\0"u8 : PathText.Encode(file), OpenFlags.ReadOnly, 0,
            ResolveFlags.None, out int descriptor);
        using var opened = new Fd(error.IsError ? -1 : descriptor);
        if (file == "-") { file = "Standard input"; } // for the sentences
        if (!error.IsError) { CheckOwner(file, descriptor); }
        byte[] content = [];
        if (!error.IsError)
        {
            error = Libc.ReadWhole(Libc.AtCwd,
                PathText.Encode(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{descriptor}")), out content,
                MostBytes);
        }
        if (error.IsError)
        {
            throw new LayerException(error switch
            {
                Errno.ENOENT or Errno.ENOTDIR => $"{file} does not exist: name a file that veneer checkpoint has written.",
                Errno.EISDIR => $"{file} is a directory: name a file that veneer checkpoint has written.",
                Errno.EACCES => $"{file} cannot be read by this user: see its permissions.",
                Errno.EFBIG => $"{file} is too large for a checkpoint of veneer: make one with veneer checkpoint.",
                _ => $"{file} cannot be read ({error}): name a file that veneer checkpoint has written.",
            }, error switch { Errno.EACCES => ExitCode.Denied, Errno.EFBIG => ExitCode.Corrupt, _ => ExitCode.Usage });
        }
        try
        {
            var checkpoint = Checkpoint.Read(content);
            string? wrong = checkpoint.Topology.Options.FirstOrDefault(option => !OptionParser.IsOneOfNoLayer(option))
                ?? checkpoint.FileSystemFlags?.FirstOrDefault(flag => !MountEntry.IsFileSystemFlag(flag))
                ?? (OptionParser.AreFlags(checkpoint.Flags) ? null : checkpoint.Flags);
            return wrong is null
                ? checkpoint
                : throw new LayerException(
                    $"{file} has \"{wrong}\" among the options, which is more than an option, or names what a checkpoint names "
                    + "elsewhere: make one with veneer checkpoint.", ExitCode.Corrupt);
        }
        catch (OtherVersionException problem)
        {
            throw new LayerException($"{file} {problem.Message}: use the veneer that made it, or make one anew with veneer checkpoint.",
                ExitCode.OtherVersion);
        }
        catch (FormatException problem)
        {
            throw new LayerException($"{file} {problem.Message}: make one with veneer checkpoint.", ExitCode.Corrupt);
        }
    }

    /// <summary>Refuses a file that others than root can write: it decides what root mounts, where, and with what rights.</summary>
    private static void CheckOwner(string file, int descriptor)
    {
        if (Libc.EffectiveUid != 0 || Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx stat).IsError
            || stat.Type != FileType.Regular)
        {
            return;
        }
        string? who = stat.Uid != 0
            ? string.Create(CultureInfo.InvariantCulture, $"belongs to user {stat.Uid}")
            : (stat.Mode & 2) != 0
            ? "can be written by everybody"
            : null;
        if (who is not null)
        {
            throw new LayerException(
                $"{file} {who}, and what is in it decides what root mounts, and where: read it, and restore a copy that is "
                + "root's.", ExitCode.Denied);
        }
    }

    /// <summary>
    /// Finds a layer: by its handle, wherever its filesystem is mounted, or by its path. It must be the same directory.
    /// </summary>
    private static FoundLayer Locate(LayerDescription layer, bool isSameBoot)
    {
        string name = $"The {layer.Role} layer {layer.Path ?? layer.Given}";
        string? path = LayerFinder.Locate(layer, isSameBoot, out string? doubt);
        if (path is null && doubt is not null) { throw new LayerException($"{name} {doubt}.", ExitCode.NotSame); }
        if (path is null && layer.Path is { } known && LayerFinder.Difference(layer, known) is { } difference)
        {
            throw new LayerException($"{name} is not the same directory: {difference}.", ExitCode.NotSame);
        }
        if (path is null)
        {
            throw new LayerException(
                $"{name} is not found, by its handle or by its path: mount its filesystem "
                + $"{(layer.FileSystem.Length > 0 ? $"({layer.FileSystem}, {layer.Device}) " : "")}first.", ExitCode.NotSame);
        }
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None,
            out int descriptor);
        var directory = new Fd(error.IsError ? -1 : descriptor);
        Statx stat = default;
        if (!error.IsError) { error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out stat); }
        // The opened directory is checked: another one may have been put at the path.
        if (!error.IsError && LayerFinder.Difference(layer, descriptor) is null)
        {
            return new FoundLayer(layer, path, directory, stat.Dev);
        }
        directory.Dispose();
        throw new LayerException($"{name} was replaced while it was looked at: see who did it, and restore again.", ExitCode.NotSame);
    }

    private static int MountWithVeneer(Checkpoint checkpoint, List<FoundLayer> layers, string mountPoint)
    {
        List<FoundLayer> lowers = layers.FindAll(one => one.Layer.Index > 0);
        FoundLayer? upper = layers.Find(one => one.Layer.Index == 0), work = layers.Find(one => one.Layer.Index < 0);
        if (lowers.Exists(one => one.Layer.IsDataOnly))
        {
            throw new LayerException(
                "The checkpoint has data-only layers, which an overlay of Veneer does not have: make one with veneer "
                + "checkpoint.", ExitCode.Corrupt);
        }
        var options = new List<string>(checkpoint.Topology.Options)
        {
            FlagsToBegin(checkpoint),
            $"lowerdir={string.Join(':', lowers.Select(one => Escaped(one.Path)))}",
        };
        if (upper is not null) { options.Add($"upperdir={Escaped(upper.Path)}"); }
        if (work is not null) { options.Add($"workdir={Escaped(work.Path)}"); }
        IEnumerable<FoundLayer> inOrder =
        [
            .. upper is null ? Array.Empty<FoundLayer>() : [upper],
            .. work is null ? Array.Empty<FoundLayer>() : [work],
            .. lowers,
        ];
        string identities = string.Join(',',
            inOrder.Select(one => string.Create(CultureInfo.InvariantCulture, $"{one.Device}:{one.Layer.Ino}")));
        string[] words = [IdentitiesOption, identities, "-o", string.Join(',', options), "--", checkpoint.Source, mountPoint];
        return MountCommand.Run(Invocation.Of(["mount", .. words], []), words, asHelper: false);
    }

    /// <summary>Parses the value of <see cref="IdentitiesOption"/>.</summary>
    public static IReadOnlyList<(ulong Device, ulong Ino)> IdentitiesOf(string? text)
    {
        var identities = new List<(ulong, ulong)>();
        foreach (string one in text?.Split(',') ?? [])
        {
            if (one.Split(':') is not [var device, var ino]
                || !ulong.TryParse(device, NumberStyles.None, CultureInfo.InvariantCulture, out ulong d)
                || !ulong.TryParse(ino, NumberStyles.None, CultureInfo.InvariantCulture, out ulong i))
            {
                throw new OverlayMountException($"{IdentitiesOption} {text} is not understood: leave it out, it is for veneer restore.");
            }
            identities.Add((d, i));
        }
        return identities;
    }

    /// <summary>
    /// The flags for the first mount(2), which sets those of the superblock and of the mount at once. Flags in which they
    /// differ are set later.
    /// </summary>
    private static string FlagsToBegin(Checkpoint checkpoint)
    {
        if (checkpoint.FileSystemFlags is not { } own) { return WithAccessTime(checkpoint.Flags); }
        IEnumerable<string> ofMount = WithAccessTime(checkpoint.Flags).Split(',').Where(word => word is not ("ro" or "rw"));
        return string.Join(',', own.Where(word => word is not ("mand" or "lazytime")).Concat(ofMount));
    }

    /// <summary>Makes strictatime explicit: mountinfo shows it by no word, which to mount(2) means relatime.</summary>
    internal static string WithAccessTime(string flags) =>
        flags.Split(',').Any(word => word is "noatime" or "relatime" or "strictatime") ? flags : flags + ",strictatime";

    private static string Escaped(string path)
    {
        var text = new StringBuilder(path.Length);
        foreach (char c in path)
        {
            if (c is '\\' or ':' or ',') { text.Append('\\'); }
            text.Append(c);
        }
        return text.ToString();
    }

    /// <summary>Checks that the mounted layers are those of the checkpoint, even if somebody moved a layer meanwhile.</summary>
    private static void Check(Checkpoint checkpoint, string mountPoint)
    {
        var overlay = MountedOverlay.At(mountPoint, LiveMount.AskFor);
        OverlayTopology now = overlay.Layers();
        bool isSame = now.Layers.Count == checkpoint.Topology.Layers.Count
            && now.Layers.Zip(checkpoint.Topology.Layers)
                .All(pair => pair.First.Ino == pair.Second.Ino && pair.First.Handle == pair.Second.Handle);
        if (isSame) { return; }
        throw new LayerException($"A layer was replaced while it was mounted on {mountPoint}: see who did it, and restore again.",
            ExitCode.NotSame);
    }

    /// <summary>Replaces the mount of the whole overlay by a mount of one of its directories, like a bind mount.</summary>
    private static void ShowPart(Checkpoint checkpoint, string mountPoint)
    {
        string part = checkpoint.Root[1..];
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(mountPoint), OpenFlags.Path | OpenFlags.Directory, 0,
            ResolveFlags.None, out int opened);
        using var root = new Fd(error.IsError ? -1 : opened);
        int directory = -1, clone = -1;
        if (!error.IsError)
        {
            error = Libc.OpenAt(root.Value, PathText.Encode(part), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.Confined,
                out directory);
        }
        using var shown = new Fd(directory);
        if (error.IsError)
        {
            throw new LayerException(
                $"The mount showed {part} of the overlay, and that cannot be opened any more ({error}): mount the whole by "
                + "its layers, see veneer mount --help.", ExitCode.NotSame);
        }
        error = Libc.CloneMount(shown.Value, out clone);
        using var mount = new Fd(clone);
        shown.Dispose();
        root.Dispose();
        if (!error.IsError)
        {
            string mounted = Target.Open(mountPoint, out string full, out int place).IsError ? mountPoint : Closed(full, place);
            error = Mount.Unmount(mounted, lazy: true);
        }
        int target = -1;
        if (!error.IsError)
        {
            error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(mountPoint), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None,
                out target);
        }
        using var point = new Fd(target);
        if (!error.IsError) { error = Libc.AttachMount(mount.Value, point.Value); }
        if (error.IsError)
        {
            throw new LayerException(
                $"The mount showed {part} of the overlay, and a mount of a part cannot be made on {mountPoint} ({error}): "
                + "become root.", ExitCode.Failure);
        }
    }

    private static string Closed(string full, int place)
    {
        Libc.Close(place);
        return full;
    }

    /// <summary>Restores the flags of the mount, and reports those that could not be restored.</summary>
    private static int MakeAsItWas(Checkpoint checkpoint, string mountPoint)
    {
        if (Target.Find(mountPoint, out string path, out MountEntry? mount).IsError || mount is null) { return ExitCode.Success; }
        if (!AreSame(mount.Options.Split(','), checkpoint.Flags.Split(',')))
        {
            var flags = new OptionParser();
            flags.Add(WithAccessTime(checkpoint.Flags));
            // best effort: differences are reported below
            _ = Libc.Mount("none\0"u8, PathText.Encode(path), "none\0"u8, flags.MountFlags | MountFlags.Remount | MountFlags.Bind, "\0"u8);
        }
        if (checkpoint.Propagation is { } spreads && !AreSame(mount.Propagation, spreads))
        {
            // The checkpoint does not say whose slave the mount was.
            MountFlags how = spreads.Contains("shared", StringComparer.Ordinal)
                ? MountFlags.Shared
                : spreads.Contains("unbindable", StringComparer.Ordinal)
                ? MountFlags.Unbindable
                : MountFlags.Private;
            _ = Libc.Mount("none\0"u8, PathText.Encode(path), "none\0"u8, how, "\0"u8); // best effort: differences are reported below
        }
        if (Target.Find(mountPoint, out _, out mount).IsError || mount is null) { return ExitCode.Success; }
        var lost = new List<string>();
        Compare("the flags", checkpoint.Flags.Split(','), mount.Options.Split(','));
        if (checkpoint.FileSystemFlags is { } own) { Compare("the filesystem's flags", own, mount.FileSystemFlags); }
        if (checkpoint.Propagation is { } spread) { Compare("the propagation", spread, mount.Propagation); }
        if (lost.Count > 0) { Terminal.Complain($"{path} is mounted, but not quite as it was: {string.Join("; ", lost)}."); }
        return lost.Count > 0 ? ExitCode.Incomplete : ExitCode.Success;

        void Compare(string what, IReadOnlyList<string> then, IReadOnlyList<string> now)
        {
            if (!AreSame(then, now)) { lost.Add($"{what} were {Text(then)}, and are {Text(now)}"); }
        }
        static string Text(IReadOnlyList<string> words) => words.Count == 0 ? "private" : string.Join(',', words);
        static bool AreSame(IReadOnlyList<string> one, IReadOnlyList<string> other) =>
            one.Order(StringComparer.Ordinal).SequenceEqual(other.Order(StringComparer.Ordinal), StringComparer.Ordinal);
    }
}
