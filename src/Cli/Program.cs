using System.Reflection;
using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>Finds the command that is meant.</summary>
internal static class Program
{
    private static int Main(string[] args)
    {
        KeepStandardDescriptors();
        Invocation invocation = Invocation.Of(args);
        string[] arguments = invocation.Arguments;

        if (ServerIdentity.IsAsking && arguments.Length == 1) { return ServerIdentity.PassOn(arguments[0]); }
        if (LiveMount.IsAsking && arguments.Length == 3) { return LiveMount.PassOn(arguments[0], arguments[1], arguments[2]); }

        if (Revocation.IsAsked && arguments.Length == 2) { return Revocation.LookUp(arguments[0], arguments[1]); }
        if (ShutdownCommand.IsAsked && arguments.Length == 1) { return ShutdownCommand.PassOn(arguments[0]); }
        if (PinWatch.IsWatching && arguments.Length == 1) { return PinWatch.Run(arguments[0]); }

        return CommandLine.Guard(() => Run(invocation, arguments));
    }

    private static int Run(Invocation invocation, string[] arguments)
    {
        // The helpers of mount(8) and umount(8) are symbolic links to us.
        if (invocation.Name.StartsWith("mount.", StringComparison.Ordinal)) { return MountCommand.Run(invocation, arguments, asHelper: true); }
        if (invocation.Name.StartsWith("umount.", StringComparison.Ordinal)) { return UmountCommand.Run(arguments); }

        switch (arguments.Length == 0 ? "" : arguments[0])
        {
            case "":
                Terminal.Trace(Manual.Synopsis);
                return ExitCode.Usage;
            case "mount":
                return MountCommand.Run(invocation, arguments[1..], asHelper: false);
            case "stats":
                return StatsCommand.Run(arguments[1..]);
            case "umount" or "unmount":
                return UmountCommand.Run(arguments[1..]);
            case "checkpoint":
                return CheckpointCommand.Write(arguments[1..]);
            case "restore":
                return CheckpointCommand.Restore(arguments[1..]);
            case "layers":
                return LayersCommand.Run(arguments[1..]);
            case "holders":
                return HoldersCommand.Run(arguments[1..]);
            case "list":
                return ListCommand.Run(arguments[1..]);
            case "diff":
                return DiffCommand.Run(arguments[1..]);
            case "sync":
                return SyncCommand.Run(arguments[1..]);
            case "status":
                return StatusCommand.Run(arguments[1..]);
            case "shutdown":
                return ShutdownCommand.Run(arguments[1..]);
            case "help" when arguments.Length > 1 && Manual.Of(arguments[1]) is null:
                return Unknown(arguments[1]);
            case "help" or "--help" or "-h":
                Terminal.Write((arguments.Length > 1 ? Manual.Of(arguments[1]) : null) ?? Manual.Veneer);
                return ExitCode.Success;
            case "--version" or "-V":
                Terminal.Write(Version);
                return ExitCode.Success;
            case var word when !word.StartsWith('-') && !Array.Exists(arguments, IsOptionList):
                return Unknown(word);
            default:
                return MountCommand.Run(invocation, arguments, asHelper: false); // as other overlays are called: veneer -o OPTIONS MNT
        }
    }

    private static int Unknown(string word)
    {
        Terminal.Complain($"{word} is not a command of veneer: see veneer --help for those that there are.");
        return ExitCode.Usage;
    }

    private static bool IsOptionList(string argument) =>
        argument.StartsWith("-o", StringComparison.Ordinal) || argument.StartsWith("--options", StringComparison.Ordinal);

    /// <summary>The version, and the newest protocol that we speak.</summary>
    public static string Version =>
        $"veneer {Assembly.GetExecutingAssembly().GetCustomAttribute<AssemblyInformationalVersionAttribute>()!.InformationalVersion}\n"
        + $"FUSE kernel interface version {Fuse.Server.Major}.{Fuse.Server.Minor}\n";

    /// <summary>Whoever closed descriptors 0 to 2 gets /dev/null there, lest a layer take a number that messages go to.</summary>
    private static void KeepStandardDescriptors()
    {
        while (true)
        {
            Errno error = Libc.OpenAt(Libc.AtCwd, "/dev/null\0"u8, OpenFlags.ReadWrite, 0, ResolveFlags.None, out int descriptor);
            if (error.IsError) { return; }
            if (descriptor > 2)
            {
                Libc.Close(descriptor);
                return;
            }
        }
    }
}
