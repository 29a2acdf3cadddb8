using System.Reflection;
using Veneer.Linux;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary>The entry point: finds the command and runs it.</summary>
internal static class Program
{
    private static int Main(string[] args)
    {
        if (!HasOpenAt2())
        {
            Terminal.Complain(
                "This system has no openat2(2): Linux 5.6 or newer is needed, and in a container a filter of system calls "
                + "that knows it.");
            return ExitCode.System;
        }
        KeepStandardDescriptors();
        Invocation invocation = Invocation.Of(args);
        string[] arguments = invocation.Arguments;

        if (ServerIdentity.IsAsking && arguments.Length == 1) { return ServerIdentity.RunChild(arguments[0]); }
        if (LiveMount.IsAsking && arguments.Length == 3) { return LiveMount.RunChild(arguments[0], arguments[1], arguments[2]); }

        if (Revocation.IsAsked && arguments.Length == 2) { return Revocation.LookUp(arguments[0], arguments[1]); }
        if (ShutdownCommand.IsAsked && arguments.Length == 1) { return ShutdownCommand.RunChild(arguments[0]); }
        if (PinWatch.IsWatching && arguments.Length == 1) { return PinWatch.Run(arguments[0]); }

        return CommandLine.Guard(() => Run(invocation, arguments));
    }

    private static int Run(Invocation invocation, string[] arguments)
    {
        // The helpers of mount(8) and umount(8) are symbolic links to this program.
        if (invocation.Name.StartsWith("mount.", StringComparison.Ordinal))
        {
            return MountCommand.Run(invocation, arguments, asHelper: true);
        }
        if (invocation.Name.StartsWith("umount.", StringComparison.Ordinal)) { return Commands.Umount.Run(invocation, arguments); }

        string first = arguments.Length == 0 ? "" : arguments[0];
        if (Commands.Find(first) is { } command) { return command.Run(invocation, arguments[1..]); }
        switch (first)
        {
            case "":
                Terminal.WriteError(Manual.Synopsis);
                return ExitCode.Usage;
            case "help" when arguments.Length > 1 && Manual.Of(arguments[1]) is null:
                return Unknown(arguments[1]);
            case "help" or "--help" or "-h":
                _ = Terminal.Print((arguments.Length > 1 ? Manual.Of(arguments[1]) : null) ?? Manual.Veneer);
                return ExitCode.Success;
            case var word when Completion.IsAsked(word):
                return Completion.Run(arguments);
            case "--roff":
                return PrintRoff(arguments[1..]);
            case "--version" or "-V":
                _ = Terminal.Print(Version);
                return ExitCode.Success;
            case var word when !word.StartsWith('-') && (!Array.Exists(arguments, IsOptionList) || Similar(word) is not null):
                return Unknown(word);
            default:
                return MountCommand.Run(invocation, arguments, asHelper: false); // called as other overlays are: veneer -o OPTIONS MNT
        }
    }

    /// <summary>Prints a page for man(1), or the names of all pages. The Makefile asks; users have <c>--help</c>.</summary>
    private static int PrintRoff(string[] words)
    {
        foreach ((string name, int section, string text) in Manual.Pages())
        {
            if (words.Length == 0) { _ = Terminal.Print($"{name}.{section}\n"); }
            else if (words[0] == $"{name}.{section}")
            {
                _ = Terminal.Print(Roff.PageOf(name, section, text));
                return ExitCode.Success;
            }
        }
        if (words.Length == 0) { return ExitCode.Success; }
        Terminal.Complain($"{words[0]} is not a page of the manual: see veneer --roff for those that there are.");
        return ExitCode.Usage;
    }

    private static int Unknown(string word)
    {
        Terminal.Complain(Similar(word) is { } command
            ? $"{word} is not a command of veneer: did you mean {command}? As a source it is given as veneer mount {word} "
                + "MOUNTPOINT -o OPTIONS."
            : $"{word} is not a command of veneer: see veneer --help for those that there are.");
        return ExitCode.Usage;
    }

    /// <summary>
    /// The command that a word was meant to be: one letter is wrong, missing, superfluous or misplaced, two in a long
    /// command. Null when there is none.
    /// </summary>
    private static string? Similar(string word) =>
        Spelling.Nearest(word, [.. Commands.Names, "help"], most: 1) ?? Spelling.Nearest(word,
            Commands.Names.Where(command => command.Length > 6), most: 2);

    private static bool IsOptionList(string argument) =>
        argument.StartsWith("-o", StringComparison.Ordinal) || argument.StartsWith("--options", StringComparison.Ordinal);

    /// <summary>The version of the program, and the newest version of the FUSE protocol that it speaks.</summary>
    public static string Version =>
        $"veneer {Assembly.GetExecutingAssembly().GetCustomAttribute<AssemblyInformationalVersionAttribute>()!.InformationalVersion}\n"
        + $"FUSE kernel interface version {Fuse.Server.Major}.{Fuse.Server.Minor}\n";

    /// <summary>
    /// Whether the system has openat2(2), without which nothing can be opened. Filters that do not know the call answer
    /// EPERM.
    /// </summary>
    private static bool HasOpenAt2()
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, "/\0"u8, OpenFlags.Path, 0, ResolveFlags.None, out int descriptor);
        if (!error.IsError) { Libc.Close(descriptor); }
        return error is not (Errno.ENOSYS or Errno.EPERM);
    }

    /// <summary>
    /// Occupies descriptors 0 to 2 if the caller closed them, so that no layer gets a number that messages are written to.
    /// </summary>
    private static void KeepStandardDescriptors()
    {
        while (true)
        {
            Errno error = Libc.OpenNowhere(out int descriptor);
            if (error.IsError) { return; }
            if (descriptor > 2)
            {
                Libc.Close(descriptor);
                return;
            }
        }
    }
}
