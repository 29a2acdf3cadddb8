using System.CommandLine;
using System.Globalization;
using Spectre.Console;
using Veneer.Linux;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Usage;

namespace Veneer.Cli;

/// <summary><c>veneer holders</c>: shows what keeps a directory or a mount from being unmounted, removed or used anew.</summary>
internal static class HoldersCommand
{
    private static readonly Option<bool> json = new("--json");

    /// <summary>The options of the command.</summary>
    public static IEnumerable<Option> Options() => [json];

    /// <summary>Prints the holders of a directory or a mount.</summary>
    /// <returns>The exit status.</returns>
    public static int Run(ParseResult parsed, string[] words)
    {
        string place = words[0];
        if (!place.StartsWith('/') && MountTable.OpenPlace(".", out string here, out int opened) == Errno.None)
        {
            Libc.Close(opened);
            place = $"{here}/{place}";
        }
        // Otherwise our own working directory would hold the subject.
        _ = Libc.ChangeDirectory("/\0"u8); // cannot fail: the root is a directory
        Errno error = Holders.Find(place, out HolderReport report);
        if (error.IsError)
        {
            throw new LayerException(error switch
            {
                Errno.ENOENT => $"{words[0]} does not exist: name a directory or a mount point.",
                Errno.ENOTDIR => $"{words[0]} is not a directory: name one, or a mount point.",
                Errno.EACCES => $"{words[0]} cannot be reached by this user: "
                    + "give permission to search the directories above it, or become root.",
                _ => $"{words[0]} cannot be looked at ({error}): see whether /proc is mounted.",
            }, error switch
            {
                Errno.EACCES => ExitCode.Denied,
                Errno.ENOENT or Errno.ENOTDIR => ExitCode.NotAMount,
                _ => ExitCode.Failure
            });
        }
        if (parsed.GetValue(json)) { Terminal.WriteJson(report, DocumentJson.Default.HolderReport); }
        else { Terminal.Print(Tree(report)); }
        if (!parsed.GetValue(json)) { foreach (string gap in report.Gaps) { Terminal.Complain(gap); } }
        return report.IsHeld ? ExitCode.Held : report.Gaps.Count > 0 ? ExitCode.Incomplete : ExitCode.Success;
    }

    private static string Tree(HolderReport report)
    {
        string kind = report.MountType is null
            ? ""
            : $"  {report.MountType}{(report.Server is { } server ? $", served by {Name(server)}" : "")}";
        if (!report.IsHeld)
        {
            return $"{PathText.Printable(report.Target)}{kind}: {(report.IsBusy == true
                ? "it is in use, but what holds it was not found"
                : "nothing holds it")}\n";
        }
        var tree = new Tree(new Text(PathText.Printable(report.Target) + kind)) { Guide = TreeGuide.Line };
        foreach (OverlayHolder overlay in report.Overlays)
        {
            TreeNode node = tree.AddNode(new Text(Describe(overlay)));
            Add(overlay.Uses, node);
            bool isGone = !overlay.IsKernel && overlay.Device.Length > 0 && overlay.Uses.Namespaces.Count == 0;
            if (overlay.IsShutDown)
            {
                node.AddNode(new Text("its files that are passed through hold the filesystem until they are closed and unmapped"));
            }
            if (isGone)
            {
                node.AddNode(new Text(overlay.Uses.Processes.Count > 0
                    ? "unmounted lazily: it ends with those who use it"
                    : "mounted nowhere that can be seen"));
            }
        }
        Add(report.Uses, tree);
        foreach (FileHolder loop in report.LoopDevices) { tree.AddNode(new Text($"{loop.Device} has {PathText.Printable(loop.Path)}")); }
        foreach (FileHolder swap in report.SwapFiles) { tree.AddNode(new Text($"swap file {PathText.Printable(swap.Path)}")); }
        return Terminal.Render(tree);
    }

    private static string Describe(OverlayHolder overlay)
    {
        string mount = overlay.MountPoint is { } point ? $" on {PathText.Printable(point)}" : "";
        if (overlay.IsKernel) { return $"{overlay.Role} of the kernel overlay{mount}"; }
        string space = overlay.PidNamespace > 0 ? $" of pid namespace {overlay.PidNamespace}" : "";
        string since = overlay.Since is { } time
            ? string.Create(CultureInfo.InvariantCulture, $" since {time.ToLocalTime():yyyy-MM-dd HH:mm:ss zzz}")
            : "";
        string former = overlay.IsShutDown ? ", which was shut down" : "";
        return $"{overlay.Role} of the overlay{mount}{since}{former}, "
            + $"served by process {overlay.Pid}{space} ({PathText.Printable(overlay.Command ?? "?")})";
    }

    private static string Name(ProcessName process) => $"{PathText.Printable(process.Name)} ({process.Pid})";

    private static void Add(Uses uses, IHasTreeNodes node)
    {
        foreach (NamespaceUse space in uses.Namespaces)
        {
            IHasTreeNodes place = space.IsOwn ? node : node.AddNode(new Text($"mount namespace {space.Id}"));
            foreach (MountUse mount in space.Mounts)
            {
                string point = PathText.Printable(mount.MountPoint);
                place.AddNode(new Text(mount.Relation switch
                {
                    MountRelation.Nested => $"{mount.Type} is mounted on {point}",
                    MountRelation.Pin => $"pinned by {point}",
                    MountRelation.Image => $"{mount.Type} on {point} has its image in it",
                    _ => $"mounted on {point}"
                }));
            }
            if (space.IsOwn) { continue; }
            foreach (ProcessName process in space.Processes) { place.AddNode(new Text($"kept by {Name(process)}")); }
            foreach (string keeper in space.KeptBy) { place.AddNode(new Text($"kept by {PathText.Printable(keeper)}")); }
        }
        foreach (ProcessUse process in uses.Processes)
        {
            TreeNode user = node.AddNode(new Text(
                process.Process.Pid == 0 ? "a process that cannot be seen from here" : Name(process.Process)));
            foreach (FileUse file in process.Files)
            {
                user.AddNode(new Text(file.Descriptor < 0
                    ? $"{file.Use} {PathText.Printable(file.Path)}"
                    : string.Create(CultureInfo.InvariantCulture,
                        $"{file.Use} {PathText.Printable(file.Path)} (descriptor {file.Descriptor})")));
            }
        }
    }
}
