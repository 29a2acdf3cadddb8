using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Topology;

namespace Veneer.Cli;

/// <summary><c>mount -o remount</c>: changes the flags of a mount that is served already.</summary>
internal static class Remount
{
    /// <summary>Changes the flags of an existing mount.</summary>
    /// <param name="options">The options that were given.</param>
    /// <param name="mountPoint">The mount point as the user gave it.</param>
    /// <param name="pretend">Whether to stop before anything is changed.</param>
    public static int Run(OptionParser options, string mountPoint, bool pretend)
    {
        Errno error = Target.Find(mountPoint, out string path, out MountEntry? mount);
        if (error.IsError || mount is null) { throw new MountException($"{mountPoint} is not a mount point: mount it first."); }
        if (mount.Type != "fuse.veneer")
        {
            throw new MountException($"{path} is a mount of type {mount.Type}, not one of Veneer: use mount -o remount.");
        }

        // mount(2) takes all flags anew: the existing ones, then those asked for.
        var existing = new OptionParser();
        existing.Add(mount.Options);
        MountFlags flags = options.ApplyTo(existing.MountFlags);
        // The kernel does not ask a FUSE server, although it asks its own overlay: ovl_reconfigure().
        if ((flags & MountFlags.ReadOnly) == 0 && (existing.MountFlags & MountFlags.ReadOnly) != 0
            && ServerIdentity.Ask(path, out _) is { HasUpper: false })
        {
            throw new MountException(
                $"{path} has no upper directory, so it cannot be made writable: unmount it, and mount it anew with upperdir "
                + "and workdir.");
        }
        if (ChangeOf(path, options) is { } change)
        {
            throw new MountException(
                $"{change} cannot be changed while {path} is mounted: leave it out, or unmount {path} and mount it anew.");
        }
        if (pretend) { return ExitCode.Success; }
        error = Libc.Mount("none\0"u8, PathText.Encode(path), "none\0"u8, flags | MountFlags.Remount, "\0"u8);
        return error switch
        {
            Errno.None => TellServer(path),
            Errno.EPERM => throw new MountException($"Only root may remount {path}: become root, or unmount it and mount it anew."),
            Errno.EBUSY => throw new MountException($"{path} has files open for writing: close them, then remount it."),
            _ => throw new MountException($"{path} cannot be remounted ({error}): see dmesg."),
        };
    }

    /// <summary>
    /// Finds an overlay option that would change something. Null when there is none: mount(8) repeats the options of
    /// /etc/fstab.
    /// </summary>
    private static string? ChangeOf(string path, OptionParser asked)
    {
        if (!asked.HasOverlayOptions) { return null; }
        try
        {
            OverlayTopology now = LiveMount.Ask(path, Query.Layers, DocumentJson.Default.OverlayTopology);
            IReadOnlyList<string?> lowers = [.. now.Layers.Where(layer => layer.Index > 0).Select(layer => layer.Given)];
            return asked.FindChange(now.Options, lowers, Given(0), Given(-1));

            string? Given(int index) => now.Layers.FirstOrDefault(layer => layer.Index == index) is { } layer ? layer.Given : "";
        }
        catch (LayerException)
        {
            return null; // a server that does not answer cannot be told either, below
        }
    }

    /// <summary>
    /// Tells the server what FUSE does not: how access times are kept now, and that upper must be on the disk once the
    /// mount is read-only.
    /// </summary>
    private static int TellServer(string path)
    {
        // unmounted meanwhile
        if (Target.Find(path, out _, out MountEntry? mount).IsError || mount is null) { return ExitCode.Success; }
        string[] flags = mount.Options.Split(',');
        bool isReadOnly = flags.Contains("ro", StringComparer.Ordinal) || mount.FileSystemFlags.Contains("ro", StringComparer.Ordinal);
        string accessTimes = flags.Contains("noatime", StringComparer.Ordinal) ? "noatime"
            : flags.Contains("relatime", StringComparer.Ordinal) ? "relatime"
            : "strictatime";
        string words = (isReadOnly ? "ro," : "rw,") + accessTimes
            + (flags.Contains("nodiratime", StringComparer.Ordinal) ? ",nodiratime" : "");
        try
        {
            int patience = isReadOnly ? -1 : LiveMount.AnswerTime;
            return LiveMount.Ask(path, Query.Remounted, DocumentJson.Default.Remounted, words, patience).Failure is { } failure
                ? throw new MountException(
                    $"{path} is remounted, but what was written before may not be on the disk ({failure}): see dmesg.")
                : ExitCode.Success;
        }
        catch (LayerException problem)
        {
            Terminal.Complain($"{path} is remounted, but access times are kept as before, and its upper was not synced. {problem.Message}");
            return ExitCode.Success;
        }
    }
}
