using System.Buffers;
using System.CommandLine;
using System.Text;
using System.Text.Json;
using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay;
using Veneer.Overlay.Topology;

namespace Veneer.Cli;

/// <summary><c>veneer checkpoint</c> and <c>veneer restore</c>: what is needed to mount the same overlay again, and mounting it.</summary>
internal static class CheckpointCommand
{
    /// <param name="arguments">The words after <c>checkpoint</c>.</param>
    public static int Write(string[] arguments)
    {
        string[]? words = Parse("checkpoint", arguments, Manual.Checkpoint);
        if (words is null) { return ExitCode.Success; }
        if (words.Length != 1) { throw new OverlayMountException(words.Length == 0 ? "No mount point is given: name the one of an overlay." : $"{words[1]} is one word too many: give one mount point."); }

        var overlay = MountedOverlay.At(words[0], LiveMount.AskFor);
        MountEntry mount = overlay.Mount;
        OverlayTopology topology = overlay.Layers();
        foreach (LayerDescription layer in topology.Layers)
        {
            if (layer.Path is null && layer.Handle.Length == 0) { throw new LayerException($"The {layer.Role} layer {layer.Given} has no file handle and is out of reach: nothing would find it again.", ExitCode.Failure); }
        }
        Errno error = Libc.StatAt(Libc.AtCwd, PathText.Encode(mount.MountPoint), StatxMask.Basic, out Statx root);
        if (error.IsError) { throw new LayerException($"{mount.MountPoint} does not answer ({error}): see whether it is still mounted.", ExitCode.Failure); }
        var checkpoint = new Checkpoint { Type = mount.Type, MountPoint = mount.MountPoint, Source = mount.Source, Flags = mount.Options, RootIno = root.Ino, Topology = topology };

        var output = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(output, new JsonWriterOptions { Indented = true, Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping })) { checkpoint.Write(json); }
        output.Write("\n"u8);
        return Terminal.TryWrite(output.WrittenSpan) ? ExitCode.Success : throw new LayerException("Standard output takes no more: the checkpoint is cut off.", ExitCode.System);
    }

    /// <param name="arguments">The words after <c>restore</c>.</param>
    public static int Restore(string[] arguments)
    {
        string[]? words = Parse("restore", arguments, Manual.Restore);
        if (words is null) { return ExitCode.Success; }
        if (words.Length is < 1 or > 2) { throw new OverlayMountException(words.Length == 0 ? "No checkpoint is given: name its file, or - for standard input." : $"{words[2]} is one word too many: give a checkpoint, and a mount point if it is another."); }

        Checkpoint checkpoint = Read(words[0]);
        string mountPoint = words.Length == 2 ? words[1] : checkpoint.MountPoint;
        List<string> lowers = [], data = [];
        string? upper = null, work = null;
        foreach (LayerDescription layer in checkpoint.Topology.Layers)
        {
            string path = Locate(layer);
            if (layer.Index == 0) { upper = path; }
            else if (layer.Index < 0) { work = path; }
            else { (layer.IsDataOnly ? data : lowers).Add(path); }
        }
        int code = checkpoint.Type == "overlay" ? MountWithKernel(checkpoint, lowers, data, upper, work, mountPoint) : MountWithVeneer(checkpoint, lowers, upper, work, mountPoint);
        if (code != ExitCode.Success) { return code; }
        try
        {
            Check(checkpoint, mountPoint);
        }
        catch
        {
            // Best effort: the sentence tells what is wrong.
            if (!Target.Find(mountPoint, out string path, out MountEntry? mount).IsError && mount?.Type == checkpoint.Type) { _ = Mount.Unmount(path, lazy: true); }
            throw;
        }
        return code;
    }

    /// <summary>A checkpoint has a few hundred bytes for each layer, and the paths.</summary>
    private const int MostBytes = 16 << 20;

    private static Checkpoint Read(string file)
    {
        byte[] content;
        Errno error = Libc.ReadWhole(Libc.AtCwd, file == "-" ? "/proc/self/fd/0\0"u8 : PathText.Encode(file), out content, MostBytes);
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
            return Checkpoint.Read(content);
        }
        catch (OtherVersionException problem)
        {
            throw new LayerException($"{file} {problem.Message}: use the veneer that made it, or make one anew with veneer checkpoint.", ExitCode.OtherVersion);
        }
        catch (FormatException problem)
        {
            throw new LayerException($"{file} {problem.Message}: make one with veneer checkpoint.", ExitCode.Corrupt);
        }
    }

    /// <summary>Where a layer is now: by its handle, wherever its filesystem is mounted, or by its path; and it must be the same directory.</summary>
    private static string Locate(LayerDescription layer)
    {
        if (LayerFinder.Find(layer) is { } found) { return found; }
        string name = $"The {layer.Role} layer {layer.Path ?? layer.Given}";
        if (layer.Path is { } path && LayerFinder.Difference(layer, path) is { } difference) { throw new LayerException($"{name} is not the same directory: {difference}.", ExitCode.NotSame); }
        throw new LayerException($"{name} is not found, by its handle or by its path: mount its filesystem {(layer.FileSystem.Length > 0 ? $"({layer.FileSystem}, {layer.Device}) " : "")}first.", ExitCode.NotSame);
    }

    private static int MountWithVeneer(Checkpoint checkpoint, List<string> lowers, string? upper, string? work, string mountPoint)
    {
        var options = new List<string>(checkpoint.Topology.Options) { checkpoint.Flags, $"lowerdir={string.Join(':', lowers.Select(Escaped))}" };
        if (upper is not null) { options.Add($"upperdir={Escaped(upper)}"); }
        if (work is not null) { options.Add($"workdir={Escaped(work)}"); }
        string[] words = ["-o", string.Join(',', options), "--", checkpoint.Source, mountPoint];
        return MountCommand.Run(Invocation.Of(["mount", .. words], []), words, asHelper: false);
    }

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

    private static int MountWithKernel(Checkpoint checkpoint, List<string> lowers, List<string> data, string? upper, string? work, string mountPoint)
    {
        var options = new List<string>(checkpoint.Topology.Options) { $"lowerdir={string.Join("::", [string.Join(':', lowers.Select(Escaped)), .. data.Select(Escaped)])}" };
        if (upper is not null) { options.Add($"upperdir={upper.Replace("\\", "\\\\", StringComparison.Ordinal).Replace(",", "\\,", StringComparison.Ordinal)}"); }
        if (work is not null) { options.Add($"workdir={work.Replace("\\", "\\\\", StringComparison.Ordinal).Replace(",", "\\,", StringComparison.Ordinal)}"); }
        var flags = new OptionParser();
        flags.Add(checkpoint.Flags);
        Errno error = Libc.Mount(PathText.Encode(checkpoint.Source), PathText.Encode(mountPoint), "overlay\0"u8, flags.MountFlags, PathText.Encode(string.Join(',', options)));
        return error.IsError ? throw new LayerException($"The kernel does not mount the overlay on {mountPoint} ({error}): see dmesg.", ExitCode.Failure) : ExitCode.Success;
    }

    /// <summary>What is mounted is what was meant, also if somebody moved a layer while it was mounted.</summary>
    private static void Check(Checkpoint checkpoint, string mountPoint)
    {
        var overlay = MountedOverlay.At(mountPoint, LiveMount.AskFor);
        OverlayTopology now = overlay.Layers();
        bool isSame = now.Layers.Count == checkpoint.Topology.Layers.Count
            && now.Layers.Zip(checkpoint.Topology.Layers).All(pair => pair.First.Ino == pair.Second.Ino && pair.First.Handle == pair.Second.Handle);
        if (isSame) { return; }
        throw new LayerException($"A layer was replaced while it was mounted on {mountPoint}: see who did it, and restore again.", ExitCode.NotSame);
    }

    private static string[]? Parse(string name, string[] arguments, string manual)
    {
        var help = new Option<bool>("-h", "--help");
        var places = new Argument<string[]>("places") { Arity = ArgumentArity.ZeroOrMore };
        ParseResult parsed = new Command(name) { help, places }.Parse(arguments, CommandLine.Configuration);
        if (parsed.GetValue(help))
        {
            Terminal.Write(manual);
            return null;
        }
        if (parsed.GetValue(places) is { } words && words.Contains("")) { throw new OverlayMountException("A word is empty: name a file or a directory."); }
        return CommandLine.Places(parsed, places, arguments, name);
    }
}
