using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>Runs the server as a child process, while the parent waits until it serves.</summary>
/// <remarks>
/// The child has the parent's arguments. Its standard error is a pipe to the parent: error messages go there, and a NUL
/// says that requests are served. Then the child closes the pipe. It never had the other descriptors of the parent's
/// caller, so that a caller who reads standard error to its end is not kept waiting.
/// </remarks>
internal static class Background
{
    private const string Variable = "VENEER_BACKGROUND";

    /// <summary>Whether this process is the child.</summary>
    public static bool IsChild { get; } = Self.IsStartedAs(Variable);

    /// <summary>In the child: the descriptor of the connection, if the parent was given one.</summary>
    public const int Connection = 3;

    /// <summary>In the parent: starts the child and waits until it serves, or has ended.</summary>
    /// <returns>0 when the child serves; otherwise its exit status. Its messages have been passed on.</returns>
    /// <param name="invocation">The command line, for the child.</param>
    /// <param name="connection">A descriptor that the child is to have as <see cref="Connection"/>, or -1.</param>
    public static int Start(Invocation invocation, int connection)
    {
        Errno error = Libc.Pipe(out int readEnd, out int writeEnd);
        if (error.IsError) { return Failed(error.Explain($"A pipe cannot be made ({error}): see the limits of this process.")); }
        using var answer = new Fd(readEnd);
        int pid;
        _ = Libc.RaiseOpenFileLimit(); // best effort: the child raises the limit too, but its table is to be large from the start
        using (new Fd(writeEnd))
        {
            error = Self.Start(Variable, invocation.Raw, writeEnd, out pid, connection);
        }
        if (error.IsError)
        {
            string why = Self.StartFailure(error, "see the limits of this process, or mount with -f");
            return Failed($"The server process cannot be started{why}");
        }

        Span<byte> buffer = stackalloc byte[4096];
        while (true)
        {
            error = Libc.Read(answer.Value, buffer, out int count);
            if (error == Errno.EINTR) { continue; }
            if (error.IsError || count == 0) { break; }
            int ready = buffer[..count].IndexOf((byte)0);
            _ = Libc.Write(2, buffer[..(ready < 0 ? count : ready)], out _); // best effort: perhaps nobody reads standard error
            if (ready >= 0) { return ExitCode.Success; }
        }
        error = Libc.Wait(pid, out int exitCode);
        if (error.IsError || exitCode is 0 or > 128)
        {
            return Failed(
                $"The server ended before it was ready ({(exitCode > 128 ? $"signal {exitCode - 128}" : error)}): mount with "
                + "-f to see more.");
        }
        return exitCode;
    }

    /// <summary>
    /// In the child: resolves a path through a descriptor of the parent, such as <c>/dev/fd/3</c>, as the parent would.
    /// </summary>
    /// <returns>
    /// The object's full name, which outlives the parent; where it has none, a path through the parent's descriptor.
    /// </returns>
    public static string ResolveAsParent(string path)
    {
        foreach (string own in (ReadOnlySpan<string>)["/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/"])
        {
            if (!path.StartsWith(own, StringComparison.Ordinal)) { continue; }
            string there = $"/proc/{Libc.ParentProcessId}/fd/{path[own.Length..]}";
            return !Target.Open(there, out string name, out int descriptor).IsError && IsNamed(descriptor, name) ? name : there;
        }
        return path;

        static bool IsNamed(int descriptor, string name)
        {
            using var first = new Fd(descriptor);
            if (Target.Open(name, out _, out int opened).IsError) { return false; }
            using var second = new Fd(opened);
            return !Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic | StatxMask.UniqueMountId, out Statx one).IsError
                && !Libc.StatAt(opened, Libc.Self, StatxMask.Basic | StatxMask.UniqueMountId, out Statx other).IsError
                && (one.Dev, one.Ino, one.MountId) == (other.Dev, other.Ino, other.MountId);
        }
    }

    /// <summary>In the child: tells the parent that requests are served, and closes the pipe to it.</summary>
    /// <returns>Whether the parent was still there to read it.</returns>
    public static bool ReportReady()
    {
        bool heard = !Libc.Write(2, [0], out _).IsError;
        Errno error = Libc.OpenNowhere(out int nowhere);
        if (error.IsError || Libc.Duplicate(nowhere, 2).IsError) { Libc.Close(2); }
        if (!error.IsError) { Libc.Close(nowhere); }
        return heard;
    }

    private static int Failed(string sentence)
    {
        Terminal.Complain(sentence);
        return ExitCode.System;
    }
}
