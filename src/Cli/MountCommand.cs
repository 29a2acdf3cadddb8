using System.CommandLine;
using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary><c>veneer mount</c>: mounts an overlay and serves it.</summary>
internal static class MountCommand
{
    /// <summary>The parsed command line.</summary>
    private sealed record Request(OptionParser Options, string? Source, string MountPoint, bool Foreground, bool Pretend,
        string? Identities);

    /// <summary>The option whose values are lists of mount options.</summary>
    public static readonly Option<string[]> OptionLists = new("-o", "--options") { Arity = ArgumentArity.OneOrMore };

    private static readonly Option<bool> foreground = new("-f", "--foreground");
    private static readonly Option<bool> debug = new("-d", "--debug");
    private static readonly Option<string> identities = new(RestoreCommand.IdentitiesOption) { Hidden = true };

    /// <summary>The options of the command.</summary>
    public static IEnumerable<Option> Options() =>
        // Options that mount(8) and libfuse pass.
        [identities, OptionLists, foreground, debug, .. CommandLine.WithoutEffect(["-s", "-n", "-v"], ["-N", "-t"])];

    /// <param name="invocation">The command line, for starting the server in the background.</param>
    /// <param name="arguments">The words after <c>mount</c>.</param>
    /// <param name="asHelper">Whether mount(8) is the caller, whose <c>-f</c> means "do not mount".</param>
    public static int Run(Invocation invocation, string[] arguments, bool asHelper)
    {
        int connection = Background.IsChild
            ? Array.Exists(arguments, IsDescriptor) ? Mount.DescriptorOf($"/dev/fd/{Background.Connection}") : -1
            : arguments.Select(Mount.DescriptorOf).FirstOrDefault(descriptor => descriptor >= 0, -1);
        int exitCode = ExitCode.Failure;
        try
        {
            return exitCode = Run(invocation, arguments, asHelper, connection);
        }
        finally
        {
            // best effort: nobody will serve the connection
            if (connection >= 0 && exitCode != ExitCode.Success && !Background.IsChild) { _ = Mount.Adopt(connection, "").Detach(); }
        }
    }

    private static int Run(Invocation invocation, string[] arguments, bool asHelper, int connection)
    {
        Request? request = Parse(arguments, asHelper);
        if (request is null) { return ExitCode.Success; }
        if (request.Options.Remount) { return Remount.Run(request.Options, request.MountPoint, request.Pretend); }

        OverlayOptions options = request.Options.Build(request.Source, request.MountPoint) with
        {
            Identities = RestoreCommand.IdentitiesOf(request.Identities),
        };
        if (Background.IsChild)
        {
            options = options with
            {
                LowerDirectories = [.. options.LowerDirectories.Select(Background.ResolveAsParent)],
                UpperDirectory = options.UpperDirectory is { } upper ? Background.ResolveAsParent(upper) : null,
                WorkDirectory = options.WorkDirectory is { } work ? Background.ResolveAsParent(work) : null,
                MountPoint = connection >= 0 ? options.MountPoint : Background.ResolveAsParent(options.MountPoint),
            };
        }
        else
        {
            foreach (string warning in request.Options.Warnings) { Terminal.Complain(warning); }
        }
        if (request.Pretend) { return ExitCode.Success; }
        if (request.Foreground)
        {
            return MountServer.Run(options, connection, request.Options.Debug, Terminal.Trace, place =>
            {
                if (connection < 0) { UmountHelper.Register(place); }
                return true;
            });
        }
        if (Background.IsChild)
        {
            return MountServer.Run(options, connection, trace: false, Syslog.Complain, _ => Background.ReportReady());
        }
        if (connection >= 0) { return Background.Start(invocation, connection); } // its mount belongs to the process that made it

        // The full name: a mount over our working directory is not seen through ".", nor a mount over a directory through
        // its descriptor.
        if (Target.Open(request.MountPoint, out string place, out int opened).IsError) { place = request.MountPoint; }
        else { Libc.Close(opened); }
        int before = MountTable.IdAt(place);
        int exitCode = Background.Start(invocation, connection: -1);
        if (exitCode == ExitCode.Success) { return CheckThatItAnswers(place, before); }
        _ = RemoveDeadMount(place, before);
        return exitCode;
    }

    /// <summary>
    /// In the parent: removes a mount that a failed server has left behind, so that it is not in the way of the next one.
    /// </summary>
    /// <param name="path">The mount point's full name.</param>
    /// <param name="before">The id of the mount that was there before; -1 when it is not known, and then nothing is done.</param>
    /// <returns>Whether there was such a mount, and it is gone.</returns>
    private static bool RemoveDeadMount(string path, int before)
    {
        if (before < 0 || Target.Find(path, out _, out MountEntry? mount).IsError || mount is not { Type: "fuse.veneer" }
            || mount.Id == before)
        {
            return false;
        }
        if (Target.Open(path, out _, out int descriptor).IsError) { return false; }
        bool answers = !Libc.StatFileSystem(descriptor, out _).IsError; // then another server's mount is there
        Libc.Close(descriptor);
        return !answers && !Mount.Unmount(path, lazy: true).IsError;
    }

    private static Request? Parse(string[] arguments, bool asHelper)
    {
        if (!Commands.Mount.Parse(arguments, out ParseResult parsed, out string[] words, asHelper ? Manual.MountHelper : null))
        {
            return null;
        }

        var options = new OptionParser();
        foreach (string list in parsed.GetValue(OptionLists) ?? []) { options.Add(list); }
        bool traced = parsed.GetValue(debug);
        if (traced) { options.Add("debug"); }
        return new Request(
            options,
            words.Length == 2 ? words[0] : null,
            words[^1],
            Foreground: options.Debug || (!asHelper && parsed.GetValue(foreground)),
            Pretend: asHelper && parsed.GetValue(foreground),
            parsed.GetValue(identities));
    }

    /// <summary>Whether a word names a connection that is mounted already, in libfuse's form.</summary>
    private static bool IsDescriptor(string word) => word.StartsWith("/dev/fd/", StringComparison.Ordinal);

    /// <summary>In the parent: checks that the mount answers, and that it is visible at its path.</summary>
    /// <param name="path">The mount point's full name.</param>
    /// <param name="before">The id of the mount that was there before, as for <see cref="RemoveDeadMount"/>.</param>
    private static int CheckThatItAnswers(string path, int before)
    {
        Errno error = Target.Open(path, out _, out int descriptor);
        StatFs status = default;
        if (!error.IsError)
        {
            error = Libc.StatFileSystem(descriptor, out status);
            Libc.Close(descriptor);
        }
        // A mount over the root directory of this process is not visible through its name.
        bool isOverRoot = path == "/" && !MountTable.Read(out List<MountEntry> table).IsError
            && table.FindLast(entry => entry.MountPoint == path) is { Type: "fuse.veneer" };
        if (isOverRoot || (!error.IsError && status.Type == StatFs.FuseMagic))
        {
            UmountHelper.Register(path);
            return ExitCode.Success;
        }
        throw new MountException(error.IsError
            ? $"{path} was mounted, but did not answer ({error}): "
                + $"{(RemoveDeadMount(path, before) ? "it is unmounted again, " : "unmount it, and ")}see the system's log and the "
                + "limits of this process."
            : $"{path} was mounted, but is not a mount now: see who unmounted it.");
    }
}
