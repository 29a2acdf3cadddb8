namespace Veneer.Cli;

/// <summary>The table of all commands: the program finds them here, and completions and lists come from it.</summary>
/// <remarks>The options of a command are made when it is run.</remarks>
internal static class Commands
{
    /// <summary><c>veneer mount</c>.</summary>
    public static CommandEntry Mount { get; } = new("mount", 1, 2,
        "No mount point is given: name a directory, after the options or before them.", "give a source, if any, and a mount point.",
        MountCommand.Options, (Invocation invocation, string[] arguments) => MountCommand.Run(invocation, arguments, asHelper: false));

    /// <summary><c>veneer umount</c>.</summary>
    public static CommandEntry Umount { get; } = new("umount", 1, 1,
        "No mount point is given: name the one to unmount.", "give one mount point.",
        UmountCommand.Options, UmountCommand.Run) { OtherName = "unmount" };

    /// <summary>All commands, in the order in which the manual has them.</summary>
    public static IReadOnlyList<CommandEntry> All { get; } =
    [
        Mount,
        Umount,
        new("list", 0, 0, "", "veneer list shows all overlays of Veneer.", ListCommand.Options, ListCommand.Run),
        new("holders", 1, 1,
            "No directory is given: name one, or a mount point.", "give one directory or mount point.",
            HoldersCommand.Options, HoldersCommand.Run),
        // Without a word its layers may be named by options.
        new("diff", 0, 1, "", "give one mount point.", DiffCommand.Options, DiffCommand.Run),
        new("layers", 1, 2,
            "No mount point is given: name the one of an overlay.", "give a mount point, and a path in it, if any.",
            LayersCommand.Options, LayersCommand.Run),
        // Its word may stand behind --watch, which the parser takes for the value of that.
        new("stats", 0, 1, "", "give one mount point.", StatsCommand.Options, StatsCommand.Run),
        new("checkpoint", 1, 1,
            "No mount point is given: name the one of an overlay.", "give one mount point.",
            () => [], CheckpointCommand.Run),
        new("restore", 1, 2,
            "No checkpoint is given: name its file, or - for standard input.", "give a checkpoint, and a mount point if it is another.",
            () => [], RestoreCommand.Run),
        new("sync", 1, 1,
            "Nothing is named: name a mount point, or an upper directory.", "name one mount point, or one upper directory.",
            SyncCommand.Options, SyncCommand.Run),
        new("status", 1, 1,
            "No mount point is given: name the one to look at.", "give one mount point.",
            StatusCommand.Options, StatusCommand.Run),
        new("shutdown", 1, 1,
            "No mount point is given: name the one to shut down.", "give one mount point.",
            () => [], ShutdownCommand.Run),
    ];

    /// <summary>Finds a command by either of its names; null when there is none.</summary>
    public static CommandEntry? Find(string name)
    {
        foreach (CommandEntry command in All)
        {
            if (command.Name == name || command.OtherName == name) { return command; }
        }
        return null;
    }

    /// <summary>All names of commands.</summary>
    public static IEnumerable<string> Names =>
        [.. All.Select(command => command.Name), .. All.Select(command => command.OtherName).OfType<string>()];
}
