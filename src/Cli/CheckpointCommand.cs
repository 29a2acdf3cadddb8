using System.Buffers;
using System.CommandLine;
using Veneer.Linux;
using Veneer.Overlay;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Topology;

namespace Veneer.Cli;

/// <summary><c>veneer checkpoint</c>: writes what is needed to mount an overlay again.</summary>
internal static class CheckpointCommand
{
    /// <summary>Writes the checkpoint of a mount to standard output.</summary>
    /// <returns>The exit status.</returns>
    public static int Run(ParseResult parsed, string[] words)
    {
        var overlay = MountedOverlay.At(words[0], LiveMount.AskFor);
        MountEntry mount = overlay.Mount;
        OverlayTopology topology = overlay.Layers();
        foreach (LayerDescription layer in topology.Layers)
        {
            if (layer.Path is null && layer.Handle.Length == 0)
            {
                throw new LayerException(
                    $"The {layer.Role} layer {layer.Given} has no file handle and is out of reach: nothing would find it again.",
                    ExitCode.Failure);
            }
        }
        Errno error = Libc.StatAt(Libc.AtCwd, PathText.Encode(mount.MountPoint), StatxMask.Basic, out Statx root);
        if (error.IsError)
        {
            throw new LayerException(
                $"{mount.MountPoint} does not answer ({error}): see whether it is still mounted.", ExitCode.Failure);
        }
        var checkpoint = new Checkpoint
        {
            Type = mount.Type,
            MountPoint = mount.MountPoint,
            Source = mount.Source,
            Flags = mount.Options,
            FileSystemFlags = mount.FileSystemFlags,
            Propagation = mount.Propagation,
            Root = mount.Root,
            Boot = BootId.Read(),
            RootIno = root.Ino,
            Topology = topology
        };

        var output = new ArrayBufferWriter<byte>();
        Document.Write(output, checkpoint, DocumentJson.Default.Checkpoint, isIndented: true);
        return Terminal.TryWrite(output.WrittenSpan)
            ? ExitCode.Success
            : throw new LayerException("Standard output takes no more: the checkpoint is cut off.", ExitCode.System);
    }
}
